"""The operator on a GPU, by kernels written in Triton (extra ``mho[gpu]``). Importing this package imports no Triton.

:func:`eager` says whether the kernels may stand in for tensors; ``mho.crossbar.gpu.operator`` holds the product.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor


@cache
def available() -> bool:
    """Whether Triton is installed; without it every product on a GPU is plain torch."""
    return find_spec("triton") is not None


def eager(*tensors: Tensor) -> bool:
    """Whether the kernels may stand in: plain CUDA tensors outside any tracing and autocast, and Triton at hand."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch.is_autocast_enabled("cuda")
        or not available()
    ):
        return False
    return all(t.is_cuda and type(t) in (Tensor, torch.nn.Parameter) for t in tensors)


__all__ = ["available", "eager"]
