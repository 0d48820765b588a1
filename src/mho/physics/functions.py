"""Small functions of tensors that the laws of the cells share. All differentiable, none in place."""

import math

import torch
from torch import Tensor

from mho.hardware.cells import Curve, Polynomial

SMALLEST_GHAT = 1e-6
"""Floor of ghat inside logarithms and negative powers. Every published curve is clipped long before."""


def polynomial(coefficients: Polynomial, x: Tensor) -> Tensor:
    """sum_k coefficients[k] x^k (lowest order first), by Horner's rule; the shape of ``x``."""
    result = torch.zeros_like(x)
    for c in reversed(coefficients):
        result = result * x + c
    return result


def curve(law: Curve, ghat: Tensor) -> Tensor:
    """clip(log_slope ln(ghat) + log_offset, low, high) below ``split``, the polynomial above it."""
    logarithm = law.log_slope * ghat.clamp_min(SMALLEST_GHAT).log() + law.log_offset
    low_part = logarithm.clamp(law.low, law.high)
    if not law.polynomial:
        return low_part
    return torch.where(ghat < law.split, low_part, polynomial(law.polynomial, ghat))


def scaled_curve(law: Curve, factor: float) -> Curve:
    """The curve times ``factor`` >= 0."""
    return Curve(
        log_slope=law.log_slope * factor,
        log_offset=law.log_offset * factor,
        low=law.low * factor,
        high=law.high * factor,
        split=law.split,
        polynomial=tuple(c * factor for c in law.polynomial),
    )


def root(x: Tensor) -> Tensor:
    """sqrt(max(x, 0)) whose gradient at 0 is 0 instead of infinite (a cell without error stays still)."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, torch.ones_like(x)).sqrt(), torch.zeros_like(x))


def interpolate(points: tuple[tuple[float, float], ...], x: Tensor) -> Tensor:
    """Piecewise linear through (x, y) ``points`` of rising x; held constant outside of them."""
    knots = torch.tensor([p[0] for p in points], dtype=x.dtype, device=x.device)
    values = torch.tensor([p[1] for p in points], dtype=x.dtype, device=x.device)
    slopes = values.diff() / knots.diff()
    inside = torch.maximum(torch.minimum(x, knots[-1]), knots[0])
    index = torch.bucketize(inside.detach(), knots[1:-1])
    return values[index] + slopes[index] * (inside - knots[index])


def between(times_s: tuple[float, ...], t_s: float, *, logarithmic: bool) -> tuple[int, int, float]:
    """The measurements around ``t_s`` and the weight of the second: (i, j, w); held outside of them."""
    if t_s <= times_s[0]:
        return 0, 0, 0.0
    if t_s >= times_s[-1]:
        last = len(times_s) - 1
        return last, last, 0.0
    j = next(k for k, time in enumerate(times_s) if time > t_s)
    a, b = times_s[j - 1], times_s[j]
    weight = math.log(t_s / a) / math.log(b / a) if logarithmic else (t_s - a) / (b - a)
    return j - 1, j, weight


def one_over_f(t_s: float, t_read_s: float) -> float:
    """sqrt(ln((t + t_r)/(2 t_r))): root of the 1/f spectrum integrated from 1/(t + t_r) to 1/(2 t_r).

    ``t_s``: time since the last programming pulse, ``t_read_s``: duration of a read. Below t = t_r the
    band is empty and the value is 0 (t_s = 0 too). Nandakumar et al., ICECS 2019.
    """
    band = math.log((t_s + t_read_s) / (2 * t_read_s))
    return math.sqrt(band) if band > 0 else 0.0


def truncated_normal(xi: Tensor, limit: float) -> Tensor:
    """Standard normals -> unit-variance samples of the normal law cut at +-``limit`` sigma.

    By inversion, so that each cell keeps its one draw: z = Phi^-1(Phi(-L) + Phi(xi)(2 Phi(L) - 1)) over
    the standard deviation of the cut law. Computed in float32 at least.
    """
    xi = xi if xi.dtype in (torch.float32, torch.float64) else xi.float()
    tail = 0.5 * math.erfc(limit / math.sqrt(2))
    # Both halves by the lower tail: 1 - Phi loses its digits in float32.
    magnitude = -torch.special.ndtri(tail + torch.special.ndtr(-xi.abs()) * (1 - 2 * tail))
    return torch.copysign(magnitude, xi) / truncated_std(limit)


def truncated_std(limit: float) -> float:
    """Standard deviation of the standard normal law cut at +-``limit``."""
    density = math.exp(-0.5 * limit**2) / math.sqrt(2 * math.pi)
    return math.sqrt(1 - 2 * limit * density / math.erf(limit / math.sqrt(2)))
