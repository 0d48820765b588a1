"""The backward passes of clipping and of noise: where the gradient goes on, and what ranges and sizes receive."""

import ctypes
import math

import torch

from mho.crossbar.kernels import reference
from mho.crossbar.kernels.layout import (
    check_same_layout,
    check_seed,
    check_sigma,
    check_tensor,
    flat,
    like_layout,
    written,
)
from mho.crossbar.kernels.native import native
from mho.errors import InputError


def unclipped(
    g: torch.Tensor, rails: torch.Tensor, out: torch.Tensor | None = None, *, slope: bool = True
) -> tuple[torch.Tensor, float]:
    """``out = g where rails == 0, else 0``; and the sum of ``g rails`` where they are -1 or 1: the gradient of r.

    ``rails`` are those of :func:`~mho.crossbar.kernels.rounding.adc_`. The sum is accumulated in double; 0 without
    ``slope``. Where a rail is 2 (the converter saw NaN), out is 0 and nothing is added. ``g``, ``out``: dense float32
    CPU tensors, ``rails``: int8, all of one shape. ``out`` may be ``g``; where their orders in memory differ, ``g`` and
    ``rails`` are first copied into the order of ``out`` (of ``rails`` without ``out``).
    Raises :class:`mho.errors.InputError` for other tensors.
    """
    check_tensor("g", g)
    check_tensor("rails", rails, (torch.int8,))
    if out is None:
        g = like_layout(g, rails)
        out = torch.empty_like(g, requires_grad=False)
    else:
        check_tensor("out", out)
        g, rails = like_layout(g, out), like_layout(rails, out)
    kernels = native()
    if kernels.library is None:
        values, total = reference.unclipped(flat(g.detach()), flat(rails))
        flat(out.detach()).copy_(values)
        return out, total if slope else 0.0
    stats, threads = (ctypes.c_double * 3)(), torch.get_num_threads()
    kernels.library.mho_unclipped(
        g.data_ptr(), rails.data_ptr(), out.data_ptr(), g.numel(), stats if slope else None, kernels.parallel, threads
    )
    return written(out), float(stats[1])


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


def noise_slope(
    g: torch.Tensor,
    sigma: float,
    seed: int,
    shape: tuple[int, int, int],
    sigma_map: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    *,
    total_only: bool = False,
) -> tuple[torch.Tensor | None, float]:
    """``g z / s`` and its sum (in double): what the gradient ``g`` of a noisy output says of the size of its noise.

    For ``v = y + s z`` as :func:`~mho.crossbar.kernels.rounding.adc_` makes it, with the same ``sigma``, ``seed``,
    ``sigma_map`` and ``columns``, and ``g = dL/dv`` lying in memory as ``shape`` = [A, O, P]:
    dL/d(s^2) = g z / (2 s), elementwise. 0 where s is 0. ``total_only``: the sum alone, ``None`` for the rest.
    Raises :class:`mho.errors.InputError` for other tensors.
    """
    check_tensor("g", g)
    check_seed(seed)
    check_sigma(sigma)
    if math.prod(shape) != g.numel():
        raise InputError(f"mho.crossbar.kernels.noise_slope: g has {g.numel()} elements, [A, O, P] = {list(shape)}")
    for name, factor, count in (("sigma_map", sigma_map, shape[0] * shape[2]), ("columns", columns, shape[1])):
        if factor is None:
            continue
        check_tensor(name, factor)
        if factor.numel() != count or not factor.is_contiguous() or sigma_map is None:
            raise InputError(
                f"mho.crossbar.kernels.noise_slope: {name} {tuple(factor.shape)} must be contiguous with {count} "
                f"elements for [A, O, P] = {list(shape)}; columns need a map"
            )
    kernels = native()
    if kernels.library is None:
        values, total = reference.noise_slope(flat(g.detach()).view(shape), sigma, seed, sigma_map, columns)
        if total_only:
            return None, total
        out = torch.empty_like(g, requires_grad=False)
        flat(out).copy_(values.reshape(-1))
        return out, total
    slope = None if total_only else torch.empty_like(g, requires_grad=False)
    stats = (ctypes.c_double * 3)()
    kernels.library.mho_noise_slope(
        g.data_ptr(), None if slope is None else slope.data_ptr(), None if sigma_map is None else sigma_map.data_ptr(),
        None if columns is None else columns.data_ptr(), g.numel(), max(shape[1], 1), max(shape[2], 1), sigma, seed,
        stats, kernels.parallel, torch.get_num_threads(),
    )  # fmt: skip
    return slope, float(stats[1])
