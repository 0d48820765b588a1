"""Moments of simple functions of a normal variable, in closed form. Pure functions on tensors.

Everywhere x ~ N(m, v), element by element, with a = m / s and s = sqrt(v). Each function returns a
:class:`Passed`: the mean, the gain E[f'(x)] = Cov(f(x), x) / v (Stein), and the variance of f(x). The
gain is what a small common shift of x does to the mean; variance - gain^2 v is what the function adds
that no linear function of x explains.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

SURE = 6.0
"""Beyond so many standard deviations from a corner a function is taken as linear (error below 1e-8 s)."""

RARE = 1e-7
"""A smaller probability is taken as this one where its quantile is needed (float32 has no better)."""

_ROUNDING_TERMS = 4
_NARROW = 0.15


class Passed(NamedTuple):
    """Mean, gain and variance of f(x), each of the shape of x."""

    mean: Tensor
    gain: Tensor
    var: Tensor


def pdf(a: Tensor) -> Tensor:
    """phi(a) = exp(-a^2 / 2) / sqrt(2 pi)."""
    return torch.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi)


def cdf(a: Tensor) -> Tensor:
    """Phi(a), with its tail."""
    below: Tensor = torch.special.ndtr(a)
    return below


def _standard(m: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """(a, s), with a = +-SURE where v = 0: what is known for sure lies on one side of a corner."""
    tiny = torch.finfo(v.dtype).tiny
    s = torch.sqrt(v.clamp_min(tiny)) * (v > tiny)
    a = torch.where(s > 0, m / torch.where(s > 0, s, torch.ones_like(s)), SURE * torch.sign(m))
    return a.clamp(-SURE, SURE), s


def relu(m: Tensor, v: Tensor) -> Passed:
    """max(x, 0): E = m Phi(a) + s phi(a), E' = Phi(a), E[f^2] = (m^2 + v) Phi(a) + m s phi(a).

    Exact for normal x (Wu et al., Deterministic variational inference, 2019); |a| is cut at SURE.
    """
    a, s = _standard(m, v)
    big, density = cdf(a), pdf(a)
    mean = torch.where(a >= SURE, m, torch.where(a <= -SURE, torch.zeros_like(m), m * big + s * density))
    scaled = a * big + density
    var = v * ((a * a + 1.0) * big + a * density - scaled * scaled)
    var = torch.where(a >= SURE, v, torch.where(a <= -SURE, torch.zeros_like(v), var.clamp_min(0)))
    gain = torch.where(a >= SURE, torch.ones_like(big), torch.where(a <= -SURE, torch.zeros_like(big), big))
    return Passed(mean, gain, var)


class SumPassed(NamedTuple):
    """Of f(max(u, 0) + b): mean, gain E[f' | u > 0] to the first term, gain E[f'] to the second, variance."""

    mean: Tensor
    skip_gain: Tensor
    gain: Tensor
    var: Tensor


def relu_of_sum(m_u: Tensor, v_u: Tensor, m_b: Tensor, v_b: Tensor, nodes: int = 10) -> SumPassed:
    """max(max(u, 0) + b, 0) of independent normal u and b: a rectified skip, a branch, and the next rectifier.

    Either u < 0, and it is max(b, 0); or u > 0, integrated over by Gauss-Legendre in the probability of u. A change
    of u passes with E[1(u > 0) 1(max(u, 0) + b > 0)] = P(u > 0) ``skip_gain``, more than the product of both gains.
    """
    a, s = _standard(m_u, v_u)
    up = cdf(a)
    points, weights = np.polynomial.legendre.leggauss(nodes)
    closed = relu(m_b, v_b)
    mean, gain = (1 - up) * closed.mean, (1 - up) * closed.gain
    square = (1 - up) * (closed.var + closed.mean.square())
    skip_gain = torch.zeros_like(mean)
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        # The upper tail of u: u = m + s xi with P(xi > this | xi > -a) = (point + 1) / 2.
        u = (m_u - s * torch.special.ndtri((up * (0.5 * (point + 1))).clamp_min(RARE))).clamp_min(0)
        passed, share = relu(m_b + u, v_b), 0.5 * weight
        mean = mean + up * share * passed.mean
        square = square + up * share * (passed.var + passed.mean.square())
        skip_gain = skip_gain + share * passed.gain
    return SumPassed(mean, skip_gain, gain + up * skip_gain, (square - mean.square()).clamp_min(0))


def leaky_relu(m: Tensor, v: Tensor, slope: float) -> Passed:
    """slope x + (1 - slope) max(x, 0), exact for normal x: Cov(x, max(x, 0)) = Phi(a) v."""
    r = relu(m, v)
    var = slope**2 * v + (1 - slope) ** 2 * r.var + 2 * slope * (1 - slope) * r.gain * v
    return Passed(slope * m + (1 - slope) * r.mean, slope + (1 - slope) * r.gain, var)


def clamp(m: Tensor, v: Tensor, low: float, high: float) -> Passed:
    """clip(x, low, high), exact for normal x; low <= high."""
    # Seen from the nearer bound, where the squares that are subtracted are small.
    flipped = m > 0.5 * (low + high)
    seen = torch.where(flipped, low + high - m, m)
    lower, upper = relu(seen - low, v), relu(seen - high, v)
    above = lower.mean - upper.mean
    # u = (x - low)+, w = (x - high)+: (u - w)^2 = u^2 - w^2 - 2 (high - low) w.
    square = (lower.var + lower.mean.square()) - (upper.var + upper.mean.square()) - 2 * (high - low) * upper.mean
    gain = lower.gain - upper.gain
    mean = torch.where(flipped, high - above, low + above)
    inside = gain >= 1.0
    return Passed(torch.where(inside, m, mean), gain, torch.where(inside, v, (square - above.square()).clamp_min(0)))


def rounded(m: Tensor, v: Tensor, lsb: float) -> Passed:
    """lsb round(x / lsb). For s well above one LSB: mean m, gain 1, variance v + lsb^2 / 12.

    Below, the ripple of the staircase shows: with u = m/lsb, tau = s/lsb and saw(x) = x - round(x),
    E saw = sum_k (-1)^(k+1) sin(2 pi k u) e_k / (pi k), e_k = exp(-2 (pi k tau)^2) (Widrow and Kollar,
    Quantization Noise, 2008). For tau < 0.15, where the sum converges slowly, at most one step either side
    is in reach and its probability is written down.
    """
    if lsb <= 0:
        return Passed(torch.zeros_like(m), torch.zeros_like(m), torch.zeros_like(v))
    u, tau2 = m / lsb, v / lsb**2
    wide = tau2 >= _NARROW**2
    saw, slope, square = torch.zeros_like(u), torch.zeros_like(u), torch.full_like(u, 1.0 / 12.0)
    for k in range(1, _ROUNDING_TERMS + 1):
        sign, e = (-1.0) ** (k + 1), torch.exp(-2.0 * (math.pi * k) ** 2 * tau2)
        saw = saw + sign * torch.sin(2 * math.pi * k * u) * e / (math.pi * k)
        slope = slope + sign * 2 * torch.cos(2 * math.pi * k * u) * e
        square = square - sign * torch.cos(2 * math.pi * k * u) * e / (math.pi * k) ** 2
    wide_var = tau2 + square - saw * saw - 2 * tau2 * slope
    tau = torch.sqrt(tau2.clamp_min(torch.finfo(v.dtype).tiny))
    level = torch.round(u)
    up, down = (u - level - 0.5) / tau, (level - 0.5 - u) / tau
    p_up, p_down = cdf(up), cdf(down)
    near_mean = level + p_up - p_down
    near_gain = torch.where(tau2 > 0, (pdf(up) + pdf(down)) / tau, torch.zeros_like(tau))
    near_var = p_up + p_down - (p_up - p_down).square()
    return Passed(
        lsb * torch.where(wide, u - saw, near_mean),
        torch.where(wide, 1.0 - slope, near_gain),
        lsb**2 * torch.where(wide, wide_var, near_var).clamp_min(0),
    )


def chain(first: Passed, then: Passed) -> Passed:
    """f after g, where ``then`` was computed from the moments of ``first``."""
    return Passed(then.mean, first.gain * then.gain, then.var)


def quantized(m: Tensor, v: Tensor, full_range: float, levels: int) -> Passed:
    """A converter of codes -levels ... levels over +-full_range: clip, then round.

    The clipped signal is taken as normal again; exact where nothing is clipped.
    """
    clipped = clamp(m, v, -full_range, full_range)
    return chain(clipped, rounded(clipped.mean, clipped.var, full_range / levels))


def elementwise(m: Tensor, v: Tensor, f: Callable[[Tensor], Tensor], nodes: int = 24) -> Passed:
    """Any smooth f by Gauss-Hermite quadrature with ``nodes`` nodes; gain = E[f(x) xi] / s."""
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    s = torch.sqrt(v.clamp_min(torch.finfo(v.dtype).tiny))
    total = float(weights.sum())
    mean, first, values = torch.zeros_like(m), torch.zeros_like(m), []
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        value = f(m + point * s)
        values.append((weight / total, value))
        mean = mean + weight / total * value
        first = first + weight / total * point * value
    var = sum((w * (value - mean).square() for w, value in values), torch.zeros_like(m))
    return Passed(mean, first / s, var)


def larger(m1: Tensor, v1: Tensor, m2: Tensor, v2: Tensor, cov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, P(x1 > x2)) of max(x1, x2) for jointly normal x1, x2 (Clark, Oper. Res. 9, 145, 1961).

    theta^2 = v1 + v2 - 2 cov; E = m1 Phi(a) + m2 Phi(-a) + theta phi(a), a = (m1 - m2)/theta.
    """
    a, theta = _standard(m1 - m2, (v1 + v2 - 2 * cov).clamp_min(0))
    first = torch.where(a >= SURE, torch.ones_like(a), torch.where(a <= -SURE, torch.zeros_like(a), cdf(a)))
    # From the nearer of the two: no cancellation of squares of large means.
    gap, edge = m2 - m1, theta * pdf(a) * (a.abs() < SURE)
    shift = gap * (1 - first) + edge
    second = v1 * first + (v2 + gap.square()) * (1 - first) + gap * edge
    return m1 + shift, (second - shift.square()).clamp_min(0), first


__all__ = [
    "SURE",
    "Passed",
    "cdf",
    "chain",
    "clamp",
    "elementwise",
    "larger",
    "leaky_relu",
    "pdf",
    "quantized",
    "relu",
    "relu_of_sum",
    "rounded",
]
