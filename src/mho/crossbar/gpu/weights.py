"""The clip at full scale and additive noise on a weight, in one pass over its memory: the GPU's ``fused_weight``."""

from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar.gpu import launch
from mho.crossbar.kernels import is_dense
from mho.crossbar.noise import Counter


def takes(w: Tensor, sigma: Tensor) -> bool:
    """Whether the kernel computes this: one sigma, a dense float32 or bfloat16 weight on its device."""
    return sigma.dim() == 0 and w.dtype in (torch.float32, torch.bfloat16) and is_dense(w) and w.numel() > 0


def noisy(w: Tensor, limit: Tensor | None, sigma: Tensor, draw: Counter) -> Tensor:
    """clamp(w, -limit, limit) + sigma scale n; gradient of w: 1 everywhere.

    ``limit``, ``sigma``: 0-d, on the device of ``w``. n: what ``crossbar.kernels`` makes of the seed, up to rounding.
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
