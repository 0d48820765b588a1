"""Fused CPU kernels: noise, quantisation and clipping in one pass. Compiled on first use, never needed.

Every function works on every machine: where no C compiler is found, :mod:`mho.crossbar.kernels.reference` (numpy and
torch) computes the same bits, slower. :func:`available` and :func:`status` say which of the two runs, and why.
"""

from mho.crossbar.kernels.gradients import noise_slope, pass_inside_, unclipped
from mho.crossbar.kernels.layout import dense, is_dense, like_layout
from mho.crossbar.kernels.native import available, status
from mho.crossbar.kernels.noise import add_normal, normal_
from mho.crossbar.kernels.prepared import PreparedAdc, PreparedDac
from mho.crossbar.kernels.reference import Readout
from mho.crossbar.kernels.rounding import absmax_sumsq, adc_, quantize

__all__ = [
    "PreparedAdc",
    "PreparedDac",
    "Readout",
    "absmax_sumsq",
    "adc_",
    "add_normal",
    "available",
    "dense",
    "is_dense",
    "like_layout",
    "noise_slope",
    "normal_",
    "pass_inside_",
    "quantize",
    "status",
    "unclipped",
]
