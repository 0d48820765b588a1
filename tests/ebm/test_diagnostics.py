"""Diagnostics against AR(1), whose autocorrelation is known, and against scipy."""

import math

import pytest
import torch
from scipy import stats

from mho import rng
from mho.ebm.diagnostics import (
    autocorrelation,
    chi_square,
    effective_sample_size,
    integrated_time,
    kl_divergence,
    r_hat,
    thinning,
    total_variation,
)
from mho.errors import InputError


def ar1(phi: float, times: int, chains: int, name: str) -> torch.Tensor:
    """Stationary AR(1) of unit variance [times, chains]."""
    noise = rng.normals((times, chains), 0, name).double()
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for t in range(1, times):
        x[t] = phi * x[t - 1] + math.sqrt(1 - phi * phi) * noise[t]
    return x


@pytest.mark.parametrize("phi", [-0.4, 0.0, 0.5, 0.9])
def test_the_autocorrelation_and_its_sum_are_those_of_ar1(phi: float) -> None:
    x = ar1(phi, 4000, 64, f"phi {phi}")
    tau = (1 + phi) / (1 - phi)
    rho = autocorrelation(x, mean=0.0)
    for lag in range(6):
        assert float(rho[lag]) == pytest.approx(phi**lag, abs=6 * math.sqrt(max(tau, 1) / x.numel()))
    assert integrated_time(x) == pytest.approx(tau, rel=0.06)
    assert effective_sample_size(x) == pytest.approx(x.numel() / tau, rel=0.06)


def test_the_fft_gives_the_sum_of_products() -> None:
    x = rng.normals((50, 3), 0, "plain").double()
    rho = autocorrelation(x, mean=0.2)
    d = x - 0.2
    plain = torch.stack([(d[: 50 - t] * d[t:]).sum() / (50 - t) for t in range(50)])
    assert torch.allclose(rho, plain / plain[0])


def test_the_effective_sample_size_is_the_variance_of_the_mean() -> None:
    x = ar1(0.8, 500, 2000, "means")
    variance = float(x.mean(0).var())
    assert 500 * variance == pytest.approx(integrated_time(x), rel=0.12)


def test_thinned_samples_are_as_good_as_independent() -> None:
    x = ar1(0.9, 3000, 64, "thin")
    every = thinning(x)
    assert abs(0.9**every) < 0.01
    assert every < 100


def test_r_hat_is_one_for_chains_that_agree_and_more_for_chains_that_do_not() -> None:
    x = ar1(0.5, 2000, 8, "agree")
    assert r_hat(x) == pytest.approx(1.0, abs=0.01)
    assert r_hat(x + torch.linspace(0, 2, 8)) > 1.2
    assert r_hat(x + torch.linspace(0, 2, 2000)[:, None]) > 1.1  # all chains drift together: the halves tell


def test_total_variation_and_kl_have_their_closed_forms() -> None:
    p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.5, 0.25])
    assert total_variation(p, q) == pytest.approx(0.25)
    assert kl_divergence(p, q) == pytest.approx(0.25 * math.log(2))
    assert kl_divergence(torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])) == pytest.approx(math.log(2))
    assert kl_divergence(torch.tensor([0.5, 0.5]), torch.tensor([1.0, 0.0])) == math.inf


def test_chi_square_is_scipys_where_nothing_is_pooled() -> None:
    p = torch.tensor([0.1, 0.2, 0.3, 0.4])
    n = torch.tensor([13, 17, 33, 37])
    wanted = stats.chisquare(n.numpy(), 100 * p.double().numpy() / float(p.double().sum()))
    found = chi_square(n, p)
    assert found.cells == 4
    assert found.statistic == pytest.approx(wanted.statistic) and found.p_value == pytest.approx(wanted.pvalue)


def test_p_values_are_uniform_with_pooled_cells() -> None:
    p = torch.softmax(3 * rng.normals((200,), 0, "law").double(), 0)
    generator = rng.stream(0, "draws")
    values = []
    for _ in range(400):
        drawn = torch.multinomial(p, 500, replacement=True, generator=generator)
        values.append(chi_square(torch.bincount(drawn, minlength=200), p).p_value)
    assert stats.kstest(values, "uniform").pvalue > 1e-5


def test_a_forbidden_state_has_no_chance() -> None:
    assert chi_square(torch.tensor([50, 50, 1]), torch.tensor([0.5, 0.5, 0.0])).p_value == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: autocorrelation(torch.ones(10)), "the series is constant"),
        (lambda: autocorrelation(torch.tensor([1.0, math.nan, 2.0, 3.0])), "1 of 4 values"),
        (lambda: autocorrelation(torch.ones(2, 2, 2)), "must be"),
        (lambda: integrated_time(torch.arange(100.0)), "100 times are too few"),
        (lambda: r_hat(torch.ones(10, 2)), "every half chain is constant"),
        (lambda: total_variation(torch.tensor([0.5, 0.6]), torch.tensor([0.5, 0.5])), "sum to 1"),
        (lambda: chi_square(torch.ones(3), torch.tensor([0.5, 0.5])), "must agree"),
        (lambda: chi_square(torch.ones(2), torch.tensor([0.5, 0.5])), "more samples"),
    ],
)
def test_what_cannot_be_answered_is_refused(call, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()
