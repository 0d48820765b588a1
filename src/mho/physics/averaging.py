"""A description whose reads take longer: which noise averages out, and what does not.

    white     sigma -> sigma / sqrt(f)     read noise of the generic cell, output noise, thermal, shot
    1/f       ln((t + f t_read) / (2 f t_read)), hardly smaller      phase-change memory, CMO/HfOx (their own laws)
    frozen    unchanged                    programming error, mismatch, kT/C of a sampled charge, what an ADC lacks

f: read time over the one described. The noise bandwidth of a boxcar is 1 / (2 t), so its variance falls as 1 / t.
Where a technology's read noise has no stated spectrum, it is taken as not averaging: the allocation then buys nothing
with time.
"""

import functools
from dataclasses import replace

from mho.errors import HardwareError
from mho.hardware.cells import Cell, CmoReramCell, GenericCell, PcmCell
from mho.hardware.cost import Cost, Quantity
from mho.hardware.spec import Hardware


@functools.singledispatch
def longer_read_cell(cell: Cell, factor: float) -> Cell:
    """The cell read ``factor`` times as long. Unregistered technologies: no noise of theirs averages out."""
    return cell


@longer_read_cell.register
def _generic(cell: GenericCell, factor: float) -> GenericCell:
    return replace(cell, read_noise=cell.read_noise * factor**-0.5, read_noise_rel=cell.read_noise_rel * factor**-0.5)


@longer_read_cell.register
def _pcm(cell: PcmCell, factor: float) -> PcmCell:
    return replace(cell, t_read_s=cell.t_read_s * factor)


@longer_read_cell.register
def _cmo(cell: CmoReramCell, factor: float) -> CmoReramCell:
    return replace(cell, t_read_s=cell.t_read_s * factor)


def longer_read(hw: Hardware, factor: float) -> Hardware:
    """``hw`` with every read ``factor`` times as long (0 < factor; below 1: shorter), in noise, time and energy.

    ``readout.t_read_s`` grows, and with it the energy V^2 g t of the array; thermal and shot noise follow from it. A
    price of the array that is given a read (``cost.array.read_fJ``) grows in proportion. Raises
    :class:`HardwareError` for a factor that is not finite and above 0.
    """
    if not 0 < factor < float("inf"):
        raise HardwareError(f"{hw.name}: read time factor = {factor!r}: must be finite and above 0.")
    if factor == 1:
        return hw
    return replace(
        hw,
        cell=longer_read_cell(hw.cell, factor),
        output_noise=hw.output_noise * factor**-0.5,
        readout=replace(hw.readout, t_read_s=hw.readout.t_read_s * factor),
        cost=None if hw.cost is None else _longer_cost(hw.cost, factor),
    )


def _longer_cost(cost: Cost, factor: float) -> Cost:
    price = cost.array.read_fJ
    return cost if price is None else replace(cost, array=replace(cost.array, read_fJ=_times(price, factor)))


def _times(price: Quantity, factor: float) -> Quantity:
    return replace(price, low=price.low * factor, typical=price.typical * factor, high=price.high * factor)
