"""Noise from first principles: the example numbers of the literature, and the laws of the telegraph."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from mho.errors import InputError
from mho.physics import thermal
from mho.rng import normals, uniforms
from mho.testing import assert_independent, assert_power

B = thermal.boxcar_bandwidth_Hz(128e-9)


def test_boxcar_bandwidth() -> None:
    assert pytest.approx(3.90625e6) == B


def test_johnson_example() -> None:
    sigma = thermal.johnson_sigma_A(1.28e-3, B, 300.0)
    assert sigma == pytest.approx(9.1e-9, rel=2e-3)
    assert sigma == pytest.approx(math.sqrt(4 * 1.380649e-23 * 300 * 1.28e-3 * 3.90625e6), rel=1e-12)


def test_shot_example_and_fano() -> None:
    sigma = thermal.shot_sigma_A(-100e-6, B)
    assert sigma == pytest.approx(11.19e-9, rel=1e-3)
    assert thermal.shot_sigma_A(100e-6, B, 0.25) == pytest.approx(sigma / 2)
    assert thermal.shot_sigma_A(100e-6, B, 0.0) == 0.0


def test_ktc_examples() -> None:
    assert thermal.ktc_sigma_V(1e-15, 300.0) == pytest.approx(2.03e-3, rel=3e-3)
    assert thermal.ktc_sigma_V(1e-12, 300.0) == pytest.approx(64.36e-6, rel=1e-4)
    # 27 C is 300.15 K; ngspice's .noise integral says 6.4356e-5 V.
    assert thermal.ktc_sigma_V(1e-12, 300.15) == pytest.approx(6.4356e-5, rel=5e-4)


def test_one_over_f_jitter_landauer_examples() -> None:
    assert thermal.one_over_f_sigma(0.01, 1.0, 1e6, 1.0) == pytest.approx(0.0372, rel=2e-3)
    assert thermal.jitter_snr_dB(100e6, 1e-12) == pytest.approx(64.04, abs=0.01)
    assert thermal.landauer_J(300.0) == pytest.approx(2.871e-21, rel=1e-3)


def test_photons() -> None:
    n = thermal.photon_count(1e-6, 1e-9, 193.4e12, 0.8)
    assert n == pytest.approx(1e-6 * 1e-9 * 0.8 / (6.62607015e-34 * 193.4e12), rel=1e-12)
    shot = thermal.photodetector_sigma_A(1e-3, 1e9, 1e30, 300.0)
    assert shot == pytest.approx(thermal.shot_sigma_A(1e-3, 1e9), rel=1e-9)
    # The shot limit: SNR = I / sigma = sqrt(N) of a boxcar window.
    window = 0.5e-9
    electrons = 1e-3 * window / 1.602176634e-19
    assert 1e-3 / shot == pytest.approx(math.sqrt(electrons), rel=1e-9)
    assert thermal.photodetector_sigma_A(0.0, 1e9, 50.0, 300.0) == pytest.approx(
        thermal.johnson_sigma_A(0.02, 1e9, 300.0), rel=1e-12
    )
    assert thermal.photodetector_sigma_A(1.0, 1e9, 1e30, 300.0, 1e-10) == pytest.approx(math.sqrt(0.1), rel=1e-6)


def test_tensors_give_the_numbers_of_floats() -> None:
    g = torch.tensor([0.0, 1e-6, 1.28e-3])
    expected = [thermal.johnson_sigma_A(float(v), B, 300.0) for v in g]
    assert torch.allclose(thermal.johnson_sigma_A(g, B, 300.0), torch.tensor(expected), rtol=1e-5, atol=0)
    current = torch.tensor([-1e-6, 0.0, 1e-4], requires_grad=True)
    for sigma in (
        thermal.shot_sigma_A(current, B),
        thermal.photodetector_sigma_A(current, B, 1e6, 300.0),
    ):
        assert sigma.dtype == torch.float32 and (sigma[[0, 2]] > 0).all()
        (gradient,) = torch.autograd.grad(sigma.sum(), current)
        assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: thermal.boxcar_bandwidth_Hz(0.0), "t_s"),
        (lambda: thermal.johnson_sigma_A(1e-3, 1e6, -3.0), "temperature_K"),
        (lambda: thermal.johnson_sigma_A(-1e-3, 1e6, 300.0), "quantity"),
        (lambda: thermal.shot_sigma_A(1e-6, 1e6, 1.5), "fano"),
        (lambda: thermal.ktc_sigma_V(math.nan, 300.0), "capacitance_F"),
        (lambda: thermal.one_over_f_sigma(0.1, 1.0, 1.0, 2.0), "f_high_Hz"),
        (lambda: thermal.rtn_variance(1.0, 1.2), "probability"),
    ],
)
def test_impossible_numbers_are_named(call: object, word: str) -> None:
    with pytest.raises(InputError, match=f"{word}.*Fix"):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["johnson", "shot", "one_over_f"])
def test_gaussian_noise_has_the_sigma_of_its_formula(name: str) -> None:
    """Rule 9: the law, and a mutant 5 % off (which a wrong factor in a formula would be)."""
    xi = normals((100_000,), 0, name).double()
    sigma, exact = {
        "johnson": (thermal.johnson_sigma_A(1e-3, 1e6, 300.0), (4 * 1.380649e-23 * 300 * 1e-3 * 1e6) ** 0.5),
        "shot": (thermal.shot_sigma_A(1e-6, 1e6), (2 * 1.602176634e-19 * 1e-6 * 1e6) ** 0.5),
        "one_over_f": (thermal.one_over_f_sigma(0.02, 5.0, 1e5, 10.0), 0.1 * math.log(1e4) ** 0.5),
    }[name]
    assert_power(lambda scale: scale * sigma * xi, stats.norm(0, exact), sigma=exact, mean=0.0)


def test_rtn_moments_and_spectrum() -> None:
    p, tau = thermal.rtn_occupancy(3e-3, 1e-3)
    assert p == pytest.approx(0.25) and tau == pytest.approx(0.75e-3)
    assert thermal.rtn_variance(2.0, p) == pytest.approx(4 * 0.25 * 0.75)
    power, _ = integrate.quad(lambda f: thermal.rtn_spectrum(f, 2.0, p, tau), 0, np.inf, limit=200)
    assert power == pytest.approx(thermal.rtn_variance(2.0, p), rel=1e-6)


def test_many_traps_sum_to_one_over_f() -> None:
    f = torch.logspace(0, 3, 40, dtype=torch.float64)
    taus = np.logspace(-7, 3, 2001)
    total = sum(thermal.rtn_spectrum(f, 1.0, 0.5, float(tau)) for tau in taus)
    slope = np.polyfit(np.log(f.numpy()), np.log(np.asarray(total)), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.01)


def _in_binomial(count: int, n: int, p: float) -> bool:
    low, high = stats.binom.ppf([5e-6, 1 - 5e-6], n, p)
    return bool(low <= count <= high)


@pytest.mark.parametrize("dt_s", [0.0, 2e-4, 1e-3, 1.0])
def test_rtn_step_has_the_exact_transition_probability(dt_s: float) -> None:
    n, p, tau = 100_000, 0.3, 1e-3
    u = uniforms((n,), 3, "u", int(dt_s * 1e6))
    for s in (False, True):
        after = thermal.rtn_step(torch.full((n,), s), u, dt_s, tau, p)
        exact = p + (s - p) * math.exp(-dt_s / tau)
        assert _in_binomial(int(after.sum()), n, exact)
        if 0.05 < exact < 0.95:
            assert not _in_binomial(int(after.sum()), n, 1.05 * exact)
    if dt_s == 0.0:
        start = uniforms((n,), 4, "s") < p
        assert torch.equal(thermal.rtn_step(start, u, 0.0, tau, p), start)


def test_rtn_steps_compose_and_keep_the_stationary_law() -> None:
    n, p, tau = 100_000, 0.4, 1.0
    start = uniforms((n,), 5, "start") < p
    one = thermal.rtn_step(start, uniforms((n,), 5, "a"), 0.3, tau, p)
    two = thermal.rtn_step(one, uniforms((n,), 5, "b"), 0.5, tau, p)
    assert _in_binomial(int(two.sum()), n, p)
    both = int((start & two).sum())
    stay = p + (1 - p) * math.exp(-0.8 / tau)
    assert _in_binomial(both, n, p * stay) and not _in_binomial(both, n, 1.05 * p * stay)
    far = thermal.rtn_step(start, uniforms((n,), 5, "c"), 50.0, tau, p)
    assert_independent(start.double(), far.double())
