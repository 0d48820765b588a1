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
from mho.nn.site import AnalogLayer

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
    """Pair of forward hooks that watch the first eager forward of a converted network.

    ``allowed``: full names of parameters that are digital on request.
    """

    def __init__(self, allowed: frozenset[str]) -> None:
        self.allowed, self.done = allowed, False
        self.watch: ProductWatch | None = None

    def before(self, root: nn.Module, args: tuple) -> None:
        if self.done or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return
        named = {id(p): n for n, p in root.named_parameters() if n not in self.allowed}
        self.watch = ProductWatch(named)
        self.watch.__enter__()
        self.handles = []
        for layer in root.modules():
            if isinstance(layer, AnalogLayer):
                self.handles.append(layer.register_forward_pre_hook(self._enter))
                self.handles.append(layer.register_forward_hook(self._leave, always_call=True))

    def after(self, root: nn.Module, args: tuple, output: Any) -> None:
        if self.watch is None:
            return
        watch, self.watch = self.watch, None
        watch.__exit__(None, None, None)
        for handle in self.handles:
            handle.remove()
        self.handles = []
        if watch.found:
            raise ConversionError(
                f"{type(root).__name__}: its forward computes {', '.join(dict.fromkeys(watch.found))} by itself, past the "
                "analog layers. Way out: an nn.Linear (or another module) for it, or say that it is digital: "
                "mho.convert(..., digital=[module that owns the parameter])."
            )
        self.done = True

    def _enter(self, *_: Any) -> None:
        assert self.watch is not None
        self.watch.inside += 1

    def _leave(self, *_: Any) -> None:
        if self.watch is not None:
            self.watch.inside -= 1
