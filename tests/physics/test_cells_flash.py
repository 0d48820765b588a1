"""SONOS flash against the published fits, computed here with plain floats."""

import math

import pytest
import torch

from mho.hardware import FlashCell, load_hardware
from mho.physics import cells
from mho.testing import assert_power

N = 100_000
DAY = 86_400.0
TABLE = ((19.89, 176.3), (25.59, 186.9), (28.73, 193.6), (31.04, 198.9), (33.76, 204.8), (34.58, 207.3))
US_PER_NA = 16.0 / 1600.0


def cell_() -> FlashCell:
    cell = load_hardware("flash-sonos").cell
    assert isinstance(cell, FlashCell)
    return cell


def sigma_nA(current: float, day: int) -> float:
    height, scale = TABLE[day]
    return height * (1 - math.exp(-current / scale))


def total_std_nA(current: float, t_s: float) -> float:
    target = torch.tensor([current * US_PER_NA], dtype=torch.float64)
    one = torch.ones_like(target)
    first = cells.program(cell_(), target, one) - target
    second = cells.age(cell_(), target, target, t_s, one) - target
    return math.hypot(first.item(), second.item()) / US_PER_NA


@pytest.mark.parametrize("day", range(6))
@pytest.mark.parametrize("current", [10.0, 200.0, 800.0, 1600.0])
def test_published_law_a_day(current: float, day: int) -> None:
    assert total_std_nA(current, day * DAY) == pytest.approx(sigma_nA(current, day), rel=1e-9)


def test_between_days_and_beyond() -> None:
    half = (sigma_nA(800, 1) + sigma_nA(800, 2)) / 2
    assert total_std_nA(800, 1.5 * DAY) == pytest.approx(half, rel=1e-9)
    assert total_std_nA(800, 50 * DAY) == pytest.approx(sigma_nA(800, 5), rel=1e-9)
    assert cells.measured_until_s(cell_()) == 5 * DAY


def test_read_noise_of_the_current_that_flows() -> None:
    g = torch.tensor([0.0, 4.0, 16.0], dtype=torch.float64)
    expected = [12.58 * (1 - math.exp(-current / 215.4)) * US_PER_NA for current in (0.0, 400.0, 1600.0)]
    sigma = cells.read_sigma_uS(cell_(), g, torch.zeros_like(g), 0.0)
    torch.testing.assert_close(sigma, torch.tensor(expected, dtype=torch.float64))


def test_law_of_the_programming_error_and_of_the_fifth_day() -> None:
    target = torch.full((N,), 8.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    xi, eta = torch.randn((2, N), generator=generator, dtype=torch.float64)

    def sample(scale: float, t_s: float) -> torch.Tensor:
        cell = cells.scale_noise(cell_(), scale)
        return cells.age(cell, cells.program(cell, target, xi), target, t_s, eta) - target

    assert_power(lambda scale: sample(scale, 0.0), sigma=sigma_nA(800, 0) * US_PER_NA, mean=0.0)
    assert_power(lambda scale: sample(scale, 5 * DAY), sigma=sigma_nA(800, 5) * US_PER_NA, mean=0.0)


def test_a_cell_that_is_off_stays_off_and_has_a_gradient() -> None:
    target = torch.zeros(3, requires_grad=True)
    g = cells.age(cell_(), cells.program(cell_(), target, torch.ones(3)), target, DAY, torch.ones(3))
    assert torch.equal(g, torch.zeros(3))
    (gradient,) = torch.autograd.grad(g.sum(), target)
    assert torch.isfinite(gradient).all()
