"""Small non-linear circuits against equations solved by bisection."""

import math
import shutil

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from mho.errors import HardwareError, RangeError
from mho.lab.spice import Diode, Resistor, solve_network
from mho.units import BOLTZMANN_J_PER_K, ELEMENTARY_CHARGE_C

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
X = torch.tensor([[-2.0], [0.0], [0.3], [0.7], [1.5]], dtype=torch.float64)


def diode_volts(v: float, g_uS: float, diode: Diode, kelvin: float) -> float:
    """v over a resistor and a diode to the ground: g (v - u) = Is (exp(u / (n k T / q)) - 1)."""
    unit = diode.ideality * BOLTZMANN_J_PER_K * kelvin / ELEMENTARY_CHARGE_C

    def excess(u: float) -> float:
        return diode.saturation_A * math.expm1(u / unit) - g_uS * 1e-6 * (v - u)

    return float(brentq(excess, min(v, 0.0) - 0.1, max(v, 0.0) + 0.01, xtol=1e-15))


@needs_ngspice
@pytest.mark.parametrize("kelvin", [300.0, 350.0])
@pytest.mark.parametrize("diode", [Diode(anode=2, cathode=0), Diode(anode=2, cathode=0, saturation_A=1e-9, ideality=2)])
def test_a_diode_follows_shockley(diode: Diode, kelvin: float) -> None:
    found = solve_network(2, [Resistor(a=1, b=2, g_uS=100.0), diode], [1], X, temperature_K=kelvin)
    exact = [diode_volts(v, 100.0, diode, kelvin) for v in X[:, 0].tolist()]
    assert torch.allclose(found[:, 0], X[:, 0], rtol=0.0, atol=1e-15)
    assert found[:, 1].tolist() == pytest.approx(exact, rel=2e-6, abs=1e-12)
    # ngspice counts k T / q to 6e-7; 1 % of temperature is far more than the test lets through.
    off = [diode_volts(v, 100.0, diode, 1.01 * kelvin) for v in X[3:, 0].tolist()]
    assert found[3:, 1].tolist() != pytest.approx(off, rel=1e-4)


@needs_ngspice
def test_currents_are_injected_into_their_nodes() -> None:
    """A ladder of resistors, with currents: linear, so that the nodal equations say it all."""
    elements = [Resistor(a=1, b=2, g_uS=50.0), Resistor(a=2, b=0, g_uS=30.0), Resistor(a=2, b=3, g_uS=20.0)]
    elements += [Resistor(a=3, b=0, g_uS=10.0), Resistor(a=1, b=3, g_uS=0.0)]
    current_uA = torch.tensor([[9.0, 4.0, -3.0], [0.0, 0.0, 7.0]], dtype=torch.float64)
    x = X[3:]
    found = solve_network(3, elements, [1], x, current_uA)
    nodal = torch.tensor([[100.0, -20.0], [-20.0, 30.0]], dtype=torch.float64)
    right = current_uA[:, 1:] + torch.cat([50.0 * x, 0.0 * x], dim=1)
    assert torch.allclose(found[:, 1:], torch.linalg.solve(nodal, right.t()).t(), rtol=1e-9)


def test_a_floating_node_is_refused() -> None:
    """ngspice would find it some voltage by way of a conductance that is not in the circuit."""
    links = [Resistor(a=1, b=0, g_uS=1.0), Resistor(a=2, b=3, g_uS=1.0), Resistor(a=2, b=1, g_uS=0.0)]
    with pytest.raises(RangeError, match=r"nodes \[2, 3\] have no path to the ground"):
        solve_network(3, links, [1], X)


@pytest.mark.parametrize(
    ("elements", "driven", "inputs", "current", "words"),
    [
        ([Resistor(a=1, b=5, g_uS=1.0)], [1], X, None, r"unknown \[5\]"),
        ([Diode(anode=-1, cathode=1)], [1], X, None, r"unknown \[-1\]"),
        ([], [0], X, None, r"driven \[0\]"),
        ([], [1, 1], torch.cat([X, X], 1), None, r"driven \[1, 1\]"),
        ([], [1], X[:, :0], None, r"Fix: a real \[n, 1\]"),
        ([Resistor(a=1, b=2, g_uS=1.0)], [1], X, X, r"injected_uA is \[5, 1\]. Fix: \[5, 2\]"),
        ([Resistor(a=1, b=2, g_uS=1.0)], [1], X, torch.full((5, 2), torch.nan), "injected_uA has NaN"),
    ],
)
def test_what_is_no_network_is_refused(
    elements: list[Resistor | Diode], driven: list[int], inputs: Tensor, current: Tensor | None, words: str
) -> None:
    with pytest.raises(RangeError, match=words):
        solve_network(2, elements, driven, inputs, current)


def test_elements_check_themselves() -> None:
    with pytest.raises(HardwareError, match=r"Resistor.g_uS = -1.0"):
        Resistor(a=0, b=1, g_uS=-1.0)
    with pytest.raises(HardwareError, match=r"Diode.ideality = 0.0"):
        Diode(anode=0, cathode=1, ideality=0.0)
