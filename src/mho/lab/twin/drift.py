"""Drift from read-backs at several ages: g(t) = g ((t + t0) / t0)^-nu, nu ~ N(drift_nu, drift_nu_d2d) over cells."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mho.lab.protocol import Capabilities
from mho.lab.twin.cells import ReadBack
from mho.lab.twin.estimates import Z95, Estimate
from mho.lab.twin.measurements import AgedRead, Writing

T0_s = 1.0
"""Reference time where the data do not tell it: one age, or no drift."""
SMALLEST_ln, LARGEST_ln = math.log(1e-6), math.log(1e4)
"""Reference times that are tried, 1 us to 10,000 s; on a grid of so many steps, then closer and closer."""
GRID = 200
ZOOMS = 6
ROUNDS = 4


Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Drift:
    """Mean exponent, its spread over cells, and the reference time."""

    nu: Estimate
    d2d: Estimate
    t0: Estimate


@dataclass(frozen=True, eq=False)
class _Ratios:
    """Cells (flat, g_max): targets, fresh and aged reads; a number an age: ln of the mean ratio, its variance by
    noise."""

    target: Tensor
    fresh: Tensor
    late: list[Tensor]
    ages_s: list[float]
    ln: list[float]
    var: list[float]


def drift(can: Capabilities, writing: Writing, ages: tuple[AgedRead, ...], noise: ReadBack) -> Drift | None:
    """The law from aged read-backs of one writing; ``None`` where nothing was read again.

    sum(g(t) T) / sum(g(0) T) with the targets T as instrument is free of the bias that read noise gives to a ratio.
    ln ratio = -nu s + (d2d s)^2 / 2, s = ln(1 + t / t0): the mean of a power is not the power of the mean. (t0, nu) by
    weighted least squares, interval of nu by its profile over t0 (3.84 in chi2) and widened by what the spread over
    this many cells leaves open; d2d from the variance of g(t) - ratio g(0) at the last age beyond its read noise.
    """
    if not ages or writing.mean_uS is None:
        return None
    data = _ratios(can, writing, ages, noise)
    spread2 = (0.0, 0.0, 0.0)
    for _ in range(ROUNDS):
        found = _exponent(data, spread2[0])
        spread2 = _spread2(data, noise, writing.reads, ages[-1].reads, found.t0_s[0])
    t0_s = found.t0_s[0]
    how = f"read-backs at {len(ages)} ages up to {ages[-1].age_s:.3g} s, t0 = {t0_s:.3g} s"
    gt = data.fresh * data.target
    own = spread2[0] * float(gt.square().sum()) / float(gt.sum()) ** 2
    nu = _widened(found.nu, Z95**2 * own, Z95**2 * own)
    # d2d is measured as d2d ln(1 + t / t0): an error of ln t0 is one of its logarithm.
    root = [math.sqrt(v) for v in spread2]
    a, b = (root[0] * abs(math.log(t / t0_s)) / math.log1p(ages[-1].age_s / t0_s) for t in found.t0_s[1:])
    d2d = _widened((root[0], root[1], root[2]), a * a, b * b)
    return Drift(
        Estimate("cell.drift_nu", *nu, "1", how),
        Estimate("cell.drift_nu_d2d", d2d[0], max(d2d[1], 0.0), d2d[2], "1", how),
        Estimate("cell.t0_s", *found.t0_s, "s", how),
    )


def _widened(e: Triple, below2: float, above2: float) -> Triple:
    """An interval with a further, independent error on each side, as squares of its half width."""
    value, low, high = e
    return value, value - math.sqrt((value - low) ** 2 + below2), value + math.sqrt((high - value) ** 2 + above2)


def _ratios(can: Capabilities, writing: Writing, ages: tuple[AgedRead, ...], noise: ReadBack) -> _Ratios:
    assert writing.mean_uS is not None
    all_reads = torch.stack([writing.mean_uS, *(a.mean_uS for a in ages)]).double().flatten(1) / can.g_max_uS
    good = torch.isfinite(all_reads).all(0) & ~writing.stuck.flatten()
    fresh, *late = all_reads[:, good].unbind()
    target = (writing.targets_uS.double().flatten() / can.g_max_uS)[good]
    lever = float((fresh * target).sum())
    ln, var = [], []
    for age, g in zip(ages, late, strict=True):
        ratio = float((g * target).sum()) / lever
        x = fresh.abs()
        cell = noise.variance_of_mean(ratio * x, age.reads) + ratio**2 * noise.variance_of_mean(x, writing.reads)
        ln.append(math.log(max(ratio, 1e-9)))
        var.append(max(float((target.square() * cell).sum()) / (lever * ratio) ** 2, 1e-14))
    return _Ratios(target, fresh, late, [a.age_s for a in ages], ln, var)


class _Exponent(NamedTuple):
    """(value, low, high) of both."""

    t0_s: Triple
    nu: Triple


def _exponent(data: _Ratios, spread2: float) -> _Exponent:
    """t0 is :data:`T0_s`, without an interval, where it could be anything: one age, or an interval of nu with 0."""

    def at(ln_t0: float) -> Triple:
        s = [math.log1p(t / math.exp(ln_t0)) for t in data.ages_s]
        y = [ln - 0.5 * spread2 * a * a for ln, a in zip(data.ln, s, strict=True)]
        ss = sum(a * a / v for a, v in zip(s, data.var, strict=True))
        nu = -sum(a * b / v for a, b, v in zip(s, y, data.var, strict=True)) / ss
        return sum((b + nu * a) ** 2 / v for a, b, v in zip(s, y, data.var, strict=True)), nu, ss

    def profile(tried: list[float]) -> _Exponent:
        """The best point, with the ends of what lies within 3.84 of its chi2."""
        found = [(*at(ln_t0), ln_t0) for ln_t0 in tried]
        best = min(found)
        near = [f for f in found if f[0] - best[0] <= Z95**2]
        halves = [math.sqrt((Z95**2 - (chi2 - best[0])) / ss) for chi2, _, ss, _ in near]
        low = min(nu - half for (_, nu, _, _), half in zip(near, halves, strict=True))
        high = max(nu + half for (_, nu, _, _), half in zip(near, halves, strict=True))
        ln = [f[3] for f in near]
        return _Exponent((math.exp(best[3]), math.exp(min(ln)), math.exp(max(ln))), (best[1], low, high))

    usual = profile([math.log(T0_s)])
    if len(data.ages_s) < 2 or usual.nu[1] <= 0 <= usual.nu[2]:
        return usual
    low, high = SMALLEST_ln, LARGEST_ln
    for _ in range(ZOOMS):
        step = (high - low) / GRID
        found = profile([low + k * step for k in range(GRID + 1)])
        # The next window holds the profile with a margin of a step, and is as fine as it is narrow.
        low, high = math.log(found.t0_s[1]) - step, math.log(found.t0_s[2]) + step
    return found


def _spread2(data: _Ratios, noise: ReadBack, reads: int, reads_late: int, t0_s: float) -> Triple:
    """(value, low, high) of d2d^2 >= 0.

    Weights are functions of the targets, and so independent of the noise in what they weigh.
    """
    s = math.log1p(data.ages_s[-1] / t0_s)
    ratio = math.exp(data.ln[-1])

    def variance(x: Tensor) -> Tensor:
        return noise.variance_of_mean(ratio * x, reads_late) + ratio**2 * noise.variance_of_mean(x, reads)

    w = data.target.square() / variance(data.target.abs()).clamp_min(1e-12) ** 2
    lever = ratio**2 * (data.fresh.square() - noise.variance_of_mean(data.fresh.abs(), reads))
    beyond = (data.late[-1] - ratio * data.fresh) ** 2 - variance(data.fresh.abs())
    total = float((w * lever).sum())
    value = float((w * beyond).sum()) / total
    # Normal deviations: the square of one varies by sqrt(2) times its variance.
    whole = variance(data.fresh.abs()) + max(value, 0.0) * lever.clamp_min(0.0)
    se = math.sqrt(2 * float((w * whole).square().sum())) / total
    # The law of the ratio is log-normal: var = ratio^2 (exp(d2d^2 s^2) - 1).
    squares = [math.log1p(max(v, 0.0)) / s**2 for v in (value, value - Z95 * se, value + Z95 * se)]
    return squares[0], squares[1], squares[2]
