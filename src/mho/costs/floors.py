"""What physics and the best of the survey allow: lines to hold an estimate against, never a promise.

converters   sum of E_envelope(ENOB)
column       V^2 g t  >=  8 k T (L / fill)^2       thermal noise of the column at most half a least significant bit
             C V^2    >=  4 k T (L / fill)^2       the same of kT/C noise, of columns that add charge
             none for light, whose energy is in lasers and modulators and not in cells
erasure      k T ln 2 for each bit that a conversion gives
"""

from dataclasses import dataclass
from typing import final

from mho.costs.adc import envelope_J
from mho.hardware.cells import PhotonicCell, SramCell
from mho.hardware.spec import Hardware
from mho.physics import converters
from mho.physics.thermal import charge_read_J, column_read_J, landauer_J


@final
@dataclass(frozen=True)
class Floors:
    """Bounds from below, J; ``None`` where the description has no bits to say one, or the technology has none."""

    converters_J: float | None
    column_J: float | None
    erasure_J: float | None


def floors(hw: Hardware, conversions: int, column_reads: int, fill: float | None) -> Floors:
    """Bounds for ``conversions`` and ``column_reads``. ``fill``: as for :func:`column_read_J`, ``None``: 1."""
    bits = None if hw.adc is None else hw.adc.bits
    if hw.adc is None or bits is None:
        return Floors(None, None, None)
    kelvin = hw.environment.temperature_K
    enob = bits if hw.adc.enob is None else hw.adc.enob
    least_J = charge_read_J if isinstance(hw.cell, SramCell) else column_read_J
    column_J = column_reads * least_J(converters.levels(bits), kelvin, 1.0 if fill is None else fill)
    return Floors(
        converters_J=conversions * envelope_J(enob),
        column_J=None if isinstance(hw.cell, PhotonicCell) else column_J,
        erasure_J=conversions * bits * landauer_J(kelvin),
    )
