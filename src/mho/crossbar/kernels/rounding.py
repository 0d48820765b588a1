"""Converters: the statistics of a tensor and its quantised copy in one pass; noise and an ADC in place."""

import ctypes
import math

import torch

from mho.crossbar.kernels import reference
from mho.crossbar.kernels.layout import check_same_layout, check_seed, check_sigma, check_tensor, flat, written
from mho.crossbar.kernels.native import native
from mho.crossbar.kernels.reference import Readout
from mho.errors import InputError

_Stats = ctypes.c_double * 3


def absmax_sumsq(x: torch.Tensor) -> tuple[float, float]:
    """``(max |x|, sum of x^2)`` in one pass; (0, 0) for an empty tensor.

    The sum is accumulated in double. NaN anywhere gives (nan, nan); an infinity gives (inf, inf).
    Raises :class:`mho.errors.InputError` unless ``x`` is a dense float32 CPU tensor.
    """
    check_tensor("x", x)
    kernels = native()
    if kernels.library is None:
        return reference.absmax_sumsq(flat(x.detach()))
    stats = _Stats()
    kernels.library.mho_absmax_sumsq(x.data_ptr(), x.numel(), stats, kernels.parallel, torch.get_num_threads())
    return stats[0], stats[1]


def scales(r: float, levels: float) -> tuple[float, float]:
    """``(levels / r, r / levels)`` rounded to float32; (1, 1) where nothing is rounded (levels = 0 or r = inf).

    Raises :class:`mho.errors.InputError` for a range or a number of levels that has no finite scale in float32.
    """
    rounded = ctypes.c_float(r).value
    if not rounded > 0 or (rounded == math.inf) != (r == math.inf) or not 0 <= levels < math.inf:
        raise InputError(
            f"mho.crossbar.kernels: range {r} must be positive (in float32) and levels {levels} finite and >= 0"
        )
    if levels == 0 or r == math.inf:
        return 1.0, 1.0
    up, down = ctypes.c_float(levels / r).value, ctypes.c_float(r / levels).value
    if not (0 < up < math.inf and 0 < down < math.inf):
        raise InputError(
            f"mho.crossbar.kernels: range {r} over {levels} levels is beyond float32; rescale the tensor first"
        )
    return up, down


def quantize(
    x: torch.Tensor, r: float, levels: float, out: torch.Tensor, *, observe: bool = True
) -> tuple[float, float]:
    """``out = (r / levels) rint(clamp(x levels / r, -levels, levels))``; returns :func:`absmax_sumsq` of ``x``.

    Bit for bit ``torch.round((x * (levels / r)).clamp(-levels, levels)) * (r / levels)``: halves go to even, the two
    scales are rounded to float32, NaN stays NaN. ``levels = 0``: no rounding, ``out = clamp(x, -r, r)``. ``out`` may
    be ``x``. ``x``, ``out``: dense float32 CPU tensors of one shape and layout; 0 < r < inf; levels >= 0. Without
    ``observe`` the statistics are not taken, and (0, 0) is returned.

    Raises :class:`mho.errors.InputError` for other tensors, ranges or levels.
    """
    check_tensor("x", x)
    check_tensor("out", out)
    check_same_layout("x", x, "out", out)
    up, down = scales(r, levels)
    if r == math.inf:
        raise InputError("mho.crossbar.kernels.quantize: the range must be finite; use absmax_sumsq for no quantiser")
    kernels = native()
    if kernels.library is None:
        values = flat(x.detach())
        result = reference.absmax_sumsq(values) if observe else (0.0, 0.0)
        flat(out.detach()).copy_(reference.quantize(values, r, levels))
        return result
    stats = _Stats()
    kernels.library.mho_quantize(
        x.data_ptr(),
        out.data_ptr(),
        x.numel(),
        r,
        up,
        down,
        levels,
        stats if observe else None,
        kernels.parallel,
        torch.get_num_threads(),
    )
    written(out)
    return stats[0], stats[1]


def map_shape(numel: int, sigma_map: torch.Tensor, shape: tuple[int, int, int] | None) -> tuple[int, int, int]:
    """``(A, O, P)`` of ``numel`` elements: as given, or from a map [A, P] or [A] (P = 1)."""
    check_tensor("sigma_map", sigma_map)
    if not sigma_map.is_contiguous() or (shape is None and sigma_map.dim() not in (1, 2)):
        raise InputError(
            f"mho.crossbar.kernels.adc_: sigma_map of shape {tuple(sigma_map.shape)} must be contiguous [A, P] or [A], "
            f"or contiguous with shape=(A, O, P)"
        )
    if shape is None:
        inner = sigma_map.shape[1] if sigma_map.dim() == 2 else 1
        shape = (sigma_map.shape[0], numel // max(sigma_map.numel(), 1), inner)
    a, o, p = shape
    if a * o * p != numel or (numel and a * p != sigma_map.numel()):
        raise InputError(
            f"mho.crossbar.kernels.adc_: y of {numel} elements and sigma_map {tuple(sigma_map.shape)} do not fit "
            f"[A, O, P] = {list(shape)} and [A, P]; in memory y must be [A, O, P]"
        )
    return shape


def adc_(
    y: torch.Tensor,
    sigma: float,
    seed: int,
    r: float,
    levels: float,
    *,
    shape: tuple[int, int, int] | None = None,
    sigma_map: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
    rails: torch.Tensor | None = None,
    observe: bool = True,
) -> Readout:
    """In place ``v = y + s z; y = quantize(v, r, levels)``: read noise and an ADC in one pass.

    z are the numbers of :func:`normal_`; ``s = sigma``, or ``sqrt(sigma^2 + sigma_map^2)`` with ``sigma_map`` [A, P]
    for ``y`` lying in memory as [A, O, P] (channels first: A = batch, P = pixels; rows or channels last: P = 1, and
    [A] will do); ``columns`` [O] is one more factor of the map, a column each. ``shape`` says (A, O, P) where the shape
    of the map does not. ``r = inf``: no converter, noise only.
    ``sigma = 0`` and no map: no noise. ``levels = 0``: clamp only. ``rails``, if given (int8, of the shape and
    layout of ``y``), gets 0 where |v| <= r (there the gradient passes), 1 above, -1 below, 2 for NaN.

    Returns ``Readout(absmax, sumsq, clipped)`` of v, the values before the converter; ``clipped`` counts the elements
    whose rail is not 0 (beyond the range, or NaN); all are 0 without ``observe``.
    Raises :class:`mho.errors.InputError` for tensors, seeds or numbers outside these.
    """
    check_tensor("y", y)
    check_seed(seed)
    check_sigma(sigma)
    up, down = scales(r, levels)
    view = (1, y.numel(), 1) if sigma_map is None else map_shape(y.numel(), sigma_map, shape)
    if columns is not None:
        check_tensor("columns", columns)
        if sigma_map is None or columns.numel() != view[1]:
            raise InputError(
                f"mho.crossbar.kernels.adc_: columns {tuple(columns.shape)} is a factor of sigma_map; it needs a map "
                f"and O = {view[1]} elements"
            )
    if rails is not None:
        check_tensor("rails", rails, (torch.int8,))
        check_same_layout("y", y, "rails", rails)
    kernels = native()
    if kernels.library is None:
        values = flat(y.detach())
        v, readout = reference.adc(values.view(view), sigma, seed, r, sigma_map, columns)
        v = v.view(-1)
        if rails is not None:
            flat(rails).copy_(reference.rails(v, ctypes.c_float(r).value))
        values.copy_(reference.quantize(v, r, levels))
        return readout if observe else Readout(0.0, 0.0, 0)
    stats = _Stats()
    kernels.library.mho_adc(
        y.data_ptr(),
        None if sigma_map is None else sigma_map.data_ptr(),
        None if columns is None else columns.data_ptr(),
        None,
        None if rails is None else rails.data_ptr(),
        y.numel(),
        max(view[1], 1),
        max(view[2], 1),
        sigma,
        seed,
        r,
        up,
        down,
        levels,
        stats if observe else None,
        kernels.parallel,
        torch.get_num_threads(),
    )
    written(y)
    if rails is not None:
        written(rails)
    return Readout(stats[0], stats[1], int(stats[2]))
