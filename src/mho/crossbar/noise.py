"""Sampling, kept apart from arithmetic: everything random that an MVM uses is drawn here.

A draw is either a tensor of standard normals or a :class:`Counter`, a promise of one: the seed of a
counter-based stream that a fused kernel turns into normals in registers. Both mean the same law,
and :func:`materialize` turns the second into the first.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar import kernels
from mho.crossbar.ops import Op
from mho.hardware.spec import Hardware
from mho.physics import cells
from mho.physics.averaging import fresh_each_read


class Counter(NamedTuple):
    """``scale`` times standard normals to be: element i depends on (seed, i) alone."""

    seed: int
    scale: float = 1.0


Draw = Tensor | Counter
Source = Callable[[tuple[int, ...], str], Draw]
"""``source(shape, label)``: standard normals of ``shape``; the label names what they are for."""

SHARES = frozenset({"stuck", "dead_rows", "dead_cols"})
"""Labels whose normals become uniforms: they decide how often something fails, not by how much it deviates."""


class StaticDraws(NamedTuple):
    """What one chip got from its fabrication and programming. ``None``: nothing random there.

    ``programming``, ``aging``: standard normals, [cells a weight, *weight.shape]; ``stuck``: uniforms
    of the same shape; ``dead_rows`` [rows], ``dead_cols`` [columns]: uniforms; ``dac_gain`` [rows],
    ``adc_gain``, ``adc_offset``, ``neuron_gain``, ``neuron_offset`` [parts, columns]: normals, where a
    part is one tile (in rows) of one bit slice.
    """

    programming: Draw | None = None
    aging: Draw | None = None
    stuck: Tensor | None = None
    dead_rows: Tensor | None = None
    dead_cols: Tensor | None = None
    dac_gain: Tensor | None = None
    adc_gain: Tensor | None = None
    adc_offset: Tensor | None = None
    neuron_gain: Tensor | None = None
    neuron_offset: Tensor | None = None


class Noise(NamedTuple):
    """Fresh noise of one MVM: one standard normal an output of each part of each read, [read_parts, *output.shape]."""

    fresh: Draw | None = None


def cells_per_weight(hw: Hardware) -> int:
    """Physical cells that hold one weight: polarities times bit slices."""
    return (2 if hw.mapping.scheme == "differential" else 1) * hw.mapping.slices


def parts(op: Op, hw: Hardware) -> int:
    """Separately converted partial sums of one output: row tiles times bit slices."""
    return len(op.blocks(hw.tile.rows)) * hw.mapping.slices


def read_parts(op: Op, hw: Hardware) -> int:
    """Draws of fresh noise for one product: :func:`parts` for each repeat, and once more where repeats share noise."""
    repeats = hw.readout.repeats
    return parts(op, hw) * (repeats + shares_noise(hw))


def shares_noise(hw: Hardware) -> bool:
    """Whether the repeats of a read have noise in common: that of cells which does not change from read to read."""
    return hw.readout.repeats > 1 and cells.has_read_noise(hw.cell) and not fresh_each_read(hw.cell)


def nth_read(draw: Draw, number: int, count: int) -> Draw:
    """The draws of read ``number`` (from 0) of ``count`` parts each."""
    if isinstance(draw, Tensor):
        return draw[number * count : (number + 1) * count]
    return Counter(part_seed(draw.seed, number * count), draw.scale)


def draw_static(
    op: Op, hw: Hardware, weight_shape: torch.Size, source: Source, scale: float = 1.0
) -> StaticDraws | None:
    """Draw one chip's static randomness for one weight of ``weight_shape``; ``None`` if there is none.

    ``scale`` multiplies every deviation (not the share of faults).
    """
    needed = cells.static_draws(hw.cell)
    all_cells = (cells_per_weight(hw), *weight_shape)
    columns, rows = weight_shape[0], op.rows
    per_part = (parts(op, hw), columns)
    faults, adc, dac, neuron = hw.faults, hw.adc, hw.dac, hw.neuron

    def normal(wanted: object, shape: tuple[int, ...], label: str) -> Tensor | None:
        return as_tensor(scaled(source(shape, label), scale), shape) if wanted else None

    def uniform(wanted: object, shape: tuple[int, ...], label: str) -> Tensor | None:
        # The normal law's own distribution function makes uniforms of normals, so that one kind of
        # source serves both.
        return torch.special.ndtr(as_tensor(source(shape, label), shape)) if wanted else None

    draws = StaticDraws(
        programming=scaled(source(all_cells, "programming"), scale) if "programming" in needed else None,
        aging=scaled(source(all_cells, "aging"), scale) if "aging" in needed else None,
        stuck=uniform(faults.stuck_on or faults.stuck_off, all_cells, "stuck"),
        dead_rows=uniform(faults.dead_rows, (rows,), "dead_rows"),
        dead_cols=uniform(faults.dead_cols, (columns,), "dead_cols"),
        dac_gain=normal(dac is not None and dac.gain_d2d, (rows,), "dac_gain"),
        adc_gain=normal(adc is not None and adc.gain_d2d, per_part, "adc_gain"),
        adc_offset=normal(adc is not None and adc.offset_d2d_lsb, per_part, "adc_offset"),
        neuron_gain=normal(neuron is not None and neuron.gain_d2d, per_part, "neuron_gain"),
        neuron_offset=normal(neuron is not None and neuron.offset_d2d, per_part, "neuron_offset"),
    )
    return None if all(d is None for d in draws) else draws


def draw_noise(has_fresh: bool, shape: tuple[int, ...], source: Source, scale: float = 1.0) -> Noise:
    """Draw the fresh noise of one MVM: normals of ``shape`` = [read_parts, *output.shape], or nothing."""
    return Noise(fresh=scaled(source(shape, "fresh"), scale) if has_fresh else None)


def scaled(draw: Draw, scale: float) -> Draw:
    """``scale`` times a draw."""
    if scale == 1.0:
        return draw
    return draw * scale if isinstance(draw, Tensor) else Counter(draw.seed, draw.scale * scale)


def part_seed(seed: int, part: int) -> int:
    """The seed of one part (tile or slice) of an MVM: its noise does not depend on the other parts."""
    return seed if part == 0 else (seed + part * 0x9E37_79B9_7F4A_7C15) & 0x7FFF_FFFF_FFFF_FFFF


def as_tensor(draw: Draw, shape: tuple[int, ...], like: Tensor | None = None) -> Tensor:
    """The normals of a draw, on the device and in the dtype of ``like`` (float32 on the CPU without).

    On the CPU a counter gives the numbers that a fused kernel makes of its seed, with a compiler or without; on
    other devices those of a seeded torch generator.
    """
    if isinstance(draw, Tensor):
        return draw if like is None else draw.to(like)
    out = _fill_(torch.empty(shape, dtype=torch.float32, device=None if like is None else like.device), draw)
    return out if like is None else out.to(like.dtype)


def parts_as_tensor(draw: Draw, count: int, like: Tensor) -> Tensor:
    """The normals of ``count`` parts of an MVM, [count, *like.shape], each part from its own :func:`part_seed`.

    A counter runs along the memory of ``like``, one part's output, as the fused kernels do.
    """
    if isinstance(draw, Tensor):
        return draw.to(like)
    seeds = [part_seed(draw.seed, part) for part in range(count)]
    normals = [_fill_(torch.empty_like(like, dtype=torch.float32), Counter(seed, draw.scale)) for seed in seeds]
    return torch.stack(normals).to(like.dtype)


def _fill_(out: Tensor, draw: Counter) -> Tensor:
    if out.device.type == "cpu":
        kernels.normal_(out, draw.seed)
    else:
        out.normal_(generator=torch.Generator(out.device).manual_seed(draw.seed))
    return out if draw.scale == 1.0 else out.mul_(draw.scale)
