"""Fit the noise of a layer to repeated reads: a likelihood with a variance that depends on the input.

    beta-NLL = < stop(s^2)^beta [ 1/2 ln s^2 + (z - mu)^2 / (2 s^2) ] >

beta = 0 is the likelihood itself, beta = 1 weighs all points as a mean squared error does; in between, points of
large variance are not given up early (Seitzer et al., ICLR 2022, arXiv:2203.09168). A task loss is no
substitute: on it every sigma collapses to 0.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor

from mho.errors import InputError
from mho.nn.stochastic import StochasticResidual
from mho.nn.stochastic_law import ReadLaw, remainder

HALF_LN_2PI = 0.5 * math.log(2.0 * math.pi)


def gaussian_nll(mean: Tensor, variance: Tensor, z: Tensor) -> Tensor:
    """-ln N(z; mean, variance) of each element, in nats, with its constant. variance > 0; all broadcast."""
    return 0.5 * variance.log() + (z - mean).square() / (2 * variance) + HALF_LN_2PI


@final
@dataclass(frozen=True)
class BetaNLL:
    """beta-NLL of reads ``z`` under a Gaussian law: ``loss(layer.law(x), z) -> scalar`` (mean over all reads).

    ``beta`` in [0, 1]. z: [..., *mean.shape], more reads in front. Raises :class:`InputError` for another
    beta, for shapes that do not fit, for reads that are not finite and for a variance that is not positive.
    """

    beta: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta <= 1.0:
            raise InputError(f"BetaNLL: beta = {self.beta!r}: must lie in [0, 1] (0.5 is usual).")

    def __call__(self, law: ReadLaw, z: Tensor) -> Tensor:
        check_reads(law.mean, law.variance, z)
        nll = gaussian_nll(law.mean, law.variance, z) - HALF_LN_2PI
        return (law.variance.detach() ** self.beta * nll).mean()


def check_reads(mean: Tensor, variance: Tensor, z: Tensor) -> None:
    """Raise :class:`InputError` where reads and law do not fit."""
    if z.shape[z.dim() - mean.dim() :] != mean.shape:
        raise InputError(
            f"reads of shape {tuple(z.shape)} for outputs of shape {tuple(mean.shape)}. Way out: z [repeats, *output]."
        )
    if not bool(torch.isfinite(z).all()):
        raise InputError("reads hold NaN or infinity. Way out: drop the reads of a broken line before fitting.")
    if not bool((variance > 0).all()):
        raise InputError(
            "the law of a read has a variance that is not above 0. Way out: layer.set_sigma(an expected sigma), or a "
            "hardware that has noise."
        )


class Residuals(NamedTuple):
    """What a fit of theta works on: features, physical variance and squared residuals, all without gradients."""

    psi: tuple[Tensor, ...]
    physical: Tensor | None
    squared: Tensor


@final
@dataclass(frozen=True)
class NoiseFit:
    """Nats a read on held-out inputs, lower is better; sigma in units of the output.

    ``nll``: the fitted law; ``homoscedastic``: one constant sigma for all reads (the best one, fitted to the same
    data); ``given``: the law that the caller knows to be true, if any.
    """

    nll: float
    homoscedastic: float
    given: float | None
    homoscedastic_sigma: float
    theta: tuple[float, ...]
    held_out: int

    def __str__(self) -> str:
        known = "" if self.given is None else f", the given law {self.given:.4f}"
        return (
            f"{self.nll:.4f} nats a read on {self.held_out} held-out inputs; one constant sigma "
            f"({self.homoscedastic_sigma:.3g}) {self.homoscedastic:.4f}{known}"
        )


def fit_noise(
    layer: StochasticResidual,
    x: Tensor,
    z: Tensor,
    *,
    of_reads: bool = True,
    beta: float = 0.5,
    steps: int = 400,
    learning_rate: float = 0.05,
    held_out: float = 0.25,
    true_variance: Tensor | None = None,
) -> NoiseFit:
    """Fit the remainder of s^2, and the mean shift where the layer has one, to repeated reads.

    ``x`` [n, ...]; ``z`` [repeats, n, *output]: reads of a (form "pre") or of phi(a) ("post"). The mean comes first:
    gain and offset of each output by least squares against the mean read. ``of_reads``: fit what
    differs between reads of one chip, about the mean of each input's reads (2 repeats or more; squared
    residuals times R / (R - 1)); else the spread about the layer's own mean, static errors included.

    The weights are not touched; theta, its unit (the rms residual) and the scales of its features are. Adam,
    ``steps`` full passes over the first inputs; the last ``held_out`` share of the inputs only judges.
    ``true_variance`` (broadcasts to z): the law that reads are known to come from, for comparison.
    Leaves the layer in the mode in which it was. Raises :class:`InputError` for reads that do not fit.
    """
    repeats, count = _check_data(layer, x, z, of_reads, held_out, steps)
    with torch.no_grad():
        psi, base, physical = layer.terms(x, of_reads=of_reads)
    check_reads(base, torch.ones(()), z)
    fitted = count - round(held_out * count)
    with torch.no_grad():
        _fit_shift(layer, base[:fitted], z[:, :fitted])
        mean = z.mean(0) if of_reads else layer.law(x, of_reads=of_reads).mean
        squared = (z - mean).square() * (repeats / (repeats - 1) if of_reads else 1.0)
        data = Residuals(psi, physical, squared)
        train, judge = _cut(data, base, slice(0, fitted)), _cut(data, base, slice(fitted, count))
        _set_unit(layer, train, z.square().mean())
    optimise(layer, train, beta=beta, steps=steps, learning_rate=learning_rate)
    with torch.no_grad():
        constant = train.squared.mean()
        given = None
        if true_variance is not None:
            given = float(_nll(judge.squared, true_variance.expand_as(z)[:, fitted:]))
        return NoiseFit(
            nll=float(_nll(judge.squared, variance_of(layer, judge))),
            homoscedastic=float(_nll(judge.squared, constant)),
            given=given,
            homoscedastic_sigma=float(constant.sqrt()),
            theta=tuple(layer.theta.detach().tolist()),
            held_out=count - fitted,
        )


def _check_data(
    layer: StochasticResidual, x: Tensor, z: Tensor, of_reads: bool, held_out: float, steps: int
) -> tuple[int, int]:
    """(repeats, inputs)."""
    if z.dim() < 2 or z.shape[1] != x.shape[0]:
        raise InputError(
            f"fit_noise: reads of shape {tuple(z.shape)} for inputs of shape {tuple(x.shape)}. Way out: z is [repeats, "
            "n, *output] and x is [n, ...]."
        )
    if of_reads and z.shape[0] < 2:
        raise InputError(
            "fit_noise: one read of each input says nothing about the spread of reads. Way out: repeat the reads, or "
            "of_reads=False for the spread about the layer's own mean."
        )
    if not 0.0 < held_out < 1.0 or not 0 < round(held_out * x.shape[0]) < x.shape[0]:
        raise InputError(f"fit_noise: held_out = {held_out!r} of {x.shape[0]} inputs leaves none to fit or to judge.")
    if steps < 1:
        raise InputError(f"fit_noise: steps = {steps!r}: must be at least 1.")
    if layer.on_substrate:
        raise InputError(
            "fit_noise: the inner layer is converted, its substrate adds noise of its own. Way out: fit the digital "
            "layer with its hardware, then convert the network: theta goes with it."
        )
    return z.shape[0], z.shape[1]


def _fit_shift(layer: StochasticResidual, base: Tensor, z: Tensor) -> None:
    """Gain and offset of each output: least squares of the mean read on the mean of the model."""
    if layer.shift_gain is None or layer.shift_offset is None or layer.lowering is None:
        return
    outputs = layer.lowering.outputs
    column = base.dim() - layer.lowering.op.over_columns(layer.shift_gain).dim()
    m = base.movedim(column, 0).reshape(outputs, -1).double()
    t = z.mean(0).movedim(column, 0).reshape(outputs, -1).double()
    centred = m - m.mean(1, keepdim=True)
    spread = centred.square().sum(1)
    slope = torch.where(spread > 0, (centred * t).sum(1) / torch.where(spread > 0, spread, 1.0), 1.0)
    layer.shift_gain.copy_(slope - 1)
    layer.shift_offset.copy_(t.mean(1) - slope * m.mean(1))


def _cut(data: Residuals, base: Tensor, rows: slice) -> Residuals:
    """The inputs ``rows`` of the data."""

    def cut(term: Tensor) -> Tensor:
        return term[rows] if term.dim() == base.dim() and term.shape[0] == base.shape[0] else term

    physical = None if data.physical is None else cut(data.physical)
    return Residuals(tuple(cut(f) for f in data.psi), physical, data.squared[:, rows])


def _set_unit(layer: StochasticResidual, data: Residuals, size2: Tensor) -> None:
    """Unit: the rms residual; scales: the mean of each feature; theta: what is missing from the physical terms."""
    unit2 = data.squared.mean()
    # Equal reads differ from their own mean by its rounding.
    if not bool(unit2 > (8 * torch.finfo(unit2.dtype).eps) ** 2 * size2):
        raise InputError(
            "fit_noise: all reads of an input are equal, there is no noise to fit. Way out: leave sigma 0."
        )
    layer.unit2.copy_(unit2)
    for k, f in enumerate(data.psi):
        mean = f.mean()
        layer.scales[k] = torch.where(mean > 0, mean, torch.ones_like(mean))
    missing = unit2 if data.physical is None else unit2 - data.physical.mean()
    layer.theta.zero_()[0] = float((missing / unit2).clamp_min(0.05))


def variance_of(layer: StochasticResidual, data: Residuals) -> Tensor:
    """s^2 of the layer for features and physical terms that are known."""
    learned = remainder(data.psi, layer.theta, layer.unit2, layer.scales)
    return learned if data.physical is None else data.physical + learned


def _nll(squared: Tensor, variance: Tensor) -> Tensor:
    return gaussian_nll(squared.new_zeros(()), variance, squared.sqrt()).mean()


def optimise(layer: StochasticResidual, data: Residuals, *, beta: float, steps: int, learning_rate: float) -> None:
    """Adam on theta alone with the rate falling to 0; the loss in units of the reads, so that rates mean the same."""
    loss = BetaNLL(beta)
    unit2 = layer.unit2
    zero = data.squared.new_zeros(())
    wanted = layer.theta.requires_grad
    layer.theta.requires_grad_(True)
    optimizer = torch.optim.Adam([layer.theta], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    residual = (data.squared / unit2).sqrt()
    for _ in range(steps):
        variance = (variance_of(layer, data) / unit2).expand(residual.shape[1:])
        value = loss(ReadLaw(zero.expand_as(variance), variance), residual)
        (layer.theta.grad,) = torch.autograd.grad(value, layer.theta)
        optimizer.step()
        schedule.step()
    layer.theta.grad = None
    layer.theta.requires_grad_(wanted)


@final
class OnlineNoise:
    """Follow the noise of a device that changes: one step of beta-NLL a batch of reads, the past forgotten.

        F <- (1 - rho) F + rho <stop(s^2)^beta  d d^T / (2 s^4)>,   theta <- theta - rho F^-1 grad beta-NLL

    with d = d s^2 / d theta: a natural-gradient step, F being the (beta-weighted) Fisher information, whose memory is
    1 / rho batches. ``rate`` rho in (0, 1]; ``beta`` in [0, 1]. Only theta moves. The state is this object's, not
    the layer's state dict. A remainder that shrinks to nothing has no slope left: theta_0 is kept at a hundredth
    of the unit or more.
    """

    def __init__(self, layer: StochasticResidual, *, rate: float = 0.1, beta: float = 0.5) -> None:
        if not 0.0 < rate <= 1.0:
            raise InputError(f"OnlineNoise: rate = {rate!r}: must lie in (0, 1]; its memory is 1 / rate batches.")
        if not bool(layer.unit2 > 0):
            raise InputError(
                "OnlineNoise: the remainder of the layer has no unit. Way out: fit_noise first, or "
                "layer.set_sigma(an expected sigma)."
            )
        self.layer, self.rate, self.loss = layer, rate, BetaNLL(beta)
        self._information: Tensor | None = None

    def observe(self, x: Tensor, z: Tensor) -> float:
        """Take in reads ``z`` [(repeats,) n, *output] of ``x``; returns their NLL before the step, nats a read.

        Residuals are about the layer's mean, the mean shift included.
        """
        layer = self.layer
        with torch.no_grad():
            law = layer.law(x, of_reads=True)
            check_reads(law.mean, law.variance, z)
            psi, _, physical = layer.terms(x, of_reads=True)
            squared = (z - law.mean).square()
            while squared.dim() > law.mean.dim():
                squared = squared.mean(0)
            data = Residuals(psi, physical, squared / layer.unit2)
            before = float(_nll(squared, law.variance))
            gradient, information = self._slopes(data)
            past = information if self._information is None else self._information
            self._information = torch.lerp(past, information, self.rate)
            # A feature that a batch does not excite has no information: it stays where it is.
            ridge = 1e-3 * self._information.diagonal().mean() * torch.eye(len(gradient), dtype=torch.float64)
            step = torch.linalg.solve(self._information + ridge.to(gradient.device), gradient)
            layer.theta.sub_(self.rate * step)
            layer.theta[0].clamp_(min=0.01)
        return before

    def _slopes(self, data: Residuals) -> tuple[Tensor, Tensor]:
        """Gradient of beta-NLL and Fisher information with respect to theta, float64, in units of the reads."""
        layer, theta = self.layer, self.layer.theta.double()
        scales = layer.scales.double()
        psi = tuple(f.double() for f in data.psi)
        one = torch.ones((), dtype=torch.float64, device=theta.device)
        learned = remainder(psi, theta, one, scales)
        z = sum(theta[k] / scales[k] * f for k, f in enumerate(psi))
        assert isinstance(z, Tensor)
        physical = 0.0 if data.physical is None else data.physical.double() / layer.unit2
        s2 = (learned + physical).expand(data.squared.shape)
        slope = _slope(z).expand_as(s2)
        d = torch.stack([(slope * f / scales[k]).reshape(-1) for k, f in enumerate(psi)])
        weight, s2, squared = (s2**self.loss.beta).reshape(-1), s2.reshape(-1), data.squared.double().reshape(-1)
        gradient = d @ (weight * (s2 - squared) / (2 * s2.square())) / len(s2)
        return gradient, (d * (weight / (2 * s2.square()))) @ d.t() / len(s2)


def _slope(z: Tensor) -> Tensor:
    """Derivative of the remainder, in units, with respect to z."""
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        one = torch.ones(1, dtype=z.dtype, device=z.device)
        (slope,) = torch.autograd.grad(remainder((leaf,), one, one[0], one).sum(), leaf)
    return slope
