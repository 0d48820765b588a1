"""Bilinear couplings -<t, A(s)> between a layer t and an earlier one s, each with its two directions and gradient.

``drive``: A(s), what t receives. ``pull``: d<t, A(s)>/ds, what s receives: the same cells read the other way round.
``gradient``: d<t, A(s)>/dw summed over the batch, a product of what both ends of a cell see: the local rule.
``*_variance``: variance of one read of drive or pull, from the variance of one cell.
"""

from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.ebm.conductances import Cells, read_noise
from mho.ebm.hopfield.layers import Pool
from mho.ebm.hopfield.pooling import pool, pull, windows


@final
@dataclass(frozen=True)
class Full:
    """A(s) = W s, w [units, inputs]."""

    name: str
    source_shape: tuple[int, ...]
    linear = True
    analytic = True

    def drive(self, s: Tensor, w: Tensor) -> Tensor:
        return _real(lambda part: part.flatten(1) @ w.t(), s)

    def pull(self, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return _real(lambda part: (part @ w).reshape(-1, *self.source_shape), t)

    def add_drive(self, pre: Tensor, s: Tensor, w: Tensor) -> Tensor:
        if s.is_complex():
            return pre + self.drive(s, w)
        return torch.addmm(pre, s.flatten(1), w.t())

    def add_pull(self, pre: Tensor, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        if t.is_complex():
            return pre + self.pull(t, s, w)
        return torch.addmm(pre.flatten(1), t, w).reshape(pre.shape)

    def gradient(self, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return t.t() @ s.flatten(1)

    def drive_variance(self, s: Tensor, cells: Cells) -> Tensor:
        sigma = read_noise(s.flatten(1), cells)
        assert sigma is not None
        return sigma.square_()

    def pull_variance(self, t: Tensor, s: Tensor, cells: Cells) -> Tensor:
        sigma = read_noise(t, cells, transposed=True)
        assert sigma is not None
        found = sigma.square_()
        return found.reshape(len(t), *([1] * len(self.source_shape))) if found.shape[1] == 1 else found.reshape_as(s)


@final
@dataclass(frozen=True)
class Kernel:
    """A(s) = pool(w * s), w [channels, channels of s, k, k]."""

    name: str
    stride: int
    padding: int
    pool: Pool | None
    window: int
    source_shape: tuple[int, ...]

    @property
    def linear(self) -> bool:
        return self.pool in (None, "average")

    @property
    def analytic(self) -> bool:
        return self.pool != "max"

    def drive(self, s: Tensor, w: Tensor) -> Tensor:
        return pool(self._conv(s, w), self.pool, self.window)

    def pull(self, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return _real(lambda part: self._back(part, w), self._spread(t, s, w))

    def add_drive(self, pre: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return _added(self.drive(s, w), pre)

    def add_pull(self, pre: Tensor, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return _added(self.pull(t, s, w), pre)

    def gradient(self, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        spread = self._spread(t, s, w)
        if not (spread.is_complex() or s.is_complex()):
            return self._weight_gradient(spread, s, w)
        spread, s = spread + 0j, s + 0j
        real = self._weight_gradient(spread.real, s.real, w) - self._weight_gradient(spread.imag, s.imag, w)
        imag = self._weight_gradient(spread.real, s.imag, w) + self._weight_gradient(spread.imag, s.real, w)
        return torch.complex(real, imag)

    def drive_variance(self, s: Tensor, cells: Cells) -> Tensor:
        """Pooling by average divides the variance by the window; max and soft let about one read of it through."""
        variance, energy = cells.read_var, s.square()
        assert variance is not None
        if variance.numel() in (1, len(cells.value)):  # one variance a map, or for all
            ones = energy.new_ones((1, 1, *cells.value.shape[2:]))
            found = self._conv(energy.sum(1, keepdim=True), ones) * variance.reshape(-1, 1, 1)
        else:
            found = self._conv(energy, variance)
        if self.pool is None:
            return found
        return windows(found, self.window).mean(-1) / (self.window**2 if self.pool == "average" else 1)

    def pull_variance(self, t: Tensor, s: Tensor, cells: Cells) -> Tensor:
        variance = cells.read_var
        assert variance is not None
        energy = self._spread(t, s, cells.value).square()
        if variance.numel() in (1, len(cells.value)):
            summed = (energy * variance.reshape(-1, 1, 1)).sum(1, keepdim=True)
            return self._back(summed, energy.new_ones((1, 1, *cells.value.shape[2:])))
        return self._back(energy, variance)

    def _conv(self, s: Tensor, w: Tensor) -> Tensor:
        return _real(lambda part: F.conv2d(part, w, None, self.stride, self.padding), s)

    def _spread(self, t: Tensor, s: Tensor, w: Tensor) -> Tensor:
        return pull(t, None if self.linear else self._conv(s, w), self.pool, self.window)

    def _back(self, spread: Tensor, w: Tensor) -> Tensor:
        height, width = self.source_shape[1:]
        extra = [
            side + 2 * self.padding - kernel - (size - 1) * self.stride
            for side, kernel, size in zip((height, width), w.shape[2:], spread.shape[2:], strict=True)
        ]
        return F.conv_transpose2d(spread, w, None, self.stride, self.padding, extra)

    def _weight_gradient(self, spread: Tensor, s: Tensor, w: Tensor) -> Tensor:
        if w.shape[2:] == (1, 1) and self.padding == 0:
            # A plain product; oneDNN's own (torch 2.13, AVX2) writes past its memory for 3 channels at a stride of 2.
            seen = s[:, :, :: self.stride, :: self.stride]
            return torch.einsum("bohw,bihw->oi", spread, seen).reshape(w.shape)
        _, found, _ = torch.ops.aten.convolution_backward(
            spread, s, w, None, [self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], 1, [False, True, False]
        )
        return found


@final
@dataclass(frozen=True)
class Unit:
    """A(s) = s: a wire from unit to unit, without parameters."""

    name: None = None
    linear = True
    analytic = True

    def drive(self, s: Tensor) -> Tensor:
        return s

    def pull(self, t: Tensor) -> Tensor:
        return t


Coupling = Full | Kernel


def _added(fresh: Tensor, pre: Tensor) -> Tensor:
    """``pre + fresh`` in the memory of ``fresh``, which nobody else has, where it can hold the sum."""
    if fresh.requires_grad or pre.requires_grad or (pre.is_complex() and not fresh.is_complex()):
        return pre + fresh
    return fresh.add_(pre)


def _real(apply, part: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """A real linear map of a real or complex tensor."""
    if not part.is_complex():
        return apply(part)
    return torch.complex(apply(part.real.contiguous()), apply(part.imag.contiguous()))


__all__ = ["Coupling", "Full", "Kernel", "Unit"]
