"""Analog layers and the conversion of networks: see README.md of this folder."""

from mho.nn.attention import MultiheadAttention
from mho.nn.conv import Conv
from mho.nn.conversion import calibrate, convert, inspect, new_chip, set_censoring, set_noise_scale, to_digital
from mho.nn.linear import Linear
from mho.nn.recurrent import Recurrent, RecurrentCell
from mho.nn.site import AnalogLayer, Site, Substrate, analog_layers, project_
from mho.nn.stochastic import StochasticResidual
from mho.nn.stochastic_blocks import stochastic_block

__all__ = [
    "AnalogLayer",
    "Conv",
    "Linear",
    "MultiheadAttention",
    "Recurrent",
    "RecurrentCell",
    "Site",
    "StochasticResidual",
    "Substrate",
    "analog_layers",
    "calibrate",
    "convert",
    "inspect",
    "new_chip",
    "project_",
    "set_censoring",
    "set_noise_scale",
    "stochastic_block",
    "to_digital",
]
