"""Energy, latency and area from the same mapping that sets the noise: see README.md of this folder."""

from mho.costs.api import energy
from mho.costs.constants import Constant, constants_of
from mho.costs.meter import Measured, NotMeasured
from mho.costs.report import EnergyReport, LayerCost
from mho.costs.spread import Spread

__all__ = [
    "Constant",
    "EnergyReport",
    "LayerCost",
    "Measured",
    "NotMeasured",
    "Spread",
    "constants_of",
    "energy",
]
