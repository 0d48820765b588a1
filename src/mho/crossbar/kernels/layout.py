"""What the kernels accept: dense float32 CPU tensors, seen as flat storage."""

import math

import torch
from torch.autograd.graph import increment_version

from mho.errors import InputError


def is_dense(x: torch.Tensor) -> bool:
    """Whether ``x`` fills its span of memory without holes or overlaps, in any order of dimensions.

    Contiguous, channels_last and transposed tensors are dense; slices with steps and expanded tensors are not.
    """
    return x.is_contiguous() or bool(torch.ops.aten.is_non_overlapping_and_dense(x))


def dense(x: torch.Tensor) -> torch.Tensor:
    """``x`` itself where :func:`is_dense`, else a contiguous copy."""
    return x if is_dense(x) else x.contiguous()


def same_layout(x: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether both have one shape and one order in memory (the stride of a dimension of one element means nothing)."""
    if x.shape != other.shape:
        return False
    if x.is_contiguous() and other.is_contiguous():
        return True
    pairs = zip(x.shape, x.stride(), other.stride(), strict=True)
    return x.numel() == 0 or all(size == 1 or first == second for size, first, second in pairs)


def like_layout(x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``x`` in the memory order of the dense ``other`` of the same shape: ``x`` itself, or a copy.

    Raises :class:`InputError` for different shapes.
    """
    if same_layout(x, other):
        return x
    check_same_shape("x", x, "other", other)
    return torch.empty_like(other, dtype=x.dtype, requires_grad=False).copy_(x)


def check_tensor(name: str, x: torch.Tensor, dtypes: tuple[torch.dtype, ...] = (torch.float32,)) -> None:
    """Raises :class:`InputError` unless ``x`` is a dense CPU tensor of one of ``dtypes``."""
    if x.dtype not in dtypes or x.device.type != "cpu" or x.layout != torch.strided:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise InputError(
            f"mho.crossbar.kernels: {name} must be a dense {wanted} tensor on the CPU, not {x.dtype} on {x.device} "
            f"({x.layout}); use the torch expression for this tensor"
        )
    if not is_dense(x):
        raise InputError(
            f"mho.crossbar.kernels: {name} of shape {tuple(x.shape)} and strides {x.stride()} has holes or overlaps; "
            f"pass {name}.contiguous()"
        )


def check_same_shape(name: str, x: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raises :class:`InputError` unless both have one shape."""
    if x.shape != other.shape:
        raise InputError(
            f"mho.crossbar.kernels: {name} {tuple(x.shape)} and {other_name} {tuple(other.shape)} must have one shape"
        )


def check_same_layout(name: str, x: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Raises :class:`InputError` unless both have one shape and one order in memory."""
    check_same_shape(name, x, other_name, other)
    if not same_layout(x, other):
        raise InputError(
            f"mho.crossbar.kernels: {name} (strides {x.stride()}) and {other_name} (strides {other.stride()}) lie in "
            f"memory in different orders; make one with torch.empty_like of the other, or use like_layout"
        )


def check_seed(seed: int) -> None:
    """Raises :class:`InputError` unless 0 <= seed < 2**64."""
    if not 0 <= seed < 1 << 64:
        raise InputError(f"mho.crossbar.kernels: seed {seed} is outside 0 ... 2**64 - 1; use mho.rng.derive_seed")


def check_sigma(sigma: float) -> None:
    """Raises :class:`InputError` unless sigma is finite and not negative."""
    if not 0 <= sigma < math.inf:
        raise InputError(f"mho.crossbar.kernels: sigma {sigma} must be finite and not negative")


def flat(x: torch.Tensor) -> torch.Tensor:
    """A one-dimensional view of a dense tensor, in the order of its memory."""
    return x.as_strided((x.numel(),), (1,))


def written(x: torch.Tensor) -> torch.Tensor:
    """Tell autograd that ``x`` was changed behind its back, so that a stale backward raises instead of lying."""
    if not x.is_inference():
        increment_version(x)
    return x
