"""The backward passes of clipping: where the gradient goes on, and what the range receives."""

import ctypes

import torch

from mho.crossbar.kernels import reference
from mho.crossbar.kernels.layout import check_same_layout, check_tensor, flat, like_layout, written
from mho.crossbar.kernels.native import native
from mho.errors import InputError


def masked(g: torch.Tensor, mask: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
    """``out = g where mask, else 0``; ``out`` may be ``g``. Returns ``out``.

    ``g``, ``out``: dense float32 CPU tensors, ``mask``: uint8 or bool, all of one shape. Where their orders in memory
    differ, ``g`` and ``mask`` are first copied into the order of ``out`` (of ``mask`` without ``out``). A NaN of ``g``
    passes only where the mask does. Raises :class:`mho.errors.InputError` for other tensors.
    """
    check_tensor("g", g)
    check_tensor("mask", mask, (torch.uint8, torch.bool))
    if out is None:
        g = like_layout(g, mask)
        out = torch.empty_like(g, requires_grad=False)
    else:
        check_tensor("out", out)
        g, mask = like_layout(g, out), like_layout(mask, out)
    kernels = native()
    if kernels.library is None:
        flat(out.detach()).copy_(reference.masked(flat(g.detach()), flat(mask)))
        return out
    threads = torch.get_num_threads()
    kernels.library.mho_masked(g.data_ptr(), mask.data_ptr(), out.data_ptr(), g.numel(), kernels.parallel, threads)
    return written(out)


def pass_inside_(g: torch.Tensor, x: torch.Tensor, r: float) -> float:
    """In place ``g = g where |x| <= r, else 0``; returns the sum of ``g sign(x)`` over |x| > r: the gradient of r.

    The sum is accumulated in double. Where x is NaN, g becomes 0 and adds nothing. ``g``, ``x``: dense float32 CPU
    tensors of one shape and layout; r >= 0 (inf: everything passes but NaN).
    Raises :class:`mho.errors.InputError` for other tensors or ranges.
    """
    check_tensor("g", g)
    check_tensor("x", x)
    check_same_layout("g", g, "x", x)
    if not r >= 0:
        raise InputError(f"mho.crossbar.kernels.pass_inside_: range {r} must not be negative")
    kernels = native()
    if kernels.library is None:
        values, slope = reference.pass_inside(flat(g.detach()), flat(x.detach()), r)
        flat(g.detach()).copy_(values)
        return slope
    stats = (ctypes.c_double * 3)()
    threads = torch.get_num_threads()
    kernels.library.mho_pass_inside(g.data_ptr(), x.data_ptr(), g.numel(), abs(r), stats, kernels.parallel, threads)
    written(g)
    return float(stats[1])
