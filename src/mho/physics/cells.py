"""The laws of all memory cells: one name a law, whatever the technology.

Importing this module registers every technology of the package.
"""

from torch import Tensor

from mho.hardware.cells import Cell
from mho.physics import flash, generic, pcm, photonic, reram, sram
from mho.physics.laws import (
    ROOM_TEMPERATURE_K,
    age,
    has_read_noise,
    measured_until_s,
    program,
    read_sigma_uS,
    scale_noise,
    static_draws,
    uniform_programming_sigma,
    uniform_read_sigma,
)
from mho.ste import straight_through

TECHNOLOGIES = (generic, pcm, reram, flash, sram, photonic)
"""The modules that registered their laws."""


def quantize_levels(cell: Cell, g_uS: Tensor, *, signed: bool = False) -> Tensor:
    """Round target conductances to the 2**bits levels of the cell, straight-through gradient; uS.

    Levels g_min + k (g_max - g_min)/(2**bits - 1). ``signed``: the same step counted from 0, so that
    ``bits`` are those of the magnitude. ``cell.bits = None``: the identity. Targets beyond the range
    are rounded to the continued grid, never clipped here.
    """
    if cell.bits is None:
        return g_uS
    step = (cell.g_max_uS - cell.g_min_uS) / (2**cell.bits - 1)
    origin = 0.0 if signed else cell.g_min_uS
    return straight_through(origin + step * ((g_uS - origin) / step).round(), g_uS)


__all__ = [
    "ROOM_TEMPERATURE_K",
    "TECHNOLOGIES",
    "age",
    "has_read_noise",
    "measured_until_s",
    "program",
    "quantize_levels",
    "read_sigma_uS",
    "scale_noise",
    "static_draws",
    "uniform_programming_sigma",
    "uniform_read_sigma",
]
