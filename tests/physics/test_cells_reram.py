"""Filamentary and CMO ReRAM against the published fits, computed here with plain floats."""

import math
from dataclasses import replace

import pytest
import torch

from mho.errors import HardwareError
from mho.hardware import CmoReramCell, ReramCell, load_hardware
from mho.physics import cells
from mho.testing import assert_power

N = 100_000
DAY = 86_400.0
WAN = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}


def wan() -> ReramCell:
    cell = load_hardware("reram-wan2022").cell
    assert isinstance(cell, ReramCell)
    return cell


def cmo() -> CmoReramCell:
    cell = load_hardware("reram-cmo").cell
    assert isinstance(cell, CmoReramCell)
    return cell


def draws(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def total_std(cell: ReramCell, g: float, t_s: float) -> float:
    """Standard deviation of programming and aging together, from their unit responses."""
    target, one = torch.tensor([g], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    first = cells.program(cell, target, one).item() - g
    second = cells.age(cell, target, target, t_s, one).item() - g
    return math.hypot(first, second)


@pytest.mark.parametrize("t_s", WAN)
@pytest.mark.parametrize("ghat", [0.05, 0.25, 0.3125, 0.5, 0.8, 1.0])
def test_wan_polynomials(ghat: float, t_s: float) -> None:
    sigma = sum(c * ghat**k for k, c in enumerate(WAN[t_s]))
    assert total_std(wan(), 40.0 * ghat, t_s) == pytest.approx(sigma, rel=1e-9)


def test_wan_times_between_the_measured_ones_are_accepted() -> None:
    hour = math.log(3600) / math.log(DAY)
    a, b = (sum(c * 0.5**k for k, c in enumerate(WAN[t])) for t in (1.0, DAY))
    assert total_std(wan(), 20.0, 3600.0) == pytest.approx((1 - hour) * a + hour * b, rel=1e-9)
    assert total_std(wan(), 20.0, 0.5) == pytest.approx(a, rel=1e-9)
    assert total_std(wan(), 20.0, 30 * DAY) == pytest.approx(total_std(wan(), 20.0, 2 * DAY), rel=1e-12)
    assert cells.measured_until_s(wan()) == 2 * DAY


def test_wan_read_noise_is_one_percent() -> None:
    g = torch.tensor([0.0, 10.0, 40.0])
    torch.testing.assert_close(cells.read_sigma_uS(wan(), g, g, 1.0), torch.tensor([0.0, 0.1, 0.4]))


@pytest.mark.parametrize("t_s", [1.0, DAY])
def test_wan_law(t_s: float) -> None:
    cell = wan()
    target = torch.full((N,), 30.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        noisy = cells.scale_noise(cell, scale)
        return cells.age(noisy, cells.program(noisy, target, draws(1)), target, t_s, draws(2)) - target

    assert_power(sample, sigma=sum(c * 0.75**k for k, c in enumerate(WAN[t_s])), mean=0.0)


def test_fault_2_the_reference_conductance_is_applied() -> None:
    """A cell used up to 25 uS has at 12.5 uS the error measured at 12.5 uS: 2.30 uS, not 2.02."""
    narrow = replace(wan(), g_max_uS=25.0)
    assert total_std(narrow, 12.5, 1.0) == pytest.approx(2.2999, abs=1e-3)
    assert total_std(narrow, 12.5, 1.0) == pytest.approx(total_std(wan(), 12.5, 1.0), rel=1e-12)
    with pytest.raises(HardwareError, match="g_max_uS"):
        replace(wan(), g_max_uS=41.0)


def test_a_fit_that_shrinks_adds_nothing_and_has_a_gradient() -> None:
    cell = ReramCell(g_ref_uS=40.0, times_s=(1.0, 10.0), sigma_uS=((1.0,), (0.5,)))
    target = torch.tensor([20.0], requires_grad=True)
    g = cells.age(cell, cells.program(cell, target, torch.ones(1)), target, 10.0, torch.ones(1))
    assert g.item() == 21.0
    (gradient,) = torch.autograd.grad(g.sum(), target)
    assert gradient.item() == 1.0


@pytest.mark.parametrize("g", [9.0, 30.0, 88.2])
@pytest.mark.parametrize("t_s", [1.0, 3600.0, DAY, 31_557_600.0])
def test_cmo_formulas(g: float, t_s: float) -> None:
    cell = cmo()
    target, one = torch.tensor([g], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    programmed = cells.program(cell, target, one)
    assert programmed.item() == pytest.approx(g + 0.0112185391 + 0.01129027418 * g, rel=1e-12)
    aged = cells.age(cell, programmed, target, t_s, -2 * one)
    log_t = math.log(t_s)
    expected = programmed.item() - 0.08900206 * log_t - 2 * (0.04201137 * log_t + 0.41183342)
    assert aged.item() == pytest.approx(expected, rel=1e-12)
    read = 0.0277316483 * math.log10(expected) * math.sqrt(math.log((t_s + 1e-6) / 2e-6))
    assert cells.read_sigma_uS(cell, aged, target, t_s).item() == pytest.approx(read, rel=1e-9)


def test_cmo_relaxation_law() -> None:
    cell = cmo()
    target = torch.full((N,), 50.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        return cells.age(cells.scale_noise(cell, scale), target, target, DAY, draws(3)) - target

    log_t = math.log(DAY)
    assert_power(sample, sigma=0.41183342 + 0.04201137 * log_t, mean=-0.08900206 * log_t)


def test_fault_3_the_acceptance_window_is_the_one_that_is_named() -> None:
    hw = load_hardware("reram-cmo")
    assert "2 %" in hw.summary
    one = torch.ones(1, dtype=torch.float64)
    sigma = cells.program(hw.cell, 50 * one, one).item() - 50
    assert sigma == pytest.approx(0.575732, abs=1e-6)
    assert sigma > 5 * (0.00081107 + 0.00106879 * 50)


def test_conductances_have_no_sign() -> None:
    for cell in (wan(), cmo()):
        with pytest.raises(HardwareError, match="differential"):
            cells.program(cell, torch.ones(2), torch.ones(2), signed=True)
