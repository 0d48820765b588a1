"""A standard deviation against conductance, from sums of squares of groups of cells: a + b |g|, by likelihood.

    S_j = sum of squares of n_j normal deviations of variance v_j = (a + b x_j)^2 + known_j
    -2 ln L = sum_j n_j ln v_j + S_j / v_j

Sums of squares are sufficient, so that the work does not grow with the number of cells. x = |g| / g_max; a in units of
g_max.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.lab.twin.estimates import Estimate, normal, positive, root

STEPS = 100
NEGLIGIBLE = 1e-12
"""Variances below this share of g_max^2 are rounding."""


@dataclass(frozen=True, eq=False)
class Groups:
    """``x`` [j]: |g| / g_max; ``freedom``, ``squares`` [j]: n and S; ``known`` [j]: variance of known origin."""

    x: Tensor
    freedom: Tensor
    squares: Tensor
    known: Tensor


@dataclass(frozen=True)
class SigmaFit:
    """Estimates in units of g_max (``rel``: of g). ``p_value``: that the straight line describes the groups."""

    const: Estimate
    rel: Estimate
    p_value: float


def group(x: Tensor, squares: Tensor, freedom: Tensor, known: Tensor) -> Groups:
    """Sums over cells with the same ``x`` (rounded to 1e-6); all arguments flat and of one length."""
    key, where = torch.unique((x.double() * 1e6).round(), return_inverse=True)

    def total(t: Tensor) -> Tensor:
        return torch.zeros(len(key), dtype=torch.float64).index_add_(0, where, t.double())

    n = total(freedom)
    return Groups(key / 1e6, n, total(squares), total(known * freedom) / n)


def fit_sigma(data: Groups, names: tuple[str, str], how: str) -> SigmaFit:
    """Maximum likelihood of (a, b). A part whose interval holds 0 is left out, and the other fitted alone.

    Intervals are conditional on the parts kept; the one that is left out has value 0 and the interval of the full fit.
    """
    nothing = _none_seen(data, names, how)
    if nothing is not None:
        return nothing
    both, cov = _scoring(data, (True, True))
    full = [normal(n, float(both[k]), float(cov[k, k].clamp_min(0).sqrt()), "g_max", how) for k, n in enumerate(names)]
    rel = positive(full[1])
    if len(data.x) < 2 or not rel.sure:
        only, cov = _scoring(data, (True, False))
        const = positive(normal(names[0], float(only[0]), float(cov[0, 0].sqrt()), "g_max", how))
        return SigmaFit(const, Estimate(names[1], 0.0, 0.0, rel.high, "g", how), _p_value(data, only, 1))
    const = positive(full[0])
    if not const.sure:
        only, cov = _scoring(data, (False, True))
        rel = normal(names[1], float(only[1]), float(cov[1, 1].sqrt()), "g", how)
        return SigmaFit(Estimate(names[0], 0.0, 0.0, const.high, "g_max", how), rel, _p_value(data, only, 1))
    return SigmaFit(const, Estimate(names[1], rel.value, rel.low, rel.high, "g", how), _p_value(data, both, 2))


def _none_seen(data: Groups, names: tuple[str, str], how: str) -> SigmaFit | None:
    """The fit where the variance does not exceed what is known: sigma 0 is the best answer there is."""
    n = data.freedom.sum()
    excess = float((data.squares - data.freedom * data.known).sum() / n)
    level = float((data.squares / n).sum())
    se = math.sqrt(2 * float((data.freedom * (data.squares / data.freedom) ** 2).sum())) / float(n)
    if excess - 4 * se > NEGLIGIBLE and level > NEGLIGIBLE:
        return None
    const = root(names[0], 0.0 if level <= NEGLIGIBLE else excess, se, "g_max", how)
    return SigmaFit(const, Estimate(names[1], 0.0, 0.0, const.high, "g", how), 1.0)


def _model(data: Groups, ab: Tensor) -> tuple[Tensor, Tensor]:
    sigma = ab[0] + ab[1] * data.x
    return sigma * sigma + data.known, sigma


def _scoring(data: Groups, free: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    """(a, b) and their covariance, by Fisher scoring from a flat (or a proportional) start."""
    keep = torch.tensor(free)
    excess = ((data.squares - data.freedom * data.known).sum() / data.freedom.sum()).clamp_min(NEGLIGIBLE).sqrt()
    ab = torch.stack(
        [excess * free[0], torch.zeros_like(excess) if free[0] else excess / data.x.clamp_min(1e-3).mean()]
    )
    for _ in range(STEPS):
        slope, information = _slopes(data, ab)
        step = torch.zeros(2, dtype=torch.float64)
        step[keep] = torch.linalg.lstsq(information[keep][:, keep], slope[keep, None]).solution[:, 0]
        size = 1.0
        while size > 1e-6 and not _nll(data, ab + size * step) <= _nll(data, ab):
            size /= 2
        ab = ab + size * step
        if float(step.abs().max()) * size < 1e-12:
            break
    _, information = _slopes(data, ab)
    cov = torch.zeros(2, 2, dtype=torch.float64)
    index = torch.nonzero(keep).flatten()
    cov[index[:, None], index[None, :]] = torch.linalg.pinv(information[keep][:, keep], hermitian=True)
    return ab, cov


def _nll(data: Groups, ab: Tensor) -> float:
    v, sigma = _model(data, ab)
    if bool((v <= 0).any()) or bool((sigma < -1e-6).any()):
        return math.inf
    return float((data.freedom * v.log() + data.squares / v).sum())


def _slopes(data: Groups, ab: Tensor) -> tuple[Tensor, Tensor]:
    v, sigma = _model(data, ab)
    of_v = -0.5 * (data.freedom / v - data.squares / v**2)
    d = torch.stack([2 * sigma, 2 * sigma * data.x])
    return d @ of_v, (d * (0.5 * data.freedom / v**2)) @ d.t()


def _p_value(data: Groups, ab: Tensor, fitted: int) -> float:
    """Probability of a deviance as large as this, were the straight line true: chi2 of groups - fitted."""
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    freedom = len(data.x) - fitted
    if freedom < 1:
        return 1.0
    ratio = data.squares / (data.freedom * _model(data, ab)[0])
    return float(stats.chi2.sf(float((data.freedom * (ratio - 1 - ratio.log())).sum()), freedom))


def table(data: Groups) -> tuple[tuple[float, float], ...]:
    """(x, sigma) of each group, less what is known: where no straight line describes them."""
    own = (data.squares / data.freedom - data.known).clamp_min(0).sqrt()
    return tuple((float(x), float(s)) for x, s in zip(data.x, own, strict=True))
