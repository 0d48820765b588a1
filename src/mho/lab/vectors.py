"""Inputs of an operation as vectors on the rows of a crossbar, and its outputs back: lossless, linear,
differentiable."""

import torch.nn.functional as F
from torch import Tensor

from mho.crossbar.ops import ConvOp, LinearOp, Op


def to_vectors(x: Tensor, op: Op) -> Tensor:
    """[n, rows]: the vectors that drive a crossbar. A convolution has one for each output position (im2col)."""
    if isinstance(op, LinearOp):
        return x.reshape(-1, op.in_features)
    assert isinstance(op, ConvOp)
    columns = F.unfold(x, op.kernel, dilation=op.dilation, padding=op.padding, stride=op.stride)
    return columns.transpose(1, 2).reshape(-1, op.rows)


def from_vectors(y: Tensor, x: Tensor, op: Op) -> Tensor:
    """The output of the operation on ``x`` from one row of currents a vector, [n, outputs]."""
    if isinstance(op, LinearOp):
        return y.reshape(*x.shape[:-1], op.out_features)
    assert isinstance(op, ConvOp)
    sizes = [
        (size + 2 * pad - dil * (k - 1) - 1) // stride + 1
        for size, pad, dil, k, stride in zip(x.shape[2:], op.padding, op.dilation, op.kernel, op.stride, strict=True)
    ]
    return y.reshape(len(x), sizes[0] * sizes[1], op.out_channels).transpose(1, 2).reshape(len(x), -1, *sizes)


def matrix(weight: Tensor) -> Tensor:
    """[rows, outputs] of a weight [outputs, ...]."""
    return weight.flatten(1).t()
