"""PCM against the published formulas, computed here with plain floats."""

import math

import pytest
import torch
from scipy import stats

from mho.hardware import Curve, PcmCell, load_hardware
from mho.physics import cells
from mho.testing import assert_power

N = 100_000
DAY, YEAR = 86_400.0, 31_557_600.0
GHATS = (0.0, 0.01, 0.05, 0.2, 0.25, 0.5, 0.8, 1.0)


def cell_of(preset: str) -> PcmCell:
    cell = load_hardware(preset).cell
    assert isinstance(cell, PcmCell)
    return cell


def draws(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clip(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


def joshi(ghat: float) -> tuple[float, float, float, float]:
    """sigma_P (uS), mu_nu, sigma_nu, Q at g_max = 25 uS."""
    log = math.log(max(ghat, 1e-9))
    q = min(0.0088 / max(ghat, 1e-9) ** 0.65, 0.2)
    sigma = 0.26348 + 1.9650 * ghat - 1.1731 * ghat**2
    return sigma, clip(-0.0155 * log + 0.0244, 0.049, 0.1), clip(-0.0125 * log - 0.0059, 0.008, 0.045), q


def hermes(ghat: float) -> tuple[float, float, float, float]:
    """The same for one device a polarity, g_max = 10.35 uS."""
    log = math.log(max(ghat, 1e-9))
    sigma = 0.15781817 + 2.32443916 * ghat - 2.16310839 * ghat**2 + 0.68841818 * ghat**3
    mean = -0.0436 * ghat**2 - 0.0126 * ghat + 0.0736
    if ghat < 0.0945:
        mean = clip(-0.0387 * log - 0.0182, 0.072, 0.13)
    std = -0.0165 * ghat**2 + 0.0116 * ghat + 0.0104
    if ghat < 0.3039:
        std = clip(-0.0120 * log - 0.0023, 0.0124, 0.04)
    q = 0.0664 * ghat**3 - 0.1352 * ghat**2 + 0.0768 * ghat + 0.0088
    if ghat < 0.1591:
        q = clip(-0.0078 * log + 0.0038, 0.0179, 0.04)
    return sigma, mean, std, q


@pytest.mark.parametrize("t_s", [1.0, DAY, YEAR])
@pytest.mark.parametrize("ghat", GHATS)
@pytest.mark.parametrize(
    ("preset", "law", "t0_s", "t_read_s"),
    [("pcm-joshi2020", joshi, 20.0, 250e-9), ("pcm-hermes", hermes, 200.0, 512e-9)],
)
def test_published_polynomials(preset, law, t0_s, t_read_s, ghat, t_s) -> None:  # type: ignore[no-untyped-def]
    cell = cell_of(preset)
    sigma, mean, std, q = law(ghat)
    target = torch.tensor([ghat * cell.g_max_uS], dtype=torch.float64)
    one = torch.ones_like(target)
    g_prog = cells.program(cell, target, 0.7 * one)
    assert g_prog.item() == pytest.approx(ghat * cell.g_max_uS + 0.7 * sigma, rel=1e-9)
    g = cells.age(cell, g_prog, target, t_s, -1.3 * one)
    expected = g_prog.item() * ((t_s + t0_s) / t0_s) ** -abs(mean - 1.3 * std)
    assert g.item() == pytest.approx(expected, rel=1e-9)
    noise = expected * q * math.sqrt(math.log((t_s + t_read_s) / (2 * t_read_s)))
    assert cells.read_sigma_uS(cell, g, target, t_s).item() == pytest.approx(noise, rel=1e-9)


def test_numbers_worked_out_by_hand() -> None:
    cell = cell_of("pcm-joshi2020")
    target = torch.tensor([12.5], dtype=torch.float64)
    assert cells.program(cell, target, torch.ones(1)).item() - 12.5 == pytest.approx(0.952705, abs=1e-6)
    # nu = 0.049 at half scale: 25 s leave (2.25)^-0.049 = 96.1 %, a year 49.7 %.
    year = cells.age(cell, target, target, YEAR, None).item() / 12.5
    assert year == pytest.approx(math.exp(-0.049 * math.log(1 + YEAR / 20)), rel=1e-9)
    assert year == pytest.approx(0.497, abs=0.001)


def test_programming_error_follows_its_law() -> None:
    cell = cell_of("pcm-joshi2020")
    target = torch.full((N,), 12.5, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        return cells.program(cells.scale_noise(cell, scale), target, draws(1)) - target

    assert_power(sample, sigma=joshi(0.5)[0], mean=0.0)


def test_programming_error_is_clipped_at_zero() -> None:
    cell = cell_of("pcm-joshi2020")
    g = cells.program(cell, torch.zeros(N, dtype=torch.float64), draws(2))
    assert abs((g == 0).double().mean().item() - 0.5) < 5 * 0.5 / math.sqrt(N)
    assert_power(
        lambda scale: cells.program(cells.scale_noise(cell, scale), torch.zeros(N), draws(2))[g > 0].double(),
        stats.halfnorm(scale=0.26348),
    )


@pytest.mark.parametrize("ghat", [0.05, 0.5])
def test_drift_exponents_follow_their_law(ghat: float) -> None:
    cell = cell_of("pcm-joshi2020")
    _, mean, std, _ = joshi(ghat)
    target = torch.full((N,), ghat * 25.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        g = cells.age(cells.scale_noise(cell, scale), target, target, DAY, draws(3))
        return -(g / target).log() / math.log((DAY + 20) / 20)

    # |N(mean, std)|: at low conductance the fold at 0 is part of the law.
    assert_power(sample, stats.foldnorm(mean / std, scale=std))


def test_read_noise_scales_with_the_dial() -> None:
    for preset in ("pcm-joshi2020", "pcm-hermes"):
        cell = cell_of(preset)
        g = torch.linspace(0, cell.g_max_uS, 9)
        single = cells.read_sigma_uS(cell, g, g, DAY)
        torch.testing.assert_close(cells.read_sigma_uS(cells.scale_noise(cell, 3.0), g, g, DAY), 3 * single)


def test_scaling_noise_leaves_mean_drift_alone() -> None:
    cell = cell_of("pcm-hermes")
    assert cells.scale_noise(cell, 0.3).drift_mean == cell.drift_mean  # type: ignore[union-attr]


def test_no_read_noise_before_the_first_read_is_over() -> None:
    cell = cell_of("pcm-joshi2020")
    g = torch.full((4,), 12.5)
    for t_s in (0.0, 1e-9, cell.t_read_s):
        assert torch.equal(cells.read_sigma_uS(cell, g, g, t_s), torch.zeros(4))
    assert (cells.read_sigma_uS(cell, g, g, 2 * cell.t_read_s) > 0).all()


# The same mistakes cannot happen here (numbers: PHYSICS.md, faults found in public tools).


def test_fault_1_transposed_digit() -> None:
    cell = cell_of("pcm-joshi2020")
    a, b = (cells.program(cell, torch.tensor([g], dtype=torch.float64), torch.ones(1)).item() - g for g in (0.0, 1e-6))
    slope = (b - a) / 1e-6
    assert slope == pytest.approx(1.9650 / 25, rel=1e-4)
    assert slope != pytest.approx(0.0768, rel=1e-2)


def test_fault_1_and_4_agree_with_an_independent_fit_of_the_same_chip() -> None:
    """The fit of CrossSim's PCM model (facts only), sigma in uS against G in uS, has the same size."""
    cell = cell_of("pcm-joshi2020")
    for g in (1.0, 5.0, 12.5, 20.0, 25.0):
        other = -0.00178767 * g**2 + 0.07585724 * g + 0.28638599
        ours = cells.program(cell, torch.tensor([g], dtype=torch.float64), torch.ones(1)).item() - g
        assert ours == pytest.approx(other, rel=0.09)


def test_fault_6_age_zero_works_and_a_device_is_never_redrawn() -> None:
    cell = cell_of("pcm-joshi2020")
    target, xi = torch.linspace(0, 25, 50), draws(4, 50).float()
    g_prog = cells.program(cell, target, draws(5, 50).float())
    assert torch.equal(cells.age(cell, g_prog, target, 0.0, xi), g_prog)
    alone = cells.age(cell, g_prog, target, YEAR, xi)
    cells.age(cell, g_prog, target, DAY, xi)
    assert torch.equal(cells.age(cell, g_prog, target, YEAR, xi), alone)


def test_fault_7_read_noise_belongs_to_the_drifted_conductance() -> None:
    cell = cell_of("pcm-joshi2020")
    target = torch.tensor([12.5], dtype=torch.float64)
    g = cells.age(cell, target, target, YEAR, None)
    ratio = cells.read_sigma_uS(cell, g, target, YEAR) / cells.read_sigma_uS(cell, target, target, YEAR)
    assert ratio.item() == pytest.approx(g.item() / 12.5, rel=1e-12)
    assert ratio.item() < 0.6
    # ... and it grows with the age of the cell at one conductance: it is not frozen.
    now = cells.read_sigma_uS(cell, g, target, YEAR) / cells.read_sigma_uS(cell, g, target, 1.0)
    assert now.item() == pytest.approx(math.sqrt(math.log(YEAR / 5e-7) / math.log((1 + 250e-9) / 5e-7)), rel=1e-6)


def test_curve_switches_at_its_split() -> None:
    from mho.physics.functions import curve

    law = Curve(log_slope=-1.0, log_offset=0.0, low=0.0, high=2.0, split=0.5, polynomial=(5.0, 1.0))
    ghat = torch.tensor([0.0, 0.4999, 0.5, 1.0], dtype=torch.float64)
    expected = [2.0, -math.log(0.4999), 5.5, 6.0]
    torch.testing.assert_close(curve(law, ghat), torch.tensor(expected, dtype=torch.float64))
