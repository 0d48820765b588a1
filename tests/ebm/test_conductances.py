"""What a chip holds instead of the parameters of an energy model."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mho.ebm import program_cells, programmed, quantized_states, read_noise, state_bits
from mho.errors import HardwareError, InputError
from mho.hardware import Dac, Faults, GenericCell, Hardware, Mapping, Neuron, load_hardware
from mho.rng import normals
from mho.testing import assert_law


def parameters() -> dict[str, torch.Tensor]:
    return {"w": normals((6, 5), 0, "w"), "kernel": normals((4, 3, 2, 2), 0, "k"), "couplings": normals((20,), 0, "j")}


def signed(**cell: float) -> Hardware:
    return Hardware(name="signed", cell=GenericCell(**cell), mapping=Mapping(scheme="signed"))


def test_ideal_hardware_holds_the_very_tensors() -> None:
    wanted = parameters()
    held = programmed(wanted, load_hardware("ideal"), chip_seed=3)
    assert all(held[name] is wanted[name] for name in wanted)


def test_a_chip_is_its_seed_whatever_else_is_on_it() -> None:
    wanted, hw = parameters(), load_hardware("generic-channel")
    first = programmed(wanted, hw, chip_seed=3)
    alone = programmed({"kernel": wanted["kernel"]}, hw, chip_seed=3)
    other = programmed(wanted, hw, chip_seed=4)
    assert torch.equal(first["kernel"], alone["kernel"])
    assert not torch.equal(first["kernel"], other["kernel"])


def test_programming_error_is_that_share_of_the_full_range_and_a_mutant_is_not() -> None:
    wanted = {"w": normals((400, 250), 1, "w").clamp(-1, 1)}
    held = programmed(wanted, signed(programming_noise=0.08), chip_seed=0, bounds={"w": 2.0})["w"]
    error = ((held - wanted["w"]) / (0.08 * 2.0)).double().numpy().ravel()
    from scipy.stats import norm

    assert_law(error, norm())
    with pytest.raises(AssertionError):
        assert_law(error * 1.05, norm())


def test_counter_streams_have_the_same_law() -> None:
    wanted = {"w": torch.zeros(300, 400)}
    held = programmed(wanted, signed(programming_noise=0.08), chip_seed=0, bounds={"w": 1.0}, counter=True)["w"]
    assert abs(float(held.std()) / 0.08 - 1) < 0.01
    again = programmed(wanted, signed(programming_noise=0.08), chip_seed=0, bounds={"w": 1.0}, counter=True)["w"]
    assert torch.equal(held, again)


def test_values_beyond_the_bound_saturate_and_the_gradient_passes() -> None:
    w = torch.tensor([[0.5, 3.0, -3.0]], requires_grad=True)
    held = programmed({"w": w}, signed(), chip_seed=0, bounds={"w": 1.0})["w"]
    assert held.tolist() == [[0.5, 1.0, -1.0]]
    held.sum().backward()
    assert w.grad is not None and bool((w.grad == 1).all())


def test_levels_faults_and_drift_reach_the_values() -> None:
    wanted = {"w": normals((64, 64), 2, "w")}
    few = programmed(wanted, signed(bits=3), chip_seed=0)["w"]
    assert few.unique().numel() == 2 * 7 + 1  # 3 bits of magnitude, and a sign
    pair = Hardware(name="pair", cell=GenericCell(), faults=Faults(stuck_on=0.05))
    stuck = programmed(wanted, pair, chip_seed=0)["w"]
    assert 0.05 < float(((stuck - wanted["w"]).abs() > 1e-4).float().mean()) < 0.15
    pcm = load_hardware("pcm-joshi2020")
    young = programmed(wanted, pcm, chip_seed=0, age="1 hour")["w"]
    old = programmed(wanted, pcm, chip_seed=0, age="1 year")["w"]
    assert float(old.abs().mean()) < 0.9 * float(young.abs().mean())


def test_no_chip_means_no_randomness() -> None:
    wanted, hw = parameters(), signed(programming_noise=0.1)
    held = programmed(wanted, hw, chip_seed=None)
    assert all(torch.allclose(held[name], wanted[name]) for name in wanted)


def test_digital_names_stay_as_they_are() -> None:
    wanted = parameters()
    held = programmed(wanted, load_hardware("generic"), chip_seed=0, digital=("couplings",))
    assert held["couplings"] is wanted["couplings"]
    assert not torch.equal(held["w"], wanted["w"])


@pytest.mark.parametrize("preset", ["generic", "generic-channel", "pcm-hermes", "reram-wan2022"])
@pytest.mark.parametrize("transposed", [False, True])
def test_read_noise_is_the_sum_over_the_cells_that_are_read(preset: str, transposed: bool) -> None:
    cells = program_cells({"w": normals((6, 5), 0, "w")}, load_hardware(preset), chip_seed=1)["w"]
    x = normals((3, 6 if transposed else 5), 0, "x")
    found = read_noise(x, cells, transposed=transposed)
    assert found is not None and cells.read_var is not None
    variance = cells.read_var.expand_as(cells.value)
    exact = (x.square() @ (variance if transposed else variance.t())).sqrt()
    assert torch.allclose(found.expand_as(exact), exact, rtol=1e-5)


def test_noiseless_reads_say_so() -> None:
    cells = program_cells({"w": torch.eye(3)}, signed(programming_noise=0.1), chip_seed=0)["w"]
    assert read_noise(torch.ones(1, 3), cells) is None


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.floats(-2, 0), st.floats(0.5, 3))
def test_quantized_states_lie_on_their_levels_and_nearest(bits: int, low: float, high: float) -> None:
    s = torch.linspace(low, high, 97)
    q = quantized_states(s, bits, low, high)
    step = (high - low) / (2**bits - 1)
    assert float((q - s).abs().max()) <= step / 2 * (1 + 1e-3) + 1e-6
    assert q.unique().numel() <= 2**bits
    assert abs(float(q[0]) - low) < 1e-5 and abs(float(q[-1]) - high) < 1e-5


def test_bits_of_states_are_the_smaller_of_the_converters() -> None:
    assert state_bits(load_hardware("generic")) == 6
    assert state_bits(load_hardware("ideal")) is None
    hw = load_hardware("generic")
    assert hw.dac is not None
    assert state_bits(hw.replace(dac=replace(hw.dac, bits=4))) == 4


def test_refusals_name_the_parameter_and_the_way_out() -> None:
    hw = load_hardware("generic")
    with pytest.raises(InputError, match="w: holds NaN"):
        programmed({"w": torch.full((2, 2), float("nan"))}, hw, chip_seed=0)
    with pytest.raises(InputError, match="no floating tensor"):
        programmed({"w": torch.ones(2, dtype=torch.int64)}, hw, chip_seed=0)
    with pytest.raises(InputError, match="bounds names 'v'"):
        programmed({"w": torch.ones(2)}, hw, chip_seed=0, bounds={"v": 1.0})
    with pytest.raises(InputError, match="a full scale is positive"):
        programmed({"w": torch.ones(2)}, hw, chip_seed=0, bounds={"w": 0.0})
    with pytest.raises(HardwareError, match="neuron"):
        programmed({"w": torch.ones(2)}, hw.replace(neuron=Neuron()), chip_seed=0)
    with pytest.raises(HardwareError, match=r"dac\.gain_d2d"):
        programmed({"w": torch.ones(2)}, hw.replace(dac=Dac(bits=6, gain_d2d=0.1)), chip_seed=0)
    with pytest.raises(InputError, match="bits = 0"):
        quantized_states(torch.ones(2), 0)
