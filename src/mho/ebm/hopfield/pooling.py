"""Pooling in windows that do not overlap, and its pull: the gradient of <t, pool(y)> with respect to y."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.ebm.hopfield.layers import Pool

SOFTNESS = 4.0
"""Inverse temperature of soft pooling: sum_i y_i exp(c y_i) / sum_i exp(c y_i) in each window."""


def windows(y: Tensor, size: int) -> Tensor:
    """[B, C, H, W] as [B, C, H / size, W / size, size^2]."""
    cut = y.unflatten(-1, (-1, size)).unflatten(-3, (-1, size))
    return cut.transpose(-3, -2).flatten(-2)


def maps(cut: Tensor, size: int) -> Tensor:
    """The inverse of :func:`windows`."""
    return cut.unflatten(-1, (size, size)).transpose(-3, -2).flatten(-2).flatten(-3, -2)


def pool(y: Tensor, kind: Pool | None, size: int) -> Tensor:
    """``y`` [B, C, H, W] pooled; ``kind=None`` returns it."""
    if kind is None:
        return y
    if kind == "average":
        return windows(y, size).mean(-1)
    if kind == "max":
        return F.max_pool2d(y, size)
    cut = windows(y, size)
    return (cut * _shares(cut)).sum(-1)


def pull(t: Tensor, y: Tensor | None, kind: Pool | None, size: int) -> Tensor:
    """d<t, pool(y)> / dy: ``t`` spread over the windows of ``y`` (not needed for None and "average").

    max: to the largest; average: t / size^2 to all; soft: t w_i (1 + c (y_i - pool)) with the shares w.
    """
    if kind is None:
        return t
    if kind == "average":
        return (t / size**2).repeat_interleave(size, -1).repeat_interleave(size, -2)
    assert y is not None
    if kind == "max":
        _, places = F.max_pool2d(y, size, return_indices=True)
        return F.max_unpool2d(t, places, size, output_size=y.shape[-2:])
    cut = windows(y, size)
    shares = _shares(cut)
    middle = (cut * shares).sum(-1, keepdim=True)
    return maps(t.unsqueeze(-1) * shares * (1 + SOFTNESS * (cut - middle)), size)


def _shares(cut: Tensor) -> Tensor:
    # torch has no complex softmax; the largest real part is taken out for the same reason as there.
    weights = torch.exp(SOFTNESS * (cut - cut.real.amax(-1, keepdim=True).to(cut.dtype)))
    return weights / weights.sum(-1, keepdim=True)
