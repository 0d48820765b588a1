"""Is a chain long enough, and is its law the right one: autocorrelation, effective samples, R-hat, chi-square."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.errors import InputError


def _series(x: Tensor, least: int = 4) -> Tensor:
    """[T] or [T, C] as float64 [T, C], finite and with at least ``least`` times."""
    if x.dim() not in (1, 2) or x.shape[0] < least or x.numel() == 0:
        raise InputError(
            f"mho.ebm.diagnostics: a series {tuple(x.shape)} must be [times] or [times, chains], times >= {least}."
        )
    x = x.detach().to(torch.float64)
    bad = int(torch.count_nonzero(~torch.isfinite(x)))
    if bad:
        raise InputError(f"mho.ebm.diagnostics: {bad} of {x.numel()} values of the series are NaN or infinite.")
    return x.reshape(x.shape[0], -1)


def autocorrelation(x: Tensor, *, mean: float | None = None) -> Tensor:
    """rho_t = c_t / c_0 for t = 0 ... T - 1 [T], c_t = mean of (x_s - m)(x_{s+t} - m) over s and over chains.

    ``x`` [T] or [T, C]. ``mean``: the known mean; None: the mean of all chains together. By FFT with zeros behind,
    O(T log T). Raises :class:`InputError` for a constant series.
    """
    x = _series(x)
    times = x.shape[0]
    x = x - (x.mean() if mean is None else mean)
    size = 1 << (2 * times - 1).bit_length()
    power = torch.fft.rfft(x, n=size, dim=0).abs().square().sum(1)
    covariance: Tensor = torch.fft.irfft(power, n=size)[:times] / torch.arange(times, 0, -1, dtype=torch.float64)
    if not covariance[0] > 0:
        raise InputError(
            "mho.ebm.diagnostics: the series is constant; it has no autocorrelation. Way out: does the chain move?"
        )
    return covariance / covariance[0]


def integrated_time(x: Tensor, *, mean: float | None = None, window: float = 6.0) -> float:
    """tau = 1 + 2 sum_{t=1}^{M} rho_t: how many correlated samples are worth one independent one (1 for white noise).

    M is the first lag with M >= ``window`` tau(M) (Madras and Sokal, J. Stat. Phys. 50, 1988): a longer sum adds noise,
    a shorter one bias exp(-2 window) for one exponential. AR(1): tau = (1 + phi) / (1 - phi).
    Raises :class:`InputError` where the window does not close within half of the series: the chain is too short.
    """
    rho = autocorrelation(x, mean=mean)
    half = max(rho.shape[0] // 2, 1)
    sums = 2 * torch.cumsum(rho[:half], 0) - 1
    closed = torch.nonzero(torch.arange(half, dtype=torch.float64) >= window * sums.clamp(min=1.0)).flatten()
    if closed.numel() == 0:
        raise InputError(
            f"mho.ebm.diagnostics: {rho.shape[0]} times are too few: the autocorrelation time is at least "
            f"{float(sums.max()):.3g} and does not settle. Way out: at least {math.ceil(20 * float(sums.max()))} times."
        )
    return float(sums[closed[0]].clamp(min=1 / rho.shape[0]))


def effective_sample_size(x: Tensor, *, mean: float | None = None) -> float:
    """T C / tau: the number of independent samples with the same error of the mean. ``x`` [T] or [T, C]."""
    return x.numel() / integrated_time(x, mean=mean)


def thinning(x: Tensor, *, mean: float | None = None) -> int:
    """Every how many times to keep a sample so that the kept ones are independent for a test: ceil(3 tau).

    With one exponential, tau = 2 tau_exp, two kept samples correlate by exp(-6) = 0.25 %.
    """
    return math.ceil(3 * integrated_time(x, mean=mean))


def r_hat(x: Tensor) -> float:
    """Split R-hat of chains [T, C]: sqrt((W (n - 1) / n + B / n) / W) over the 2 C half chains of n = T // 2 times.

    Near 1 where the chains, and the halves of each, agree; above 1.01 they do not yet.
    Source: Gelman et al., Bayesian Data Analysis, 3rd edition (2013), section 11.4.
    """
    x = _series(x)
    n = x.shape[0] // 2
    halves = torch.cat([x[:n], x[-n:]], 1)
    within = halves.var(0).mean()
    between = n * halves.mean(0).var()
    if not within > 0:
        raise InputError("mho.ebm.diagnostics.r_hat: every half chain is constant. Way out: does the chain move?")
    return float(torch.sqrt(((n - 1) / n * within + between / n) / within))


def _law(name: str, p: Tensor) -> Tensor:
    p = p.detach().to(torch.float64).flatten()
    if p.numel() == 0 or not bool((p >= 0).all()) or not math.isclose(float(p.sum()), 1.0, abs_tol=1e-6):
        raise InputError(
            f"mho.ebm.diagnostics: {name} must be probabilities that sum to 1, not to {float(p.sum()):.6g}."
        )
    return p


def total_variation(p: Tensor, q: Tensor) -> float:
    """sum |p - q| / 2 of two laws over the same states."""
    return float((_law("p", p) - _law("q", q)).abs().sum() / 2)


def kl_divergence(p: Tensor, q: Tensor) -> float:
    """sum p log(p / q) in nats; infinite where p has a state that q has not."""
    p, q = _law("p", p), _law("q", q)
    held = p > 0
    return float((p[held] * (p[held] / q[held]).log()).sum())


@dataclass(frozen=True, kw_only=True)
class ChiSquare:
    """Pearson's test of counts against a law. ``cells``: after pooling; ``p_value`` of ``statistic`` with cells - 1."""

    samples: int
    cells: int
    statistic: float
    p_value: float

    def __str__(self) -> str:
        return (
            f"{self.samples} samples in {self.cells} cells: chi-square {self.statistic:.4g} with {self.cells - 1} "
            f"degrees of freedom, p = {self.p_value:.3g}"
        )


def chi_square(counts: Tensor, probabilities: Tensor, *, least: float = 5.0) -> ChiSquare:
    """Test independent samples, given as ``counts`` of each state, against the law ``probabilities`` of the states.

    States are pooled, rarest first, until every cell expects at least ``least`` samples. A state that the law forbids
    and the samples have gives p = 0. Correlated samples must be thinned first (:func:`thinning`).
    Raises :class:`InputError` for shapes that differ, or too few samples for two cells.
    """
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    p = _law("probabilities", probabilities)
    n = counts.detach().to(torch.float64).flatten()
    if n.shape != p.shape or not bool((n >= 0).all()):
        raise InputError(
            f"mho.ebm.diagnostics: counts {tuple(counts.shape)} and probabilities {tuple(p.shape)} must agree."
        )
    samples = float(n.sum())
    if bool(((n > 0) & (p == 0)).any()):
        return ChiSquare(samples=int(samples), cells=int((p > 0).sum()), statistic=math.inf, p_value=0.0)
    order = torch.argsort(p)
    expected, found = (p / p.sum() * samples)[order], n[order]
    cell = torch.div(torch.cumsum(expected, 0), least, rounding_mode="floor")
    alone = expected >= least
    cell = torch.where(alone, cell.max() + 1 + torch.arange(cell.numel()), cell)
    _, cell = torch.unique(cell, return_inverse=True)
    wanted = torch.zeros(int(cell.max()) + 1, dtype=torch.float64).index_add(0, cell, expected)
    got = torch.zeros_like(wanted).index_add(0, cell, found)
    if wanted.numel() > 1 and bool((wanted < least).any()):  # the rests of a pool go together
        small = wanted < least
        wanted, got = (torch.cat([v[~small], v[small].sum(0, keepdim=True)]) for v in (wanted, got))
        if wanted[-1] < least and wanted.numel() > 1:
            wanted, got = (torch.cat([v[:-2], v[-2:].sum(0, keepdim=True)]) for v in (wanted, got))
    if wanted.numel() < 2:
        raise InputError(
            f"mho.ebm.diagnostics.chi_square: {samples:.0f} samples fill {wanted.numel()} cell of {least:g} expected. "
            "Way out: more samples."
        )
    statistic = float(((got - wanted).square() / wanted).sum())
    return ChiSquare(
        samples=int(samples),
        cells=wanted.numel(),
        statistic=statistic,
        p_value=float(stats.chi2.sf(statistic, wanted.numel() - 1)),
    )
