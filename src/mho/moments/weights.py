"""Mean and variance of what one chip really holds, cell by cell, without drawing a chip.

Where the array is w plus one additive normal (``crossbar.array.simple_sigma``) both are closed forms.
Else a cell's conductance is a function g(g_target, xi_p, xi_a) of its programming and aging normals, and
its moments are functions of the target alone: they are integrated over both normals on a grid of
targets and interpolated. Stuck cells are a mixture. Cells are independent, so that polarities and bit
slices add in variance.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar import fused_weight
from mho.crossbar.array import (
    Array,
    bit_slices,
    full_scale,
    program,
    simple_sigma,
    slice_factors,
    to_conductances,
    to_weights,
)
from mho.crossbar.ops import Op
from mho.errors import HardwareError
from mho.hardware.spec import Hardware
from mho.physics import cells

GRID = 4096
_STEP, _REACH, _AGING_NODES = 0.05, 8.0, 33


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
    w_max = full_scale(w, hw, bound).to(w.dtype)
    sigma = simple_sigma(hw)
    if sigma is not None and (t_s == 0 or sigma == 0) and len(array.weights) == 1:
        column = (sigma * w_max).square().reshape(-1).expand(w.shape[0])
        var = column.reshape(-1, *([1] * (w.dim() - 1))).expand_as(w)
        return SiteMoments((WeightMoments(array.weights[0], var, column),), array)
    clipped = w if bound is None else fused_weight.clip(w, w_max)
    signed = hw.mapping.scheme == "signed"
    found = []
    for part in bit_slices(clipped / w_max, hw):
        target = cells.quantize_levels(hw.cell, to_conductances(part, hw), signed=signed)
        mean_uS, var_uS2 = conductance_moments(target, hw, t_s)
        per_uS = (2 if hw.mapping.scheme == "offset" else 1) * w_max / (hw.cell.g_max_uS - hw.cell.g_min_uS)
        found.append(WeightMoments(to_weights(mean_uS, w_max, hw), var_uS2.sum(0) * per_uS.square()))
    return SiteMoments(tuple(found), array)


def conductance_moments(g_target_uS: Tensor, hw: Hardware, t_s: float) -> tuple[Tensor, Tensor]:
    """Mean (uS) and variance (uS^2) of cells programmed to ``g_target_uS`` and aged, each of its shape."""
    targets = g_target_uS.detach().double()
    values = torch.unique(targets)
    if len(values) > GRID:
        values = torch.linspace(float(targets.min()), float(targets.max()), GRID, dtype=torch.float64)
    mean, var = _integrate(values, hw, t_s)
    on, off = hw.faults.stuck_on, hw.faults.stuck_off
    if on or off:
        ends = on * hw.cell.g_max_uS + off * hw.cell.g_min_uS
        squares = on * hw.cell.g_max_uS**2 + off * hw.cell.g_min_uS**2
        second = (1 - on - off) * (var + mean.square()) + squares
        mean = (1 - on - off) * mean + ends
        var = (second - mean.square()).clamp_min(0)
    return tuple(_interpolate(values, table, targets).to(g_target_uS) for table in (mean, var))  # type: ignore[return-value]


def _integrate(g_uS: Tensor, hw: Hardware, t_s: float) -> tuple[Tensor, Tensor]:
    """Moments over the normals of programming (trapezoids: laws have a corner at g = 0) and aging."""
    needed, signed = cells.static_draws(hw.cell), hw.mapping.scheme == "signed"
    xi, share = _normal_nodes(_STEP if "programming" in needed else None, g_uS)
    aging, aging_share = _normal_nodes(2 * _REACH / (_AGING_NODES - 1) if t_s > 0 and "aging" in needed else None, g_uS)
    grid = g_uS.expand(len(xi), -1)
    made = cells.program(hw.cell, grid, xi[:, None].expand_as(grid) if "programming" in needed else None, signed=signed)
    centre = made.mean(0)
    first, second = torch.zeros_like(g_uS), torch.zeros_like(g_uS)
    for node, weight in zip(aging, aging_share, strict=True):
        g = made
        if t_s > 0:
            g = cells.age(hw.cell, made, grid, t_s, node.expand_as(grid) if "aging" in needed else None)
        first = first + weight * (share[:, None] * (g - centre)).sum(0)
        second = second + weight * (share[:, None] * (g - centre).square()).sum(0)
    return centre + first, (second - first.square()).clamp_min(0)


def _normal_nodes(step: float | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and shares of a standard normal, ``step`` apart; ``None``: nothing random, one node at 0."""
    if step is None:
        return like.new_zeros(1), like.new_ones(1)
    nodes = torch.arange(-_REACH, _REACH + step / 2, step, dtype=like.dtype)
    shares = torch.exp(-0.5 * nodes.square())
    return nodes, shares / shares.sum()


def _interpolate(x: Tensor, y: Tensor, at: Tensor) -> Tensor:
    """Linear interpolation of the table (x, y), x rising, exact at its points."""
    if len(x) == 1:
        return y.expand_as(at)
    right = torch.searchsorted(x, at.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = ((at - x[left]) / (x[right] - x[left])).clamp(0, 1)
    return torch.lerp(y[left], y[right], share)


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
