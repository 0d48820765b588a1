"""Nested Python state <-> (JSON text, flat tensors), and tensors that share memory <-> one tensor and names."""

import json
from collections.abc import Mapping
from typing import Any

import torch

from mho.errors import CheckpointError

Tensors = dict[str, torch.Tensor]


def _encode(value: Any, path: str, tensors: Tensors) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _encode(item, f"{path}.{key}", tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_encode(item, f"{path}.{i}", tensors) for i, item in enumerate(value)]}
    raise CheckpointError(
        f"checkpoint: {path} is a {type(value).__name__}, which cannot be stored without pickle. "
        "Fix: keep numbers, strings, lists, dicts and tensors in the optimizer's state."
    )


def _decode(value: Any, tensors: Tensors) -> Any:
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return items if kind == "list" else tuple(items)


def pack(tree: Any) -> tuple[str, Tensors]:
    """A tree of dicts, lists, tuples, numbers, strings and tensors as JSON text and named tensors.

    Keys keep their type (an optimizer's are integers), floats their bits. Raises
    :class:`CheckpointError` naming the place of anything else.
    """
    tensors: Tensors = {}
    text = json.dumps(_encode(tree, "state", tensors))
    return text, tensors


def unpack(text: str, tensors: Tensors) -> Any:
    """The inverse of :func:`pack`."""
    return _decode(json.loads(text), tensors)


def share_once(tensors: Mapping[str, Any]) -> tuple[Tensors, dict[str, str]]:
    """Each tensor once, on the CPU, contiguous; and the other names of tied ones: ``alias -> stored name``.

    Tensors that overlap without being the same are stored one by one. Raises :class:`CheckpointError`
    naming a value that is no tensor.
    """
    stored: Tensors = {}
    alias: dict[str, str] = {}
    seen: dict[tuple[Any, ...], str] = {}
    for name, value in tensors.items():
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"checkpoint: {name} of the model's state_dict is a {type(value).__name__}, not a tensor. "
                "Fix: return a tensor from get_extra_state, or make it an argument of the module."
            )
        place = (value.device, value.data_ptr(), value.dtype, value.shape, value.stride())
        if value.numel() > 0 and place in seen:
            alias[name] = seen[place]
            continue
        seen[place] = name
        # The copy also ends a partial overlap, which safetensors refuses.
        stored[name] = value.detach().cpu().contiguous().clone()
    return stored, alias
