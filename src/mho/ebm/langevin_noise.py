"""The noise that a sampler gets from its hardware: its temperature, its colour, and how to measure both.

The noise term of a step is sqrt(2 step T) g with g of unit variance. White noise is g independent from step to step;
hardware noise with correlation time t_c, read every dt, is the AR(1) process g' = rho g + sqrt(1 - rho^2) n with
rho = exp(-dt / t_c). Slow modes then see the temperature T (1 + rho) / (1 - rho), fast ones less.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.ebm.diagnostics import effective_sample_size
from mho.errors import InputError


def check_temperature(where: str, temperature: float) -> None:
    """Raise :class:`InputError` unless 0 < temperature < inf."""
    if not 0 < temperature < math.inf:
        raise InputError(
            f"{where}: temperature = {temperature}: sampling needs a positive, finite one (at zero the dynamics only "
            "descend). Way out: mho.ebm.relax for the state of rest."
        )


@dataclass(frozen=True)
class DeviceNoise:
    """What the hardware delivers where the sampler asks for white normals of unit variance; the default is just that.

    ``temperature_error``: relative; the noise power is (1 + error) times the nominal one; > -1.
    ``correlation``: rho of AR(1), 0 <= rho < 1. ``whitened``: the sampler knows rho and takes (g' - rho g) /
    sqrt(1 - rho^2) instead, which is white again: the correction that holds for every energy.
    """

    temperature_error: float = 0.0
    correlation: float = 0.0
    whitened: bool = False

    def __post_init__(self) -> None:
        if not -1 < self.temperature_error < math.inf:
            raise InputError(
                f"mho.ebm.DeviceNoise: temperature_error = {self.temperature_error} leaves no positive temperature. "
                "Fix: a finite number above -1."
            )
        if not 0 <= self.correlation < 1:
            raise InputError(f"mho.ebm.DeviceNoise: correlation = {self.correlation} must be 0 <= rho < 1.")

    def start(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """A stationary state of the process, in the shape and dtype of ``like``; from ``generator`` (CPU)."""
        return normal(like, generator)

    def step(self, state: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(the normals delivered, the next state)."""
        rho, power = self.correlation, math.sqrt(1 + self.temperature_error)
        fresh = normal(state, generator)
        after = fresh if rho == 0 else rho * state + math.sqrt(1 - rho * rho) * fresh
        given = (after - rho * state) / math.sqrt(1 - rho * rho) if self.whitened and rho > 0 else after
        return power * given, after


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normals drawn on the CPU in float32, in the shape, dtype and device of ``like``."""
    return torch.randn(like.shape, generator=generator).to(like)


def ar1_variance(decay: float, correlation: float, size: float = 1.0) -> float:
    """Stationary variance of x' = a x + size g, g AR(1) of unit variance: size^2 (1 + a rho) / ((1 - a^2)(1 - a rho)).

    a = ``decay``, |decay| < 1, 0 <= correlation < 1. White noise: size^2 / (1 - a^2).
    """
    a, rho = decay, correlation
    if not -1 < a < 1:
        raise InputError(f"mho.ebm: x' = {a:.4g} x + noise has no stationary law. Fix: a step below 2 / curvature.")
    return size * size * (1 + a * rho) / ((1 - a * a) * (1 - a * rho))


def euler_variance(curvature: float, temperature: float, step: float, correlation: float = 0.0) -> float:
    """Stationary variance of Euler's scheme in E = curvature x^2 / 2: (T / k) / (1 - step k / 2) for white noise.

    With noise of ``correlation`` rho: the same times (1 + a rho) / (1 - a rho), a = 1 - step k. step k < 2.
    """
    check_temperature("mho.ebm.euler_variance", temperature)
    return ar1_variance(1 - step * curvature, correlation, math.sqrt(2 * step * temperature))


def matched_temperature(curvature: float, temperature: float, step: float, correlation: float = 0.0) -> float:
    """The temperature to ask for so that Euler's scheme has variance T / k at this curvature, bias and colour included.

    Exact for one curvature. For an energy with many, use ``scheme="averaged"`` or ``"metropolis"`` and whitened noise.
    """
    return temperature * (temperature / curvature) / euler_variance(curvature, temperature, step, correlation)


def coloured_variance(curvature: float, temperature: float, correlation_time: float) -> float:
    """Variance in continuous time, x. = -k x + noise of spectrum 2 T / (1 + w^2 tau^2): (T / k) / (1 + k tau).

    Hanggi and Jung, Adv. Chem. Phys. 89 (1995). The limit of short steps of :func:`euler_variance`.
    """
    check_temperature("mho.ebm.coloured_variance", temperature)
    return temperature / curvature / (1 + curvature * correlation_time)


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A measured temperature with its 95 % interval, and the noise's correlation from step to step."""

    temperature: float
    low: float
    high: float
    correlation: float
    effective_samples: float


def calibrate_temperature(samples: Tensor, curvature: float, *, step: float, correlation: float = 0.0) -> Calibration:
    """The temperature of the noise from positions ``samples`` [T] or [T, C] of Euler's scheme in E = k x^2 / 2.

    T^ = <x^2> / euler_variance(k, 1, step, rho): the bias of the step and the colour are taken out. The interval is
    the chi-square one with the effective sample size of x^2. The well's centre is known to be 0.
    Raises :class:`InputError` for series too short to know their autocorrelation.
    """
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    square = samples.detach().to(torch.float64).square()
    estimate = float(square.mean()) / euler_variance(curvature, 1.0, step, correlation)
    n = effective_sample_size(square)
    low, high = (estimate * n / float(stats.chi2.ppf(q, n)) for q in (0.975, 0.025))
    return Calibration(temperature=estimate, low=low, high=high, correlation=correlation, effective_samples=n)


def calibrate_colour(samples: dict[float, Tensor], *, step: float) -> Calibration:
    """Temperature and colour of the noise from positions in wells of two or more curvatures {k: samples [T] or [T, C]}.

    Of the normalised variances v_k = <x^2> / euler_variance(k, 1, step) white noise gives one number for all k; AR(1)
    gives T (1 + a rho) / (1 - a rho), a = 1 - step k. The rho with the smallest weighted spread of log T over the
    wells is found by a bounded search on [0, 1), T is their weighted mean. The wells should differ much in k.
    """
    from scipy import optimize  # type: ignore[import-untyped,unused-ignore]

    if len(samples) < 2:
        raise InputError(
            f"mho.ebm.calibrate_colour: {len(samples)} well; colour shows in the ratio of two. Fix: samples at two "
            "curvatures, or calibrate_temperature with a known correlation."
        )
    white = {k: calibrate_temperature(x, k, step=step) for k, x in samples.items()}
    weights = torch.tensor([c.effective_samples for c in white.values()], dtype=torch.float64)

    def logs(rho: float) -> Tensor:
        values = [
            math.log(c.temperature / (euler_variance(k, 1.0, step, rho) / euler_variance(k, 1.0, step)))
            for k, c in white.items()
        ]
        return torch.tensor(values, dtype=torch.float64)

    def spread(rho: float) -> float:
        t = logs(rho)
        return float((weights * (t - (weights * t).sum() / weights.sum()).square()).sum())

    rho = float(optimize.minimize_scalar(spread, bounds=(0.0, 0.999), method="bounded").x)
    temperature = math.exp(float((weights * logs(rho)).sum() / weights.sum()))
    n = float(weights.sum())
    half = 1.96 * math.sqrt(2 / n)
    return Calibration(
        temperature=temperature,
        low=temperature * math.exp(-half),
        high=temperature * math.exp(half),
        correlation=rho,
        effective_samples=n,
    )
