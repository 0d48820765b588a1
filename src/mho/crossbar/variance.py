"""How far the output of one product strays from the digital one, a variance a source, without sampling.

    Var y_o = sum_i x_i^2 Var w_oi + sum_parts factor_p^2 (fresh_p + converters_p) + rounding

The laws are those that ``program`` and ``mvm`` sample; here they are integrated. Left out: what is no spread
but a bend (clipping at a range, integral non-linearity, mean drift), neurons and wires (both refused).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar import fused_weight
from mho.crossbar.array import (  # fmt: skip
    Array,
    bit_slices,
    full_scale,
    is_ideal,
    program,
    simple_sigma,
    slice_factors,
    to_conductances,
    to_weights,
)
from mho.crossbar.mvm import fresh_sigma
from mho.crossbar.noise import shares_noise
from mho.crossbar.ops import ConvOp, Op
from mho.errors import HardwareError
from mho.hardware.spec import Hardware
from mho.physics import cells, converters
from mho.physics.averaging import column_repeats, persisting_rounding
from mho.physics.typical import normal_law

_TARGETS = 513
_DRAWS_PROGRAMMING = 161
_DRAWS_AGEING = 49


class OutputVariance(NamedTuple):
    """Variance of one output by source, in squared units of the output; each broadcasts to the output.

    Static, one draw a chip: ``weights`` (programming error, spread of ageing, stuck cells, dead lines),
    ``gains`` (gain and offset of the converters). Fresh, at each read: ``read``, ``shot``, ``thermal``,
    ``output`` (output noise and what the ADC's effective bits lack). Not random, taken as if it were:
    ``dac``, ``adc`` (rounding).
    """

    weights: Tensor
    gains: Tensor
    read: Tensor
    shot: Tensor
    thermal: Tensor
    output: Tensor
    dac: Tensor
    adc: Tensor

    @property
    def static(self) -> Tensor:
        """What differs from chip to chip and is the same at every read."""
        return self.weights + self.gains

    @property
    def fresh(self) -> Tensor:
        """What differs from read to read."""
        return self.read + self.shot + self.thermal + self.output

    @property
    def rounding(self) -> Tensor:
        """Delta^2 / 12 of the converters."""
        return self.dac + self.adc

    @property
    def total(self) -> Tensor:
        """All sources; they are independent."""
        return self.static + self.fresh + self.rounding


class CellMoments(NamedTuple):
    """Mean (uS) and variance (uS^2) of a programmed, aged, perhaps stuck cell on a grid of targets (uS)."""

    targets: Tensor
    mean: Tensor
    variance: Tensor


class WeightMoments(NamedTuple):
    """Mean and variance of what the array holds, in weight units; the variance broadcasts to the weight."""

    mean: Tensor
    variance: Tensor


@torch.no_grad()
def cell_moments(hw: Hardware, t_s: float = 0.0) -> CellMoments:
    """Moments of one cell of ``hw``, ``t_s`` seconds after programming, against its target.

    Integrated over both normals of the cell (programming, ageing) on grids that end at 6 sigma; a stuck cell
    is a mixture. 513 targets over the cell's range, both signs for signed cells. float64, on the CPU.
    """
    cell, faults = hw.cell, hw.faults
    signed = hw.mapping.scheme == "signed"
    span = cell.g_max_uS - cell.g_min_uS
    low, high = (-span, span) if signed else (cell.g_min_uS, cell.g_max_uS)
    targets = torch.linspace(low, high, _TARGETS, dtype=torch.float64)
    random = cells.static_draws(cell)
    first, first_mass = _nodes(_DRAWS_PROGRAMMING if "programming" in random else 1)
    second, second_mass = _nodes(_DRAWS_AGEING if "aging" in random and t_s > 0 else 1)
    grid = targets.reshape(-1, 1, 1).expand(-1, len(first), len(second))
    g = cells.program(cell, grid, first.reshape(1, -1, 1).expand_as(grid), signed=signed)
    if t_s > 0:
        g = cells.age(cell, g, grid, t_s, second.reshape(1, 1, -1).expand_as(grid))
    mass = first_mass.reshape(-1, 1) * second_mass
    mean = (g * mass).sum((1, 2))
    variance = ((g - mean.reshape(-1, 1, 1)).square() * mass).sum((1, 2))
    well = 1.0 - faults.stuck_on - faults.stuck_off
    mixed = well * mean + faults.stuck_on * cell.g_max_uS + faults.stuck_off * cell.g_min_uS
    spread = well * (variance + (mean - mixed).square())
    spread = spread + faults.stuck_on * (cell.g_max_uS - mixed).square()
    return CellMoments(targets, mixed, spread + faults.stuck_off * (cell.g_min_uS - mixed).square())


def _nodes(count: int) -> tuple[Tensor, Tensor]:
    """Points and mass of a standard normal; one point is the typical cell."""
    if count == 1:
        return torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    law = normal_law(1.0, count=count)
    return law.points, law.mass


def _looked_up(values: Tensor, moments: CellMoments, g: Tensor) -> Tensor:
    """``values`` over an even grid of targets, linear in between."""
    low, step = float(moments.targets[0]), float(moments.targets[1] - moments.targets[0])
    place = ((g - low) / step).clamp(0, len(moments.targets) - 1)
    left = place.detach().floor().clamp_max(len(moments.targets) - 2).long()
    values = values.to(g)
    return values[left] + (place - left) * (values[left + 1] - values[left])


def is_uniform(hw: Hardware, t_s: float = 0.0) -> bool:
    """Whether every weight has the same additive Gaussian error, so that no table of the cell is needed."""
    return simple_sigma(hw) is not None and (t_s == 0 or is_ideal(hw))


def weight_moments(
    w: Tensor, hw: Hardware, *, bound: Tensor | None = None, t_s: float = 0.0, cell: CellMoments | None = None
) -> WeightMoments:
    """Mean and variance over chips of the effective weight that ``program`` puts into the array.

    ``w`` [out, ...]; ``bound``: fixed full scale, else max|w|; ``cell``: from :func:`cell_moments`, made anew
    without. Signed cells with one additive error: mean w, variance (sigma w_max)^2, exactly. Otherwise a
    cell at a time, polarities and bit slices independent, dead rows as a mixture (dead columns are an error
    of the whole output, see :func:`static_variance`). The gradient is exact but for the levels
    (straight through). Raises :class:`HardwareError` for resistive wires.
    """
    slices = slice_moments(w, hw, bound=bound, t_s=t_s, cell=cell)
    factors, share = slice_factors(hw), hw.faults.dead_rows
    mean = sum((f * p.mean for f, p in zip(factors[1:], slices[1:], strict=True)), factors[0] * slices[0].mean)
    variance = sum(
        (f * f * p.variance for f, p in zip(factors[1:], slices[1:], strict=True)), factors[0] ** 2 * slices[0].variance
    )
    if share:
        # Cells of a dead row give no current: what is left is the zero of the mapping.
        w_max = full_scale(w, hw, bound).to(w.dtype)
        nothing = torch.zeros_like(to_conductances(w, hw))
        dead = sum(factors) * to_weights(nothing, w_max, hw)
        variance = (1 - share) * (variance + share * (mean - dead).square())
        mean = (1 - share) * mean + share * dead
    return WeightMoments(mean, variance)


def slice_moments(
    w: Tensor, hw: Hardware, *, bound: Tensor | None = None, t_s: float = 0.0, cell: CellMoments | None = None
) -> tuple[WeightMoments, ...]:
    """:func:`weight_moments` of each bit slice, each spanning full scale, before factors and without dead rows."""
    if hw.wires is not None and hw.wires.wire_ohm > 0:
        raise HardwareError(
            f"weight_moments: hardware {hw.name!r} has wires of {hw.wires.wire_ohm:g} ohm, behind which the errors of "
            "cells are not independent. Way out: hw.replace(wires=None) for the variance, or chips (mho.fabricate)."
        )
    w_max = full_scale(w, hw, bound).to(w.dtype)
    if bound is not None:
        w = fused_weight.clip(w, w_max)
    sigma = simple_sigma(hw)
    if sigma is not None and is_uniform(hw, t_s):
        return (WeightMoments(w, (sigma * w_max) ** 2),)
    table = cell_moments(hw, t_s) if cell is None else cell
    signed = hw.mapping.scheme == "signed"
    # Between the knots of a table half precision has no digits left.
    wide = torch.promote_types(w.dtype, torch.float32)
    top = w_max.to(wide)
    per_uS = (2 if hw.mapping.scheme == "offset" else 1) * top / (hw.cell.g_max_uS - hw.cell.g_min_uS)
    found = []
    for part in bit_slices(w.to(wide) / top, hw):
        g = cells.quantize_levels(hw.cell, to_conductances(part, hw), signed=signed)
        mean = to_weights(_looked_up(table.mean, table, g), top, hw)
        variance = per_uS**2 * _looked_up(table.variance, table, g).sum(0)
        found.append(WeightMoments(mean.to(w.dtype), variance.to(w.dtype)))
    return tuple(found)


def static_variance(
    x: Tensor,
    w: Tensor,
    op: Op,
    hw: Hardware,
    *,
    adc_range: Tensor,
    bound: Tensor | None = None,
    t_s: float = 0.0,
    cell: CellMoments | None = None,
) -> tuple[Tensor, Tensor]:
    """(weights, gains) of :class:`OutputVariance`: spread over chips of the output for the input ``x``.

    weights: sum_i x_i^2 Var w_oi, which is sigma^2 w_max^2 ||x||^2 over the receptive field for a uniform
    sigma; with a share p of dead columns (1 - p) of it plus p (1 - p) (y - y_dead)^2. gains: rows
    sum_i x_i^2 d^2 E[w^2], columns (g y_p)^2 + offset^2, summed over the parts.

    The law of one output over chips. The same draw serves all positions of a convolution and all
    samples: independent draws of this variance are wrong wherever outputs are pooled.
    """
    moments = weight_moments(w, hw, bound=bound, t_s=t_s, cell=cell)
    zero = x.new_zeros(())
    weights = _through(x, moments.variance, w, op)
    share = hw.faults.dead_cols
    if share:
        dead = torch.zeros_like(w)
        if hw.mapping.scheme == "offset":
            top, span = full_scale(w, hw, bound).to(w.dtype), hw.cell.g_max_uS - hw.cell.g_min_uS
            dead = dead - (hw.cell.g_min_uS + span / 2) * (2 * top / span) * sum(slice_factors(hw))
        weights = (1 - share) * (weights + share * op.apply(x, moments.mean - dead, None).square())
    gains = zero
    if hw.dac is not None and hw.dac.gain_d2d:
        gains = gains + hw.dac.gain_d2d**2 * op.apply(x.square(), moments.mean.square() + moments.variance, None)
    if hw.adc is not None and (hw.adc.gain_d2d or hw.adc.offset_d2d_lsb):
        if hw.adc.gain_d2d:
            array = program(w, op, hw, None, t_s=t_s, bound=bound, exact_wires=False)
            blocks = op.blocks(hw.tile.rows)
            a = torch.stack(
                [op.apply(op.cut_input(x, b), op.cut_weight(p, b), None) for p in array.weights for b in blocks]
            )
            gains = gains + hw.adc.gain_d2d**2 * torch.tensordot(_part_weights(a, op, hw), a.square(), dims=1)
        if hw.adc.offset_d2d_lsb and hw.adc.bits is not None:
            lsb = adc_range / converters.levels(hw.adc.bits)
            gains = gains + _part_weights(x, op, hw).sum() * (hw.adc.offset_d2d_lsb * lsb.to(x.dtype)) ** 2
    return weights, gains


def _through(x: Tensor, variance: Tensor, w: Tensor, op: Op) -> Tensor:
    """sum_i x_i^2 variance_oi, by the norm of x alone where all weights of a column share a variance."""
    if variance.dim() == 0:
        return variance * op.row_norm2(x)
    if variance[0].numel() == 1:
        return op.over_columns(variance.reshape(-1)) * op.row_norm2(x)
    return op.apply(x.square(), variance.expand_as(w), None)


def _part_weights(like: Tensor, op: Op, hw: Hardware) -> Tensor:
    """Square of the digital factor of each part (bit slice and tile), [parts]."""
    squares: Tensor = like.new_tensor(slice_factors(hw)).square()
    return squares.repeat_interleave(len(op.blocks(hw.tile.rows)))


def fresh_variance(x: Tensor, array: Array, op: Op, hw: Hardware, *, input_range: Tensor, adc_range: Tensor) -> Tensor:
    """Variance of one read of ``array``, or of the mean over its repeats: all fresh sources, summed over its parts."""
    ranges = (input_range.to(x.dtype), adc_range.to(x.dtype))

    def summed(one: Array, on: Hardware) -> Tensor:
        sigma = fresh_sigma(x, one, op, on, *ranges, op.blocks(on.tile.rows))
        total: Tensor = torch.tensordot(_part_weights(sigma, op, on), sigma.square(), dims=1)
        return total

    own, shared = own_and_shared(array, hw)
    total = summed(own, hw) / _repeats_of(x, op, hw)
    return total if shared is None else total + summed(shared, hw.replace(output_noise=0.0, adc=None, neuron=None))


def own_and_shared(array: Array, hw: Hardware) -> tuple[Array, Array | None]:
    """The array with the noise that each repeat of a read has for itself, and with what all of them share, if any."""
    if not shares_noise(hw) or array.read_var is None:
        return array, None
    return array._replace(read_var=None), array._replace(thermal_var=None, shot_weight=None)


def _repeats_of(x: Tensor, op: Op, hw: Hardware) -> Tensor | int:
    """Reads that the mean is of: one number, or one a column."""
    counts = column_repeats(hw.readout, op.out_channels if isinstance(op, ConvOp) else op.out_features)
    return op.over_columns(x.new_tensor(counts)) if counts else hw.readout.repeats


def rounding_variance(
    x: Tensor, array: Array, op: Op, hw: Hardware, *, input_range: Tensor, adc_range: Tensor
) -> tuple[Tensor, Tensor]:
    """(dac, adc) of :class:`OutputVariance`: Delta^2 / 12 with Delta = range / (2^(bits - 1) - 1).

    dac: Delta^2 / 12 sum_i w_oi^2 over the inputs that are not exactly 0 (0 is a code). Right where a signal
    crosses several codes and stays inside the range; the error itself is a function of the signal. Of repeated reads
    the ADC's error is what noise does not dither (``averaging.persisting_rounding``).
    """
    dac = adc = x.new_zeros(())
    if hw.dac is not None and hw.dac.bits is not None:
        total = sum(f * w for f, w in zip(slice_factors(hw), array.weights, strict=True))
        assert isinstance(total, Tensor)
        lsb = input_range.to(x.dtype) / converters.levels(hw.dac.bits)
        dac = lsb**2 / 12 * op.apply((x.detach() != 0).to(x.dtype), total.square(), None)
    if hw.adc is not None and hw.adc.bits is not None:
        lsb = adc_range.to(x.dtype) / converters.levels(hw.adc.bits)
        adc = lsb**2 / 12 * _part_weights(x, op, hw).sum()
        if hw.readout.repeats > 1:
            own, _ = own_and_shared(array, hw)
            ranges = (input_range.to(x.dtype), adc_range.to(x.dtype))
            sigma = fresh_sigma(x, own, op, hw, *ranges, op.blocks(hw.tile.rows))
            stays, count = persisting_rounding(sigma / lsb), _repeats_of(x, op, hw)
            kept = stays + (1 - stays) / count
            adc = lsb**2 / 12 * torch.tensordot(_part_weights(x, op, hw), kept, dims=1)
    return dac, adc


def refuse_neuron(hw: Hardware) -> None:
    """Raise where an analog neuron bends the output: the spread of its output is no sum of sources."""
    if hw.neuron is not None:
        raise HardwareError(
            f"output_variance: hardware {hw.name!r} has an analog neuron, which bends the sum of all sources. Way out: "
            "hw.replace(neuron=None) for what stands in front of it, or mho.convert, which computes the neuron."
        )


def output_variance(
    x: Tensor,
    w: Tensor,
    op: Op,
    hw: Hardware,
    *,
    input_range: Tensor,
    adc_range: Tensor,
    bound: Tensor | None = None,
    t_s: float | None = None,
) -> OutputVariance:
    """Variance of y = op(x, w) on ``hw`` by source, over chips, reads and rounding errors.

    ``x`` as the operation takes it; ``w`` [out, ...]; ``input_range``, ``adc_range``: 0-d, > 0, full scale of the
    converters in units of x and of y; ``bound``: fixed full scale of the weights, else max|w|; ``t_s``:
    seconds since programming, ``None``: ``hw.environment.t_s``. Fresh noise is that of the array without
    programming error; converters see x as it is. Differentiable. Raises :class:`HardwareError` for
    neurons and wires.
    """
    refuse_neuron(hw)
    age = hw.environment.t_s if t_s is None else t_s
    weights, gains = static_variance(x, w, op, hw, adc_range=adc_range, bound=bound, t_s=age)
    array = program(w, op, hw, None, t_s=age, bound=bound, exact_wires=False)
    silent = array._replace(read_var=None, thermal_var=None, shot_weight=None)
    bare = hw.replace(output_noise=0.0, adc=None)

    def alone(one: Array, on: Hardware) -> Tensor:
        return fresh_variance(x, one, op, on, input_range=input_range, adc_range=adc_range)

    dac, adc = rounding_variance(x, array, op, hw, input_range=input_range, adc_range=adc_range)
    return OutputVariance(
        weights=weights,
        gains=gains,
        read=alone(silent._replace(read_var=array.read_var), bare),
        shot=alone(silent._replace(shot_weight=array.shot_weight), bare),
        thermal=alone(silent._replace(thermal_var=array.thermal_var), bare),
        output=alone(silent, hw),
        dac=dac,
        adc=adc,
    )
