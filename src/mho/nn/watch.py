"""Catch matrix products that a network computes by itself with a parameter, past the analog layers.

``F.linear(h, self.embedding.weight)`` in a forward is digital whatever became of the modules. The
first forward of a converted network is watched, and such a product is an error.
"""

from collections.abc import Callable
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mho.errors import ConversionError
from mho.nn.site import analog_layers, is_traced

_PRODUCTS: frozenset[Callable] = frozenset(
    {
        F.linear, F.bilinear, F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d,
        F.conv_transpose3d, F.multi_head_attention_forward, torch.matmul, torch.mm, torch.bmm, torch.mv, torch.addmm,
        torch.baddbmm, torch.einsum, torch.tensordot, torch.inner, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv,
        Tensor.addmm, Tensor.baddbmm, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.inner,
    }
)  # fmt: skip


@final
class ProductWatch(TorchFunctionMode):
    """Records products whose operand is one of ``watched`` (or a view of one) outside analog layers."""

    def __init__(self, watched: dict[int, str]) -> None:
        super().__init__()
        self.watched, self.inside, self.found = watched, 0, list[str]()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func in _PRODUCTS and self.inside == 0:
            for operand in _tensors((*args, *(kwargs or {}).values())):
                base = operand._base if operand._is_view() and operand._base is not None else operand
                name = self.watched.get(id(base))
                if name is not None:
                    self.found.append(f"{func.__name__} with {name!r}")
        return func(*args, **(kwargs or {}))

    def enter_layer(self, *_: Any) -> None:
        self.inside += 1

    def leave_layer(self, *_: Any) -> None:
        self.inside -= 1

    def refuse_found(self, network: str) -> None:
        """Raise where a product has been found."""
        if self.found:
            raise ConversionError(
                f"{network}: its forward computes {', '.join(dict.fromkeys(self.found))} by itself, past the analog "
                "layers. Way out: an nn.Linear (or another module) for it, or say that it is digital: "
                "mho.convert(..., digital=[module that owns the parameter])."
            )


def _tensors(values: Any) -> list[Tensor]:
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(_tensors(value))
    return found


@final
class FirstForward:
    """A forward pre-hook of the root that watches its first eager forward, then takes itself away.

    ``allowed``: full names of parameters that are digital on request.
    """

    def __init__(self, allowed: frozenset[str]) -> None:
        self.allowed = allowed

    def __call__(self, root: nn.Module, args: tuple) -> None:
        if is_traced():
            return
        watch = ProductWatch({id(p): n for n, p in root.named_parameters() if n not in self.allowed})
        layers = [layer for _, layer in analog_layers(root)]
        handles = [layer.register_forward_pre_hook(watch.enter_layer) for layer in layers]
        handles += [layer.register_forward_hook(watch.leave_layer, always_call=True) for layer in layers]

        def after(root: nn.Module, args: tuple, output: Any) -> None:
            watch.__exit__(None, None, None)
            for handle in handles:
                handle.remove()
            watch.refuse_found(type(root).__name__)
            remove_hooks(root, FirstForward)

        handles.append(root.register_forward_hook(after, always_call=True))
        watch.__enter__()


def remove_hooks(model: nn.Module, *kinds: type) -> None:
    """Take the forward pre-hooks of the given classes off the root of ``model``."""
    for key in [key for key, hook in model._forward_pre_hooks.items() if isinstance(hook, kinds)]:
        del model._forward_pre_hooks[key]


_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook",
)  # fmt: skip


def move_hooks(source: nn.Module, target: nn.Module) -> None:
    """Give the hooks that a user has registered on ``source`` to the layer that takes its place."""
    for kind in _HOOKS:
        setattr(target, kind, getattr(source, kind))
