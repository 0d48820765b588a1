"""Charge-domain and photonic weights from first principles."""

import math

import pytest
import torch
from scipy import stats

from mho.hardware import PhotonicCell, SramCell
from mho.physics import cells
from mho.testing import assert_power

N = 100_000
BOLTZMANN = 1.380649e-23


def draws(seed: int) -> torch.Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("unit_fF", "sigma"), [(1.0, 0.01), (4.0, 0.005)])
def test_capacitor_mismatch_law(unit_fF: float, sigma: float) -> None:
    cell = SramCell(unit_fF=unit_fF)
    target = torch.ones(N, dtype=torch.float64)
    assert_power(
        lambda scale: cells.program(cells.scale_noise(cell, scale), target, draws(1)) - 1, sigma=sigma, mean=0.0
    )


def test_a_bit_that_is_zero_has_no_error_and_a_sign_keeps_its_own() -> None:
    g = cells.program(SramCell(), torch.tensor([-1.0, 0.0, 1.0]), torch.ones(3), signed=True)
    torch.testing.assert_close(g, torch.tensor([-1.01, 0.0, 1.01]))


def test_ktc_noise_in_volts() -> None:
    """1 fF at 300 K: 2.03 mV (and 64.4 uV at 1 pF), here as a share of the supply."""
    g = torch.ones(2)
    for unit_fF, volts in ((1.0, 2.035e-3), (1000.0, 64.36e-6)):
        sigma = cells.read_sigma_uS(SramCell(unit_fF=unit_fF, supply_V=1.0), g, g, 0.0)
        assert sigma.dim() == 0
        assert sigma.item() == pytest.approx(volts, rel=1e-3)
    cold = cells.read_sigma_uS(SramCell(), g, g, 0.0, temperature_K=75.0)
    assert cold.item() == pytest.approx(cells.read_sigma_uS(SramCell(), g, g, 0.0).item() / 2, rel=1e-6)
    assert cells.read_sigma_uS(SramCell(thermal=False), g, g, 0.0).item() == 0
    assert cells.uniform_read_sigma(SramCell(supply_V=1.0)) == pytest.approx(2.035e-3, rel=1e-3)


def test_errors_of_the_weights_add_up_to_the_ktc_noise_of_the_shared_node() -> None:
    rows = 2304
    cell = SramCell(supply_V=0.8)
    per_weight = cells.read_sigma_uS(cell, torch.ones(1, dtype=torch.float64), torch.ones(1), 0.0).item()
    of_a_sum = math.sqrt(rows) * per_weight
    node_volts = math.sqrt(BOLTZMANN * 300 / (rows * 1e-15))
    assert of_a_sum == pytest.approx(rows * node_volts / 0.8, rel=1e-12)


@pytest.mark.parametrize("target", [0.3, 0.9])
def test_phase_noise_is_cut_at_two_sigma(target: float) -> None:
    cell = PhotonicCell(phase_noise_rad=0.05)

    def sample(scale: float) -> torch.Tensor:
        g = cells.program(cells.scale_noise(cell, scale), torch.full((N,), target, dtype=torch.float64), draws(2))
        return g.arccos() - math.acos(target)

    assert_power(sample, stats.truncnorm(-2, 2, scale=0.05))


def test_shifter_variation_is_relative_and_cut_at_three_sigma() -> None:
    cell = PhotonicCell(gamma_d2d=0.02)
    phase = math.acos(0.3)

    def sample(scale: float) -> torch.Tensor:
        g = cells.program(cells.scale_noise(cell, scale), torch.full((N,), 0.3, dtype=torch.float64), draws(3))
        return g.arccos() / phase - 1

    assert_power(sample, stats.truncnorm(-3, 3, scale=0.02))


def test_both_errors_have_the_variance_of_two_independent_ones() -> None:
    cell = PhotonicCell(phase_noise_rad=0.05, gamma_d2d=0.04)
    phase = math.acos(0.3)
    error = cells.program(cell, torch.full((N,), 0.3, dtype=torch.float64), draws(4)).arccos() - phase
    expected = stats.truncnorm(-2, 2, scale=0.05).var() + stats.truncnorm(-3, 3, scale=0.04 * phase).var()
    assert error.var().item() == pytest.approx(expected, rel=0.02)


def test_amplitudes_have_a_sign_and_stay_physical() -> None:
    cell = PhotonicCell(phase_noise_rad=0.3)
    target = torch.linspace(-1, 1, 1001)
    xi = draws(5)[:1001].float()
    g = cells.program(cell, target, xi, signed=True)
    assert (g.abs() <= 1).all() and (g < 0).any()
    mirrored = cells.program(cell, -target, -xi, signed=True)
    torch.testing.assert_close(mirrored, -g, atol=1e-5, rtol=0)
    assert (cells.program(cell, target.clamp_min(0), xi) >= 0).all()


def test_full_scale_has_a_finite_gradient() -> None:
    target = torch.tensor([-1.0, 0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    g = cells.program(PhotonicCell(phase_noise_rad=0.05), target, torch.ones(4), signed=True)
    (gradient,) = torch.autograd.grad(g.sum(), target)
    assert torch.isfinite(gradient).all() and (gradient > 0.5).all() and (gradient < 1.5).all()


def test_intensity_noise_is_relative() -> None:
    g = torch.tensor([-0.5, 0.0, 1.0])
    torch.testing.assert_close(cells.read_sigma_uS(PhotonicCell(rin=0.01), g, g, 0.0), g.abs() * 0.01)
    assert cells.read_sigma_uS(PhotonicCell(), g, g, 0.0).dim() == 0
