"""Langevin sampling of continuous energies: the hardware's own noise is the noise term.

Overdamped: dx = -grad E dt + sqrt(2 T) dW. Underdamped: m dv = -grad E dt - gamma m v dt + sqrt(2 gamma m T) dW,
dx = v dt. Both have the law exp(-E / T); a step of finite length changes it, and each scheme below says by how much.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mho.ebm.langevin_noise import DeviceNoise, check_temperature, normal
from mho.ebm.relax import RelaxationError
from mho.errors import InputError

Energy = Callable[[Tensor], Tensor]
"""Batched energies: [B, ...] to [B]; a function or a module, differentiable in its input."""

Scheme = Literal["euler", "averaged", "metropolis"]


class Quadratic(nn.Module):
    """E(x) = (x - c)^T K (x - c) / 2 for ``x`` [B, n], ``matrix`` K [n, n] symmetric: the law is N(c, T K^-1).

    Raises :class:`InputError` for a K that is not symmetric, or not positive definite: its energy is unbounded below.
    """

    def __init__(self, matrix: Tensor, centre: Tensor | None = None) -> None:
        super().__init__()
        check_bounded(matrix)
        self.matrix = matrix
        self.centre = torch.zeros(matrix.shape[0], dtype=matrix.dtype) if centre is None else centre

    def forward(self, x: Tensor) -> Tensor:
        """[B, n] to [B]."""
        d = x - self.centre
        return 0.5 * ((d @ self.matrix) * d).sum(-1)


def check_bounded(matrix: Tensor) -> None:
    """Raise :class:`InputError` unless the quadratic energy of ``matrix`` [n, n] has a lowest point and a law."""
    if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InputError(f"mho.ebm: couplings {tuple(matrix.shape)} of a quadratic energy must be a square matrix.")
    if not bool(torch.isfinite(matrix).all()):
        raise InputError(
            "mho.ebm: couplings of a quadratic energy hold NaN or infinity. Way out: the last good checkpoint."
        )
    values = matrix.detach().to(torch.float64)
    if not torch.allclose(values, values.t(), rtol=1e-5, atol=1e-7 * float(values.abs().max())):
        raise InputError("mho.ebm: couplings of a quadratic energy are not symmetric. Fix: (K + K^T) / 2.")
    lowest = float(torch.linalg.eigvalsh(values)[0])
    if not lowest > 0:
        raise InputError(
            f"mho.ebm: the energy is unbounded: the smallest eigenvalue of its couplings is {lowest:.4g}, so it falls "
            f"for ever along that direction. Fix: add more than {-lowest:.4g} to the diagonal, or clip the couplings."
        )


def gradient(energy: Energy, x: Tensor) -> tuple[Tensor, Tensor]:
    """(E [B], dE/dx [B, ...]) by autograd, detached. Raises :class:`InputError` for energies that are not [B]."""
    with torch.enable_grad():
        point = x.detach().requires_grad_(True)
        value = energy(point)
        if value.shape != x.shape[:1]:
            raise InputError(
                f"mho.ebm.langevin: the energy gives {tuple(value.shape)} for x {tuple(x.shape)}; it must be "
                f"[{x.shape[0]}], one number a chain."
            )
        (slope,) = torch.autograd.grad(value.sum(), point)
    return value.detach(), slope


@dataclass(frozen=True, eq=False)
class Run:
    """``x`` [B, ...]: the last state. ``samples`` [kept, B, ...] or None. ``velocity``: of underdamped runs.

    ``acceptance``: share of Metropolis proposals taken, 1 for other schemes.
    """

    x: Tensor
    samples: Tensor | None = None
    velocity: Tensor | None = None
    acceptance: float = 1.0


def _check(where: str, x: Tensor, step: float, temperature: float, steps: int) -> None:
    check_temperature(where, temperature)
    if not 0 < step < math.inf:
        raise InputError(f"{where}: step = {step} must be positive and finite.")
    if steps < 0:
        raise InputError(f"{where}: {steps} steps; give 0 or more.")
    if not x.is_floating_point() or x.dim() < 1 or x.numel() == 0:
        raise InputError(f"{where}: x {tuple(x.shape)} {x.dtype} must be floating [chains, ...].")


def _watch(where: str, x: Tensor, slope: Tensor, number: int, step: float, limit: float) -> None:
    """Raise when the dynamics run away: the largest number of x and its gradient say what happened."""
    far = float(x.abs().max())
    if far <= limit and bool(torch.isfinite(slope).all()):
        return
    stiff = float(slope.abs().max()) / far if 0 < far < math.inf else math.nan
    raise RelaxationError(
        f"{where}: the state diverges: largest |x| = {far:.4g} (limit {limit:.4g}) after {number} steps of {step:g}, "
        f"|gradient| / |x| = {stiff:.4g}. Either the energy is unbounded below (its gradient points inwards nowhere), "
        f"or the step is above 2 / curvature. Way out: a smaller step, a confining term such as k x^2 / 2, or a larger "
        "limit."
    )


def overdamped(
    energy: Energy,
    x: Tensor,
    *,
    step: float,
    steps: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    scheme: Scheme = "averaged",
    noise: DeviceNoise | None = None,
    keep_every: int = 0,
    limit: float = 1e6,
) -> Run:
    """``steps`` of overdamped Langevin dynamics from ``x`` [B, ...]; a new tensor.

    * ``"euler"``: x - step grad + sqrt(2 step T) g. Variance in a well k: (T / k) / (1 - step k / 2).
    * ``"averaged"``: the same with (g + g_next) / 2 of consecutive draws. Variance in a well: T / k exactly; in general
      the bias is of second order in the step (Leimkuhler and Matthews, Appl. Math. Res. Express 2013).
    * ``"metropolis"``: Euler's step as a proposal, accepted with the ratio of Metropolis and Hastings: no bias for any
      energy, at the cost of two energies a step and of a digital comparison (Roberts and Tweedie, Bernoulli 2, 1996).
      The ratio is that of white proposals at T, so noise of another temperature or colour is refused here.

    ``noise``: what the hardware delivers (default: white, at the temperature asked for). White noise whose power is
    wrong by a factor f makes Euler's and the averaged scheme those of the temperature f T, with their biases there;
    coloured noise gives slow and fast modes different temperatures. ``keep_every`` n > 0 keeps each n-th state.
    ``limit``: |x| beyond it counts as divergence. The normals come from ``generator`` on the CPU in float32.

    Raises :class:`mho.errors.InputError` for a temperature or step not above 0, energies that are not [B], an unknown
    scheme, and ``"metropolis"`` with noise that is not white at T; :class:`mho.ebm.relax.RelaxationError` for a state
    that runs away, with the numbers.
    """
    where = "mho.ebm.overdamped"
    _check(where, x, step, temperature, steps)
    if scheme not in ("euler", "averaged", "metropolis"):
        raise InputError(f"{where}: scheme {scheme!r} is unknown. Known: euler, averaged, metropolis.")
    source = DeviceNoise() if noise is None else noise
    if scheme == "metropolis":
        _check_proposals(where, source)
    size = math.sqrt(2 * step * temperature)
    x, state = x.detach().clone(), source.start(x, generator)
    before, state = source.step(state, generator)
    value, slope = gradient(energy, x)
    kept, accepted = [], 0.0
    for number in range(1, steps + 1):
        given, state = source.step(state, generator)
        if scheme == "metropolis":
            proposal = x - step * slope + size * given
            new_value, new_slope = gradient(energy, proposal)
            taken = _accept(x, proposal, value, new_value, slope, new_slope, step, temperature, generator)
            accepted += float(taken.to(torch.float64).mean())
            here = taken.reshape(-1, *([1] * (x.dim() - 1)))
            x, slope = torch.where(here, proposal, x), torch.where(here, new_slope, slope)
            value = torch.where(taken, new_value, value)
        else:
            x = x - step * slope + size * (given if scheme == "euler" else (before + given) / 2)
            before = given
            value, slope = gradient(energy, x)
        _watch(where, x, slope, number, step, limit)
        if keep_every and number % keep_every == 0:
            kept.append(x)
    rate = accepted / steps if scheme == "metropolis" and steps else 1.0
    return Run(x, torch.stack(kept) if kept else None, acceptance=rate)


def _check_proposals(where: str, noise: DeviceNoise) -> None:
    """Raise :class:`InputError` for ``noise`` whose proposals have another law than the test of acceptance takes."""
    if noise.temperature_error == 0 and (noise.correlation == 0 or noise.whitened):
        return
    raise InputError(
        f"{where}: scheme 'metropolis' with noise of temperature_error = {noise.temperature_error}, correlation = "
        f"{noise.correlation}{'' if noise.whitened else ', not whitened'}. Cause: the test of acceptance takes "
        "proposals to be white at the temperature asked for; with others the law is neither exp(-E / T) nor that of "
        "another temperature. Way out: scheme='averaged', or calibrated (temperature_error=0) and whitened noise."
    )


def _accept(
    x: Tensor,
    proposal: Tensor,
    value: Tensor,
    new_value: Tensor,
    slope: Tensor,
    new_slope: Tensor,
    step: float,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Which proposals are taken [B]: log u < (E - E') / T + log q(x | x') - log q(x' | x). NaN: not taken."""
    there = (proposal - x + step * slope).flatten(1).square().sum(1)
    back = (x - proposal + step * new_slope).flatten(1).square().sum(1)
    ratio = (value - new_value) / temperature + (there - back) / (4 * step * temperature)
    u = torch.rand(ratio.shape, generator=generator).to(ratio)
    return torch.log(u) < ratio


def underdamped(
    energy: Energy,
    x: Tensor,
    *,
    step: float,
    steps: int,
    generator: torch.Generator,
    temperature: float = 1.0,
    friction: float = 1.0,
    mass: float = 1.0,
    velocity: Tensor | None = None,
    noise: DeviceNoise | None = None,
    keep_every: int = 0,
    limit: float = 1e6,
) -> Run:
    """``steps`` of BAOAB: half a kick, half a drift, friction and noise, half a drift, half a kick.

    O: v' = c v + sqrt((1 - c^2) T / m) g, c = exp(-friction step). In a well k: <x^2> = T / k exactly and
    <v^2> = (T / m)(1 - step^2 k / (4 m)); stable for step < 2 sqrt(m / k). In general the bias of x is of second order
    (Leimkuhler and Matthews, Appl. Math. Res. Express 2013). One gradient a step. ``velocity``: default drawn at T.
    Other arguments and errors as in :func:`overdamped`; friction and mass must be positive.
    """
    where = "mho.ebm.underdamped"
    _check(where, x, step, temperature, steps)
    if not friction > 0 or not mass > 0:
        raise InputError(f"{where}: friction = {friction}, mass = {mass}: both must be above 0.")
    source = DeviceNoise() if noise is None else noise
    keep = math.exp(-friction * step)
    thermal = math.sqrt(temperature / mass)
    size = thermal * math.sqrt(1 - keep * keep)
    x = x.detach().clone()
    v = thermal * normal(x, generator) if velocity is None else velocity.detach().clone()
    state = source.start(x, generator)
    slope = gradient(energy, x)[1]
    kept = []
    for number in range(1, steps + 1):
        v = v - (step / 2 / mass) * slope
        x = x + (step / 2) * v
        given, state = source.step(state, generator)
        v = keep * v + size * given
        x = x + (step / 2) * v
        slope = gradient(energy, x)[1]
        v = v - (step / 2 / mass) * slope
        _watch(where, x, slope, number, step, limit)
        if keep_every and number % keep_every == 0:
            kept.append(x)
    return Run(x, torch.stack(kept) if kept else None, velocity=v)
