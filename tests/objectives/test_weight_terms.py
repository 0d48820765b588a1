"""Terms that look at the weights alone: levels, range filling, asymmetry, power."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

import mho
from mho.crossbar.array import mean_abs_conductance_uS
from mho.crossbar.ops import LinearOp
from mho.errors import ConversionError, HardwareError
from mho.hardware import (
    ConstantStep,
    ExponentialStep,
    GenericCell,
    Hardware,
    Mapping,
    PulsedDevice,
    Readout,
    SoftBounds,
    load_hardware,
)
from mho.nn.site import Site
from mho.objectives.asymmetry import asymmetry2, mean_asymmetry, position
from mho.objectives.levels import SCHEDULES, distance2, level_distance, positions
from mho.objectives.power import array_power_uW
from mho.objectives.range_filling import fill_factor, unfilled
from mho.objectives.weights import AnalogWeight, analog_weights, required_weights
from mho.physics import cells, update
from mho.testing.statistics import assert_law, law_holds

SIGNED = Mapping(scheme="signed")


def _hw(bits: int | None = None, **parts: object) -> Hardware:
    return Hardware(name="h", cell=GenericCell(bits=bits, g_min_uS=1.0, g_max_uS=21.0), **parts)  # type: ignore[arg-type]


def _at(w: Tensor, hw: Hardware, bound: Tensor | float | None = 1.0) -> AnalogWeight:
    limit = bound if bound is None or isinstance(bound, Tensor) else torch.tensor(bound, dtype=w.dtype)
    return AnalogWeight(w, Site("layer.weight", LinearOp(w.shape[1], w.shape[0]), hw), limit)


# Levels


@pytest.mark.parametrize("mapping", [SIGNED, Mapping(), Mapping(scheme="offset")])
def test_it_is_zero_exactly_where_rounding_changes_nothing(mapping: Mapping) -> None:
    hw = _hw(3, mapping=mapping)
    count = 14 if mapping.scheme != "offset" else 7
    on = torch.linspace(-1, 1, count + 1, dtype=torch.float64).unsqueeze(0)
    assert float(level_distance([_at(on, hw)])) < 1e-28
    held = _at(on, hw).held()[0]
    torch.testing.assert_close(held, on)
    between = (on[:, 1:] + on[:, :-1]) / 2
    half_way = positions(between, hw)
    assert half_way is not None
    # Of a differential pair one cell rests on its lowest level.
    share = 0.5 if mapping.scheme == "differential" else 1.0
    assert float(distance2(half_way).mean()) == pytest.approx(0.25 * share)


def test_it_is_the_squared_rounding_error_of_the_array_in_steps() -> None:
    hw = _hw(4, mapping=Mapping(scheme="offset"))
    w = torch.rand(5, 7, dtype=torch.float64) * 2 - 1
    step = 2.0 / 15  # a span of two full scales
    error2 = (_at(w, hw).held()[0] - w).square().mean() / step**2
    torch.testing.assert_close(level_distance([_at(w, hw)]), error2)


def test_slices_count_the_steps_of_the_whole_code() -> None:
    hw = _hw(mapping=Mapping(scheme="signed", slices=2, bits_per_slice=2))
    w = torch.tensor([[7 / 15, -1.0, 0.5 / 15]], dtype=torch.float64)
    found = positions(w, hw)
    assert found is not None
    torch.testing.assert_close(distance2(found), torch.tensor([[0.0, 0.0, 0.25]], dtype=torch.float64))


def test_weights_that_know_no_levels_are_uniform_between_them() -> None:
    # Distance of a uniform position: uniform on [-1/2, 1/2]; its mean square is 1/12.
    w = torch.rand(100, 1000, dtype=torch.float64, generator=torch.Generator().manual_seed(4)) * 2 - 1
    hw = _hw(6, mapping=Mapping(scheme="offset"))
    p = positions(w, hw)
    assert p is not None
    law, distance = stats.uniform(-0.5, 1.0), p - p.round()
    assert_law(distance.clamp(-0.49999, 0.49999), law)
    assert not law_holds((distance * 1.05).clamp(-0.49999, 0.49999), law)
    assert not law_holds(distance / 1.05, law)
    assert float(level_distance([_at(w, hw)])) == pytest.approx(1 / 12, rel=0.01)


@given(st.floats(-3, 3), st.integers(1, 8))
def test_distance_is_at_most_a_quarter(x: float, bits: int) -> None:
    value = float(distance2(torch.tensor(x * 2**bits, dtype=torch.float64)))
    assert 0.0 <= value <= 0.25


def test_gradient_points_to_the_nearest_level() -> None:
    hw = _hw(3, mapping=SIGNED)
    w = torch.tensor([[0.31, -0.42, 0.77, -0.9, 0.03]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: level_distance([_at(a, hw)]), w)
    (slope,) = torch.autograd.grad(level_distance([_at(w, hw)]), w)
    rounded = _at(w, hw).held()[0]
    assert bool(((rounded - w).sign() == -slope.sign()).all())


def test_levels_without_bits_are_refused_and_only_cells_with_levels_count() -> None:
    w = torch.full((2, 2), 0.05 / 7, dtype=torch.float64)
    without, with_bits = _at(w, _hw(mapping=SIGNED)), _at(w, _hw(3, mapping=SIGNED))
    with pytest.raises(HardwareError, match=r"no bit depth in the hardware of layer.weight \(h\). Fix: set cell.bits"):
        level_distance([without])
    torch.testing.assert_close(level_distance([without, with_bits]), level_distance([with_bits]))


def test_schedules() -> None:
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    assert [SCHEDULES["constant"](s) for s in shares] == [1.0] * 5
    assert [SCHEDULES["linear"](s) for s in shares] == list(shares)
    assert [SCHEDULES["late"](s) for s in shares] == [0.0, 0.0, 0.0, 0.5, 1.0]


# Range filling


def test_fill_factors_of_known_laws() -> None:
    n = torch.randn(400, 500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hw = _hw(mapping=SIGNED)
    # A normal law clipped at c sigma: E[min(|n|, c)^2] = 1 - 2 c phi(c) - 2 Q(c) + 2 c^2 Q(c).
    for c in (1.5, 2.0, 2.5):
        tail = float(stats.norm.sf(c))
        wanted = math.sqrt(1 - 2 * c * float(stats.norm.pdf(c)) - 2 * tail + 2 * c * c * tail) / c
        assert float(fill_factor(_at(n, hw, c))) == pytest.approx(wanted, rel=5e-3)
    binary = n.sign()
    assert float(fill_factor(_at(binary, hw, None))) == pytest.approx(1.0)
    assert float(unfilled([_at(binary, hw, None)], 0.9)) == 0.0


def test_columns_have_their_own_scale() -> None:
    w = torch.tensor([[1.0, 1.0], [0.1, 0.0]], dtype=torch.float64)
    hw = _hw(mapping=Mapping(scheme="signed", per_column=True))
    torch.testing.assert_close(fill_factor(_at(w, hw, None)), torch.tensor([1.0, 0.5**0.5], dtype=torch.float64))
    bound = torch.tensor([2.0, 0.1], dtype=torch.float64)
    torch.testing.assert_close(fill_factor(_at(w, hw, bound)), torch.tensor([0.5, 0.5**0.5], dtype=torch.float64))


@pytest.mark.parametrize("bound", [None, 1.2])
@pytest.mark.parametrize("per_column", [False, True])
def test_gradient_of_range_filling(bound: float | None, per_column: bool) -> None:
    hw = _hw(mapping=Mapping(scheme="signed", per_column=per_column))
    limit = None if bound is None else torch.full((2,) if per_column else (), bound, dtype=torch.float64)
    w = torch.tensor([[0.3, -0.1, 1.0], [0.2, 0.8, -0.45]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: unfilled([_at(a, hw, limit)], 0.9), w)
    if bound is None:  # the largest weight comes down
        (slope,) = torch.autograd.grad(unfilled([_at(w, hw, None)], 0.9), w)
        assert float(slope[0, 2]) > 0


def test_weights_of_zero_are_not_filled_and_stay_finite() -> None:
    w = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    value = unfilled([_at(w, _hw(mapping=SIGNED), None)], 0.5)
    assert float(value.detach()) == 0.25
    assert bool(torch.isfinite(torch.autograd.grad(value, w)[0]).all())


# Asymmetry

DEVICE = PulsedDevice(response=SoftBounds(slope_up=1.3, slope_down=0.9), w_min=-0.5, w_max=0.8)


def test_it_is_zero_at_the_symmetry_point_and_one_where_a_way_is_shut() -> None:
    star = update.symmetry_point(DEVICE)
    at_star = torch.tensor([[star / 0.5]], dtype=torch.float64)
    assert float(asymmetry2(at_star, DEVICE)) < 1e-20
    full = torch.tensor([[-1.0]], dtype=torch.float64)  # the nearer bound
    assert float(position(full, DEVICE)) == -0.5
    assert float(asymmetry2(full, DEVICE)) == pytest.approx(1.0)


def test_symmetric_soft_bounds_are_the_squared_weight() -> None:
    # f_up = 1 - w/b, f_down = 1 + w/b: the ratio is -w/b.
    device = PulsedDevice(response=SoftBounds(), w_min=-0.7, w_max=0.7)
    w = torch.rand(3, 4, dtype=torch.float64) * 2 - 1
    torch.testing.assert_close(mean_asymmetry([_at(w, _hw(mapping=SIGNED))], device), w.square().mean())


def test_gradient_of_asymmetry() -> None:
    w = torch.tensor([[0.31, -0.42, 0.77, -0.9, 0.03]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: mean_asymmetry([_at(a, _hw(mapping=SIGNED))], DEVICE), w)


def test_the_hardwares_own_device_is_taken_and_the_given_one_wins() -> None:
    w = torch.tensor([[0.5]], dtype=torch.float64)
    own = PulsedDevice(response=SoftBounds(), w_min=-1.0, w_max=1.0)
    weight = _at(w, _hw(mapping=SIGNED, update=own))
    assert float(mean_asymmetry([weight], None)) == pytest.approx(0.25)
    assert float(mean_asymmetry([weight], PulsedDevice(response=ConstantStep()))) == 0.0


def test_devices_that_cannot_hold_the_weights_are_refused() -> None:
    w = torch.tensor([[0.5, 1.0]], dtype=torch.float64)
    with pytest.raises(HardwareError, match=r"layer.weight: asymmetry needs .* 'h' has no update. Fix: device = "):
        mean_asymmetry([_at(w, _hw(mapping=SIGNED))], None)
    with pytest.raises(HardwareError, match=r"w_min = 0.1, w_max = 0.6: a weight of zero is not inside. Fix: bounds"):
        asymmetry2(w, PulsedDevice(response=ConstantStep(), w_min=0.1, w_max=0.6))
    dead = ExponentialStep(amplitude_up=2.0, amplitude_down=2.0, gamma_up=0.0, gamma_down=0.0, a=1.0, b=0.0)
    with pytest.raises(HardwareError, match=r"at w = 0.3 neither an up nor a down pulse of ExponentialStep .*Fix:"):
        asymmetry2(w, PulsedDevice(response=dead))


# Power


def test_power_is_that_of_the_cells() -> None:
    w = torch.tensor([[0.5, -1.0, 0.0]], dtype=torch.float64)
    read = Readout(v_read_V=0.3)
    # Differential, 1 to 21 uS: cells of 11, 1; 1, 21; 1, 1.
    (found,) = [array_power_uW([_at(w, _hw(mapping=Mapping(), readout=read))])]
    assert float(found) == pytest.approx((11 + 1 + 1 + 21 + 1 + 1) / 6 * 0.09)
    # Offset: the span is two full scales, zero sits in the middle.
    found = array_power_uW([_at(w, _hw(mapping=Mapping(scheme="offset"), readout=read))])
    assert float(found) == pytest.approx((16 + 1 + 11) / 3 * 0.09)


def test_power_agrees_with_the_mean_conductance_of_the_crossbar() -> None:
    w = torch.randn(6, 9, dtype=torch.float64)
    for mapping in (SIGNED, Mapping(), Mapping(scheme="offset"), Mapping(per_column=True)):
        hw = _hw(mapping=mapping)
        wanted = mean_abs_conductance_uS(w, hw) * hw.readout.v_read_V**2
        assert float(array_power_uW([_at(w, hw, None)])) == pytest.approx(wanted)


def test_gradient_of_power_and_of_its_slices() -> None:
    w = torch.tensor([[0.31, -0.42, 0.77, -0.9, 0.03]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: array_power_uW([_at(a, _hw(mapping=Mapping()))]), w)
    sliced = _hw(mapping=Mapping(slices=2, bits_per_slice=3))
    # Codes of 6 bits: 63 has both digits at the top, four cells, two of them idle.
    full = torch.ones(1, 1, dtype=torch.float64)
    assert float(array_power_uW([_at(full, sliced)])) == pytest.approx((21 + 1 + 21 + 1) / 4 * 0.04)
    (slope,) = torch.autograd.grad(array_power_uW([_at(w, sliced)]), w)
    # The most significant slice carries the slope; 0.03 has nothing there.
    assert slope.sign().tolist() == [[1, -1, 1, -1, 0]]


# Which weights


def test_tied_weights_are_one_array_and_digital_networks_have_none() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    net[2].weight = net[0].weight  # type: ignore[union-attr]
    assert len(list(analog_weights(mho.convert(net, load_hardware("generic"))))) == 1
    with pytest.raises(ConversionError, match=r"Sequential has no weight on analog hardware.*'power'.*mho.convert"):
        required_weights(net, "power")


@pytest.mark.parametrize("bits", [None, 3])
def test_what_is_held_is_what_the_laws_are_asked_for(bits: int | None) -> None:
    hw = _hw(bits, mapping=Mapping())
    w = torch.tensor([[1.4, -0.3]], dtype=torch.float64)
    (targets,) = _at(w, hw).targets_uS()
    asked = 1.0 + 20.0 * torch.tensor([[[1.0, 0.0]], [[0.0, 0.3]]], dtype=torch.float64)
    torch.testing.assert_close(targets, cells.quantize_levels(hw.cell, asked))
