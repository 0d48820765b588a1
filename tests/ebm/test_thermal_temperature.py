"""The temperature of a network on its hardware, against Johnson's formula by hand."""

import math
from dataclasses import replace

import pytest
import torch

from mho.ebm import Clip, Conv, Dense, Dynamics, HopfieldNet, Relaxation, clamp, dense_net, thermal_temperatures
from mho.errors import InputError
from mho.hardware import Environment, GenericCell, Hardware, Mapping, Readout
from mho.testing import assert_law
from mho.units import BOLTZMANN_J_PER_K

CELL = GenericCell(g_min_uS=0.0, g_max_uS=20.0)
HW = Hardware(
    name="warm", cell=CELL, mapping=Mapping(scheme="signed"), readout=Readout(v_read_V=0.2, t_read_s=1e-7),
    environment=Environment(temperature_K=320.0),
)  # fmt: skip


def _full(net: HopfieldNet) -> HopfieldNet:
    """Every weight at its full scale: all cells at g_max."""
    with torch.no_grad():
        for weight, bound in net.bounds():
            weight.copy_(bound.expand_as(weight))
    return net


def _by_hand(cells: float, bound: float, hw: Hardware = HW) -> float:
    """(sigma_I / (g_max v))^2 bound^2 of a line of so many cells at g_max."""
    g = 20e-6
    current = 4 * BOLTZMANN_J_PER_K * hw.environment.temperature_K * cells * g / (2 * hw.readout.t_read_s)
    return current / (g * hw.readout.v_read_V) ** 2 * bound**2


def test_a_dense_network_has_the_noise_of_its_lines() -> None:
    net = _full(dense_net((6,), 3, (8,), bound_sigma=3.0))
    one, two = (float(b) for b in net.full_scales.values())
    hidden, output = thermal_temperatures(net, HW)
    assert hidden == pytest.approx(_by_hand(6, one) + _by_hand(3, two), rel=1e-5)  # drives of inputs, pulls of outputs
    assert output == pytest.approx(_by_hand(8, two), rel=1e-5)


def test_a_kernel_is_a_line_of_its_cells_in_either_direction() -> None:
    layers = (Conv(channels=4), Conv(channels=5), Dense(units=3, activation=Clip(-1.0, 2.0)))
    net = _full(HopfieldNet((2, 6, 6), layers, bound_sigma=3.0))
    bounds = [float(b) for b in net.full_scales.values()]
    first, second, last = thermal_temperatures(net, HW)
    assert first == pytest.approx(_by_hand(2 * 9, bounds[0]) + _by_hand(5 * 9, bounds[1]), rel=1e-5)
    assert second == pytest.approx(_by_hand(4 * 9, bounds[1]) + _by_hand(3, bounds[2]), rel=1e-5)
    assert last == pytest.approx(_by_hand(5 * 36, bounds[2]), rel=1e-5)


def test_it_goes_with_the_kelvins_and_against_the_time_and_the_square_of_the_voltage() -> None:
    net = dense_net((6,), 3, (8,), bound_sigma=3.0)
    base = thermal_temperatures(net, HW)
    for hw, factor in (
        (HW.replace(environment=Environment(temperature_K=640.0)), 2.0),
        (HW.replace(readout=replace(HW.readout, t_read_s=4e-7)), 0.25),
        (HW.replace(readout=replace(HW.readout, v_read_V=0.4)), 0.25),
    ):
        assert thermal_temperatures(net, hw) == pytest.approx([factor * t for t in base], rel=1e-5)


def test_a_layer_at_that_temperature_has_that_variance() -> None:
    net = _full(dense_net((6,), 2, (4,), bound_sigma=3.0))
    with torch.no_grad():
        net.layers[1].weight.zero_()  # the hidden units are alone with their inputs
        net.layers[0].bias.fill_(0.5)
    kt = thermal_temperatures(net, HW)[0]
    x = torch.zeros(30_000, 6)
    system = clamp(net, x, dynamics=Dynamics(read_noise=False, temperature=kt, settle=0, reads=1))
    states = system.run(system.start, Relaxation(1, None), "free phase").states[0]
    assert 6 * math.sqrt(kt) < 0.5  # its bounds are far away
    assert_law(states.flatten() - 0.5, sigma=math.sqrt(kt))


def test_weights_without_full_scale_are_no_conductances() -> None:
    with pytest.raises(InputError, match="bound_sigma"):
        thermal_temperatures(dense_net((6,), 3, (8,)), HW)
