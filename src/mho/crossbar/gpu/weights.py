"""The clip at full scale and additive noise on a weight, in one pass over its memory: the GPU's ``fused_weight``."""

from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar.gpu import launch
from mho.crossbar.kernels import is_dense
from mho.crossbar.noise import Counter


def takes(w: Tensor, limit: Tensor | None, sigma: Tensor) -> bool:
    """Whether the kernel computes this: a dense float32 or bfloat16 weight, one sigma and limit or one a column."""
    if w.dtype not in (torch.float32, torch.bfloat16) or not is_dense(w) or w.numel() == 0:
        return False
    counts = {t.numel() for t in (limit, sigma) if t is not None}
    outermost = w.stride(0) * len(w) == w.numel() if w.dim() else True
    return counts == {1} or (counts == {len(w)} and outermost and sigma.shape[0] == len(w))


def noisy(w: Tensor, limit: Tensor | None, sigma: Tensor, draw: Counter) -> Tensor:
    """clamp(w, -limit, limit) + sigma scale n; gradient of w: 1 everywhere.

    ``limit``, ``sigma``: 0-d or [columns, 1, ...], on the device of ``w``. n: what ``crossbar.kernels`` makes of the
    seed, up to rounding.
    """
    return _Noisy.apply(w, limit, sigma, draw)  # type: ignore[no-any-return, no-untyped-call]


@final
class _Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, limit: Tensor | None, sigma: Tensor, draw: Counter) -> Tensor:
        return launch.add_normal(w.detach(), limit, sigma.detach(), draw)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0], None, None, None
