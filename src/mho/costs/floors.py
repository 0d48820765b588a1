"""What physics and the best of the survey allow: lines to hold an estimate against, never a promise.

converters   sum of E_envelope(ENOB)
column       V^2 g t  >=  8 k T (L / fill)^2       thermal noise of the column at most half a least significant bit
erasure      k T ln 2 for each bit that a conversion gives
"""

from dataclasses import dataclass
from typing import final

from mho.costs.adc import envelope_J
from mho.hardware.spec import Hardware
from mho.physics import converters
from mho.physics.thermal import landauer_J
from mho.units import BOLTZMANN_J_PER_K


@final
@dataclass(frozen=True)
class Floors:
    """Bounds from below, J; ``None`` where the description has no bits to say one."""

    converters_J: float | None
    column_J: float | None
    erasure_J: float | None


def column_floor_J(bits: int, temperature_K: float, fill: float = 1.0) -> float:
    """Energy of the cells of one column in one read at full drive, at least: 8 k T (L / fill)^2.

    Noise of a column of conductance G read for t (boxcar, B = 1 / 2t): sqrt(4 k T G B); half of its least significant
    bit: fill V G / (2 L), with L levels a side and an ADC range of ``fill`` times the largest current. G drops out.
    8 bits, 300 K, fill 1: 0.53 fJ.
    """
    levels = converters.levels(bits)
    return float(8 * BOLTZMANN_J_PER_K * temperature_K * (levels / fill) ** 2)


def floors(hw: Hardware, conversions: int, column_reads: int, fill: float | None) -> Floors:
    """Bounds for ``conversions`` and ``column_reads``. ``fill``: as for :func:`column_floor_J`, ``None``: 1."""
    bits = None if hw.adc is None else hw.adc.bits
    if hw.adc is None or bits is None:
        return Floors(None, None, None)
    kelvin = hw.environment.temperature_K
    enob = bits if hw.adc.enob is None else hw.adc.enob
    return Floors(
        converters_J=conversions * envelope_J(enob),
        column_J=column_reads * column_floor_J(bits, kelvin, 1.0 if fill is None else fill),
        erasure_J=conversions * bits * landauer_J(kelvin),
    )
