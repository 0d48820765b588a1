"""Statistical tests of noise as physics: an exact law, an exact variance, and power against mutants.

Two tests at the same level alpha = 1e-5 decide about a law. Kolmogorov-Smirnov looks at the whole
shape. The variance is looked at after the probability integral transform: if x has the continuous law
F, then z = Phi^-1(F(x)) is standard normal, whatever F is, and sum z^2 has the chi-square law with n
degrees of freedom, exactly. With n = 100,000 that interval is +- 2 % in variance, and a sigma 5 %
off (10 % in variance) always falls outside.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Law = Any
"""A frozen scipy distribution, or a vectorised cumulative distribution function."""

ALPHA = 1e-5


@dataclass(frozen=True, kw_only=True)
class LawCheck:
    """What the tests of one law found. ``variance`` is relative to the law's; 1 is perfect."""

    n: int
    ks: float
    ks_p: float
    variance: float
    variance_low: float
    variance_high: float
    alpha: float

    @property
    def holds(self) -> bool:
        """True when no test rejects at ``alpha``. NaN anywhere rejects."""
        return self.ks_p >= self.alpha and self.variance_low <= self.variance <= self.variance_high

    def __str__(self) -> str:
        return (
            f"n = {self.n}: KS distance {self.ks:.3g} (p = {self.ks_p:.3g}, needs >= {self.alpha:g}); variance over "
            f"the law's {self.variance:.5g} (needs {self.variance_low:.5g} to {self.variance_high:.5g})"
        )


def _flat(samples: Any) -> Array:
    """Any tensor or array as a flat float64 array; every number must be finite."""
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu().double().numpy()
    flat = np.asarray(samples, dtype=np.float64).reshape(-1)
    bad = int(np.count_nonzero(~np.isfinite(flat)))
    if bad:
        raise AssertionError(f"{bad} of {flat.size} samples are NaN or infinite")
    if flat.size < 100:
        raise ValueError(f"{flat.size} samples cannot tell one law from another; give at least 100 (usual: 100,000)")
    return flat


def _tails(law: Law, x: Array) -> tuple[Array, Array]:
    """(F(x), 1 - F(x)), the second without cancellation where the law can say it."""
    if hasattr(law, "cdf"):
        return np.asarray(law.cdf(x), dtype=np.float64), np.asarray(law.sf(x), dtype=np.float64)
    below = np.asarray(law(x), dtype=np.float64)
    return below, 1.0 - below


def check_law(
    samples: Any,
    law: Law | None = None,
    *,
    sigma: float | None = None,
    mean: float | None = None,
    alpha: float = ALPHA,
) -> LawCheck:
    """Test independent samples against a continuous law; nothing is raised for a law that fails.

    ``law``: frozen scipy distribution or cdf; ``None``: the normal law of ``mean`` (default 0) and ``sigma``.
    Without ``sigma`` the variance test is the one of the transform (any law). With ``sigma`` it is
    the textbook interval of the raw variance, exact for normal samples: sum (x - mean)^2 / sigma^2
    ~ chi2(n), or with the sample's own mean and chi2(n - 1) when ``mean`` is None.
    Raises ``AssertionError`` for samples that are not finite, ``ValueError`` for too few.
    """
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    x = _flat(samples)
    if law is None:
        if sigma is None or not sigma > 0:
            raise ValueError(f"sigma = {sigma!r}: give a law, or sigma > 0 for the normal law")
        mean = 0.0 if mean is None else mean
        law = stats.norm(mean, sigma)
    below, above = _tails(law, x)
    ks = stats.kstest(below, "uniform")
    freedom = x.size
    if sigma is None:
        z = np.where(below < 0.5, stats.norm.ppf(below), stats.norm.isf(above))
        total = float(np.sum(z * z))
    elif mean is None:
        freedom -= 1
        total = float(np.sum((x - x.mean()) ** 2) / sigma**2)
    else:
        total = float(np.sum((x - mean) ** 2) / sigma**2)
    low, high = stats.chi2.ppf([alpha / 2, 1 - alpha / 2], freedom) / freedom
    return LawCheck(
        n=x.size,
        ks=float(ks.statistic),
        ks_p=float(ks.pvalue),
        variance=total / freedom,
        variance_low=float(low),
        variance_high=float(high),
        alpha=alpha,
    )


def law_holds(
    samples: Any,
    law: Law | None = None,
    *,
    sigma: float | None = None,
    mean: float | None = None,
    alpha: float = ALPHA,
) -> bool:
    """True when :func:`check_law` rejects nothing. Use it to see that a mutant is caught."""
    return check_law(samples, law, sigma=sigma, mean=mean, alpha=alpha).holds


def assert_law(
    samples: Any,
    law: Law | None = None,
    *,
    sigma: float | None = None,
    mean: float | None = None,
    alpha: float = ALPHA,
) -> None:
    """Raise ``AssertionError``, with the numbers, unless the samples follow the law (:func:`check_law`)."""
    found = check_law(samples, law, sigma=sigma, mean=mean, alpha=alpha)
    if not found.holds:
        raise AssertionError(f"the samples do not follow the law: {found}")


def assert_power(
    sampler: Callable[[float], Any],
    law: Law | None = None,
    *,
    sigma: float | None = None,
    mean: float | None = None,
    alpha: float = ALPHA,
    factor: float = 1.05,
) -> None:
    """The law holds for ``sampler(1.0)`` and is rejected for ``sampler(factor)`` and ``sampler(1 / factor)``.

    ``sampler(scale)`` draws with the random part multiplied by ``scale``. A test without this could pass
    for every noise there is.
    """
    assert_law(sampler(1.0), law, sigma=sigma, mean=mean, alpha=alpha)
    for scale in (factor, 1.0 / factor):
        found = check_law(sampler(scale), law, sigma=sigma, mean=mean, alpha=alpha)
        if found.holds:
            raise AssertionError(f"the check is blind: a mutant with sigma x {scale:.4g} passes: {found}")


def assert_independent(a: Any, b: Any) -> None:
    """|Pearson correlation| < 5 / sqrt(n), which independent samples exceed with probability 6e-7."""
    x, y = _flat(a), _flat(b)
    if x.size != y.size:
        raise ValueError(f"{x.size} and {y.size} samples cannot be paired; give two arrays of one size")
    if x.std() == 0.0 or y.std() == 0.0:
        raise AssertionError("one of the samples is constant: its correlation is not defined")
    correlation = float(np.corrcoef(x, y)[0, 1])
    limit = 5.0 / float(np.sqrt(x.size))
    if not abs(correlation) < limit:
        raise AssertionError(f"correlation {correlation:.4g} of {x.size} pairs is not below {limit:.4g}")
