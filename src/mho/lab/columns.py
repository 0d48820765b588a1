"""What is known of the columns of each tile, and how it is learned from products that were paid for anyway.

A column answers i -> gain i + offset in front of its converter. A network that is trained with these numbers needs no
further correction; a network that was not can be corrected by them digitally.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from mho.hardware.spec import Hardware
from mho.physics.converters import levels


@dataclass(frozen=True, eq=False)
class Columns:
    """Of one tile: ``gain`` [cols], ``offset`` [cols] as a share of the converter's range (half of its full scale)."""

    gain: Tensor
    offset: Tensor

    @staticmethod
    def nominal(cols: int) -> "Columns":
        """Gain 1, offset 0."""
        return Columns(torch.ones(cols), torch.zeros(cols))


ByTile = Mapping[int, Columns]


class Known(Protocol):
    """What is known of a tile's columns now, ``None``: nothing. A mapping by tile, or a stream that still learns."""

    def get(self, tile: int, /) -> Columns | None: ...


def offset_in_lsb(offset: Tensor, hw: Hardware) -> Tensor:
    """The offset in LSB of the description's ADC. 0 where it has no bits to count in."""
    if hw.adc is None or hw.adc.bits is None:
        return torch.zeros_like(offset)
    return offset * levels(hw.adc.bits)


@final
class ColumnStream:
    """Gains and offsets by least squares on the stream of products, forgetting what is old.

    For each column it keeps the moments of (expected current i, measured current I), both in shares of the range, over
    numbers that did not saturate; a new call counts ``1 - forget`` against all before. Then

        gain = (cov(i, I) + p) / (var(i) + p),   offset = mean(I) - gain mean(i)

    with p = ``prior`` times a variance of 1/12: a column that was never driven keeps gain 1. The expectation comes from
    the targets: an error of writing that is new each time averages out over the calls, one that stays does not.
    """

    def __init__(self, start: ByTile | None = None, *, forget: float = 0.95, prior: float = 1e-4) -> None:
        self.start = dict(start or {})
        self.forget = forget
        self.prior = prior / 12
        self._moments: dict[int, Tensor] = {}

    def add(self, tile: int, expected: Tensor, measured: Tensor) -> None:
        """Currents [n, cols] as shares of the range; NaN in ``measured`` and saturated numbers are left out."""
        good = torch.isfinite(measured) & (measured.abs() < 0.98) & (expected.abs() < 0.98)
        zero = torch.zeros_like(expected)
        i, m = torch.where(good, expected, zero).double(), torch.where(good, measured, zero).double()
        now = torch.stack([good.sum(0).double(), i.sum(0), m.sum(0), (i * i).sum(0), (i * m).sum(0)])
        before = self._moments.get(tile)
        self._moments[tile] = now if before is None else self.forget * before + now

    def get(self, tile: int, /) -> Columns | None:
        """What is known of a tile now: learned, or what the stream was started with."""
        if tile not in self._moments:
            return self.start.get(tile)
        count, i, m, ii, im = self._moments[tile]
        n = count.clamp_min(1.0)
        mean_i, mean_m = i / n, m / n
        gain = (im / n - mean_i * mean_m + self.prior) / (ii / n - mean_i**2 + self.prior)
        offset = torch.where(count > 0, mean_m - gain * mean_i, torch.zeros_like(gain))
        return Columns(gain.float(), offset.float())

    def columns(self) -> dict[int, Columns]:
        """What is known now, by tile."""
        known = {tile: self.get(tile) for tile in (*self.start, *self._moments)}
        return {tile: columns for tile, columns in known.items() if columns is not None}

    def state_dict(self) -> dict[str, Tensor]:
        """What was learned, for a checkpoint."""
        return {str(tile): moments for tile, moments in self._moments.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of :meth:`state_dict`."""
        self._moments = {int(tile): moments for tile, moments in state.items()}
