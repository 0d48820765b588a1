"""Intervals and tests for accuracies that vary with training seed, chip and image.

Outcomes are boolean arrays ``correct[seed, chip, image]``. Every image is shown to every chip, so
seeds and chips are nested while images are crossed with both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mho.errors import InputError
from mho.rng import derive_seed

_BLOCK_BYTES = 64 * 2**20
P5_MIN_CHIPS = 20
P5_FREE_CHIPS = 59
"""1 - 0.95**59 > 0.95: the worst of 59 chips lies below the 5th percentile with 95 % confidence."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Mean of a - b in percentage points with its paired bootstrap interval [low, high]."""

    points: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class McNemar:
    """Images that only a, or only b, gets right, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p_value: float


def _outcomes(correct: ArrayLike, name: str) -> NDArray[np.bool_]:
    array = np.asarray(correct)
    if array.dtype != np.bool_:
        raise InputError(f"{name}: dtype {array.dtype}, needs bool [seed, chip, image]. Fix: predictions == labels.")
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            f"{name}: shape {array.shape}, needs [seed, chip, image] without an empty axis. "
            "Fix: add axes of size one (correct[None, None] for one chip of one seed)."
        )
    return array


def _check_draws(n_boot: int, level: float) -> None:
    if n_boot < 100:
        raise InputError(f"n_boot = {n_boot}: too few replicates for a percentile. Fix: use 1000 or more.")
    if not 0.0 < level < 1.0:
        raise InputError(f"level = {level}: must lie between 0 and 1. Fix: 0.95.")


def _network_counts(seeds: int, chips: int, n_boot: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """How often each (seed, chip) is drawn, [n_boot, seeds * chips]: seeds first, then chips within.

    A seed drawn m times draws its chips m times over; the sum of m multinomials of ``chips`` draws
    is one multinomial of m * ``chips`` draws.
    """
    by_seed = rng.multinomial(seeds, np.full(seeds, 1.0 / seeds), size=n_boot)
    by_chip = rng.multinomial(by_seed * chips, np.full(chips, 1.0 / chips))
    return by_chip.reshape(n_boot, seeds * chips)


def _replicates(values: NDArray[np.int8], n_boot: int, seed: int) -> NDArray[np.float64]:
    """Means of ``n_boot`` resamples of values[seed, chip, image], each in {-1, 0, 1}.

    Images with the same outcome on every network are one group: the multinomial counts of images,
    summed over a group, are a multinomial with the group's share. Networks that are nearly always
    right have few groups, and the law is unchanged.
    """
    seeds, chips, images = values.shape
    rng = np.random.default_rng(derive_seed(seed, "hierarchical_bootstrap"))
    networks = _network_counts(seeds, chips, n_boot, rng)
    groups, sizes = np.unique(values.reshape(seeds * chips, images).T, axis=0, return_counts=True)
    # Sums of counts stay below 2**24 for any real test set, so float32 products are exact integers.
    patterns = groups.astype(np.float32 if images < 2**24 else np.float64)
    member = np.repeat(np.arange(len(sizes)), sizes)
    block = max(1, _BLOCK_BYTES // (8 * images))
    totals: NDArray[np.float64] = np.empty(n_boot)
    for start in range(0, n_boot, block):
        stop = min(start + block, n_boot)
        if len(sizes) * 8 < images:
            drawn = rng.multinomial(images, sizes / images, size=stop - start)
        else:
            drawn = _uniform_counts(member, len(sizes), stop - start, rng)
        sums = drawn.astype(patterns.dtype) @ patterns
        totals[start:stop] = np.einsum("bn,bn->b", networks[start:stop], sums.astype(np.float64))
    totals /= seeds * chips * images
    return totals


def _uniform_counts(member: NDArray[np.int64], groups: int, rows: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Multinomial counts of ``groups`` by drawing images one by one: faster where groups are many."""
    images = len(member)
    picks = member[rng.integers(0, images, size=(rows, images), dtype=np.int32)]
    picks += np.arange(rows)[:, None] * groups
    return np.bincount(picks.ravel(), minlength=rows * groups).reshape(rows, groups)


def _percentiles(replicates: NDArray[np.float64], level: float) -> tuple[float, float]:
    tail = (1.0 - level) / 2.0
    low, high = np.quantile(replicates, [tail, 1.0 - tail])
    return 100.0 * float(low), 100.0 * float(high)


def hierarchical_bootstrap(
    correct: ArrayLike, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean accuracy in percent, from ``correct[seed, chip, image]`` (bool).

    Each replicate draws training seeds with replacement, then chips within each drawn seed, then
    images; one draw of images serves all networks, because all saw the same images (Davison and
    Hinkley 1997, section 3.8; Saravanan, Berman and Sober 2020).

    Valid range: the variance of n drawn units is short by (n - 1)/n, so a level of one unit (one seed,
    one chip) adds no width: the interval then speaks of that seed or chip alone, and of 2 to 4 units
    it is visibly too narrow. The same ``seed`` gives the same resamples.

    Raises :class:`InputError` for a wrong shape or dtype, ``n_boot`` < 100, or ``level`` outside (0, 1).
    """
    _check_draws(n_boot, level)
    outcomes = _outcomes(correct, "hierarchical_bootstrap(correct)")
    return _percentiles(_replicates(outcomes.astype(np.int8), n_boot, seed), level)


def paired_difference(a: ArrayLike, b: ArrayLike, n_boot: int = 2000, seed: int = 0, level: float = 0.95) -> Difference:
    """Accuracy of a minus b in percentage points, both ``correct[seed, chip, image]`` (bool).

    The same seeds, chips and images in the same order: each replicate resamples them jointly, so
    what both networks find hard cancels. Raises :class:`InputError` where the shapes differ.
    """
    _check_draws(n_boot, level)
    first, second = _outcomes(a, "paired_difference(a)"), _outcomes(b, "paired_difference(b)")
    if first.shape != second.shape:
        raise InputError(
            f"paired_difference: a is {first.shape} and b is {second.shape} [seed, chip, image]; pairs need equal "
            "shapes. Fix: evaluate both on the same seeds, chips and images."
        )
    values = first.astype(np.int8) - second.astype(np.int8)
    low, high = _percentiles(_replicates(values, n_boot, seed), level)
    return Difference(points=100.0 * float(values.mean()), low=low, high=high)


def mcnemar(a: ArrayLike, b: ArrayLike) -> McNemar:
    """Exact McNemar test of two classifiers on the same images, ``a[image]`` and ``b[image]`` (bool).

    Under the null the images that only a gets right are Binomial(only_a + only_b, 1/2); p is
    two-sided (McNemar 1947). It speaks of one network on one chip: outcomes of several chips on one
    image are not independent, so more than one axis is refused; use :func:`paired_difference`.
    """
    first, second = np.asarray(a), np.asarray(b)
    if first.dtype != np.bool_ or second.dtype != np.bool_ or first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"mcnemar: a is {first.dtype} {first.shape} and b is {second.dtype} {second.shape}, needs two bool [image] "
            "of one length. Fix: test one chip at a time, or use paired_difference for [seed, chip, image]."
        )
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_a + only_b
    # Integers until the last division: exact for any number of images.
    tail = term = 1
    for k in range(min(only_a, only_b)):
        term = term * (discordant - k) // (k + 1)
        tail += term
    return McNemar(only_a=only_a, only_b=only_b, p_value=min(1.0, 2 * tail / 2**discordant))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Holm's adjusted p-values, in the given order (Holm 1979).

    With p sorted upwards, adjusted_k = max over j <= k of min(1, (m - j) p_j), j from 0. Use it
    when one comparison is made at several noise levels.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise InputError(f"holm: p_values = {p_values!r}, needs a list of numbers in [0, 1].")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return tuple(float(value) for value in adjusted)


def fifth_percentile(accuracy: ArrayLike) -> float:
    """5th percentile over all entries, interpolated linearly between order statistics.

    With n sorted values it sits at position 0.05 (n - 1): below 20 chips it is a blend of the two
    worst chips, and says little more than the worst one (:func:`percentile_note`).
    """
    values = np.asarray(accuracy, dtype=np.float64).ravel()
    if values.size == 0 or not np.isfinite(values).all():
        raise InputError(f"fifth_percentile: {values.size} values, needs one or more, all finite.")
    return float(np.quantile(values, 0.05, method="linear"))


def percentile_note(chips: int) -> str | None:
    """What a reader must know about a 5th percentile over ``chips`` chips; None for 59 or more."""
    if chips < P5_MIN_CHIPS:
        return f"p5 over {chips} chip{'s' * (chips != 1)} is interpolated between the worst ones; use 20 or more"
    if chips < P5_FREE_CHIPS:
        return f"p5 over {chips} chips is an estimate; a 95 % statement without a model needs {P5_FREE_CHIPS} chips"
    return None


@dataclass(frozen=True, kw_only=True)
class StopRule:
    """Stop when the interval of the mean is at most ``width`` points wide, after ``min_chips`` chips.

    Stopping on the width, and not on the value, leaves the interval's coverage right to first order
    (Chow and Robbins 1965); ``min_chips`` guards against a lucky narrow start.
    """

    width: float
    min_chips: int = 10

    def __post_init__(self) -> None:
        if not (math.isfinite(self.width) and self.width > 0):
            raise InputError(f"StopRule.width = {self.width}: must be positive, in percentage points. Fix: 0.2.")
        if self.min_chips < 2:
            raise InputError(f"StopRule.min_chips = {self.min_chips}: one chip has no spread. Fix: 2 or more.")

    def met(self, correct: ArrayLike, n_boot: int = 1000, seed: int = 0) -> bool:
        """True when the outcomes so far, ``correct[seed, chip, image]``, satisfy the rule."""
        outcomes = _outcomes(correct, "StopRule.met(correct)")
        if outcomes.shape[1] < self.min_chips:
            return False
        return interval_narrow_enough(outcomes, self.width, n_boot=n_boot, seed=seed)


def interval_narrow_enough(correct: ArrayLike, width: float, n_boot: int = 1000, seed: int = 0) -> bool:
    """Whether the 95 % hierarchical interval of ``correct[seed, chip, image]`` is at most ``width`` points."""
    low, high = hierarchical_bootstrap(correct, n_boot=n_boot, seed=seed)
    return high - low <= width
