"""Mean and variance of what one chip really holds, cell by cell, without drawing a chip.

The laws are integrated in ``crossbar.variance``; here they become what a propagated product needs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar.array import Array, program, slice_factors
from mho.crossbar.ops import Op
from mho.crossbar.variance import is_uniform, slice_moments
from mho.errors import HardwareError
from mho.hardware.spec import Hardware


class WeightMoments(NamedTuple):
    """Mean and variance of the effective weight, in weight units and its square, both of the weight's shape.

    ``column_var`` [out]: the variance where it is the same for all cells of an output, else ``None``.
    """

    mean: Tensor
    var: Tensor
    column_var: Tensor | None = None


class SiteMoments(NamedTuple):
    """One weight matrix: moments of each bit slice, and its array without static noise (for fresh noise)."""

    slices: tuple[WeightMoments, ...]
    array: Array


def weight_moments(w: Tensor, op: Op, hw: Hardware, *, bound: Tensor | None = None, t_s: float = 0.0) -> WeightMoments:
    """Mean and variance over chips of the weight that an array holds ``t_s`` seconds after programming.

    ``w`` [out, ...]; ``bound``: fixed full scale (0-d or [out]), else max|w|. Bit slices are added with their
    digital factors. Exact for one additive normal a cell; else within 0.1 % (quadrature and interpolation).
    Raises :class:`HardwareError` for wires and dead lines, which are no errors of single cells.
    """
    parts = site_moments(w, op, hw, bound=bound, t_s=t_s).slices
    if len(parts) == 1:
        return parts[0]
    factors = slice_factors(hw)
    mean = sum((f * p.mean for f, p in zip(factors, parts, strict=True)), torch.zeros_like(w))
    var = sum((f * f * p.var for f, p in zip(factors, parts, strict=True)), torch.zeros_like(w))
    return WeightMoments(mean, var)


def site_moments(w: Tensor, op: Op, hw: Hardware, *, bound: Tensor | None = None, t_s: float = 0.0) -> SiteMoments:
    """:func:`weight_moments` of each bit slice, with the noiseless array whose reads set the fresh noise."""
    _refuse(hw)
    array = program(w, op, hw, None, t_s=t_s, bound=bound)
    found = []
    for mean, variance in slice_moments(w, hw, bound=bound, t_s=t_s):
        uniform = variance.numel() in (1, w.shape[0]) and is_uniform(hw, t_s)
        column = variance.reshape(-1).expand(w.shape[0]) if uniform else None
        found.append(WeightMoments(mean, variance.expand_as(w), column))
    return SiteMoments(tuple(found), array)


def _refuse(hw: Hardware) -> None:
    """Raise for static errors that a whole line shares: they are not moments of a cell."""
    present = {
        "wires.wire_ohm": hw.wires is not None and hw.wires.wire_ohm > 0,
        "faults.dead_rows": hw.faults.dead_rows > 0,
        "faults.dead_cols": hw.faults.dead_cols > 0,
    }
    refuse_present(hw, present)


def refuse_present(hw: Hardware, present: dict[str, bool]) -> None:
    """Raise :class:`HardwareError` that names the fields of ``present`` which are set."""
    named = [key for key, found in present.items() if found]
    if named:
        raise HardwareError(
            f"{hw.name}: {', '.join(named)} cannot be expressed as moments of single cells. Way out: simulate virtual "
            "chips (mho.evaluate), or give a description without it."
        )
