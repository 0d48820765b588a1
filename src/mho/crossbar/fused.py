"""The operator in as few passes over memory as possible, for eager float32 on the CPU.

It computes what ``mvm`` computes: one pass quantises the input, one adds noise to the output and
rounds it, and the backward pass adds one masked copy on each side. Where a description asks for more
(analog neuron, static converter errors, state-dependent read noise), or under tracing, ``product``
takes ``mvm`` itself. A parity test holds the two together.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar import kernels
from mho.crossbar.array import Array
from mho.crossbar.fused_weight import eager_cpu
from mho.crossbar.mvm import Observed, is_plain, mvm, needs_adc_range, output_sigma
from mho.crossbar.noise import Counter, Draw, Noise, part_seed
from mho.crossbar.ops import LinearOp, Op
from mho.hardware.spec import Hardware
from mho.physics.converters import levels


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
    if reverse is None and fusable(x, array, op, hw, noise):
        plan = _plan(array, op, hw, noise, ranges, learned)
        y = _FusedMvm.apply(x, array.weights[0], ranges, bias, plan)
        return y, Observed(torch.tensor(plan.seen[0]), torch.tensor(plan.seen[1]))
    return mvm(x, array, op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=bias, reverse=reverse)


def fusable(x: Tensor, array: Array, op: Op, hw: Hardware, noise: Noise) -> bool:
    """Whether the fused kernels compute exactly this MVM."""
    if is_plain(hw, op) and noise.fresh is None:
        return False
    uniform_read = array.read_var is None or (
        len(array.read_var) == 1
        and array.read_var[0].dim() == 0
        and not array.read_var[0].requires_grad
        and (isinstance(op, LinearOp) or op.groups == 1)
    )
    periphery = (
        hw.neuron is None
        and len(array.weights) == 1
        and array.thermal_var is None
        and array.shot_weight is None
        and array.dac_gain is None
        and (hw.dac is None or not hw.dac.inl_lsb)
        and (hw.adc is None or not hw.adc.inl_lsb)
        and array.adc_gain is None
        and array.adc_offset is None
    )
    return (
        uniform_read
        and periphery
        and (noise.fresh is None or isinstance(noise.fresh, Counter))
        and (isinstance(op, LinearOp) or x.dim() == op.ndim + 2)
        and x.dim() > 0
        and x.numel() > 0
        and eager_cpu(x, array.weights[0])
    )


@dataclass
class _Plan:
    """What one fused product needs to know, and what it saw. One object a call."""

    op: Op
    hw: Hardware
    blocks: tuple
    seed: int | None
    noise_scale: float
    read_sigma: float
    periphery_sigma: float
    r_in: float
    r_out: float
    learned: bool
    array: Array
    noise: Noise
    seen: tuple[float, float] = (0.0, 0.0)


def _plan(array: Array, op: Op, hw: Hardware, noise: Noise, ranges: Tensor, learned: bool) -> _Plan:
    r_in, r_out = ranges.tolist()
    counter = noise.fresh
    assert counter is None or isinstance(counter, Counter)
    return _Plan(
        op=op,
        hw=hw,
        blocks=op.blocks(hw.tile.rows),
        seed=None if counter is None else counter.seed,
        noise_scale=1.0 if counter is None else counter.scale,
        read_sigma=0.0 if array.read_var is None or counter is None else float(array.read_var[0]) ** 0.5,
        periphery_sigma=0.0 if counter is None else output_sigma(hw),
        r_in=r_in,
        r_out=r_out,
        learned=learned,
        array=array,
        noise=noise,
    )


def _range_of(absmax: float, sumsq: float, count: int, sigmas: float | None) -> float:
    return absmax if sigmas is None else sigmas * (sumsq / max(count, 1)) ** 0.5


@final
class _FusedMvm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, plan: _Plan) -> Tensor:
        op, hw = plan.op, plan.hw
        x = kernels.dense(x)
        x_q, seen_in = _quantize_input(x, plan)
        out: Tensor | None = None
        masks: list[Tensor | None] = []
        absmax, sumsq, count = 0.0, 0.0, 0
        need_grad = any(ctx.needs_input_grad)
        for part, block in enumerate(plan.blocks):
            cut = op.cut_input(x_q, block)
            y = kernels.dense(op.apply(cut, op.cut_weight(w, block), None))
            mask, stats = _convert_output_(y, cut, part, plan, need_grad)
            masks.append(mask)
            absmax, sumsq, count = _worse(absmax, stats[0]), sumsq + stats[1], count + y.numel()
            out = y if out is None else out.add_(y)
        assert out is not None
        sigmas = None if hw.adc is None else hw.adc.range_sigma
        plan.seen = (seen_in, _range_of(absmax, sumsq, count, sigmas) if needs_adc_range(hw) else plan.r_out)
        ctx.plan, ctx.masks, ctx.strides = plan, masks, out.stride()
        rails = out if plan.learned else None
        if bias is not None:
            out = out + op.over_columns(bias) if plan.learned else out.add_(op.over_columns(bias))
        ctx.save_for_backward(x, x_q, w, ranges, bias, rails)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, x_q, w, ranges, bias, rails = ctx.saved_tensors
        plan: _Plan = ctx.plan
        (g,) = grads
        if torch.is_grad_enabled():
            return _backward_in_torch(g, x, w, ranges, bias, plan, ctx.needs_input_grad)
        op, dac = plan.op, plan.hw.dac
        need_x, need_w, need_r, need_b = ctx.needs_input_grad[:4]
        rounds_input = dac is not None and dac.bits is not None and plan.r_in > 0
        g = _in_layout(g, ctx.strides)
        pieces, clipped = [], 0.0
        for mask, block in zip(ctx.masks, plan.blocks, strict=True):
            inside = g if mask is None else kernels.masked(g, mask, torch.empty_like(g))
            if need_r and mask is not None:
                clipped += float(((g - inside) * rails.sign()).sum())
            cut, w_cut = op.cut_input(x_q, block), op.cut_weight(w, block)
            pieces.append(op.backward(inside, cut, w_cut, need_x or (need_r and rounds_input), need_w))
        grad_x = op.join_inputs([p for p, _ in pieces]) if pieces[0][0] is not None else None
        grad_w = op.join_weights([p for _, p in pieces]) if need_w else None
        clipped_in = 0.0
        if grad_x is not None and rounds_input:
            grad_x = _in_layout(grad_x, x.stride())
            clipped_in = kernels.pass_inside_(grad_x, x, plan.r_in)
        grad_r = ranges.new_tensor([clipped_in, clipped]) if need_r else None
        return grad_x if need_x else None, grad_w, grad_r, op.sum_to_columns(g) if need_b else None, None


def _in_layout(g: Tensor, strides: tuple[int, ...]) -> Tensor:
    """``g`` with its elements in memory in the order that ``strides`` say."""
    if g.stride() == strides:
        return g
    return torch.empty_strided(g.shape, strides, dtype=g.dtype).copy_(g)


def _worse(a: float, b: float) -> float:
    """max that keeps NaN."""
    return b if b != b or b > a else a


def _quantize_input(x: Tensor, plan: _Plan) -> tuple[Tensor, float]:
    dac = plan.hw.dac
    if dac is None:
        return x, plan.r_in
    if dac.bits is None or plan.r_in <= 0:
        absmax, sumsq = kernels.absmax_sumsq(x)
        seen = _range_of(absmax, sumsq, x.numel(), dac.range_sigma)
        if dac.bits is None:
            return x, seen
        if plan.r_in <= 0:
            plan.r_in = seen
        if not 0 < plan.r_in < float("inf"):
            return x, seen
    x_q = torch.empty_like(x)
    absmax, sumsq = kernels.quantize(x, plan.r_in, levels(dac.bits), x_q)
    return x_q, _range_of(absmax, sumsq, x.numel(), dac.range_sigma)


def _convert_output_(
    y: Tensor, x: Tensor, part: int, plan: _Plan, need_grad: bool
) -> tuple[Tensor | None, tuple[float, float]]:
    """Noise and ADC in place on one part; returns the mask of what was not clipped and statistics."""
    adc = plan.hw.adc
    if adc is not None and plan.r_out <= 0:
        plan.r_out = _range_of(*kernels.absmax_sumsq(y), y.numel(), adc.range_sigma)
    rounding = adc is not None and adc.bits is not None and 0 < plan.r_out < float("inf")
    seed = 0 if plan.seed is None else part_seed(plan.seed, part)
    sigma = plan.periphery_sigma * plan.r_out * plan.noise_scale if plan.periphery_sigma else 0.0
    if not sigma < float("inf"):
        sigma = 0.0
    sigma_map = _read_map(y, x, plan) if plan.read_sigma > 0 else None
    if not rounding and sigma == 0 and sigma_map is None:
        return None, kernels.absmax_sumsq(y) if adc is not None else (0.0, 0.0)
    mask = torch.empty_like(y, dtype=torch.uint8) if rounding and need_grad else None
    bits_levels = levels(adc.bits) if rounding and adc is not None and adc.bits is not None else 0
    result = kernels.adc_(y, sigma, seed, plan.r_out if rounding else float("inf"), bits_levels, sigma_map=sigma_map, mask=mask)
    return (mask if result.clipped else None), (result.absmax, result.sumsq)


def _read_map(y: Tensor, x: Tensor, plan: _Plan) -> Tensor:
    """Sigma of the read noise of each output position, [A, P] for y lying in memory as [A, columns, P]."""
    norm = plan.op.row_norm2(x).sqrt_().mul_(plan.read_sigma * plan.noise_scale)
    if isinstance(plan.op, LinearOp):
        return norm.reshape(-1)
    # One value a position and no channel: the same order in memory for either layout of y.
    return norm.reshape(y.shape[0], -1) if y.is_contiguous() else norm.reshape(-1)


def _backward_in_torch(
    g: Tensor, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, plan: _Plan, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The backward pass with a graph of its own (create_graph=True), through the plain operator."""
    r_in, r_out = ranges.detach().new_tensor(plan.r_in), ranges.detach().new_tensor(plan.r_out)
    if needs[2]:
        r_in, r_out = ranges[0], ranges[1]
    y, _ = mvm(
        x, plan.array._replace(weights=(w,)), plan.op, plan.hw, plan.noise, input_range=r_in, adc_range=r_out, bias=bias
    )
    inputs = [t for t, need in zip((x, w, ranges, bias), needs, strict=False) if need and t is not None]
    found = iter(torch.autograd.grad(y, inputs, g, create_graph=True, allow_unused=True))
    return (*(next(found) if need and t is not None else None for t, need in zip((x, w, ranges, bias), needs, strict=False)), None)
