"""ngspice as referee and as device. See README.md of this folder."""

from mho.lab.spice.access import AccessMosfet, AccessResistor
from mho.lab.spice.device import SpiceDevice
from mho.lab.spice.netlist import crossbar_deck, noise_deck, transient_deck
from mho.lab.spice.network import Diode, Resistor, solve_network
from mho.lab.spice.raw import Plot, parse_raw
from mho.lab.spice.referee import noise_density, noise_reads, solve_columns, solve_superposition
from mho.lab.spice.run import simulate, version

__all__ = [
    "AccessMosfet",
    "AccessResistor",
    "Diode",
    "Plot",
    "Resistor",
    "SpiceDevice",
    "crossbar_deck",
    "noise_deck",
    "noise_density",
    "noise_reads",
    "parse_raw",
    "simulate",
    "solve_columns",
    "solve_network",
    "solve_superposition",
    "transient_deck",
    "version",
]
