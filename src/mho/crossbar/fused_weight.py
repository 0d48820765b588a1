"""The clip at full scale and additive noise on a weight, in one pass over memory."""

from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar import gpu, kernels
from mho.crossbar.noise import Counter, Draw, as_tensor


def eager_cpu(*tensors: Tensor) -> bool:
    """Whether the fused CPU kernels may stand in: plain float32 CPU tensors outside any tracing."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.is_autocast_enabled("cpu")
        or not kernels.available()
    ):
        return False
    for t in tensors:  # noqa: SIM110 (a generator costs more than all the rest)
        if t.dtype != torch.float32 or not t.is_cpu or not _is_plain(t):
            return False
    return True


def _is_plain(t: Tensor) -> bool:
    """No tensor subclass (fake, distributed, tracing): there is memory behind ``data_ptr``."""
    return type(t) in (Tensor, torch.nn.Parameter)


def clip(w: Tensor, limit: Tensor) -> Tensor:
    """clamp(w, -limit, limit), gradient straight through: a weight out of range must be able to come back."""
    return w + (torch.clamp(w.detach(), -limit, limit) - w.detach())


def noisy(w: Tensor, limit: Tensor | None, sigma: Tensor, draw: Draw | None) -> Tensor:
    """clip(w, limit) + sigma n with n the normals of ``draw`` ([1, *w.shape] or a counter).

    ``limit``, ``sigma``: 0-d or broadcastable to w, detached. ``None``: no clip, no noise. The gradient
    of w is 1 everywhere.
    """
    if isinstance(draw, Counter) and sigma.dim() == 0 and eager_cpu(w) and w.is_contiguous():
        bound = float("inf") if limit is None else float(limit)
        return _Noisy.apply(w, bound, float(sigma) * draw.scale, draw.seed)  # type: ignore[no-any-return, no-untyped-call]
    if isinstance(draw, Counter) and w.is_cuda and gpu.eager(w):
        from mho.crossbar.gpu import weights  # imports Triton

        if weights.takes(w, limit, sigma):
            return weights.noisy(w, limit, sigma, draw)
    if limit is not None:
        w = clip(w, limit)
    return w if draw is None else w + sigma * as_tensor(draw, (1, *w.shape), w)[0]


@final
class _Noisy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, limit: float, sigma: float, seed: int) -> Tensor:
        return kernels.add_normal(w, sigma, seed, lo=-limit, hi=limit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        return grads[0], None, None, None
