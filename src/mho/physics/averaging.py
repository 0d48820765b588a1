"""A description whose reads take longer or are repeated: which noise averages out, and what does not.

                longer (f)        repeated (m)
    white       sigma / sqrt(f)   sigma / sqrt(m)      read noise of the generic cell, output noise, thermal, shot
    sampled     unchanged         sigma / sqrt(m)      kT/C of a sampled charge, what an ADC's bits lack
    1/f         hardly smaller: ln((t + f m t_read) / (2 f m t_read))    phase-change memory, CMO/HfOx (their own laws)
    rounding    unchanged         what noise dithers   see :func:`persisting_rounding`
    frozen      unchanged         unchanged            programming error, mismatch, rounding of the DAC

f: read time over the one described; m: whole reads that are converted and averaged digitally. The noise bandwidth of a
boxcar is 1 / (2 t), so its variance falls as 1 / t. Where a technology's read noise has no stated spectrum, it is taken
as not averaging and as the same in all repeats of a read: the allocation then buys nothing with time.
"""

import functools
import math
from dataclasses import replace

import torch
from torch import Tensor

from mho.errors import HardwareError
from mho.hardware.cells import Cell, CmoReramCell, GenericCell, PcmCell, SramCell
from mho.hardware.cost import Cost, Quantity
from mho.hardware.spec import Hardware, Readout

_FEW_LSB = 0.15
_HARMONICS = 3
"""Above ``_FEW_LSB`` of noise the fourth harmonic is below 1e-7, below it the closed form is right to 1e-5."""


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


def fresh_each_read(cell: Cell) -> bool:
    """Whether the cell's read noise is another in each of several reads made one after the other.

    True for white noise (generic) and for a charge that is sampled anew (SRAM). False for 1/f noise, most of which is
    slower than a few reads, and where no spectrum is stated.
    """
    return isinstance(cell, (GenericCell, SramCell))


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


def repeated_read(hw: Hardware, repeats: int) -> Hardware:
    """``hw`` with ``repeats`` whole reads of each product where it has one: every read drives and converts again.

    Raises :class:`HardwareError` for less than one.
    """
    return replace(hw, readout=replace(hw.readout, repeats=repeats * hw.readout.repeats)) if repeats != 1 else hw


def column_windows(readout: Readout, columns: int) -> tuple[float, ...]:
    """Share of the read time for which each of ``columns`` output channels is integrated; empty: all of it.

    Raises :class:`HardwareError` for a description that was made for another number of output channels.
    """
    _check_columns("column_windows", readout.column_windows, columns)
    return readout.column_windows


def column_repeats(readout: Readout, columns: int) -> tuple[int, ...]:
    """Reads of each of ``columns`` output channels; empty: ``readout.repeats`` of all.

    Raises :class:`HardwareError` for a description that was made for another number of output channels.
    """
    _check_columns("column_repeats", readout.column_repeats, columns)
    return readout.column_repeats


def _check_columns(name: str, values: tuple[float, ...], columns: int) -> None:
    if values and len(values) != columns:
        raise HardwareError(
            f"readout.{name} holds {len(values)} numbers, the layer has {columns} output channels. Way out: one number "
            "an output channel; a description of columns belongs to one layer (mho.allocation.applied sets it)."
        )


def column_effort(readout: Readout, columns: int, *, timed: bool = True) -> tuple[float, ...]:
    """Reads times window of each output channel: what its cells draw, over one whole read.

    ``timed=False``: reads alone, for a charge that a longer read does not raise.
    """
    windows = column_windows(readout, columns) if timed else ()
    counts = column_repeats(readout, columns)
    return tuple((counts[c] if counts else readout.repeats) * (windows[c] if windows else 1.0) for c in range(columns))


def persisting_rounding(sigma_lsb: Tensor) -> Tensor:
    """Share of the rounding error Delta^2 / 12 that is the same in every repeat of a read.

    rho(s) = (6 / pi^2) sum_k exp(-4 pi^2 k^2 s^2) / k^2  ~  1 - 12 s / sqrt(pi) + 12 s^2  for small s

    s = sigma / Delta of the noise in front of the converter, of any shape, at least 0. Noise moves a signal across
    codes, so that the mean over many reads tells more than one code (dither): the mean of m reads errs by
    Delta^2/12 (rho + (1 - rho) / m) beside noise / m. Signals evenly spread over codes; normal noise. rho(0) = 1:
    without noise all repeats give one code; rho(0.5) = 3e-5. Gray and Stockham, "Dithered quantizers",
    IEEE Trans. Inf. Theory 39 (1993).
    """
    few = 1 - 12 * sigma_lsb / math.sqrt(math.pi) + 12 * sigma_lsb.square()
    harmonics = sum(torch.exp(-4 * (math.pi * k * sigma_lsb).square()) / k**2 for k in range(1, _HARMONICS + 1))
    assert isinstance(harmonics, Tensor)
    return torch.where(sigma_lsb < _FEW_LSB, few, harmonics * (6 / math.pi**2))
