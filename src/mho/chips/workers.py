"""Several chips at the same time, each on one core, instead of one chip after the other on all of them.

A chip's products are small: cutting each of them over the cores costs more waiting than running whole chips beside
one another. Every worker has a shallow replica of the network (its own modules and substrate, the same tensors), so
that nothing that a forward pass writes on its modules meets another chip's.
"""

import ctypes
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from mho.crossbar.kernels.native import native
from mho.nn.site import is_traced

Module = TypeVar("Module", bound=nn.Module)
STATELESS = ("torch", "mho")
"""Packages whose modules keep nothing from pass to pass in eval mode, but in attributes of their own."""
_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
SMALL_BYTES = 64 * 2**20
"""Arrays of a chip above which a product is large enough to be worth cutting over the cores."""


def one_core_each(model: nn.Module, chip_bytes: int, inputs: list[Tensor]) -> bool:
    """Whether a chip of ``model`` is computed on one core, so that others may run beside it.

    Not for a network with modules from elsewhere than torch and mho (nobody knows what their forward keeps), with
    hooks, or with noise of its own; not for large networks; not for tensors that are not on the CPU, where a gradient
    is wanted, or under tracing, autocast, or any mode that watches torch. It does not ask how many chips there are, or
    how many fit: that must not change what a chip computes.
    """
    if torch.get_num_threads() == 1 or chip_bytes > SMALL_BYTES:
        return False
    if is_traced() or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return False
    if torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack():
        return False
    if any(t.device.type != "cpu" or type(t) not in (Tensor, nn.Parameter) for t in (*inputs, *model.parameters())):
        return False
    return all(_keeps_nothing(m) for m in model.modules())


def _keeps_nothing(m: nn.Module) -> bool:
    known = type(m).__module__.partition(".")[0] in STATELESS
    return known and not (m._forward_hooks or m._forward_pre_hooks or getattr(m, "noise_in_eval", False))


def replica(module: Module) -> Module:
    """A copy of the tree of modules with the same parameters and buffers; assignments to it stay with it."""
    return _copied(module, {})  # type: ignore[return-value]  # of the same type


def _copied(m: nn.Module, made: dict[int, nn.Module]) -> nn.Module:
    # Not inside replica: a function that knows itself is a cycle, which would keep every chip's arrays for a while.
    if id(m) in made:
        return made[id(m)]
    twin = m.__new__(type(m))
    made[id(m)] = twin
    twin.__dict__ = m.__dict__.copy()
    twin.__dict__["_parameters"], twin.__dict__["_buffers"] = m._parameters.copy(), m._buffers.copy()
    children = m._modules.items()
    twin.__dict__["_modules"] = {name: None if c is None else _copied(c, made) for name, c in children}
    return twin


def on_workers(run: Callable[[int, int], Any], chips: int, workers: int) -> list[Any]:
    """``[run(worker, chip) for every chip]``, chips dealt to ``workers`` threads as each is free.

    Each thread computes with one core; torch's number of threads is what it was afterwards. The first error of any
    worker is raised once all have stopped, and no further chip is begun after it.
    """
    threads, inference = torch.get_num_threads(), torch.is_inference_mode_enabled()
    results: list[Any] = [None] * chips
    errors: list[BaseException] = []
    left, numbers = iter(range(chips)), iter(range(workers))
    deal = threading.Lock()

    def work() -> None:
        try:
            torch.set_num_threads(1)  # a thread's own setting
            with deal:
                worker = next(numbers)
            with torch.inference_mode(inference), torch.no_grad():
                while not errors:
                    with deal:
                        chip = next(left, None)
                    if chip is None:
                        return
                    results[chip] = run(worker, chip)
        except BaseException as error:
            errors.append(error)

    try:
        torch.set_num_threads(1)
        together(work, workers)
    finally:
        torch.set_num_threads(threads)
    if errors:
        raise errors[0]
    return results


def together(work: Callable[[], None], workers: int) -> None:
    """``work()`` in ``workers`` threads at once, this one among them; it must not raise.

    They are torch's own OpenMP threads where torch has any that can be asked: these wait for work by spinning for
    some milliseconds after a product, on the very cores that other threads would want.
    """
    parallel = native().parallel
    if parallel is not None:
        body = _BODY(lambda _: work())
        ctypes.CFUNCTYPE(None, _BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(parallel)(body, None, workers, 0)
        return
    others = [threading.Thread(target=work, name=f"mho chips {i}", daemon=True) for i in range(1, workers)]
    try:
        for thread in others:
            thread.start()
        work()
    finally:
        for thread in others:
            thread.join()
