"""Deep resistive networks: resistors, diodes and sources whose state of rest is the answer. See README.md."""

from mho.ebm.resistive.chips import conductances_uS, on_chip
from mho.ebm.resistive.circuit import Circuit, Junction, OperatingPoint, operating_point
from mho.ebm.resistive.cost import InferenceCost, inference_cost
from mho.ebm.resistive.diodes import Shockley
from mho.ebm.resistive.energy import cocontent_uW, resistor_power_uW
from mho.ebm.resistive.implicit import implicit_gradients
from mho.ebm.resistive.judge import evaluate_on_chips
from mho.ebm.resistive.learning import Nudged, ep_gradients
from mho.ebm.resistive.model import Learning, ResistiveNetwork
from mho.ebm.resistive.netlist import deck
from mho.ebm.resistive.network import Layered
from mho.ebm.resistive.solve import Rest, Solver, kirchhoff, rest, sweeps

__all__ = [
    "Circuit",
    "InferenceCost",
    "Junction",
    "Layered",
    "Learning",
    "Nudged",
    "OperatingPoint",
    "ResistiveNetwork",
    "Rest",
    "Shockley",
    "Solver",
    "cocontent_uW",
    "conductances_uS",
    "deck",
    "ep_gradients",
    "evaluate_on_chips",
    "implicit_gradients",
    "inference_cost",
    "kirchhoff",
    "on_chip",
    "operating_point",
    "resistor_power_uW",
    "rest",
    "sweeps",
]
