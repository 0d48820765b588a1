"""Pulse responses against their closed forms."""

import math
import pickle

import pytest
import torch
from scipy import stats

from mho.errors import HardwareError, InputError
from mho.physics import update
from mho.physics.update import PulsedDevice
from mho.rng import normals
from mho.testing import assert_power

GONG = update.ExponentialStep(
    amplitude_up=0.00081, amplitude_down=0.36833, gamma_up=12.44625, gamma_down=12.78785, a=0.244, b=0.2425
)
RESPONSES: list[update.Response] = [
    update.ConstantStep(),
    update.LinearStep(gamma_up=-0.5, gamma_down=0.5),
    update.SoftBounds(),
    GONG,
    update.PowerStep(gamma_up=1.5, gamma_down=1.5),
    update.PiecewiseStep(nodes_up=(1.0, 0.8, 0.1), nodes_down=(0.1, 0.8, 1.0)),
]
W = torch.linspace(-0.6, 0.6, 13, dtype=torch.float64)


def test_constant_steps_count() -> None:
    device = PulsedDevice(response=update.ConstantStep())
    w = torch.zeros(4, dtype=torch.float64)
    got = update.step(w, torch.tensor([0, 7, -12, 5000]), device)
    assert torch.allclose(got, torch.tensor([0.0, 0.007, -0.012, 0.6], dtype=torch.float64))
    assert (w == 0).all()


def test_linear_step_is_geometric() -> None:
    device = PulsedDevice(response=update.LinearStep(gamma_up=-1.0, gamma_down=0.5), w_min=-5.0, w_max=5.0, dw_min=0.01)
    n = 40
    up = update.step(torch.zeros(1, dtype=torch.float64), torch.tensor([n]), device)
    assert float(up) == pytest.approx(1.0 - 0.99**n, rel=1e-12)  # w' = dw (1 - w)
    down = update.step(torch.zeros(1, dtype=torch.float64), torch.tensor([-n]), device)
    assert float(down) == pytest.approx(-2.0 * (1 - 0.995**n), rel=1e-12)  # w' = -dw (1 + w / 2)


@pytest.mark.parametrize("n", [1, 10, 500])
def test_soft_bounds_closed_form(n: int) -> None:
    device = PulsedDevice(
        response=update.SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=0.002, w_min=-0.5, w_max=0.8
    )
    up = update.step(torch.zeros(1, dtype=torch.float64), torch.tensor([n]), device)
    assert float(up) == pytest.approx(0.8 * (1 - (1 - 0.002 * 1.25 / 0.8) ** n), rel=1e-10)
    down = update.step(torch.zeros(1, dtype=torch.float64), torch.tensor([-n]), device)
    assert float(down) == pytest.approx(-0.5 * (1 - (1 - 0.002 * 0.75 / 0.5) ** n), rel=1e-10)


def test_exponential_factors() -> None:
    up, down = update.factors(GONG, torch.tensor([0.3], dtype=torch.float64), -0.6, 0.6)
    z = 2 * 0.244 * 0.3 / 1.2 + 0.2425
    assert float(up) == pytest.approx(1 - 0.00081 * math.exp(12.44625 * z), rel=1e-12)
    assert float(down) == pytest.approx(1 - 0.36833 * math.exp(-12.78785 * z), rel=1e-12)
    steep = update.ExponentialStep(amplitude_up=1, amplitude_down=1, gamma_up=5, gamma_down=5, a=1, b=0)
    assert float(update.factors(steep, torch.tensor(0.6), -0.6, 0.6)[0]) == 0.0


def test_power_and_piecewise_factors() -> None:
    w = torch.tensor([-0.6, -0.3, 0.0, 0.6], dtype=torch.float64)
    up, down = update.factors(update.PowerStep(gamma_up=2.0, gamma_down=0.5), w, -0.6, 0.6)
    assert torch.allclose(up, torch.tensor([1.0, 0.5625, 0.25, 0.0], dtype=torch.float64))
    assert torch.allclose(down, torch.tensor([0.0, 0.5, math.sqrt(0.5), 1.0], dtype=torch.float64))
    up, down = update.factors(update.PiecewiseStep(nodes_up=(1.0, 0.6, 0.0), nodes_down=(0.2, 0.4)), w, -0.6, 0.6)
    assert torch.allclose(up, torch.tensor([1.0, 0.8, 0.6, 0.0], dtype=torch.float64))
    assert torch.allclose(down, torch.tensor([0.2, 0.25, 0.3, 0.4], dtype=torch.float64))


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_steps_stay_in_bounds_in_the_right_direction(response: update.Response) -> None:
    device = PulsedDevice(response=response, dw_min=0.05)
    for pulses, sign in ((1, 1.0), (-1, -1.0), (30, 1.0), (-30, -1.0)):
        got = update.step(W, torch.tensor(pulses), device)
        assert (got >= -0.6).all() and (got <= 0.6).all()
        assert (sign * (got - W) >= 0).all() and not torch.equal(got, W)
    assert torch.equal(update.step(W, torch.tensor(0), device), W)
    assert pickle.loads(pickle.dumps(device)) == device


@pytest.mark.parametrize(("s_up", "s_down"), [(1.25, 0.75), (1.0, 1.0), (0.5, 2.0)])
def test_soft_bounds_symmetry_point(s_up: float, s_down: float) -> None:
    device = PulsedDevice(response=update.SoftBounds(slope_up=s_up, slope_down=s_down), w_min=-0.5, w_max=0.8)
    exact = (s_up - s_down) / (s_up / 0.8 - s_down / -0.5)
    found = update.symmetry_point(device)
    assert found == pytest.approx(exact, abs=1e-12)
    assert float(update.asymmetry(torch.tensor(found, dtype=torch.float64), device)) == pytest.approx(0.0, abs=1e-12)


def test_alternating_pulses_drift_to_the_symmetry_point() -> None:
    device = PulsedDevice(response=update.SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=0.01)
    w = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    for _ in range(600):
        w = update.step(update.step(w, torch.tensor(1), device), torch.tensor(-1), device)
    assert torch.allclose(w, torch.full_like(w, update.symmetry_point(device)), atol=0.01)


def test_power_symmetry_point_is_the_middle_and_gong_has_one() -> None:
    assert update.symmetry_point(PulsedDevice(response=RESPONSES[4], w_min=-0.2, w_max=0.6)) == pytest.approx(0.2)
    device = PulsedDevice(response=GONG)
    w = torch.tensor(update.symmetry_point(device), dtype=torch.float64)
    up, down = update.factors(GONG, w, -0.6, 0.6)
    assert float(up) == pytest.approx(float(down), rel=1e-9)


def test_no_symmetry_point_is_an_error() -> None:
    for response in (update.ConstantStep(), update.ConstantStep(scale_up=1.1)):
        with pytest.raises(HardwareError, match="symmetry"):
            update.symmetry_point(PulsedDevice(response=response))


def test_number_of_states() -> None:
    assert update.number_of_states(PulsedDevice(response=update.ConstantStep())) == pytest.approx(1200)
    soft = PulsedDevice(response=update.SoftBounds(slope_up=2.0, slope_down=2.0), dw_min=0.01)
    assert update.number_of_states(soft) == pytest.approx(60)
    frozen = PulsedDevice(response=update.ConstantStep(scale_up=0.0, scale_down=0.0))
    with pytest.raises(HardwareError, match="moves nothing"):
        update.number_of_states(frozen)


def test_cycle_to_cycle_law() -> None:
    n = 100_000
    xi = normals((1, n), 0, "c2c").double()
    w = torch.full((n,), 0.3, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        device = PulsedDevice(response=update.SoftBounds(), dw_min=0.01, c2c=0.3 * scale)
        return update.step(w, torch.tensor(1), device, xi) - w

    assert_power(sample, stats.norm(0.005, 0.3 * 0.005))


def test_mistakes_are_named() -> None:
    device = PulsedDevice(response=update.ConstantStep(), c2c=0.1)
    with pytest.raises(InputError, match="0 normals a device for 3 pulses"):
        update.step(W, torch.tensor(3), device)
    with pytest.raises(InputError, match="2 normals a device for 3 pulses"):
        update.step(W, torch.tensor(-3), device, torch.zeros(2, 13))
    with pytest.raises(HardwareError, match="dw_min"):
        PulsedDevice(response=update.ConstantStep(), dw_min=0.0)
    with pytest.raises(HardwareError, match="nodes_down"):
        update.PiecewiseStep(nodes_up=(1.0, 1.0), nodes_down=(1.0,))
    with pytest.raises(HardwareError, match="both sides of 0"):
        update.factors(update.SoftBounds(), W, 0.0, 1.0)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_factors_are_differentiable_and_slopes_are_their_derivatives(response: update.Response) -> None:
    w = torch.tensor([-0.5, -0.25, 0.1, 0.45], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: update.factors(response, x, -0.6, 0.6), (w,))
    lines = update.slopes(response, w.detach(), -0.6, 0.6)
    if lines is None:
        assert not isinstance(response, update.ConstantStep | update.LinearStep | update.SoftBounds)
        return
    for curve, slope in zip(update.factors(response, w, -0.6, 0.6), lines, strict=True):
        (exact,) = torch.autograd.grad((curve + 0.0 * w).sum(), w)
        assert torch.allclose(slope, exact)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: type(r).__name__)
def test_bounds_may_differ_from_cell_to_cell(response: update.Response) -> None:
    w = torch.tensor([-0.3, 0.0, 0.2], dtype=torch.float64)
    low, high = torch.tensor([-0.6, -0.5, -0.7]).double(), torch.tensor([0.5, 0.6, 0.4]).double()
    both = update.factors(response, w, low, high)
    for i in range(3):
        alone = update.factors(response, w[i : i + 1], float(low[i]), float(high[i]))
        assert all(torch.allclose(a[i : i + 1], b, atol=1e-15) for a, b in zip(both, alone, strict=True))


def test_even_and_odd_part_say_what_an_update_becomes() -> None:
    device = PulsedDevice(response=update.SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=1e-5)
    even, odd = update.odd_even(W, device)
    for n in (1, -1):
        d = 1e-5 * n
        assert torch.allclose(update.step(W, torch.tensor(n), device) - W, d * even - abs(d) * odd, atol=1e-15)
    at = torch.tensor(update.symmetry_point(device), dtype=torch.float64)
    assert float(update.odd_even(at, device)[1]) == pytest.approx(0.0, abs=1e-12)


def test_a_response_without_a_law_is_named() -> None:
    with pytest.raises(HardwareError, match=r"factors: no law for str.*factors\.register"):
        update.factors("soft", W, -0.6, 0.6)
