"""Networks by name, for recipes."""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from mho.errors import RecipeError, nearest
from mho.models.airbench import airbench
from mho.models.lenet import lenet
from mho.models.mlp import mlp
from mho.models.resnet import resnet20

MODELS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"airbench": airbench, "lenet": lenet, "mlp": mlp, "resnet20": resnet20}
)


def check_model(name: str, args: Mapping[str, Any]) -> None:
    """Raise :class:`RecipeError` unless ``build(name, **args)`` has known names and positive sizes."""
    if name not in MODELS:
        raise RecipeError(f"network {name!r} is unknown. {nearest(name, MODELS)}")
    known = inspect.signature(MODELS[name]).parameters
    for key, value in args.items():
        if key not in known:
            raise RecipeError(f"network {name!r} has no argument {key!r}. {nearest(key, known)}")
        default = known[key].default
        many = isinstance(default, tuple)
        shape_ok = isinstance(value, list | tuple) and len(value) >= 2 if many else True
        values = value if many and shape_ok else [value]
        if not shape_ok or any(type(v) is not int or v < 1 for v in values):
            wanted = "a list of two or more positive integers" if many else "a positive integer"
            raise RecipeError(f"network {name!r}: {key} = {value!r} is not {wanted}. Fix: e.g. {key} = {default!r}.")


def build(name: str, **args: Any) -> nn.Module:
    """A network of :data:`MODELS` with fresh weights from torch's global generator.

    >>> sum(p.numel() for p in build("lenet", width=8).parameters())
    8738

    Raises :class:`RecipeError` for an unknown name or argument (with the nearest ones) or a bad size.
    """
    check_model(name, args)
    return MODELS[name](**args)
