"""From weights to what the array really holds: conductances, programmed, aged, faulty, behind wires.

    w  --full scale-->  w/w_max in [-1, 1]  --mapping-->  g_target  --physics-->  g  --mapping-->  w_eff

``w_eff`` is in the units of the weight, so that an ideal array holds exactly ``w``. Everything is
differentiable: quantised levels and the clip at full scale pass gradients straight through, the rest
exactly (the programming error depends on the target, and so does its gradient).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar import fused_weight
from mho.crossbar.noise import Draw, StaticDraws, as_tensor, cells_per_weight
from mho.crossbar.ops import ConvOp, Op
from mho.hardware.cells import Cell
from mho.hardware.spec import Hardware, Mapping, Readout
from mho.physics import cells, faults, thermal, wires
from mho.physics.averaging import column_repeats, column_windows, fresh_each_read, longer_read_cell
from mho.units import ELEMENTARY_CHARGE_C

SIEMENS_PER_US = 1e-6


class Array(NamedTuple):
    """One weight matrix as programmed on one chip, at one age.

    ``weights``: one tensor a bit slice, each of the weight's shape and units, with
    ``slice_factors(hw)`` to add them up. ``read_var``: variance of one read in squared weight units, a
    0-d tensor when it is the same for all cells (``per slice``). ``thermal_var`` [slices, out]:
    variance of the output for an input range of 1. ``shot_weight``: variance a unit of |x| and input
    range. The remaining fields are the static errors of the periphery, see ``StaticDraws``.
    """

    weights: tuple[Tensor, ...]
    read_var: tuple[Tensor, ...] | None = None
    thermal_var: Tensor | None = None
    shot_weight: tuple[Tensor, ...] | None = None
    dac_gain: Tensor | None = None
    adc_gain: Tensor | None = None
    adc_offset: Tensor | None = None
    neuron_gain: Tensor | None = None
    neuron_offset: Tensor | None = None


def full_scale(w: Tensor, hw: Hardware, bound: Tensor | None) -> Tensor:
    """The weight that sits at full-scale conductance: ``bound`` if fixed, else max|w| (detached).

    0-d, or [out, 1, ...] with ``mapping.per_column``. Bounds of single channels on hardware without ``per_column``: the
    largest of them. An all-zero weight has full scale 1.
    """
    if bound is not None:
        if bound.dim() and not hw.mapping.per_column:  # fixed for channels, put on hardware with one range a layer
            return bound.amax()
        return bound.reshape(-1, *([1] * (w.dim() - 1))) if bound.dim() else bound
    if w.numel() == 0:
        return w.new_ones(())
    # No copy of |w|; aminmax along a dimension is slow on a CPU.
    if hw.mapping.per_column:
        rows = w.detach().flatten(1)
        top = torch.maximum(rows.amax(1), -rows.amin(1)).reshape(-1, *([1] * (w.dim() - 1)))
    else:
        low, high = w.detach().aminmax()
        top = torch.maximum(high, -low)
    return torch.where(top > 0, top, torch.ones_like(top))


def slice_factors(hw: Hardware) -> tuple[float, ...]:
    """Digital weight of each bit slice: w = sum_k factor_k w_k, every w_k spanning the full scale.

    With B bits a slice and S slices the magnitude is a code of S*B bits: factor_k =
    (2^B - 1) 2^(B (S-1-k)) / (2^(S B) - 1).
    """
    slices, bits = hw.mapping.slices, hw.mapping.bits_per_slice
    if slices == 1 or bits is None:
        return (1.0,)
    top = 2 ** (slices * bits) - 1
    return tuple((2**bits - 1) * 2 ** (bits * (slices - 1 - k)) / top for k in range(slices))


def bit_slices(w_hat: Tensor, hw: Hardware) -> tuple[Tensor, ...]:
    """Cut normalised weights into bit slices; the gradient passes straight through to w_hat."""
    slices, bits = hw.mapping.slices, hw.mapping.bits_per_slice
    if bits is None:
        return (w_hat,)
    code = torch.round(w_hat.detach().abs() * (2 ** (slices * bits) - 1))
    sign = w_hat.detach().sign()
    digits = []
    for k in range(slices):
        place = 2 ** (bits * (slices - 1 - k))
        digit = torch.floor(code / place)
        code = code - digit * place
        digits.append(sign * digit / (2**bits - 1))
    digits[0] = digits[0] + (w_hat - w_hat.detach()) / slice_factors(hw)[0]
    return tuple(digits)


def to_conductances(w_hat: Tensor, hw: Hardware) -> Tensor:
    """Target conductances in uS, [polarities, *w.shape], of normalised weights in [-1, 1].

    differential: g+- = g_min + max(+-w, 0) (g_max - g_min); signed: g = w (g_max - g_min);
    offset: g = g_min + (w + 1)/2 (g_max - g_min).
    """
    cell = hw.cell
    span = cell.g_max_uS - cell.g_min_uS
    if hw.mapping.scheme == "signed":
        return (w_hat * span).unsqueeze(0)
    if hw.mapping.scheme == "offset":
        return (cell.g_min_uS + (w_hat + 1) * (span / 2)).unsqueeze(0)
    # (|w| + w)/2 instead of relu(w): a weight of exactly zero keeps its full gradient.
    positive = (w_hat.abs() + w_hat) / 2
    return cell.g_min_uS + span * torch.stack((positive, positive - w_hat))


def to_weights(g_uS: Tensor, w_max: Tensor, hw: Hardware) -> Tensor:
    """The inverse of :func:`to_conductances`, times full scale: [polarities, *w] -> [*w]."""
    cell = hw.cell
    span = cell.g_max_uS - cell.g_min_uS
    if hw.mapping.scheme == "signed":
        return g_uS[0] * (w_max / span)
    if hw.mapping.scheme == "offset":
        return (g_uS[0] - (cell.g_min_uS + span / 2)) * (2 * w_max / span)
    return (g_uS[0] - g_uS[1]) * (w_max / span)


def is_ideal(hw: Hardware) -> bool:
    """Whether ``hw`` describes nothing analog at all: a product on it is the digital one to the last bit.

    True for the preset ``ideal`` under any name, at any temperature and age, whatever it costs.
    """
    blank = Hardware(
        name=hw.name,
        summary=hw.summary,
        mapping=Mapping(scheme="signed"),
        environment=hw.environment,
        cost=hw.cost,
        sources=hw.sources,
    )
    return hw == blank


def simple_sigma(hw: Hardware) -> float | None:
    """Sigma of the effective weight as a fraction of full scale where the array is just w + noise.

    That is: one signed analog cell a weight with one additive Gaussian error, no levels, faults,
    wires or aging. ``None`` where the whole path through conductances is needed.
    """
    plain = (
        hw.mapping.scheme == "signed"
        and hw.mapping.slices == 1
        and hw.mapping.bits_per_slice is None
        and hw.cell.bits is None
        and hw.wires is None
        and not (hw.faults.stuck_on or hw.faults.stuck_off or hw.faults.dead_rows or hw.faults.dead_cols)
        and "aging" not in cells.static_draws(hw.cell)
    )
    return cells.uniform_programming_sigma(hw.cell) if plain else None


def program(
    w: Tensor,
    op: Op,
    hw: Hardware,
    draws: StaticDraws | None,
    *,
    t_s: float = 0.0,
    bound: Tensor | None = None,
    exact_wires: bool = True,
) -> Array:
    """Program ``w`` on the chip of ``draws`` and let it age to ``t_s`` seconds.

    ``w``: [out, ...]; ``bound``: fixed full scale (weights beyond it saturate), else max|w|.
    ``draws=None``: no randomness (levels, wires, mean drift remain). ``exact_wires=False`` uses the
    first-order wire model whatever the description says (training; see crossbar/README.md).
    """
    dtype, w_max = w.dtype, full_scale(w, hw, bound).to(w.dtype)
    statics = draws if draws is not None else StaticDraws()
    sigma = simple_sigma(hw)
    if sigma is not None and (t_s == 0 or is_ideal(hw)):
        limit = None if bound is None else w_max
        weights: tuple[Tensor, ...] = (fused_weight.noisy(w, limit, sigma * w_max, statics.programming),)
        conductances: tuple[Tensor, ...] | None = None
        targets: tuple[Tensor, ...] | None = None
    else:
        # A slice is a small difference, and an error may be less than a step of bfloat16: physics is in float32.
        w, w_max = _wide(w), _wide(w_max)
        if bound is not None:
            w = fused_weight.clip(w, w_max)
        targets = tuple(
            cells.quantize_levels(hw.cell, to_conductances(s, hw), signed=hw.mapping.scheme == "signed")
            for s in bit_slices(w / w_max, hw)
        )
        polarities = targets[0].shape[0]
        conductances = tuple(
            _conductance(g, op, hw, statics, slice(k * polarities, (k + 1) * polarities), t_s, exact_wires)
            for k, g in enumerate(targets)
        )
        weights = tuple(to_weights(g, w_max, hw).to(dtype) for g in conductances)
    return Array(
        weights=weights,
        read_var=_read_var(w, w_max, hw, conductances, targets, t_s),
        thermal_var=_thermal_var(w_max, op, hw, conductances, w),
        shot_weight=_shot_weight(w_max, hw, conductances, w),
        dac_gain=statics.dac_gain,
        adc_gain=statics.adc_gain,
        adc_offset=statics.adc_offset,
        neuron_gain=statics.neuron_gain,
        neuron_offset=statics.neuron_offset,
    )


def _wide(t: Tensor) -> Tensor:
    """``t`` in float32 at least."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


def _conductance(
    g_target: Tensor, op: Op, hw: Hardware, draws: StaticDraws, which: slice, t_s: float, exact_wires: bool
) -> Tensor:
    """Programmed, aged, faulty conductances behind their wires: [polarities, *w.shape] in uS."""
    signed = hw.mapping.scheme == "signed"

    def normals(draw: Draw | None) -> Tensor | None:
        if draw is None:
            return None
        return as_tensor(draw, (cells_per_weight(hw), *g_target.shape[1:]), g_target)[which]

    g = cells.program(hw.cell, g_target, normals(draws.programming), signed=signed)
    if t_s > 0:
        g = cells.age(hw.cell, g, g_target, t_s, normals(draws.aging))
    if draws.stuck is not None:
        g = faults.stuck(g, draws.stuck[which].to(g), hw.faults, hw.cell.g_min_uS, hw.cell.g_max_uS)
    if draws.dead_rows is not None:
        g = g * (draws.dead_rows >= hw.faults.dead_rows).to(g).reshape(g.shape[2:])
    if draws.dead_cols is not None:
        g = g * (draws.dead_cols >= hw.faults.dead_cols).to(g).reshape(-1, *([1] * (g.dim() - 2)))
    if hw.wires is not None and hw.wires.wire_ohm > 0:
        g = _behind_wires(g, op, hw, exact_wires)
    return g


def _behind_wires(g: Tensor, op: Op, hw: Hardware, exact: bool) -> Tensor:
    """Replace each physical tile by its effective conductances. Signed cells have no physical array:
    their magnitude goes through the wires and the sign is put back."""
    assert hw.wires is not None
    sign = g.detach().sign() if hw.mapping.scheme == "signed" else None
    magnitude = g.abs() if sign is not None else g
    groups = op.groups if isinstance(op, ConvOp) else 1
    out_per_group = g.shape[1] // groups
    tile_cols = min(hw.tile.cols or out_per_group, out_per_group)
    solve = wires.effective_conductance if exact and hw.wires.model == "exact" else wires.first_order
    pieces = []
    for start in range(0, g.shape[1], out_per_group):
        for col in range(start, start + out_per_group, tile_cols):
            columns = magnitude[:, col : min(col + tile_cols, start + out_per_group)]
            row_pieces = []
            for block in op.blocks(hw.tile.rows):
                cut = columns[:, :, block.start : block.stop]
                # A tile has inputs along its rows: [polarities, rows, columns].
                tile = cut.flatten(2).transpose(1, 2)
                row_pieces.append(solve(tile, hw.wires.wire_ohm).transpose(1, 2).reshape(cut.shape))
            pieces.append(torch.cat(row_pieces, 2))
    result = torch.cat(pieces, 1)
    return result if sign is None else result * sign


def _read_var(
    w: Tensor,
    w_max: Tensor,
    hw: Hardware,
    conductances: tuple[Tensor, ...] | None,
    targets: tuple[Tensor, ...] | None,
    t_s: float,
) -> tuple[Tensor, ...] | None:
    """Variance of a read in squared weight units, a slice each; ``None`` where reads are noiseless."""
    if not cells.has_read_noise(hw.cell):
        return None
    span = hw.cell.g_max_uS - hw.cell.g_min_uS
    to_weight = ((2 if hw.mapping.scheme == "offset" else 1) * w_max / span) ** 2
    kelvin = hw.environment.temperature_K
    read = _cells_as_read(hw.cell, hw.readout, len(w))
    if conductances is None or targets is None:
        uniform = [cells.uniform_read_sigma(cell, temperature_K=kelvin) for cell, _ in read]
        if uniform[0] is not None:
            if len(read) == 1:
                return (to_weight * (uniform[0] * span) ** 2,)
            sigmas = {c: sigma for sigma, (_, columns) in zip(uniform, read, strict=True) for c in columns}
            each = w.new_tensor([sigmas[c] for c in range(len(w))]).reshape(-1, *([1] * (w.dim() - 1)))
            return (to_weight * (each * span) ** 2,)
        targets = conductances = (to_conductances(w / w_max, hw),)
    result = []
    for g, g_target in zip(conductances, targets, strict=True):
        if len(read) == 1:
            sigma = cells.read_sigma_uS(read[0][0], g, g_target, t_s, temperature_K=kelvin)
            total = g.shape[0] * sigma.square() if sigma.dim() == 0 else sigma.square().sum(0)
        else:
            total = torch.zeros_like(g[0])
            for cell, columns in read:
                of = g[:, list(columns)]
                sigma = cells.read_sigma_uS(cell, of, g_target[:, list(columns)], t_s, temperature_K=kelvin)
                total[list(columns)] = sigma.square().expand_as(of).sum(0)
        result.append(total * to_weight)
    return tuple(result)


def _cells_as_read(cell: Cell, readout: Readout, columns: int) -> tuple[tuple[Cell, tuple[int, ...]], ...]:
    """The cell as reads of this length see it, and the columns that do: one entry, or one a distinct time.

    What the repeats of a read share is averaged over all of them together.
    """
    if readout.repeats == 1 and not readout.column_windows and not readout.column_repeats:
        return ((cell, ()),)
    windows, counts = column_windows(readout, columns), column_repeats(readout, columns)
    shared = not fresh_each_read(cell)
    columns_of: dict[float, list[int]] = {}
    for c in range(columns):
        repeats = (counts[c] if counts else readout.repeats) if shared else 1
        columns_of.setdefault((windows[c] if windows else 1.0) * repeats, []).append(c)
    if not columns_of:
        return ((cell, ()),)
    return tuple((cell if time == 1 else longer_read_cell(cell, time), tuple(of)) for time, of in columns_of.items())


def _window_factor(hw: Hardware, like: Tensor) -> Tensor | float:
    """1 / window of each output channel, [out]: by how much more the white noise of a shorter integration varies."""
    windows = column_windows(hw.readout, len(like))
    return 1.0 / like.new_tensor(windows) if windows else 1.0


def _ohmic_columns(
    hw: Hardware, conductances: tuple[Tensor, ...] | None, w: Tensor, w_max: Tensor
) -> tuple[Tensor, ...]:
    """Sum of |g| over the polarities of each weight, in S, a slice each."""
    if conductances is None:
        conductances = (to_conductances(w / w_max, hw),)
    return tuple(g.abs().sum(0) * SIEMENS_PER_US for g in conductances)


def _weight_per_ampere(w_max: Tensor, hw: Hardware) -> Tensor:
    """y = I * factor * input_range: the output that one ampere of column current stands for."""
    span_S = (hw.cell.g_max_uS - hw.cell.g_min_uS) * SIEMENS_PER_US
    return (2 if hw.mapping.scheme == "offset" else 1) * w_max / (hw.readout.v_read_V * span_S)


def _thermal_var(
    w_max: Tensor, op: Op, hw: Hardware, conductances: tuple[Tensor, ...] | None, w: Tensor
) -> Tensor | None:
    """Johnson-Nyquist variance of each part of each output for an input range of 1: [parts, out]."""
    if not hw.readout.thermal:
        return None
    bandwidth = thermal.boxcar_bandwidth_Hz(hw.readout.t_read_s)
    scale = _weight_per_ampere(w_max, hw).reshape(-1)
    rows = []
    for g in _ohmic_columns(hw, conductances, w, w_max):
        for block in op.blocks(hw.tile.rows):
            total = g[:, block.start : block.stop].flatten(1).sum(1)
            rows.append((thermal.johnson_sigma_A(total, bandwidth, hw.environment.temperature_K) * scale) ** 2)
    return torch.stack(rows) * _window_factor(hw, w.detach())


def _shot_weight(
    w_max: Tensor, hw: Hardware, conductances: tuple[Tensor, ...] | None, w: Tensor
) -> tuple[Tensor, ...] | None:
    """2 q F B V g (weight per ampere)^2: shot variance a unit of |x| times the input range."""
    if hw.readout.fano == 0:
        return None
    bandwidth = thermal.boxcar_bandwidth_Hz(hw.readout.t_read_s)
    power = 2 * ELEMENTARY_CHARGE_C * hw.readout.fano * bandwidth * hw.readout.v_read_V
    scale = power * _weight_per_ampere(w_max, hw) ** 2
    windows = _window_factor(hw, w.detach())
    if isinstance(windows, Tensor):
        scale = scale * windows.reshape(-1, *([1] * (w.dim() - 1)))
    return tuple(g * scale for g in _ohmic_columns(hw, conductances, w, w_max))


def mean_abs_conductance_uS(w: Tensor, hw: Hardware, bound: Tensor | None = None) -> float:
    """Mean |g| over the cells that hold ``w``: proportional to the array's power."""
    w_max = full_scale(w, hw, bound)
    g = to_conductances((w / w_max).clamp(-1, 1), hw)
    return float(g.detach().abs().mean()) if not math.isnan(float(g.sum())) else math.nan


__all__ = [
    "Array",
    "cells_per_weight",
    "full_scale",
    "is_ideal",
    "mean_abs_conductance_uS",
    "program",
    "simple_sigma",
    "slice_factors",
    "to_conductances",
    "to_weights",
]
