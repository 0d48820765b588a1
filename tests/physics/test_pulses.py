"""Trains of pulses: closed forms against one pulse at a time, laws of every spread, unbiased rounding."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from mho.errors import HardwareError, InputError
from mho.hardware.update import (
    ConstantStep,
    ExponentialStep,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    PulsedDevice,
    Response,
    SoftBounds,
)
from mho.physics import pulses as trains
from mho.physics import update
from mho.physics.pulses import Cells, nominal_cells, pulse_train, pulses_towards, spread_cells
from mho.rng import normals, uniforms
from mho.testing import assert_independent, assert_law, assert_power, law_holds

N = 100_000
STRAIGHT: list[Response] = [
    ConstantStep(scale_up=1.2, scale_down=0.8),
    LinearStep(gamma_up=-0.9, gamma_down=-1.3),
    SoftBounds(slope_up=1.25, slope_down=0.75),
]
CURVED: list[Response] = [
    ExponentialStep(amplitude_up=0.05, amplitude_down=0.07, gamma_up=4.0, gamma_down=3.0, a=0.5, b=0.1),
    PowerStep(gamma_up=1.5, gamma_down=0.7),
    PiecewiseStep(nodes_up=(1.0, 0.8, 0.1), nodes_down=(0.1, 0.8, 1.0)),
]


def cells_of(device: PulsedDevice, n: int) -> Cells:
    return spread_cells(device, normals((4, n), 3, "cells").double())


def oracle(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells) -> Tensor:
    """The plainest loop: one pulse on one cell."""
    out = []
    for i in range(len(w)):
        own = cells.at(torch.tensor([i]))
        at = w[i : i + 1].clone()
        for _ in range(abs(int(pulses[i]))):
            up, down = update.factors(device.response, at, own.w_min, own.w_max)
            move = own.gain_up * up if pulses[i] > 0 else -own.gain_down * down
            at = torch.clamp(at + device.dw_min * move, own.w_min, own.w_max)
        out.append(at)
    return torch.cat(out)


@pytest.mark.parametrize("response", STRAIGHT + CURVED, ids=lambda r: r.kind)
def test_a_train_is_one_pulse_after_the_other(response: Response) -> None:
    device = PulsedDevice(response=response, dw_min=0.01, d2d=0.2, d2d_asymmetry=0.1, d2d_bounds=0.1)
    pulses = torch.tensor([0, 1, -1, 2, -3, 16, 17, -16, -17, 60, -80, 400, 5, -400], dtype=torch.float64)
    cells = cells_of(device, len(pulses))
    w = torch.linspace(-0.35, 0.35, len(pulses), dtype=torch.float64)
    kept = w.clone()
    got = pulse_train(w, pulses, device, cells)
    assert torch.allclose(got, oracle(w, pulses, device, cells), atol=1e-12)
    assert torch.equal(w, kept)
    moved = (got - w).sign()
    assert torch.equal(moved.abs() > 0, pulses != 0)
    assert (moved * pulses >= 0).all()
    # The parts of the closed form are exercised: a wrong growth would show.
    assert not torch.allclose(got, w + 0.01 * pulses * cells.gain_up)


@pytest.mark.parametrize("response", STRAIGHT + CURVED, ids=lambda r: r.kind)
def test_cycle_to_cycle_normals_are_those_of_step(response: Response) -> None:
    device = PulsedDevice(response=response, dw_min=0.01, c2c=0.3)
    w = torch.linspace(-0.4, 0.4, 40, dtype=torch.float64)
    for n in (1, -7):
        pulses = torch.full_like(w, n)
        xi = normals((abs(n), 40), 1, "xi").double()
        cells = nominal_cells(device, w)
        assert trains.normals_needed(w, pulses, device, cells) == xi.numel()
        expected = update.step(w, pulses, device, xi)
        assert torch.allclose(pulse_train(w, pulses, device, cells, xi.reshape(-1)), expected, atol=1e-14)
        assert not torch.allclose(expected, update.step(w, pulses, device, torch.zeros_like(xi)), atol=1e-4)


@given(
    st.lists(st.tuples(st.floats(-0.4, 0.4), st.integers(-300, 300)), min_size=1, max_size=12),
    st.sampled_from(STRAIGHT),
    st.floats(0.0, 0.4),
)
@settings(max_examples=30, deadline=None)
def test_trains_add_up(cases: list[tuple[float, int]], response: Response, share: float) -> None:
    device = PulsedDevice(response=response, dw_min=0.003)
    w = torch.tensor([case[0] for case in cases], dtype=torch.float64)
    n = torch.tensor([case[1] for case in cases], dtype=torch.float64)
    first = (share * n).round()
    cells = nominal_cells(device, w)
    halfway = pulse_train(w, first, device, cells)
    assert torch.allclose(pulse_train(halfway, n - first, device, cells), pulse_train(w, n, device, cells), atol=1e-11)


def test_long_trains_have_the_law_of_single_pulses() -> None:
    """The closed form's std is exact: trains simulated one by one follow it, and 5 % off does not."""
    device = PulsedDevice(response=SoftBounds(), dw_min=0.004, c2c=0.5)
    n, w = 40, torch.full((N,), 0.1, dtype=torch.float64)
    xi = normals((n, N), 0, "law").double()
    size, beta, count = torch.tensor(0.004 * (1 - 0.1 / 0.6)), torch.tensor(-0.004 / 0.6), torch.tensor(40.0)
    mean = float(trains.distance(size.double(), beta.double(), count.double()))
    sigma = float(trains.distance_std(size.double(), beta.double(), count.double(), 0.5))

    def sample(scale: float) -> Tensor:
        return update.step(w, torch.tensor(n), device, scale * xi) - w

    assert_power(sample, stats.norm(mean, sigma))
    drawn = normals((N,), 1, "law").double()
    cells = nominal_cells(device, w)
    assert trains.normals_needed(w, torch.full_like(w, n), device, cells) == N
    assert_law(pulse_train(w, torch.full_like(w, n), device, cells, drawn) - w, stats.norm(mean, sigma))


def test_std_of_equal_steps_is_the_square_root_law() -> None:
    size, n = torch.tensor(0.01, dtype=torch.float64), torch.tensor(25.0, dtype=torch.float64)
    for beta in (0.0, 1e-12, -1e-12):
        got = trains.distance_std(size, torch.tensor(beta, dtype=torch.float64), n, 0.3)
        assert float(got) == pytest.approx(0.01 * 0.3 * 5.0, rel=1e-9)


def test_std_of_shrinking_and_growing_steps_is_the_exact_second_moment() -> None:
    """w - w* is multiplied by r + beta c2c xi a pulse: its second moment by r^2 + (beta c2c)^2."""
    size, n = torch.tensor(0.01, dtype=torch.float64), torch.tensor(7.0, dtype=torch.float64)
    for beta in (-0.3, 0.2):
        r = 1.0 + beta
        exact = 0.01 / abs(beta) * math.sqrt((r**2 + (beta * 0.4) ** 2) ** 7 - r**14)
        got = trains.distance_std(size, torch.tensor(beta, dtype=torch.float64), n, 0.4)
        assert float(got) == pytest.approx(exact, rel=1e-10)


def test_device_to_device_laws() -> None:
    xi = normals((4, N), 0, "d2d").double()

    def made(scale: float) -> Cells:
        device = PulsedDevice(
            d2d=0.1 * scale, d2d_asymmetry=0.05 * scale, d2d_bounds=0.08 * scale, w_min=-0.5, w_max=0.8
        )
        return spread_cells(device, xi)

    assert_power(lambda s: 0.5 * (made(s).gain_up + made(s).gain_down) - 1.0, sigma=0.1, mean=0.0)
    assert_power(lambda s: 0.5 * (made(s).gain_up - made(s).gain_down), sigma=0.05, mean=0.0)
    assert_power(lambda s: made(s).w_max - 0.8, sigma=0.08 * 0.8, mean=0.0)
    assert_power(lambda s: made(s).w_min + 0.5, sigma=0.08 * 0.5, mean=0.0)
    assert_independent(made(1.0).w_max, made(1.0).w_min)
    # One up pulse of a constant step has the law of the gain.
    device = PulsedDevice(d2d=0.1, dw_min=0.01)
    w = torch.zeros(N, dtype=torch.float64)
    step = pulse_train(w, torch.ones_like(w), device, spread_cells(device, xi))
    assert_law(step, stats.norm(0.01, 0.001))


def test_wild_cells_are_stuck_not_reversed() -> None:
    device = PulsedDevice(d2d=1.0, d2d_bounds=1.0)
    cells = spread_cells(device, normals((4, 10_000), 0, "wild"))
    assert float(cells.gain_up.min()) == 0.0
    assert float(cells.w_max.min()) == pytest.approx(0.006)
    assert float(cells.w_min.max()) == pytest.approx(-0.006)


@pytest.mark.parametrize("x", [0.0, 0.3, 1.0, 7.75])
def test_stochastic_rounding_is_unbiased(x: float) -> None:
    u = uniforms((N,), 0, "round", str(x)).double()
    got = trains.round_stochastic(torch.full_like(u, x), u)
    assert set(got.unique().tolist()) <= {math.floor(x), math.floor(x) + 1.0}
    share = x - math.floor(x)
    error = 4.5 * math.sqrt(share * (1 - share) / N)
    assert abs(float(got.mean()) - x) <= error + 1e-12
    if share:
        # The mutant: rounding to the nearest.
        nearest = trains.round_stochastic(torch.full_like(u, x), torch.full_like(u, 0.5))
        assert abs(float(nearest.mean()) - x) > error
        assert float(got.var()) == pytest.approx(share * (1 - share), rel=0.03)


@pytest.mark.parametrize("d", [-0.3, 0.001, 0.9, 1.0, 2.5, 0.0])
def test_threshold_rounding_is_unbiased(d: float) -> None:
    u = uniforms((N,), 0, "threshold").double()
    got = trains.round_threshold(torch.full_like(u, d), 1.0, u)
    if abs(d) >= 1.0:
        assert (got == d).all()
        return
    assert set(got.unique().tolist()) <= {0.0, math.copysign(1.0, d)}
    sigma = math.sqrt(abs(d) * (1 - abs(d)))
    assert abs(float(got.mean()) - d) <= 4.5 * sigma / math.sqrt(N) + 1e-12
    if d:
        mutant = trains.round_threshold(torch.full_like(u, d * 1.05), 1.0, u)
        assert float(mutant.std()) != float(got.std())


@pytest.mark.parametrize("response", STRAIGHT + CURVED, ids=lambda r: r.kind)
@pytest.mark.parametrize("d", [0.004, -0.004, 0.063, -0.1])
def test_state_aware_count_is_unbiased_in_the_weight(response: Response, d: float) -> None:
    device = PulsedDevice(response=response, dw_min=0.01)
    u = uniforms((N,), 0, "aware").double()
    w = torch.full_like(u, 0.3)
    n, away = pulses_towards(torch.full_like(u, d), w, device, u)
    change = pulse_train(w, n, device, nominal_cells(device, w)) - w
    assert not away.any()
    assert len(n.unique()) == 2
    error = 4.5 * float(change.std()) / math.sqrt(N)
    assert abs(float(change.mean()) - d) <= error
    # The mutant: the count of a device with f = 1 is off by far more.
    n = d / abs(d) * trains.round_stochastic(torch.full_like(u, abs(d) / 0.01), u)
    change = pulse_train(w, n, device, nominal_cells(device, w)) - w
    assert abs(float(change.mean()) - d) > error


def test_curved_and_straight_counts_agree() -> None:
    """A straight line given as nodes goes the way of curved responses."""
    straight = PulsedDevice(response=SoftBounds(), dw_min=0.01)
    nodes = PulsedDevice(response=PiecewiseStep(nodes_up=(2.0, 0.0), nodes_down=(0.0, 2.0)), dw_min=0.01)
    u = uniforms((2000,), 0, "agree").double()
    w = uniforms((2000,), 1, "agree").double() - 0.5
    d = 0.4 * (uniforms((2000,), 2, "agree").double() - 0.5)
    n, away = pulses_towards(d, w, straight, u)
    m, gone = pulses_towards(d, w, nodes, u)
    assert (n == m)[~away].double().mean() > 0.999
    assert torch.equal(away, gone)
    assert 0 < int(away.sum()) < 200


def test_out_of_reach_is_said() -> None:
    for response in (ConstantStep(), SoftBounds(), PowerStep(gamma_up=1.0, gamma_down=1.0)):
        device = PulsedDevice(response=response, dw_min=0.01)
        w = torch.tensor([0.5, 0.5, 0.6, -0.6], dtype=torch.float64)
        d = torch.tensor([0.02, 0.5, 0.1, -0.1], dtype=torch.float64)
        n, away = pulses_towards(d, w, device, torch.full_like(w, 0.5))
        assert away.tolist() == [False, True, True, True]
        reached = pulse_train(w, n, device, nominal_cells(device, w))
        assert float(reached[1]) == pytest.approx(0.6, abs=0.003)
        assert n[2] == n[3] == 0.0


def test_symmetry_point_of_each_cell() -> None:
    device = PulsedDevice(response=SoftBounds(slope_up=1.25, slope_down=0.75), d2d_asymmetry=0.1, d2d_bounds=0.1)
    cells = cells_of(device, 50)
    up, down = 1.25 * cells.gain_up, 0.75 * cells.gain_down
    exact = (up - down) / (up / cells.w_max - down / cells.w_min)
    assert torch.allclose(trains.symmetry_points(device, cells), exact, atol=1e-12)
    nominal = nominal_cells(device, torch.zeros((), dtype=torch.float64))
    assert float(trains.symmetry_points(device, nominal)) == pytest.approx(update.symmetry_point(device), abs=1e-12)
    flat = PulsedDevice(response=ConstantStep())
    assert trains.symmetry_points(flat, nominal_cells(flat, torch.zeros(()))).isnan()


def test_alternating_trains_drift_to_each_cells_own_symmetry_point() -> None:
    device = PulsedDevice(response=SoftBounds(slope_up=1.25, slope_down=0.75), dw_min=0.005, d2d_asymmetry=0.2)
    cells = cells_of(device, 200)
    w = torch.linspace(-0.5, 0.5, 200, dtype=torch.float64)
    one = torch.ones_like(w)
    for _ in range(800):
        w = pulse_train(pulse_train(w, one, device, cells), -one, device, cells)
    assert torch.allclose(w, trains.symmetry_points(device, cells), atol=0.006)
    assert float(trains.symmetry_points(device, cells).std()) > 0.05


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    device = PulsedDevice(c2c=0.1)
    w = torch.zeros(3)
    cells = nominal_cells(device, w)
    with pytest.raises(InputError, match="pulse_train: 2 normals for 6"):
        pulse_train(w, torch.tensor([1.0, -2.0, 3.0]), device, cells, torch.zeros(2))
    curved = PulsedDevice(response=CURVED[1])
    with pytest.raises(HardwareError, match="20000 pulses on one cell, at most 10000"):
        pulse_train(w, torch.tensor([2e4, 0.0, 0.0]), curved, cells)
    monkeypatch.setattr(trains, "LONGEST_TRAIN", 100)
    fine = PulsedDevice(response=CURVED[1], dw_min=1e-4)
    with pytest.raises(HardwareError, match=r"a change of 0\.5 takes more than 100 pulses"):
        pulses_towards(torch.full((1,), 0.5), torch.zeros(1), fine, torch.zeros(1))


def test_a_law_that_is_off_is_seen() -> None:
    """The check of the closed form is not blind to a missing power of r."""
    size, beta, n = 0.004 * (1 - 0.1 / 0.6), -0.004 / 0.6, 40
    device = PulsedDevice(response=SoftBounds(), dw_min=0.004, c2c=0.5)
    w = torch.full((N,), 0.1, dtype=torch.float64)
    got = update.step(w, torch.tensor(n), device, normals((n, N), 0, "law").double()) - w
    mean = size * ((1 + beta) ** n - 1) / beta
    assert not law_holds(got, stats.norm(mean, size * 0.5 * math.sqrt(n)))
