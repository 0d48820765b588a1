"""The normals of the kernels as physics: exact law, independence of seeds, blocks and neighbours, no thread in them."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mho.crossbar import kernels
from mho.testing.statistics import assert_law, law_holds

N = 100_000
ALPHA = 1e-5


def draw(n: int, seed: int) -> torch.Tensor:
    return kernels.normal_(torch.empty(n), seed)


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_law_of_normal(seed: int) -> None:
    z = draw(N, seed)
    assert_law(z, sigma=1.0)
    assert not law_holds(z * 1.05, sigma=1.0)
    assert not law_holds(z * 0.95, sigma=1.0)


def test_law_of_weight_noise() -> None:
    base = torch.linspace(-2, 2, N)
    noisy = kernels.add_normal(base, 0.07, 3, lo=-1.0, hi=1.0) - base.clamp(-1, 1)
    assert_law(noisy, sigma=0.07)
    assert not law_holds(noisy, sigma=0.07 * 1.05)


def test_law_of_read_noise_adds_variances() -> None:
    rows = torch.full((N // 100, 1), 0.4)
    y = torch.zeros(N // 100, 100)
    kernels.adc_(y, 0.3, 11, math.inf, 0, sigma_map=rows)
    assert_law(y, sigma=0.5)
    assert not law_holds(y, sigma=0.5 * 1.05)
    assert not law_holds(y, sigma=0.7)  # standard deviations added


def test_many_numbers() -> None:
    """n = 1e7: the distance of KS, four moments and the tails, each within its exact or normal interval."""
    n = 10_000_000
    z = draw(n, 2024)
    x = z.double()
    worst = float(stats.norm.isf(ALPHA / 2))
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(float((x**power).mean()) - mean) < worst * math.sqrt(variance / n)
    cdf = torch.special.ndtr(torch.sort(x).values)
    steps = torch.arange(n, dtype=torch.float64)
    distance = max(float((cdf - steps / n).max()), float(((steps + 1) / n - cdf).max()))
    assert distance < math.sqrt(-math.log(ALPHA / 2) / (2 * n))  # Massart's bound
    for limit in (3.0, 4.0, 4.5):
        count = int((z.abs() > limit).sum())
        assert stats.binomtest(count, n, 2 * float(stats.norm.sf(limit))).pvalue > ALPHA
    assert float(z.abs().max()) < 6.67


@pytest.mark.parametrize("lag", [1, 2, 15, 16, 17, 32, 511, 512, 513, 1024, 2048])
def test_neighbours_are_independent(lag: int) -> None:
    z = draw(1_000_000, 5).double()
    for a in (z, z**2 - 1, z.abs() - math.sqrt(2 / math.pi)):
        a = a / a.std()
        assert abs(float((a[:-lag] * a[lag:]).sum())) < float(stats.norm.isf(ALPHA / 2)) * math.sqrt(len(a) - lag)


def test_pairs_of_a_radius_are_independent() -> None:
    """The two numbers of one Box-Muller pair lie 512 apart: their angle must be uniform, their radius exponential."""
    z = draw(1024 * 200, 6).view(-1, 2, 512).double()
    angle = torch.atan2(z[:, 0], z[:, 1]) / (2 * math.pi) + 0.5
    assert_law(angle.numpy(), stats.uniform())
    assert_law((z.square().sum(1) / 2).numpy(), stats.expon())


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (7, 7 + 2**32), (2**63, 0), (5, 5 ^ (1 << 20))])
def test_seeds_are_independent(one: int, other: int) -> None:
    x, y = draw(1_000_000, one).double(), draw(1_000_000, other).double()
    bound = float(stats.norm.isf(ALPHA / 2)) * 1000
    assert abs(float((x * y).sum())) < bound
    assert abs(float(((x**2 - 1) * (y**2 - 1) / 2).sum())) < bound
    assert_law(((x[:N] + y[:N]) / math.sqrt(2)).numpy(), sigma=1.0)


def test_one_element_over_many_seeds_is_normal() -> None:
    """A training run reads the same few elements of seed after seed: they must follow the law too."""
    first = torch.stack([draw(2, seed) for seed in range(20_000)])
    assert_law(first[:, 0], sigma=1.0)
    assert_law(first[:, 1], sigma=1.0)
    correlation = float((first[1:, 0] * first[:-1, 0]).double().mean())
    assert abs(correlation) < float(stats.norm.isf(ALPHA / 2)) / math.sqrt(20_000)


def test_blocks_are_independent() -> None:
    """Correlation matrix of 200 blocks of one seed: its largest entry is within the bound of that many draws."""
    z = draw(1024 * 200, 8).view(200, 1024).double().numpy()
    off = (z @ z.T / 1024)[np.triu_indices(200, 1)]
    assert np.abs(off).max() * math.sqrt(1024) < float(stats.norm.isf(ALPHA / 2 / len(off)))
    assert len(np.unique(z[:, 0])) == 200


def test_a_prefix_is_a_prefix() -> None:
    whole = draw(5000, 3)
    for n in (1, 17, 1024, 1025, 4999):
        assert torch.equal(draw(n, 3), whole[:n])
