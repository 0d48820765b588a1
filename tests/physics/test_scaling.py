"""Turning a description's noise up and down, or giving it other bits."""

from dataclasses import replace

import pytest

from mho.errors import HardwareError
from mho.hardware import Adc, Dac, Environment, Hardware, Neuron, Readout, load_hardware, preset_names
from mho.physics.cells import has_read_noise, static_draws
from mho.physics.converters import enob_sigma
from mho.physics.scaling import scale_hardware_noise, with_bits


@pytest.mark.parametrize("name", preset_names())
def test_factor_one_is_the_description_itself(name):
    hw = load_hardware(name)
    assert scale_hardware_noise(hw, 1.0) is hw


@pytest.mark.parametrize("name", preset_names())
def test_factor_zero_leaves_no_randomness(name):
    silent = scale_hardware_noise(load_hardware(name), 0.0)
    assert static_draws(silent.cell) == frozenset()
    assert not has_read_noise(silent.cell)
    assert silent.output_noise == 0
    assert not silent.readout.thermal


def test_enob_noise_scales_with_the_factor():
    hw = Hardware(name="x", adc=Adc(bits=8, enob=6.5))
    doubled = scale_hardware_noise(hw, 2.0)
    assert enob_sigma(8, doubled.adc.enob) == pytest.approx(2 * enob_sigma(8, 6.5), rel=1e-12)


def test_thermal_noise_scales_through_the_temperature():
    hw = Hardware(name="x", readout=Readout(thermal=True, fano=0.1), environment=Environment(temperature_K=300.0))
    doubled = scale_hardware_noise(hw, 2.0)
    assert doubled.environment.temperature_K == pytest.approx(1200.0)
    assert doubled.readout.fano == pytest.approx(0.4)


def test_mismatch_of_the_periphery_scales():
    hw = Hardware(
        name="x",
        dac=Dac(bits=6, gain_d2d=0.01),
        adc=Adc(bits=6, gain_d2d=0.02, offset_d2d_lsb=0.5),
        neuron=Neuron(gain_d2d=0.1, offset_d2d=0.05),
        output_noise=0.03,
    )
    half = scale_hardware_noise(hw, 0.5)
    found = (half.dac.gain_d2d, half.adc.gain_d2d, half.adc.offset_d2d_lsb, half.neuron.gain_d2d, half.output_noise)
    assert found == pytest.approx((0.005, 0.01, 0.25, 0.05, 0.015))


@pytest.mark.parametrize("factor", [-1.0, float("inf"), float("nan")])
def test_impossible_factors_are_errors(factor):
    with pytest.raises(HardwareError, match="noise factor"):
        scale_hardware_noise(Hardware(name="x"), factor)


def test_more_than_full_shot_noise_is_an_error():
    hw = Hardware(name="x", readout=Readout(fano=0.5))
    with pytest.raises(HardwareError, match="full shot noise"):
        scale_hardware_noise(hw, 2.0)


def test_bits_change_both_converters_and_keep_the_lacking_bits():
    hw = Hardware(name="x", dac=Dac(bits=8), adc=Adc(bits=8, enob=7.0))
    four = with_bits(hw, 4)
    assert (four.dac.bits, four.adc.bits, four.adc.enob) == (4, 4, 3.0)
    assert with_bits(hw, 0) is hw
    assert with_bits(replace(hw, dac=None), 4).dac is None
