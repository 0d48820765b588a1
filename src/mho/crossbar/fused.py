"""The operator in as few passes over memory as possible, for eager float32 on the CPU.

It computes what ``mvm`` computes: one pass quantises the input, one adds noise to the output and
rounds it, and the backward pass adds one masked copy on each side. Where a description asks for more
(analog neuron, static converter errors, state-dependent read noise), or under tracing, ``product``
takes ``mvm`` itself. A parity test holds the two together.
"""

import math
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar import gpu, kernels
from mho.crossbar.array import Array
from mho.crossbar.fused_weight import eager_cpu
from mho.crossbar.mvm import Observed, averaging, is_plain, mvm, needs_adc_range
from mho.crossbar.noise import Counter, Draw, Noise, nth_read, part_seed, shares_noise
from mho.crossbar.ops import Block, LinearOp, Op
from mho.crossbar.reverse import output_sigma
from mho.hardware.spec import Hardware
from mho.physics.converters import levels


@dataclass(frozen=True, slots=True, eq=False)
class Circuit:
    """What stays from call to call of a fused product: one array behind its converters.

    Levels of 0: no rounding on that side. Sigmas: of a read as a weight (``read_columns``: times one factor
    a column), of the periphery as a fraction of the ADC's range. ``*_rms``: ranges in root mean squares (``None``:
    by the maximum).
    """

    array: Array
    op: Op
    hw: Hardware
    blocks: tuple[Block, ...]
    input_levels: int
    output_levels: int
    read_sigma: float
    read_columns: Tensor | None
    periphery_sigma: float
    input_rms: float | None
    output_rms: float | None
    noiseless_is_plain: bool


def circuit(array: Array, op: Op, hw: Hardware) -> Circuit | None:
    """The circuit of an array, or ``None`` where the description asks for more than the kernels compute."""
    read = array.read_var
    uniform_read = read is None or (
        len(read) == 1
        and (read[0].dim() == 0 or read[0].numel() == len(array.weights[0]))
        and not read[0].requires_grad
        and (isinstance(op, LinearOp) or op.groups == 1)
    )
    simple_periphery = (
        hw.neuron is None
        and array.thermal_var is None
        and array.shot_weight is None
        and array.dac_gain is None
        and array.adc_gain is None
        and array.adc_offset is None
        and (hw.dac is None or not hw.dac.inl_lsb)
        and (hw.adc is None or not hw.adc.inl_lsb)
    )
    if len(array.weights) != 1 or not uniform_read or not simple_periphery:
        return None
    if shares_noise(hw) and read is not None:
        return None
    if hw.readout.column_windows and hw.output_noise:
        return None
    by_column = read is not None and read[0].dim() > 0
    return Circuit(
        array=array,
        op=op,
        hw=hw,
        blocks=op.blocks(hw.tile.rows),
        input_levels=0 if hw.dac is None or hw.dac.bits is None else levels(hw.dac.bits),
        output_levels=0 if hw.adc is None or hw.adc.bits is None else levels(hw.adc.bits),
        read_sigma=0.0 if read is None else 1.0 if by_column else float(read[0]) ** 0.5,
        read_columns=read[0].reshape(-1).sqrt() if read is not None and by_column else None,
        periphery_sigma=output_sigma(hw),
        input_rms=None if hw.dac is None else hw.dac.range_sigma,
        output_rms=None if hw.adc is None else hw.adc.range_sigma,
        noiseless_is_plain=is_plain(hw, op),
    )


@dataclass(slots=True)
class Call:
    """One product: the ranges it uses, its noise, and the ranges that it saw.

    ``clips``: whether any input lay beyond the range (``True`` where nobody looked).
    """

    circuit: Circuit
    r_in: float
    r_out: float
    fresh: Counter | None
    learned: bool = False
    observe: bool = True
    clips: bool = True
    seen: tuple[float, float] = field(default=(0.0, 0.0))


def product(
    x: Tensor,
    array: Array,
    op: Op,
    hw: Hardware,
    noise: Noise,
    ranges: Tensor,
    bias: Tensor | None,
    *,
    learned: bool = False,
    reverse: Draw | None = None,
) -> tuple[Tensor, Observed]:
    """:func:`mvm`, by the fused kernels where they apply.

    ``ranges``: [input, ADC]; ``learned``: the ranges want a gradient; ``reverse``: draws of a noisy
    backward pass, which runs through ``mvm``.
    """
    fresh = noise.fresh
    alike = hw.readout.repeats == 1 and not hw.readout.column_windows  # the GPU's kernels know no other reads
    if x.is_cuda and alike and reverse is None and not isinstance(fresh, Tensor) and gpu.eager(x, *array.weights):
        from mho.crossbar.gpu import operator  # imports Triton

        return operator.product(x, array, op, hw, fresh, ranges, bias)
    if reverse is None and not isinstance(fresh, Tensor) and eager_cpu(x, *array.weights):
        found = circuit(array, op, hw)
        if found is not None and takes(found, x, fresh):
            r_in, r_out = ranges.tolist()
            # A range that several tiles share and that is still sought needs all of them at once.
            if len(found.blocks) == 1 or hw.adc is None or r_out > 0:
                if fresh is not None and hw.readout.repeats > 1:
                    return _repeated(x, found, noise, ranges, bias, r_in, r_out, learned)
                return _once(x, ranges, bias, Call(found, r_in, r_out, fresh, learned))
    return mvm(x, array, op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=bias, reverse=reverse)


def _once(x: Tensor, ranges: Tensor, bias: Tensor | None, call: Call) -> tuple[Tensor, Observed]:
    """One read of each part."""
    w = call.circuit.array.weights[0]
    inputs = (x, w, ranges, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        y = _FusedMvm.apply(*inputs, call)  # type: ignore[no-untyped-call]
        return y, Observed(*call.seen)
    return _forward(x, w, bias, call, None)[0], Observed(*call.seen)


def _repeated(
    x: Tensor,
    found: Circuit,
    noise: Noise,
    ranges: Tensor,
    bias: Tensor | None,
    r_in: float,
    r_out: float,
    learned: bool,
) -> tuple[Tensor, Observed]:
    """The mean over the repeats of a read; ranges are observed at the first."""
    op, hw, total, observed = found.op, found.hw, None, None
    assert isinstance(noise.fresh, Counter)
    for number in range(hw.readout.repeats):
        fresh = nth_read(noise.fresh, number, len(found.blocks))
        assert isinstance(fresh, Counter)
        y, seen = _once(x, ranges, bias, Call(found, r_in, r_out, fresh, learned))
        observed = seen if observed is None else observed
        y = averaging(y, op, hw, number, noise)
        total = y if total is None else total + y
    assert total is not None and observed is not None
    return total, observed


def takes(found: Circuit, x: Tensor, fresh: Counter | None) -> bool:
    """Whether the kernels compute this product of ``x``, an eager float32 CPU tensor."""
    op = found.op
    shape_fits = x.dim() > 0 if isinstance(op, LinearOp) else x.dim() == op.ndim + 2
    return shape_fits and x.numel() > 0 and not (fresh is None and found.noiseless_is_plain)


def _range_of(absmax: float, sumsq: float, count: int, sigmas: float | None) -> float:
    return absmax if sigmas is None else sigmas * (sumsq / max(count, 1)) ** 0.5


def _forward(
    x: Tensor, w: Tensor, bias: Tensor | None, call: Call, rails: list[Tensor | None] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """(output, dense input, quantised input).

    ``rails``: filled with what each part's ADC clipped, int8 as of ``kernels.adc_`` (``None``: nothing), for the
    backward pass; ``None``: not needed.
    """
    x = kernels.dense(x)
    x_q, seen_in = _quantize_input(x, call)
    out, saw = _read_parts(x_q, w, bias, call, rails)
    call.seen = (seen_in, saw)
    return out, x, x_q


def _read_parts(
    x_q: Tensor, w: Tensor, bias: Tensor | None, call: Call, rails: list[Tensor | None] | None
) -> tuple[Tensor, float]:
    """(output, the range that it asks for)."""
    found = call.circuit
    op = found.op
    out: Tensor | None = None
    absmax, sumsq, count = 0.0, 0.0, 0
    for part, block in enumerate(found.blocks):
        cut = op.cut_input(x_q, block)
        y = kernels.dense(op.apply(cut, op.cut_weight(w, block), None))
        rail, stats = _convert_output_(y, cut, part, call, rails is not None)
        if rails is not None:
            rails.append(rail)
        absmax, sumsq, count = _worse(absmax, stats[0]), sumsq + stats[1], count + y.numel()
        out = y if out is None else out.add_(y)
    assert out is not None
    saw = _range_of(absmax, sumsq, count, found.output_rms) if needs_adc_range(found.hw) else call.r_out
    return out if bias is None else out.add_(op.over_columns(bias)), saw


@final
class _FusedMvm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        rails: list[Tensor | None] = []
        ctx.known = (call.r_in > 0, call.r_out > 0)  # before unknown ranges become what this batch asks for
        out, x, x_q = _forward(x, w, bias, call, rails)
        ctx.call, ctx.rails, ctx.strides = call, rails, out.stride()
        ctx.save_for_backward(x, x_q, w, ranges, bias)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, x_q, w, ranges, bias = ctx.saved_tensors
        call: Call = ctx.call
        (g,) = grads
        if torch.is_grad_enabled():
            return _backward_in_torch(g, x, w, ranges, bias, call, ctx.needs_input_grad)
        op, blocks = call.circuit.op, call.circuit.blocks
        need_x, need_w, need_r, need_b = ctx.needs_input_grad[:4]
        rounds_input = call.circuit.input_levels > 0 and call.r_in > 0
        # The range of the input has a gradient through clipped inputs alone: without any, no product is needed for it.
        need_in = need_x or (need_r and rounds_input and call.clips)
        g = _in_layout(g, ctx.strides)
        pieces, clipped, kept = [], 0.0, []
        for rails, block in zip(ctx.rails, blocks, strict=True):
            inside, slope = (g, 0.0) if rails is None else kernels.unclipped(g, rails, slope=need_r)
            clipped += slope
            kept.append(inside)
            cut, w_cut = op.cut_input(x_q, block), op.cut_weight(w, block)
            pieces.append(op.backward(inside, cut, w_cut, need_in, need_w))
        inputs, weights = [p for p, _ in pieces if p is not None], [p for _, p in pieces if p is not None]
        grad_x, clipped_in = (op.join_inputs(inputs) if inputs else None), 0.0
        if call.fresh is not None:
            of_x, of_range = _through_noise(x_q, kept, call, need_x, need_r)
            grad_x = grad_x if grad_x is None or of_x is None else grad_x.add_(of_x)
            clipped += of_range
        if grad_x is not None and rounds_input:
            grad_x = _in_layout(grad_x, x.stride())
            clipped_in = kernels.pass_inside_(grad_x, x, call.r_in)
        # What stood in for a range that is not known yet is data, not a parameter.
        of_ranges = (clipped_in if ctx.known[0] else 0.0, clipped if ctx.known[1] else 0.0)
        grad_r = ranges.new_tensor(of_ranges) if need_r else None
        grad_w = op.join_weights(weights) if weights else None
        return grad_x if need_x else None, grad_w, grad_r, op.sum_to_columns(g) if need_b else None, None


def _through_noise(
    x_q: Tensor, kept: list[Tensor], call: Call, need_x: bool, need_r: bool
) -> tuple[Tensor | None, float]:
    """Gradients to the driven input and to the ADC's range through the size of the fresh noise.

    y = a + s z, s^2 = (periphery r)^2 + read_sigma^2 |x|^2: dL = sum (dL/dy) z / (2 s) d(s^2). ``kept``: gradient of
    each part in front of its ADC. The normals are made again from their seed.
    """
    found, fresh = call.circuit, call.fresh
    assert fresh is not None
    op, reads = found.op, found.read_sigma > 0
    periphery = found.periphery_sigma * call.r_out * fresh.scale if 0 < call.r_out < float("inf") else 0.0
    if not ((need_x and reads) or (need_r and periphery > 0)):
        return None, 0.0
    pieces, of_range = [], 0.0
    for part, (g, block) in enumerate(zip(kept, found.blocks, strict=True)):
        cut = op.cut_input(x_q, block)
        sigma_map = read_sigma_map(g, cut, found, fresh.scale) if reads else None
        slope, total = kernels.noise_slope(
            g, periphery, part_seed(fresh.seed, part), memory_shape(g, op), sigma_map,
            found.read_columns if reads else None, total_only=not (need_x and reads),
        )  # fmt: skip
        of_range += total * periphery**2 / call.r_out if periphery else 0.0
        if slope is not None:
            squares = None if found.read_columns is None else found.read_columns.square()
            t = op.weigh_columns(slope, squares).mul_(0.5 * (found.read_sigma * fresh.scale) ** 2)
            pieces.append(op.pull_norm2(t, cut))
    return op.join_inputs(pieces) if pieces else None, of_range


def _in_layout(g: Tensor, strides: tuple[int, ...]) -> Tensor:
    """``g`` with its elements in memory in the order that ``strides`` say."""
    if g.stride() == strides:
        return g
    return torch.empty_strided(g.shape, strides, dtype=g.dtype).copy_(g)


def _worse(a: float, b: float) -> float:
    """max that keeps NaN."""
    return b if b != b or b > a else a


def _quantize_input(x: Tensor, call: Call) -> tuple[Tensor, float]:
    """(what drives the rows, the range that x asks for); sets a range that was not known."""
    found = call.circuit
    if found.hw.dac is None:
        return x, call.r_in
    if found.input_levels == 0 and not call.observe:
        return x, call.r_in
    if found.input_levels == 0 or call.r_in <= 0:
        seen = _range_of(*kernels.absmax_sumsq(x), x.numel(), found.input_rms)
        if found.input_levels == 0:
            return x, seen
        call.r_in = seen
        if not 0 < seen < float("inf"):
            return x, seen
    x_q = torch.empty_like(x)
    stats = kernels.quantize(x, call.r_in, found.input_levels, x_q, observe=call.observe)
    call.clips = not (call.observe and stats[0] <= call.r_in)
    return x_q, _range_of(*stats, x.numel(), found.input_rms)


def _convert_output_(
    y: Tensor, x: Tensor, part: int, call: Call, need_rails: bool
) -> tuple[Tensor | None, tuple[float, float]]:
    """Noise and ADC in place on one part; returns the rails that clipped (``None``: none did) and statistics."""
    found, fresh = call.circuit, call.fresh
    if found.hw.adc is not None and call.r_out <= 0:
        call.r_out = _range_of(*kernels.absmax_sumsq(y), y.numel(), found.output_rms)
    known = 0 < call.r_out < float("inf")
    rounding = found.output_levels > 0 and known
    sigma = found.periphery_sigma * call.r_out * fresh.scale if fresh is not None and known else 0.0
    sigma_map = None
    if fresh is not None and found.read_sigma > 0:
        sigma_map = read_sigma_map(y, x, found, fresh.scale)
    if not rounding and sigma == 0 and sigma_map is None:
        return None, kernels.absmax_sumsq(y) if found.hw.adc is not None and call.observe else (0.0, 0.0)
    rails = torch.empty_like(y, dtype=torch.int8) if rounding and need_rails else None
    seed = 0 if fresh is None else part_seed(fresh.seed, part)
    r_out = call.r_out if rounding else float("inf")
    result = kernels.adc_(
        y, sigma, seed, r_out, found.output_levels,
        shape=None if sigma_map is None else memory_shape(y, found.op),
        sigma_map=sigma_map, columns=None if sigma_map is None else found.read_columns, rails=rails,
        observe=call.observe,
    )  # fmt: skip
    return (rails if result.clipped else None), (result.absmax, result.sumsq)


def read_sigma_map(y: Tensor, x: Tensor, found: Circuit, scale: float) -> Tensor:
    """Sigma of the read noise of each output position, [A, P] for y lying in memory as [A, columns, P]."""
    norm = found.op.row_norm2(x).sqrt_().mul_(found.read_sigma * scale)
    if isinstance(found.op, LinearOp):
        return norm.reshape(-1)
    # One value a position and no channel: the same order in memory for either layout of y.
    return norm.reshape(y.shape[0], -1) if y.is_contiguous() else norm.reshape(-1)


def inner_positions(y: Tensor, op: Op) -> int:
    """P of ``y`` in memory as [A, columns, P]: how many positions lie side by side."""
    return 1 if isinstance(op, LinearOp) or not y.is_contiguous() else math.prod(y.shape[-op.ndim :])


def memory_shape(y: Tensor, op: Op) -> tuple[int, int, int]:
    """[A, columns, P] of an output as it lies in memory."""
    columns, inner = op.out_features if isinstance(op, LinearOp) else op.out_channels, inner_positions(y, op)
    return y.numel() // (columns * inner), columns, inner


def _backward_in_torch(
    g: Tensor, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The backward pass with a graph of its own (create_graph=True), through the plain operator."""
    found = call.circuit
    r_in, r_out = ranges.detach().new_tensor(call.r_in), ranges.detach().new_tensor(call.r_out)
    if needs[2]:
        r_in, r_out = ranges[0], ranges[1]
    array = found.array._replace(weights=(w,))
    y, _ = mvm(x, array, found.op, found.hw, Noise(call.fresh), input_range=r_in, adc_range=r_out, bias=bias)
    wanted = [t if need else None for t, need in zip((x, w, ranges, bias), needs, strict=False)]
    inputs = [t for t in wanted if t is not None]
    found_grads = iter(torch.autograd.grad(y, inputs, g, create_graph=True, allow_unused=True))
    return (*(None if t is None else next(found_grads) for t in wanted), None)
