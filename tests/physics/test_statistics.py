"""The tests of the tests: they accept the true law, reject mutants, and have the level they claim."""

import numpy as np
import pytest
import torch
from scipy import stats

import mho.testing
from mho.rng import normals, uniforms
from mho.testing import assert_independent, assert_law, assert_power, check_law, law_holds

N = 100_000
LAWS = [
    stats.norm(3.0, 0.2),
    stats.expon(scale=2.0),
    stats.uniform(-1.0, 3.0),
    stats.lognorm(0.5),
    stats.truncnorm(-2.0, 2.0, scale=0.7),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.dist.name)
def test_accepts_the_law_and_rejects_one_5_percent_wider(law: object) -> None:
    x = law.rvs(N, random_state=1)  # type: ignore[attr-defined]
    center = law.mean()  # type: ignore[attr-defined]
    assert_power(lambda scale: center + scale * (x - center), law)
    assert_law(torch.from_numpy(x), law)
    assert_law(x, law.cdf)  # type: ignore[attr-defined]


def test_raw_variance_with_and_without_a_known_mean() -> None:
    x = 0.5 * normals((N,), 0, "x") + 2.0
    for mean in (2.0, None):
        law = stats.norm(2.0, 0.5)
        assert_law(x, law, sigma=0.5, mean=mean)
        assert not law_holds(2.0 + 1.05 * (x - 2.0), law, sigma=0.5, mean=mean)
    assert_law(x, sigma=0.5, mean=2.0)
    assert not law_holds(x, sigma=0.5)


def test_a_wrong_shape_with_the_right_variance_is_rejected() -> None:
    x = (2.0 * uniforms((N,), 0, "u") - 1.0) * 3.0**0.5
    found = check_law(x, sigma=1.0)
    assert found.variance_low <= found.variance <= found.variance_high
    assert found.ks_p < 1e-5 and not found.holds


def test_a_shift_or_a_quiet_few_outliers_are_rejected() -> None:
    x = normals((N,), 0, "x").double()
    assert law_holds(x, sigma=1.0)
    assert not law_holds(x + 0.05, sigma=1.0)
    wild = x.clone()
    wild[:20] *= 40.0
    assert not law_holds(wild, sigma=1.0)
    outside = uniforms((N,), 0, "u").double()
    outside[0] = 1.5
    assert not law_holds(outside, stats.uniform(0, 1))


def test_level_is_the_claimed_one() -> None:
    """At alpha = 0.1 each of two tests rejects a true law in one of ten runs."""
    rejected_ks = rejected_variance = 0
    for seed in range(300):
        found = check_law(normals((400,), seed, "level"), sigma=1.0, alpha=0.1)
        rejected_ks += found.ks_p < 0.1
        rejected_variance += not found.variance_low <= found.variance <= found.variance_high
    low, high = stats.binom.ppf([5e-4, 1 - 5e-4], 300, 0.1)
    assert low <= rejected_ks <= high and low <= rejected_variance <= high


def test_messages_carry_the_numbers() -> None:
    with pytest.raises(AssertionError, match=r"n = 100000: KS distance .* variance over the law's 1\.2"):
        assert_law(1.1 * normals((N,), 0, "x"), sigma=1.0)
    with pytest.raises(AssertionError, match="blind"):
        assert_power(lambda scale: normals((N,), 0, "x"), sigma=1.0)
    with pytest.raises(AssertionError, match="do not follow"):
        assert_power(lambda scale: 1.05 * scale * normals((N,), 0, "x"), sigma=1.0)


def test_broken_samples_are_refused() -> None:
    x = np.ones(1000)
    x[3] = np.nan
    with pytest.raises(AssertionError, match="1 of 1000 samples"):
        assert_law(x, sigma=1.0)
    with pytest.raises(ValueError, match="50 samples"):
        assert_law(np.zeros(50), sigma=1.0)
    with pytest.raises(ValueError, match="sigma"):
        assert_law(np.zeros(500))


def test_independence() -> None:
    a, b = normals((N,), 0, "a"), normals((N,), 0, "b")
    assert_independent(a, b)
    with pytest.raises(AssertionError, match="correlation"):
        assert_independent(a, b + 0.05 * a)
    with pytest.raises(AssertionError, match="constant"):
        assert_independent(a, torch.zeros(N))
    with pytest.raises(ValueError, match="paired"):
        assert_independent(a, b[:500])


def test_lazy_names() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'asert_law'"):
        mho.testing.asert_law  # noqa: B018
    assert set(mho.testing.__all__) == set(mho.testing._HOMES)
