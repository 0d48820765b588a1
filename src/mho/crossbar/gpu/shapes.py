"""What launches are told: shapes and strides of a product, its noise, what it keeps, buffers of statistics."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op, output_shape


class Halves(NamedTuple):
    """A seed as two signed numbers of 32 bits."""

    low: int
    high: int


def halves(seed: int) -> Halves:
    """The seed as Triton takes it: one type for every value."""
    low, high = seed & 0xFFFF_FFFF, seed >> 32 & 0xFFFF_FFFF
    return Halves(low - (low >> 31 << 32), high - (high >> 31 << 32))


class Site(NamedTuple):
    """A product as the kernels see it: ``rows`` x ``columns`` outputs, ``items`` of ``taps`` rows of the array.

    ``y``: strides of a batch item, of a position, of a column; ``x``: of the input, ``shape``: the twelve
    sizes of a convolution (input, output, kernel, stride, padding, dilation; two each) or ().
    """

    rows: int
    columns: int
    items: int
    taps: int
    places: int
    x: tuple[int, int, int, int]
    y: tuple[int, int, int]
    shape: tuple[int, ...]


def empty_output(op: Op, x: Tensor) -> Tensor:
    """The output, in channels_last where the input is."""
    shape = output_shape(op, x)
    last = isinstance(op, ConvOp) and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.empty(
        shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last if last else torch.contiguous_format
    )


def site_of(op: Op, x: Tensor, y: Tensor) -> Site:
    """``x``: contiguous [..., items] or dense [B, C, H, W]; ``y``: from :func:`empty_output`."""
    if isinstance(op, LinearOp):
        n, k = op.out_features, op.in_features
        return Site(y.numel() // n, n, k, 1, 1, (k, 1, 0, 0), (n, 0, 1), ())
    height, width = y.shape[-2:]
    last = y.stride(1) == 1 and not y.is_contiguous()
    sizes = (*x.shape[-2:], height, width, *op.kernel, *op.stride, *op.padding, *op.dilation)
    return Site(
        rows=y.shape[0] * height * width, columns=op.out_channels, items=op.in_channels, taps=math.prod(op.kernel),
        places=height * width, x=(x.stride(0), x.stride(1), x.stride(2), x.stride(3)),
        y=(y.stride(0), op.out_channels if last else 1, y.stride(1)), shape=tuple(int(s) for s in sizes),
    )  # fmt: skip


def cut(count: int, block: int) -> int:
    """How many blocks cover ``count``."""
    return -(-count // block)


def alignment(items: int, parts: int) -> int:
    """The largest power of two up to 16 that divides where every part begins: what a load may rely on."""
    return math.gcd(16, *(round(i * items / parts) for i in range(1, parts + 1)))


def as_sigmas(sigmas: float | None) -> float:
    """Root mean squares of a range as kernels take them; negative: the largest value instead."""
    return -1.0 if sigmas is None else float(sigmas)


class Seen(NamedTuple):
    """Statistics [programs, 2] of the input and of the output, in one buffer; counts of what they are about."""

    buffer: Tensor
    programs: tuple[int, int]
    counts: tuple[int, int]
    sigmas: tuple[float | None, float | None]

    @property
    def start(self) -> int:
        """Where those of the output begin."""
        return self.programs[0] + self.programs[0] % 2  # even, so that the address is a multiple of 16

    @property
    def of_input(self) -> Tensor:
        return self.buffer[: self.programs[0]]

    @property
    def of_output(self) -> Tensor:
        return self.buffer[self.start :]


def seen_by(
    device: torch.device, programs: tuple[int, int], counts: tuple[int, int], sigmas: tuple[float | None, float | None]
) -> Seen:
    """An empty :class:`Seen`."""
    return Seen(torch.empty(programs[0] + programs[1] + 1, 2, device=device), programs, counts, sigmas)


class Noisy(NamedTuple):
    """The fresh noise of a product: sigma of the periphery in ranges, variance of a read (0-d, [columns], or none)."""

    periphery: float
    read_var: Tensor | None
    draw: Counter | None

    @property
    def reads(self) -> int:
        """0: no read noise; 1: one variance; 2: one a column."""
        return 0 if self.read_var is None or self.draw is None else 2 if self.read_var.dim() else 1

    @property
    def halves(self) -> Halves:
        return halves(0 if self.draw is None else self.draw.seed)

    @property
    def scale(self) -> float:
        return 1.0 if self.draw is None else self.draw.scale


class Kept(NamedTuple):
    """What a forward pass keeps: bits of what was not clipped, of signs
    [parts, rows, ceil(columns / 8)]; |x_p|^2 [parts, rows]."""

    masks: Tensor | None = None
    signs: Tensor | None = None
    norms: Tensor | None = None
