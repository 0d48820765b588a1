"""The two contractions that a crossbar computes, and how each is cut into tiles.

Rows of a crossbar are inputs (a convolution has one row for each input channel and kernel position),
columns are outputs. An operation knows how to apply a weight, how to cut its rows into blocks that
fit a tile, and the squared input norm that each output sees.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.errors import ConversionError


@dataclass(frozen=True)
class Block:
    """A run of input features (linear) or of input channels a group (convolution)."""

    start: int
    stop: int


@final
@dataclass(frozen=True)
class LinearOp:
    """y[..., o] = sum_i x[..., i] w[o, i]."""

    in_features: int
    out_features: int

    @property
    def rows(self) -> int:
        return self.in_features

    def blocks(self, tile_rows: int | None) -> tuple[Block, ...]:
        """Balanced runs of at most ``tile_rows`` rows."""
        return balanced_blocks(self.in_features, tile_rows)

    def cut_input(self, x: Tensor, block: Block) -> Tensor:
        return x if block.stop - block.start == self.in_features else x[..., block.start : block.stop]

    def cut_weight(self, w: Tensor, block: Block) -> Tensor:
        return w if block.stop - block.start == self.in_features else w[:, block.start : block.stop]

    def apply(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, w, bias)

    def backward(
        self, g: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Vector-Jacobian products of ``apply`` with respect to x and w."""
        g2, x2 = g.reshape(-1, g.shape[-1]), x.reshape(-1, x.shape[-1])
        return (g2 @ w).reshape(x.shape) if need_x else None, g2.t() @ x2 if need_w else None

    def join_inputs(self, pieces: list[Tensor]) -> Tensor:
        """Inverse of cutting the input into blocks."""
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)

    def join_weights(self, pieces: list[Tensor]) -> Tensor:
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)

    def sum_to_columns(self, g: Tensor) -> Tensor:
        """Gradient of a bias."""
        return g.reshape(-1, g.shape[-1]).sum(0)

    def over_columns(self, per_column: Tensor) -> Tensor:
        """A value a column, shaped to broadcast over the output."""
        return per_column

    def row_norm2(self, x: Tensor) -> Tensor:
        """sum_i x_i^2, shaped to broadcast over the output."""
        return x.square().sum(-1, keepdim=True)

    def pull_norm2(self, t: Tensor, x: Tensor) -> Tensor:
        """Gradient of ``row_norm2(x)`` for the gradient ``t`` [..., 1]: 2 x t."""
        return 2 * t * x

    def weigh_columns(self, y: Tensor, factors: Tensor | None) -> Tensor:
        """sum_o factors_o y_o, kept as one column (``None``: factors of 1)."""
        return y.sum(-1, keepdim=True) if factors is None else y @ factors.unsqueeze(-1)


@final
@dataclass(frozen=True)
class ConvOp:
    """Convolution in 1 to 3 dimensions as a crossbar read once an output position."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @property
    def ndim(self) -> int:
        return len(self.kernel)

    @property
    def rows(self) -> int:
        return self.in_channels // self.groups * math.prod(self.kernel)

    def blocks(self, tile_rows: int | None) -> tuple[Block, ...]:
        """Balanced runs of whole input channels (of one group) whose kernels fit ``tile_rows``."""
        per_channel = math.prod(self.kernel)
        if tile_rows is not None and per_channel > tile_rows:
            raise ConversionError(
                f"a kernel of {'x'.join(map(str, self.kernel))} needs {per_channel} rows a channel and the tile has "
                f"{tile_rows}. Way out: a larger tile.rows, a smaller kernel, or keep the layer digital."
            )
        limit = None if tile_rows is None else tile_rows // per_channel
        return balanced_blocks(self.in_channels // self.groups, limit)

    def cut_input(self, x: Tensor, block: Block) -> Tensor:
        per_group = self.in_channels // self.groups
        if block.stop - block.start == per_group:
            return x
        channel = x.dim() - self.ndim - 1
        if self.groups == 1:
            return x.narrow(channel, block.start, block.stop - block.start)
        grouped: Tensor = x.unflatten(channel, (self.groups, per_group))
        return grouped.narrow(channel + 1, block.start, block.stop - block.start).flatten(channel, channel + 1)

    def cut_weight(self, w: Tensor, block: Block) -> Tensor:
        return w if block.stop - block.start == w.shape[1] else w[:, block.start : block.stop]

    def apply(self, x: Tensor, w: Tensor, bias: Tensor | None) -> Tensor:
        conv = (F.conv1d, F.conv2d, F.conv3d)[self.ndim - 1]
        return conv(x, w, bias, self.stride, self.padding, self.dilation, self.groups)

    def backward(
        self, g: Tensor, x: Tensor, w: Tensor, need_x: bool, need_w: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        gx, gw, _ = torch.ops.aten.convolution_backward(
            g, x, w, None, self.stride, self.padding, self.dilation, False, [0] * self.ndim, self.groups,
            [need_x, need_w, False],
        )  # fmt: skip
        return gx if need_x else None, gw if need_w else None

    def join_inputs(self, pieces: list[Tensor]) -> Tensor:
        if len(pieces) == 1:
            return pieces[0]
        if self.groups == 1:
            return torch.cat(pieces, 1)
        return torch.cat([p.unflatten(1, (self.groups, -1)) for p in pieces], 2).flatten(1, 2)

    def join_weights(self, pieces: list[Tensor]) -> Tensor:
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 1)

    def sum_to_columns(self, g: Tensor) -> Tensor:
        return g.sum([d for d in range(g.dim()) if d != 1])

    def over_columns(self, per_column: Tensor) -> Tensor:
        return per_column.reshape(-1, *([1] * self.ndim))

    def row_norm2(self, x: Tensor) -> Tensor:
        """Sum of x^2 over the receptive field: [..., groups -> out_channels, *positions] or [..., 1, ...]."""
        channel = x.dim() - self.ndim - 1
        if self.groups == 1:
            energy = x.square().sum(channel, keepdim=True)
        else:
            energy = x.square().unflatten(channel, (self.groups, -1)).sum(channel + 1)
        ones = x.new_ones((self.groups, 1, *self.kernel))
        conv = (F.conv1d, F.conv2d, F.conv3d)[self.ndim - 1]
        norm2 = conv(energy, ones, None, self.stride, self.padding, self.dilation, self.groups)
        if self.groups == 1:
            return norm2
        return norm2.repeat_interleave(self.out_channels // self.groups, dim=channel)

    def pull_norm2(self, t: Tensor, x: Tensor) -> Tensor:
        """Gradient of ``row_norm2(x)`` for the gradient ``t`` [batch, 1, *positions]; one group only."""
        ones = x.new_ones((1, 1, *self.kernel))
        spread, _, _ = torch.ops.aten.convolution_backward(
            t, x[:, :1], ones, None, self.stride, self.padding, self.dilation, False, [0] * self.ndim, 1,
            [True, False, False],
        )  # fmt: skip
        pulled: Tensor = x * spread.mul_(2)
        return pulled

    def weigh_columns(self, y: Tensor, factors: Tensor | None) -> Tensor:
        """sum_o factors_o y_o, kept as one channel (``None``: factors of 1)."""
        channel = y.dim() - self.ndim - 1
        weighed = y if factors is None else y * self.over_columns(factors)
        total: Tensor = weighed.sum(channel, keepdim=True)
        return total


Op = LinearOp | ConvOp


def balanced_blocks(count: int, limit: int | None) -> tuple[Block, ...]:
    """Cut ``count`` items into the fewest runs of at most ``limit``, of sizes that differ by at most one.

    >>> [b.stop - b.start for b in balanced_blocks(576, 256)]
    [192, 192, 192]
    """
    runs = 1 if limit is None else -(-count // limit)
    edges = [round(i * count / runs) for i in range(runs + 1)]
    return tuple(Block(a, b) for a, b in pairwise(edges))


def output_shape(op: Op, x: Tensor) -> torch.Size:
    """Shape of the output of ``op`` for input ``x`` without computing it."""
    if isinstance(op, LinearOp):
        return torch.Size((*x.shape[:-1], op.out_features))
    spatial = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(x.shape[-op.ndim :], op.padding, op.dilation, op.kernel, op.stride, strict=True)
    ]
    return torch.Size((*x.shape[: -op.ndim - 1], op.out_channels, *spatial))
