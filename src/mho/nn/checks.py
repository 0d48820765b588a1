"""Input checks that every converted layer shares: same words, cause and way out."""

import torch
from torch import Tensor

from mho.errors import InputError


def check_input(name: str, x: Tensor, weight: Tensor, features: int, feature_dim: int, dims: tuple[int, ...]) -> None:
    """Raise :class:`InputError` for a tensor that the layer ``name`` cannot take.

    ``features`` must stand in dimension ``feature_dim``; ``dims``: admissible numbers of dimensions,
    empty for any from 1 up.
    """
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: input is a {type(x).__name__}, not a tensor.")
    if dims and x.dim() not in dims:
        wanted = " or ".join(map(str, dims))
        raise InputError(f"{name}: input of shape {tuple(x.shape)} has {x.dim()} dimensions, {wanted} are needed.")
    if x.dim() == 0 or x.shape[feature_dim] != features:
        raise InputError(
            f"{name}: input of shape {tuple(x.shape)} needs {features} features in dimension {feature_dim}."
        )
    if x.dtype != weight.dtype and not _autocast(x):
        raise InputError(
            f"{name}: input is {x.dtype}, the weight is {weight.dtype}. Way out: x.to({weight.dtype}) or "
            f"model.to({x.dtype})."
        )


def _autocast(x: Tensor) -> bool:
    return torch.is_autocast_enabled(x.device.type) and x.is_floating_point()
