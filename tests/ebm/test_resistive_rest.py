"""States of rest of resistive networks against the energy, autograd, an independent Newton method and ngspice."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mho.ebm.relax import RelaxationError
from mho.ebm.resistive import (
    Circuit,
    Junction,
    Layered,
    Rest,
    Shockley,
    Solver,
    cocontent_uW,
    deck,
    kirchhoff,
    operating_point,
    resistor_power_uW,
    rest,
    sweeps,
)
from mho.ebm.resistive.diodes import node_voltage
from mho.ebm.resistive.netlist import node_names
from mho.errors import InputError
from mho.lab.spice import Diode, Resistor, simulate, solve_network

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
TIGHT = Solver(tolerance=1e-12)
GAINS = [(1.0, 1.0), (4.0, None), (3.0, 2.0)]
SIZES = {"inputs": 4, "hidden": (5, 4), "outputs": 3, "rail_V": 1.0, "inner_rail_V": 1.0}
DIODES = [None, Shockley(bias_V=0.3), Shockley(saturation_A=1e-14)]


def sample(
    gain: float = 4.0, back: float | None = None, diode: Shockley | None = None, seed: int = 0
) -> tuple[Layered, dict[str, Tensor], Tensor]:
    """Two hidden layers, 1 to 25 uS, inputs of some volts: diodes of both signs conduct."""
    generator = torch.Generator().manual_seed(seed)
    net = Layered(
        inputs=4,
        hidden=(5, 4),
        outputs=3,
        voltage_gain=gain,
        current_gain=back,
        rail_V=1.0,
        inner_rail_V=1.0,
        diode=diode,
    )
    g = {name: 1 + 24 * torch.rand(s, dtype=torch.float64, generator=generator) for name, s in net.shapes.items()}
    return net, g, 2 * torch.randn(6, 4, dtype=torch.float64, generator=generator)


def voltages(found: Rest) -> Tensor:
    return torch.cat(found.states, 1)


@pytest.mark.parametrize("diode", DIODES)
@pytest.mark.parametrize(("gain", "back"), GAINS)
def test_kirchhoffs_laws_hold_at_rest_branch_by_branch(gain: float, back: float | None, diode: Shockley | None) -> None:
    net, g, x = sample(gain, back, diode)
    found = rest(net, g, x, solver=TIGHT)
    assert float(kirchhoff(net, g, found).max()) < 1e-9
    # The certificate sees a millionth: a hidden node and an output that are off by 1e-5 of full scale.
    full = float(voltages(found).abs().max())
    for layer in (0, 2):
        states = [s.clone() for s in found.states]
        states[layer][0] += 1e-5 * full
        moved = Rest(tuple(states), found.given, 0.0, 1, ())
        assert float(kirchhoff(net, g, moved)[0].max()) > 1e-6


def test_float32_at_the_default_tolerance_meets_kirchhoffs_law_to_a_millionth() -> None:
    net, g, x = sample()
    narrow = {name: value.float() for name, value in g.items()}
    found = rest(net, narrow, x.float())
    wide = Rest(tuple(s.double() for s in found.states), found.given, found.residual, found.sweeps, found.residuals)
    assert float(kirchhoff(net, g, wide).median()) < 1e-6
    assert float((voltages(found) - voltages(rest(net, g, x, solver=TIGHT))).abs().max()) < 1e-5


@pytest.mark.parametrize("diode", DIODES)
@pytest.mark.parametrize(("gain", "back"), GAINS)
def test_rest_is_the_minimum_of_the_cocontent(gain: float, back: float | None, diode: Shockley | None) -> None:
    net, g, x = sample(gain, back, diode)
    injected = torch.ones(6, 3, dtype=torch.float64)
    found = rest(net, g, x, injected_uA=injected, solver=TIGHT)
    states = [s.clone().requires_grad_() for s in found.states]
    energy = cocontent_uW(net, g, tuple(states), found.given, injected)
    slopes = torch.autograd.grad(energy.sum(), states)
    for layer, (slope, state) in enumerate(zip(slopes, found.states, strict=True), start=1):
        signs = net.signs(layer)
        if signs is None or diode is not None:
            assert float(slope.abs().max()) < 1e-8
            continue
        assert float((slope * (state != 0)).abs().max()) < 1e-8
        assert float((signs * slope)[state == 0].min()) > 0  # the diode holds the node against the slope
        assert bool((signs * state >= 0).all())


def test_a_sweep_never_raises_the_cocontent() -> None:
    for diode in DIODES:
        net, g, x = sample(diode=diode)
        energy = torch.stack(
            [cocontent_uW(net, g, step.states, step.given) for step in sweeps(net, g, x, solver=TIGHT)]
        )
        assert bool((energy.diff(dim=0) <= 1e-12 * energy.abs().max()).all())
        assert float(energy[0].sum()) > float(energy[-1].sum())


def test_without_diodes_and_gain_half_the_power_is_the_cocontent() -> None:
    net = Layered(inputs=3, hidden=(), outputs=4, rail_V=0.5)
    g = {"layer1": torch.rand(4, 8, dtype=torch.float64) + 0.1}
    found = rest(net, g, torch.randn(5, 3, dtype=torch.float64), solver=TIGHT)
    power = resistor_power_uW(net, g, found.states, found.given).sum(1)
    assert torch.allclose(power, 2 * cocontent_uW(net, g, found.states, found.given))
    far = torch.cat([found.given.sources, torch.tensor([0.5, -0.5], dtype=torch.float64).expand(5, 2)], 1)
    assert torch.allclose(found.outputs, far @ g["layer1"].t() / g["layer1"].sum(1))  # a weighted mean


def test_amplifiers_of_kendall_are_a_change_of_units() -> None:
    """With b = 1/A each layer's voltages are A times those without amplifiers, where rails are off."""
    net, g, x = sample(1.0, 1.0)
    quiet = {name: torch.cat([value[:, :-2], torch.full_like(value[:, -2:], 3.0)], 1) for name, value in g.items()}
    plain = rest(net, quiet, x, solver=TIGHT)
    amplified = rest(
        sample(4.0)[0],
        quiet,
        x,
        solver=TIGHT,
    )
    for layer, (a, b) in enumerate(zip(plain.states, amplified.states, strict=True)):
        assert torch.allclose(a * 4.0**layer, b, rtol=1e-9, atol=1e-12)


@given(
    linear=st.floats(-5, 5),
    total=st.floats(1e-2, 1e5),
    saturation=st.floats(1e-16, 1e-6),
    bias=st.floats(-1, 1),
    sign=st.sampled_from([-1.0, 1.0]),
)
@settings(max_examples=150, deadline=None)
def test_the_voltage_of_a_node_with_a_diode_balances_its_currents(
    linear: float, total: float, saturation: float, bias: float, sign: float
) -> None:
    diode = Shockley(saturation_A=saturation, bias_V=bias)
    one = torch.ones(1, dtype=torch.float64)
    v = node_voltage(linear * one, total * one, sign * one, diode)
    resistors, through = total * (linear - v), sign * diode.current_uA(bias - sign * v)
    # What rounding of the voltages leaves: a few units in the last place, times the slope.
    slope = total + float(diode.slope_uS(bias - sign * v))
    assert float((resistors + through).abs()) <= 1e-14 * slope * (abs(linear) + abs(bias) + 1)


def elements(net: Layered, g: dict[str, Tensor]) -> Circuit:
    """A layered network without gains as a general circuit; nodes: sources, rails, clamps, layers."""
    assert net.diode is not None and net.voltage_gain == 1.0
    sources = list(range(1, 2 * net.inputs + 1))
    high, low, up, down = (2 * net.inputs + k for k in range(1, 5))
    resistors, diodes, before, start = [], [], sources, down + 1
    for layer, size in enumerate(net.sizes, start=1):
        nodes = list(range(start, start + size))
        for k, row in enumerate(g[f"layer{layer}"].tolist()):
            resistors += [(far, nodes[k], value) for far, value in zip([*before, high, low], row, strict=True)]
        signs = net.signs(layer)
        for k, sign in enumerate([] if signs is None else signs.tolist()):
            diodes.append(Junction(up, nodes[k], net.diode) if sign > 0 else Junction(nodes[k], down, net.diode))
        before, start = nodes, start + size
    return Circuit(
        nodes=start - 1, resistors=tuple(resistors), diodes=tuple(diodes), driven=(*sources, high, low, up, down)
    )


@pytest.mark.parametrize("diode", DIODES[1:])
def test_layers_and_newton_on_the_whole_circuit_find_the_same_voltages(diode: Shockley) -> None:
    net, g, x = sample(1.0, 1.0, diode)
    rails = torch.tensor([1.0, -1.0, diode.bias_V, -diode.bias_V], dtype=torch.float64).expand(6, 4)
    found = operating_point(elements(net, g), torch.cat([x, -x, rails], 1))
    assert float(found.residual.max()) < 1e-9
    layers = voltages(rest(net, g, x, solver=TIGHT))
    assert torch.allclose(found.voltages[:, -layers.shape[1] :], layers, rtol=0, atol=1e-9)


@needs_ngspice
@pytest.mark.parametrize("diode", DIODES[1:])
@pytest.mark.parametrize(("gain", "back"), GAINS)
def test_ngspice_finds_the_same_voltages_with_diodes_and_amplifiers(
    gain: float, back: float | None, diode: Shockley
) -> None:
    net, g, x = sample(gain, back, diode)
    injected = torch.linspace(-9, 9, 18, dtype=torch.float64).reshape(6, 3)
    found = voltages(rest(net, g, x, injected_uA=injected, solver=TIGHT))
    plot = simulate(deck(net, g, x, injected))[0]
    spice = torch.from_numpy(np.stack([plot[f"v({name})"].real for name in node_names(net)], 1))
    full = float(found.abs().max())
    assert float((spice - found).abs().max()) < 1e-4 * full
    # The bound is sharp enough to see 1 % of one conductance.
    g["layer1"] = g["layer1"].clone()
    g["layer1"][0] *= 1.01
    g["layer1"][0, 0] *= 1.01
    assert float((spice - voltages(rest(net, g, x, injected_uA=injected, solver=TIGHT))).abs().max()) > 1e-4 * full


@needs_ngspice
def test_ngspice_and_newton_agree_on_a_circuit_that_is_no_layers() -> None:
    """A bridge of four diodes with a load, and a ladder behind it."""
    law = Shockley(saturation_A=1e-14)
    pairs = [(1, 2), (0, 2), (3, 1), (3, 0)]
    resistors = ((2, 3, 100.0), (2, 4, 50.0), (4, 5, 20.0), (5, 3, 10.0), (5, 0, 1.0))
    x = torch.tensor([[-5.0], [-0.5], [0.0], [0.4], [1.0], [5.0]], dtype=torch.float64)
    currents = torch.zeros(6, 5, dtype=torch.float64)
    currents[:, 3] = torch.linspace(-20, 20, 6, dtype=torch.float64)
    circuit = Circuit(nodes=5, resistors=resistors, driven=(1,), diodes=tuple(Junction(a, c, law) for a, c in pairs))
    ours = operating_point(circuit, x, currents)
    parts = [Resistor(a=a, b=b, g_uS=g) for a, b, g in resistors]
    theirs = solve_network(
        5, [*parts, *(Diode(anode=a, cathode=c, saturation_A=1e-14) for a, c in pairs)], [1], x, currents
    )
    assert float((ours.voltages - theirs).abs().max()) < 1e-5 * 5
    assert float(ours.residual.max()) < 1e-9


def test_a_warm_start_ends_at_the_same_state() -> None:
    net, g, x = sample()
    cold = rest(net, g, x, injected_uA=torch.ones(6, 3, dtype=torch.float64), solver=TIGHT)
    free = rest(net, g, x, solver=TIGHT)
    warm = rest(net, g, x, injected_uA=torch.ones(6, 3, dtype=torch.float64), start=free, solver=TIGHT)
    assert torch.allclose(voltages(cold), voltages(warm), rtol=0, atol=1e-11)


def test_negative_conductance_is_named_with_its_place_and_value() -> None:
    net, g, x = sample()
    g["layer2"][1, 3] = -0.25
    with pytest.raises(InputError, match=r"layer2: conductance -0.25 uS between node 1 and node 3"):
        rest(net, g, x)


def test_floating_node_is_named() -> None:
    net, g, x = sample()
    g["layer3"][:, 2] = 0.0
    g["layer2"][2] = 0.0
    with pytest.raises(InputError, match="layer2: 1 of 4 nodes float, the first is 2"):
        rest(net, g, x)
    g["layer3"][0, 2] = 1.0  # one resistor to the next layer is enough
    assert bool(torch.isfinite(voltages(rest(net, g, x))).all())


def test_sweeps_that_do_not_suffice_are_an_error_with_the_residual() -> None:
    net, g, x = sample()
    with pytest.raises(RelaxationError, match=r"met to \d.*after 2 sweeps, wanted 1e-12"):
        rest(net, g, x, solver=Solver(tolerance=1e-12, most_sweeps=2))
    with pytest.raises(InputError, match=r"below what torch\.float32 can resolve"):
        rest(net, {k: v.float() for k, v in g.items()}, x.float(), solver=TIGHT)


def test_newton_that_does_not_converge_is_an_error_with_node_and_numbers() -> None:
    circuit = Circuit(nodes=2, resistors=((1, 2, 10.0),), driven=(1,), diodes=(Junction(2, 0, Shockley()),))
    with pytest.raises(RelaxationError, match=r"after 2 Newton steps node 2 has .* inputs reach 5 V"):
        operating_point(circuit, torch.tensor([[5.0]]), most_steps=2)
    assert operating_point(circuit, torch.tensor([[5.0]])).steps < 30


def test_impossible_circuits_are_refused() -> None:
    with pytest.raises(InputError, match=r"nodes \[2, 3\] float"):
        Circuit(nodes=3, resistors=((2, 3, 1.0), (1, 2, 0.0)), driven=(1,))
    with pytest.raises(InputError, match=r"conductance -1\.0 uS between nodes 1 and 2"):
        Circuit(nodes=2, resistors=((1, 2, -1.0),), driven=(1,))
    with pytest.raises(InputError, match=r"unknown \[7\]"):
        Circuit(nodes=2, resistors=((1, 7, 1.0),), driven=(1,))
    circuit = Circuit(nodes=2, resistors=((1, 2, 1.0),), driven=(1,))
    with pytest.raises(InputError, match="needs finite volts"):
        operating_point(circuit, torch.tensor([[float("nan")]]))


def test_other_bad_input_is_refused() -> None:
    net, g, x = sample()
    with pytest.raises(InputError, match="an input voltage is NaN"):
        rest(net, g, x * float("nan"))
    with pytest.raises(InputError, match=r"floats \[n, 4\]"):
        rest(net, g, x[:, :3])
    with pytest.raises(InputError, match="layer1: a conductance is NaN"):
        rest(net, {**g, "layer1": g["layer1"] * float("inf")}, x)
    with pytest.raises(InputError, match="needed"):
        rest(net, {"layer1": g["layer1"]}, x)
    with pytest.raises(InputError, match="ngspice has no ideal diode"):
        deck(net, g, x)
    with pytest.raises(InputError, match=r"voltage_gain = 0\.0"):
        Layered(inputs=1, hidden=(1,), outputs=1, voltage_gain=0.0)
