"""Twins fitted from measurements: see README.md of this folder."""

from mho.lab.twin.design import Plan
from mho.lab.twin.estimates import Estimate
from mho.lab.twin.fit import fit, fit_twin
from mho.lab.twin.measure import measure
from mho.lab.twin.measurements import Measurements, load_measurements, save_measurements
from mho.lab.twin.pairs import fit_pairs
from mho.lab.twin.pulses import PulseFit, fit_pulses
from mho.lab.twin.residual import residual_layer
from mho.lab.twin.tables import PairTable, PulseTable, read_measurements
from mho.lab.twin.twin import Twin, column_response, load_twin, merged

__all__ = [
    "Estimate",
    "Measurements",
    "PairTable",
    "Plan",
    "PulseFit",
    "PulseTable",
    "Twin",
    "column_response",
    "fit",
    "fit_pairs",
    "fit_pulses",
    "fit_twin",
    "load_measurements",
    "load_twin",
    "measure",
    "merged",
    "read_measurements",
    "residual_layer",
    "save_measurements",
]
