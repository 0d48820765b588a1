"""The one operator to which every layer lowers: converters, array, neuron, digital sum of tiles.

    x --DAC--> x_q --array, one part a tile and slice--> a_p --fresh noise, neuron, ADC--> y_p
    y = sum_p factor_p y_p + bias          (digital; y_p: mean over the repeats of a read)

``mvm`` is pure: what is random comes in as :class:`Noise` and :class:`Array`. It is plain torch and is
the semantics of the package; ``crossbar.fused`` computes the same with fewer passes over memory.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mho.crossbar.array import Array, slice_factors
from mho.crossbar.noise import Draw, Noise, nth_read, parts_as_tensor, shares_noise
from mho.crossbar.ops import Block, ConvOp, Op
from mho.crossbar.reverse import output_sigma, reversible
from mho.hardware.spec import Hardware
from mho.physics import converters, neuron
from mho.physics.averaging import column_repeats, column_windows


class Observed(NamedTuple):
    """What the converters saw: candidates for their ranges, 0-d (detached) or plain numbers."""

    input_range: Tensor | float
    adc_range: Tensor | float


def wanted_range(x: Tensor, sigmas: float | None) -> Tensor:
    """The converter range that fits ``x``: max|x|, or ``sigmas`` times its root mean square (detached).

    An empty ``x`` asks for a range of 0, that is, for none.
    """
    x = x.detach()
    if x.numel() == 0:
        return x.new_zeros((), dtype=torch.float32)
    if sigmas is None:
        return x.abs().amax().float()
    return sigmas * x.float().square().mean().sqrt()


def needs_input_range(hw: Hardware) -> bool:
    """Whether anything depends on what input is full scale (a DAC, or the read voltage)."""
    return hw.dac is not None or hw.readout.thermal or hw.readout.fano > 0


def needs_adc_range(hw: Hardware) -> bool:
    """Whether anything depends on what output is full scale."""
    return hw.adc is not None or hw.neuron is not None


def has_fresh_noise(hw: Hardware, array: Array) -> bool:
    """Whether one MVM draws anything."""
    return (
        array.read_var is not None
        or array.thermal_var is not None
        or array.shot_weight is not None
        or output_sigma(hw) > 0
    )


def is_plain(hw: Hardware, op: Op) -> bool:
    """Whether an MVM without noise is exactly one digital product (ideal periphery, one tile)."""
    return (
        hw.dac is None
        and hw.adc is None
        and hw.neuron is None
        and hw.mapping.slices == 1
        and len(op.blocks(hw.tile.rows)) == 1
    )


def mvm(
    x: Tensor,
    array: Array,
    op: Op,
    hw: Hardware,
    noise: Noise,
    *,
    input_range: Tensor,
    adc_range: Tensor,
    bias: Tensor | None = None,
    reverse: Draw | None = None,
) -> tuple[Tensor, Observed]:
    """One noisy matrix-vector product for each input vector.

    ``x``: as the digital operation takes it; ``array``: from :func:`program`; ``noise.fresh``:
    normals [read_parts, *output.shape] or ``None`` for a noiseless read (whose repeats are all alike); ``input_range``,
    ``adc_range``: 0-d, full scale of the converters in units of x and of the output; a range of 0 means "not yet
    known" and is replaced by what this batch asks for; ``reverse``: draws of a noisy backward pass
    (``None``: the backward pass is ideal).

    Returns the output, in the dtype of the digital product, and what the converters observed.
    """
    observed_in = wanted_range(x, None if hw.dac is None else hw.dac.range_sigma) if needs_input_range(hw) else None
    r_in = input_range if observed_in is None else torch.where(input_range > 0, input_range, observed_in)
    x_q = _drive(x, hw, r_in.to(x.dtype))
    # The gain error of a row's DAC scales its whole row, and is applied to the weights.
    weights = array.weights if array.dac_gain is None else tuple(_row_gain(w, array, hw) for w in array.weights)

    blocks = op.blocks(hw.tile.rows)
    if is_plain(hw, op) and noise.fresh is None and reverse is None:
        return op.apply(x_q, weights[0], bias), Observed(r_in.detach(), adc_range.detach())

    pieces = [
        op.apply(cut, w_cut, None) if reverse is None else reversible(cut, w_cut, op, hw, reverse)
        for w in weights
        for cut, w_cut in ((op.cut_input(x_q, b), op.cut_weight(w, b)) for b in blocks)
    ]
    a = pieces[0].unsqueeze(0) if len(pieces) == 1 else torch.stack(pieces)

    need_adc = needs_adc_range(hw)
    adc_sigmas = None if hw.adc is None else hw.adc.range_sigma
    # A range that is not known yet cannot scale noise either: it is then taken before the noise.
    r_out = torch.where(adc_range > 0, adc_range, wanted_range(a, adc_sigmas)) if need_adc else adc_range
    reads = [a] if noise.fresh is None else noisy_reads(a, x_q, array, op, hw, noise.fresh, r_in, r_out)
    observed_out, y = adc_range.detach(), None
    for number, read in enumerate(reads):
        if number == 0 and need_adc:
            observed_out = wanted_range(read, adc_sigmas)
        converted = averaging(_read_out(read, array, op, hw, r_out.to(a.dtype)), op, hw, number, noise)
        y = converted if y is None else y + converted
    assert y is not None

    factors = slice_factors(hw)
    if y.shape[0] == 1:
        total = y[0]
    elif len(factors) == 1:
        total = y.sum(0)
    else:
        scale = y.new_tensor(factors).repeat_interleave(len(blocks))
        total = torch.tensordot(scale, y, dims=1)
    if bias is not None:
        total = total + op.over_columns(bias).to(total.dtype)
    # Under autocast the noise is wider than the product, and the output what the digital layer's is.
    return total.to(a.dtype), Observed(r_in.detach() if observed_in is None else observed_in, observed_out)


def noisy_reads(
    a: Tensor, x: Tensor, array: Array, op: Op, hw: Hardware, fresh: Draw, r_in: Tensor, r_out: Tensor
) -> Iterator[Tensor]:
    """``a`` [parts, *output] with the fresh noise of each repeat in turn: its own, and what all repeats share."""
    blocks, ranges, count = op.blocks(hw.tile.rows), (r_in.to(a.dtype), r_out.to(a.dtype)), len(a)
    own = array
    if shares_noise(hw) and array.read_var is not None:
        slow = array._replace(thermal_var=None, shot_weight=None)
        quiet = hw.replace(output_noise=0.0, adc=None, neuron=None)
        xi = parts_as_tensor(nth_read(fresh, hw.readout.repeats, count), count, a[0].detach())
        a = a + xi * fresh_sigma(x, slow, op, quiet, *ranges, blocks)
        own = array._replace(read_var=None)
    sigma = fresh_sigma(x, own, op, hw, *ranges, blocks)
    for number in range(hw.readout.repeats):
        yield a + parts_as_tensor(nth_read(fresh, number, count), count, a[0].detach()) * sigma


def averaging(y: Tensor, op: Op, hw: Hardware, number: int, noise: Noise) -> Tensor:
    """What read ``number`` adds to the mean over repeats: each column's share of it, 0 where it is left out."""
    if noise.fresh is None or hw.readout.repeats == 1:
        return y
    if not hw.readout.column_repeats:
        return y / hw.readout.repeats
    counts = column_repeats(hw.readout, op.out_channels if isinstance(op, ConvOp) else op.out_features)
    return y * op.over_columns(y.new_tensor([1.0 / c if number < c else 0.0 for c in counts]))


def _drive(x: Tensor, hw: Hardware, r: Tensor) -> Tensor:
    """What the rows are driven with: rounded by the DAC and bent by its non-linearity."""
    if hw.dac is None or hw.dac.bits is None:
        return x
    x_q = converters.quantize(x, r, hw.dac.bits)
    return converters.inl(x_q, r, hw.dac.inl_lsb, hw.dac.bits) if hw.dac.inl_lsb else x_q


def _row_gain(w: Tensor, array: Array, hw: Hardware) -> Tensor:
    assert array.dac_gain is not None and hw.dac is not None
    gain = 1 + hw.dac.gain_d2d * array.dac_gain.to(w)
    return w * gain.reshape(w.shape[1:])


def fresh_sigma(
    x: Tensor, array: Array, op: Op, hw: Hardware, r_in: Tensor, r_out: Tensor, blocks: tuple[Block, ...]
) -> Tensor:
    """Standard deviation of every source of fresh noise together, broadcastable to [parts, *output]."""
    periphery = output_sigma(hw)
    total = (periphery * r_out) ** 2 if periphery else torch.zeros_like(r_out)
    if hw.readout.column_windows and hw.output_noise:
        # White like the rest: a column that is integrated for a share of the time has the more of it.
        windows = column_windows(hw.readout, len(array.weights[0]))
        more = op.over_columns(1.0 / x.new_tensor(windows) - 1.0)
        total = total + (hw.output_noise * r_out) ** 2 * more
    per_part: list[Tensor] = []
    for k in range(len(array.weights)):
        for b, block in enumerate(blocks):
            cut = op.cut_input(x, block)
            var = total
            if array.read_var is not None:
                read = array.read_var[k]
                if read.dim() == 0:
                    var = var + read.to(x.dtype) * op.row_norm2(cut)
                elif read[0].numel() == 1:
                    var = var + op.over_columns(read.reshape(-1)).to(x.dtype) * op.row_norm2(cut)
                else:
                    var = var + op.apply(cut.square(), op.cut_weight(read, block).to(x.dtype), None)
            if array.shot_weight is not None:
                shot = op.cut_weight(array.shot_weight[k], block).to(x.dtype)
                var = var + r_in * op.apply(cut.abs(), shot, None)
            if array.thermal_var is not None:
                thermal_var = array.thermal_var[k * len(blocks) + b].to(x.dtype)
                var = var + r_in.square() * op.over_columns(thermal_var)
            per_part.append(var)
    # The square root has no finite slope at zero (a silent input has no read noise at all).
    roots = [torch.where(v > 0, v, torch.ones_like(v)).sqrt() * (v > 0) for v in per_part]
    together = torch.stack(torch.broadcast_tensors(*roots))
    return together.reshape(len(roots), *([1] * (x.dim() + 1 - together.dim())), *together.shape[1:])


def _read_out(a: Tensor, array: Array, op: Op, hw: Hardware, r: Tensor) -> Tensor:
    """Neuron, then the errors of the ADC, then its rounding, part by part: [parts, *output]."""

    def per_part(values: Tensor) -> Tensor:
        return torch.stack([op.over_columns(v) for v in values.to(a.dtype)]).reshape(
            values.shape[0],
            *([1] * (a.dim() - 1 - op.over_columns(values[0]).dim())),
            *op.over_columns(values[0]).shape,
        )

    if hw.neuron is not None:
        gain = None if array.neuron_gain is None else per_part(array.neuron_gain)
        offset = None if array.neuron_offset is None else per_part(array.neuron_offset)
        # A signal of zeros has no range yet: it is 0 in any unit, and so is what comes out.
        a = neuron.transfer(a / torch.where(r > 0, r, torch.ones_like(r)), hw.neuron, gain, offset) * r
    if hw.adc is None:
        return a
    if array.adc_gain is not None:
        a = a * (1 + hw.adc.gain_d2d * per_part(array.adc_gain))
    if hw.adc.bits is None:
        return a
    lsb = r / converters.levels(hw.adc.bits)
    if array.adc_offset is not None:
        a = a + (hw.adc.offset_d2d_lsb * lsb) * per_part(array.adc_offset)
    if hw.adc.inl_lsb:
        a = converters.inl(a, r, hw.adc.inl_lsb, hw.adc.bits)
    return converters.quantize(a, r, hw.adc.bits)
