"""What pulsed cells do to gradient descent: unbiased steps, stalling, drift, and the known error floor."""

import math

import pytest
import torch
from scipy import optimize, stats
from torch import Tensor, nn

from mho.hardware import ConstantStep, PulsedDevice, SoftBounds
from mho.physics import update
from mho.testing import assert_power
from mho.train import AchievableUpdates

N = 100_000
WIDE = {"w_min": -1.0, "w_max": 1.0}


def cells(n: int, start: float = 0.0, dtype: torch.dtype = torch.float64) -> nn.Parameter:
    return nn.Parameter(torch.full((1, n), start, dtype=dtype))


def push(p: nn.Parameter, opt: torch.optim.Optimizer, gradient: float | Tensor) -> Tensor:
    """One step under ``gradient``; returns the change of each cell."""
    before = p.detach().clone()
    p.grad = torch.as_tensor(gradient, dtype=p.dtype).expand_as(p).clone()
    opt.step()
    return (p.detach() - before).reshape(-1)


@pytest.mark.parametrize("wanted", [0.0003, -0.0137])
def test_the_mean_change_is_the_wanted_one(wanted: float) -> None:
    device = PulsedDevice(dw_min=0.001, c2c=0.3, d2d=0.1, **WIDE)
    p = cells(N)
    change = push(p, AchievableUpdates(torch.optim.SGD([p], lr=1.0), device), -wanted)
    error = 4.5 * float(change.std()) / math.sqrt(N)
    assert abs(float(change.mean()) - wanted) < error
    q = cells(N)
    mutant = push(q, AchievableUpdates(torch.optim.SGD([q], lr=1.0), device, rounding="nearest"), -wanted)
    assert abs(float(mutant.mean()) - wanted) > error


def test_variance_of_one_step() -> None:
    """x = 0.3 of a pulse: Bernoulli, times (1 + c2c xi)(1 + d2d zeta): x (1 + c2c^2)(1 + d2d^2) - x^2."""
    device = PulsedDevice(dw_min=0.01, c2c=0.3, d2d=0.2, **WIDE)
    p = cells(N)
    change = push(p, AchievableUpdates(torch.optim.SGD([p], lr=1.0), device), -0.003) / 0.01
    assert float(change.var()) == pytest.approx(0.3 * 1.09 * 1.04 - 0.09, rel=0.02)


@pytest.mark.parametrize("field", ["c2c", "d2d", "write_noise"])
def test_law_of_each_spread(field: str) -> None:
    """One pulse asked for exactly: its spread is the field's, and 5 % more or less is seen."""
    size = 0.01

    def sample(scale: float) -> Tensor:
        sigma = 0.1 * scale * (size if field == "write_noise" else 1.0)
        p = cells(N)
        device = PulsedDevice(dw_min=size, **WIDE, **{field: sigma})
        return push(p, AchievableUpdates(torch.optim.SGD([p], lr=1.0), device), -size * (1 + 1e-12))

    assert_power(sample, stats.norm(size, 0.1 * size))


def test_a_cell_keeps_its_own_step() -> None:
    device = PulsedDevice(dw_min=0.01, d2d=0.3, **WIDE)
    p = cells(1000)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), device)
    first, second = push(p, opt, -0.01 * (1 + 1e-12)), push(p, opt, -0.01 * (1 + 1e-12))
    assert torch.allclose(first, second)
    assert float(first.std()) == pytest.approx(0.003, rel=0.1)


def quadratic(rounding: str) -> float:
    """Mean distance to the minimum 0.5 of 200 cells after descent whose first step is 0.4 pulses."""
    p = cells(200)
    device = PulsedDevice(dw_min=0.01, **WIDE)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=0.008), device, rounding=rounding)  # type: ignore[arg-type]
    for _ in range(800):
        push(p, opt, p.detach() - 0.5)
    return float((p.detach() - 0.5).abs().mean())


def test_below_half_a_step_rounding_to_nearest_stalls() -> None:
    assert quadratic("nearest") == 0.5
    assert quadratic("stochastic") < 0.06


@pytest.mark.parametrize("start", [-0.8, 0.8])
def test_gradients_that_alternate_drift_to_the_symmetry_point(start: float) -> None:
    device = PulsedDevice(response=SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=0.01, **WIDE)
    p = cells(1000, start)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), device)
    mean = start
    for k in range(500):
        d = -0.007 * (-1.0) ** k
        push(p, opt, -d)
        even, odd = (float(part) for part in update.odd_even(torch.tensor(mean), device))
        mean += d * even - abs(d) * odd
    # F and G are straight lines here, so that the mean follows d F - |d| G exactly.
    assert float(p.detach().mean()) == pytest.approx(mean, abs=4.5 * float(p.detach().std()) / math.sqrt(1000))
    assert mean == pytest.approx(update.symmetry_point(device), abs=0.04)
    assert update.symmetry_point(device) == pytest.approx(0.25)
    flat = cells(200, start)
    opt = AchievableUpdates(torch.optim.SGD([flat], lr=1.0), PulsedDevice(dw_min=0.01, **WIDE))
    for k in range(500):
        push(flat, opt, 0.007 * (-1.0) ** k)
    assert float(flat.detach().mean()) == pytest.approx(start, abs=0.05)


def resting_place(device: PulsedDevice, sigma: float, minimum: float, curvature: float) -> float:
    """w where F(w) E[g] + G(w) E|g| = 0 for g ~ N(curvature (w - minimum), sigma^2)."""

    def drift(w: float) -> float:
        even, odd = update.odd_even(torch.tensor(w, dtype=torch.float64), device)
        mean = curvature * (w - minimum)
        return float(even) * mean + float(odd) * float(stats.foldnorm(abs(mean) / sigma, scale=sigma).mean())

    return float(optimize.brentq(drift, device.w_min, device.w_max))


def stationary(device: PulsedDevice, sigma: float, minimum: float, curvature: float, **options: str) -> float:
    """Mean weight of 4000 cells over 300 steps of noisy descent, after 300 steps to settle."""
    p = cells(4000, minimum, torch.float32)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=0.02), device, **options)  # type: ignore[arg-type]
    generator, total = torch.Generator().manual_seed(0), 0.0
    for k in range(600):
        noise = sigma * torch.randn(1, 4000, generator=generator)
        push(p, opt, curvature * (p.detach() - minimum) + noise)
        total += float(p.detach().mean()) if k >= 300 else 0.0
    return total / 300


TILTED = PulsedDevice(response=SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=0.002, **WIDE)
ROUND = PulsedDevice(response=SoftBounds(), dw_min=0.002, **WIDE)


@pytest.mark.parametrize(
    ("device", "sigma", "minimum"), [(ROUND, 0.5, 0.3), (ROUND, 0.2, 0.3), (TILTED, 0.5, 0.6), (TILTED, 0.5, -0.4)]
)
def test_error_floor_of_an_asymmetric_device(device: PulsedDevice, sigma: float, minimum: float) -> None:
    """Analog SGD rests where F E[g] = -G E|g| (Wu et al. 2024), not in the minimum."""
    predicted = resting_place(device, sigma, minimum, 1.0)
    found = stationary(device, sigma, minimum, 1.0)
    offset = predicted - minimum
    assert abs(offset) > 0.03
    assert found - minimum == pytest.approx(offset, rel=0.03)
    # A prediction without the asymmetry, or with 10 % more of it, would not pass.
    assert abs(0.1 * offset) > 0.03 * abs(offset)
    assert (found - minimum) * (update.symmetry_point(device) - minimum) > 0.0


def test_closed_form_of_the_resting_place() -> None:
    """The docstring's formula: w0 / (1 + E|g| / (h b)), with E|g| there."""
    w = resting_place(ROUND, 0.5, 0.3, 2.0)
    mean = abs(2.0 * (w - 0.3))
    spread = float(stats.foldnorm(mean / 0.5, scale=0.5).mean())
    assert w == pytest.approx(0.3 / (1 + spread / (2.0 * 1.0)), rel=1e-9)


def test_no_error_floor_without_asymmetry_or_with_the_state_known() -> None:
    even = PulsedDevice(response=ConstantStep(), dw_min=0.002, **WIDE)
    # 4000 cells of std 0.05, 300 steps of correlation time 50: standard error 5e-4.
    assert stationary(even, 0.5, 0.3, 1.0) == pytest.approx(0.3, abs=0.0025)
    assert stationary(TILTED, 0.5, 0.6, 1.0, count="state-aware") == pytest.approx(0.6, abs=0.0025)
    assert stationary(TILTED, 0.5, 0.6, 1.0) < 0.55


@pytest.mark.parametrize("wanted", [0.002, -0.007])
def test_threshold_writes_few_cells_without_bias(wanted: float) -> None:
    device = PulsedDevice(write_noise=0.01, **WIDE)
    p = cells(N)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), device, rule="threshold")
    change = push(p, opt, -wanted)
    share = abs(wanted) / 0.01
    assert abs(float(change.mean()) - wanted) < 4.5 * float(change.std()) / math.sqrt(N)
    written = opt.counters["0.0"].writes.reshape(-1) == 1
    assert float(written.double().mean()) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / N))
    assert bool((change[~written] == 0.0).all())
    # T sign(d) or nothing, and on written cells the write noise, of variance T^2: share (T^2 + T^2) - d^2.
    assert float(change.var()) == pytest.approx(2 * share * 1e-4 - wanted**2, rel=0.03)


def test_law_of_a_large_threshold_write() -> None:
    def sample(scale: float) -> Tensor:
        p = cells(N)
        device = PulsedDevice(write_noise=0.01 * scale, **WIDE)
        return push(p, AchievableUpdates(torch.optim.SGD([p], lr=1.0), device, rule="threshold"), -0.05)

    assert_power(sample, stats.norm(0.05, 0.01))
