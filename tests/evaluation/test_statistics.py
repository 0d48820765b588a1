import math
import time

import numpy as np
import pytest
from scipy.stats import binomtest

from mho.errors import InputError
from mho.evaluation.statistics import (
    StopRule,
    _replicates,
    fifth_percentile,
    hierarchical_bootstrap,
    holm,
    interval_narrow_enough,
    mcnemar,
    paired_difference,
    percentile_note,
)


def hierarchical(rng, seeds, chips, images, *, seed_sd=0.0, chip_sd=0.0, image_sd=0.0, mean=0.8):
    """Outcomes whose probability is mean + seed effect + chip effect + image effect."""
    p = (
        mean
        + seed_sd * rng.standard_normal((seeds, 1, 1))
        + chip_sd * rng.standard_normal((seeds, chips, 1))
        + image_sd * rng.standard_normal((1, 1, images))
    )
    return rng.random((seeds, chips, images)) < p


def bootstrap_variance(x):
    """Exact variance of the hierarchical bootstrap of the mean of x[seed, chip, image].

    The mean is w' X v with independent counts w (networks) and v (images):
    var = b' Kw b + a' Kv a + tr(X' Kw X Kv), b = X E v, a = X' E w.
    """
    seeds, chips, images = x.shape
    rows = x.reshape(seeds * chips, images).astype(float)
    kv = (np.eye(images) / images - 1 / images**2) / images
    between = (np.eye(seeds) / seeds - 1 / seeds**2) / seeds
    within = (np.eye(chips) / chips - 1 / chips**2) / chips
    # A seed drawn n_s times (E n_s = 1) has n_s C draws of its chips: E Cov = within / S^2.
    kw = np.kron(between, np.ones((chips, chips)) / chips**2) + np.kron(np.eye(seeds) / seeds**2, within)
    b, a = rows.mean(axis=1), rows.mean(axis=0)
    return b @ kw @ b + a @ kv @ a + np.trace(rows.T @ kw @ rows @ kv)


@pytest.mark.parametrize("shape", [(1, 8, 60), (4, 6, 60), (3, 1, 60), (1, 1, 60), (2, 30, 700)])
def test_the_variance_of_the_replicates_is_the_exact_one(shape):
    rng = np.random.default_rng(3)
    x = hierarchical(rng, *shape, seed_sd=0.05, chip_sd=0.05, image_sd=0.2, mean=0.7)
    draws = _replicates(x.astype(np.int8), 20_000, seed=1)
    ratio = draws.var() / bootstrap_variance(x)
    # 20,000 nearly normal draws: the variance has relative sd sqrt(2/20000) = 1 %; 5 sd.
    assert abs(ratio - 1) < 0.05
    assert abs(draws.mean() - x.mean()) < 5 * math.sqrt(bootstrap_variance(x) / 20_000)


def test_both_ways_of_counting_images_have_one_law():
    # 1 chip: 2 groups of images (grouped draw); 12 chips at random: nearly as many groups as images.
    rng = np.random.default_rng(0)
    few = rng.random((1, 1, 900)) < 0.6
    many = rng.random((1, 12, 900)) < 0.5
    assert len(np.unique(many[0].T, axis=0)) * 8 > 900
    for x in (few, many):
        draws = _replicates(x.astype(np.int8), 20_000, seed=2)
        assert abs(draws.var() / bootstrap_variance(x) - 1) < 0.05


def test_coverage_of_a_hierarchical_model():
    rng = np.random.default_rng(11)
    hits, trials = 0, 200
    for trial in range(trials):
        x = hierarchical(rng, 8, 12, 80, seed_sd=0.02, chip_sd=0.04, mean=0.75)
        low, high = hierarchical_bootstrap(x, n_boot=400, seed=trial)
        hits += low <= 75.0 <= high
    # Nominal 0.95, short by (8-1)/8 in variance and long by the nesting; binomial sd 1.5 %.
    assert 0.88 <= hits / trials <= 0.995


def test_ignoring_chips_would_not_cover():
    """The mutant: chips taken as independent images. It must fail the check above."""
    rng = np.random.default_rng(12)
    hits, trials = 0, 100
    for trial in range(trials):
        x = hierarchical(rng, 1, 12, 80, chip_sd=0.1, mean=0.75)
        low, high = hierarchical_bootstrap(x.reshape(1, 1, -1), n_boot=200, seed=trial)
        hits += low <= 75.0 <= high
    assert hits / trials < 0.88


def test_degenerate_outcomes():
    ones = np.ones((2, 3, 50), dtype=bool)
    assert hierarchical_bootstrap(ones) == (100.0, 100.0)
    assert hierarchical_bootstrap(~ones) == (0.0, 0.0)
    # One seed, one chip: the binomial interval of the images alone.
    x = np.zeros((1, 1, 400), dtype=bool)
    x[..., :300] = True
    low, high = hierarchical_bootstrap(x, n_boot=20_000)
    half = 1.96 * 100 * math.sqrt(0.75 * 0.25 / 400)
    assert high - low == pytest.approx(2 * half, rel=0.06)
    # Chips without an image effect: one chip right, one wrong. w ~ Binomial(2, 1/2) / 2.
    split = np.stack([np.ones(10, dtype=bool), np.zeros(10, dtype=bool)])[None]
    assert hierarchical_bootstrap(split) == (0.0, 100.0)


def test_the_seed_repeats_and_the_level_widens():
    x = hierarchical(np.random.default_rng(0), 2, 5, 100, chip_sd=0.05)
    assert hierarchical_bootstrap(x, seed=4) == hierarchical_bootstrap(x, seed=4)
    assert hierarchical_bootstrap(x, seed=4) != hierarchical_bootstrap(x, seed=5)
    narrow, wide = hierarchical_bootstrap(x, level=0.5), hierarchical_bootstrap(x, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_twenty_five_chips_of_ten_thousand_images_are_cheap():
    x = np.random.default_rng(0).random((1, 25, 10_000)) < 0.6
    start = time.perf_counter()
    hierarchical_bootstrap(x)
    assert time.perf_counter() - start < 5.0  # 0.7 s alone on one core; shared machines are slower


def test_pairing_cancels_what_both_find_hard():
    rng = np.random.default_rng(5)
    b = hierarchical(rng, 2, 10, 500, chip_sd=0.05, image_sd=0.3, mean=0.7)
    a = b | (rng.random(b.shape) < 0.02)
    difference = paired_difference(a, b)
    assert difference.points == pytest.approx(100 * (a.mean() - b.mean()))
    assert 0 < difference.low < difference.points < difference.high
    low, high = hierarchical_bootstrap(b)
    assert difference.high - difference.low < 0.3 * (high - low)
    same = paired_difference(b, b)
    assert (same.points, same.low, same.high) == (0.0, 0.0, 0.0)
    swapped = paired_difference(b, a)
    assert swapped.points == pytest.approx(-difference.points)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 11), (40, 40), (900, 1000), (1, 0)])
def test_mcnemar_is_the_exact_binomial_test(only_a, only_b):
    a = np.array([True] * only_a + [False] * only_b + [True] * 7)
    b = np.array([False] * only_a + [True] * only_b + [True] * 7)
    found = mcnemar(a, b)
    expected = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert (found.only_a, found.only_b) == (only_a, only_b)
    assert found.p_value == pytest.approx(expected, rel=1e-9)


def test_holm():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == pytest.approx((1.0, 1.0))
    with pytest.raises(InputError, match="holm"):
        holm([1.2])


def test_fifth_percentile_and_its_note():
    assert fifth_percentile(np.arange(21.0)) == pytest.approx(1.0)
    assert fifth_percentile([1.0, 2.0]) == pytest.approx(1.05)
    assert fifth_percentile([7.0]) == 7.0
    with pytest.raises(InputError, match="finite"):
        fifth_percentile([1.0, math.nan])
    assert "19 chips" in str(percentile_note(19))
    assert "1 chip " in str(percentile_note(1))
    assert "59" in str(percentile_note(25))
    assert percentile_note(59) is None
    assert 1 - 0.95**59 > 0.95 > 1 - 0.95**58


def test_stop_rule():
    rng = np.random.default_rng(1)
    x = rng.random((1, 30, 2000)) < 0.95
    rule = StopRule(width=1.5, min_chips=10)
    assert rule.met(x)
    assert not rule.met(x[:, :9])
    assert not StopRule(width=0.01).met(x)
    assert interval_narrow_enough(x, 1.5)
    assert not interval_narrow_enough(x, 0.01)
    with pytest.raises(InputError, match="width"):
        StopRule(width=0.0)
    with pytest.raises(InputError, match="min_chips"):
        StopRule(width=1.0, min_chips=1)


@pytest.mark.parametrize(
    ("bad", "word"),
    [(np.ones((2, 3), dtype=bool), "shape"), (np.ones((1, 2, 3)), "dtype"), (np.ones((1, 0, 3), dtype=bool), "empty")],
)
def test_wrong_outcomes_are_refused(bad, word):
    with pytest.raises(InputError, match=word):
        hierarchical_bootstrap(bad)


def test_wrong_settings_are_refused():
    x = np.ones((1, 2, 3), dtype=bool)
    with pytest.raises(InputError, match="n_boot"):
        hierarchical_bootstrap(x, n_boot=10)
    with pytest.raises(InputError, match="level"):
        hierarchical_bootstrap(x, level=95)
    with pytest.raises(InputError, match="equal shapes"):
        paired_difference(x, x[:, :1])
    with pytest.raises(InputError, match="paired_difference"):
        mcnemar(x, x)
