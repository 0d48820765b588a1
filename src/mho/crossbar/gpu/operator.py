"""The product of one array on a GPU, with its backward pass; ``mvm`` for whatever the kernels do not cover.

The ranges of the converters stay on the device: no call waits for it. A range that is not known yet is looked for by a
launch that returns at once where it is known.
"""

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar.array import Array
from mho.crossbar.gpu import launch
from mho.crossbar.gpu.launch import Blocks, Kept, Noisy, Site
from mho.crossbar.mvm import Observed, is_plain, mvm
from mho.crossbar.noise import Counter, Noise
from mho.crossbar.ops import ConvOp, LinearOp, Op, output_shape
from mho.crossbar.reverse import output_sigma
from mho.hardware.spec import Hardware
from mho.physics.converters import levels

DTYPES = (torch.float32, torch.bfloat16)
MAX_BITS = 22
"""Converters of more bits are rounded by ``mvm``: the kernels round by adding 1.5 * 2**23."""


@dataclass(slots=True)
class Call:
    """One product: what computes it, its noise, and the ranges that it saw (0-d, on the device)."""

    array: Array
    op: Op
    hw: Hardware
    fresh: Counter | None
    blocks: Blocks | None
    observed: Observed | None = None

    @property
    def parts(self) -> int:
        return len(self.op.blocks(self.hw.tile.rows))

    @property
    def input_levels(self) -> int:
        return 0 if self.hw.dac is None or self.hw.dac.bits is None else levels(self.hw.dac.bits)

    @property
    def output_levels(self) -> int:
        return 0 if self.hw.adc is None or self.hw.adc.bits is None else levels(self.hw.adc.bits)

    @property
    def noise(self) -> Noisy:
        read = self.array.read_var
        return Noisy(
            output_sigma(self.hw),
            None if read is None else read[0].reshape(-1) if read[0].dim() else read[0],
            self.fresh,
        )


def covers(array: Array, op: Op, hw: Hardware) -> bool:
    """Whether the kernels know this hardware: one slice, uniform read noise, ideal statics of the periphery."""
    read = array.read_var
    uniform = read is None or (
        len(read) == 1
        and (read[0].dim() == 0 or read[0].numel() == len(array.weights[0]))
        and not read[0].requires_grad
    )
    simple = all(
        field is None
        for field in (
            hw.neuron, array.thermal_var, array.shot_weight, array.dac_gain, array.adc_gain, array.adc_offset
        )
    )  # fmt: skip
    bits = [c.bits for c in (hw.dac, hw.adc) if c is not None and c.bits is not None]
    bent = any(c is not None and c.inl_lsb for c in (hw.dac, hw.adc))
    shaped = isinstance(op, LinearOp) or (op.groups == 1 and op.ndim == 2)
    return len(array.weights) == 1 and uniform and simple and not bent and shaped and max(bits, default=0) <= MAX_BITS


def takes(x: Tensor, array: Array, op: Op, hw: Hardware, fresh: Counter | None, bias: Tensor | None) -> bool:
    """Whether the kernels compute this product: float32 or bfloat16 throughout, and something to gain."""
    w = array.weights[0]
    same = all(t.dtype == x.dtype and t.device == x.device for t in (w, bias) if t is not None)
    shape = x.dim() > 0 if isinstance(op, LinearOp) else x.dim() == 4
    useful = x.numel() > 0 and w.numel() > 0 and not (fresh is None and is_plain(hw, op))
    return x.dtype in DTYPES and same and shape and useful and covers(array, op, hw)


def product(
    x: Tensor,
    array: Array,
    op: Op,
    hw: Hardware,
    fresh: Counter | None,
    ranges: Tensor,
    bias: Tensor | None,
    *,
    blocks: Blocks | None = None,
) -> tuple[Tensor, Observed]:
    """:func:`mho.crossbar.mvm.mvm` with normals from (seed; part, row, column), by the kernels where they apply.

    ``ranges``: [input, ADC], on the device of ``x``; 0: not known, taken from this batch. ``blocks``: sizes of a
    program's tile (multiples of 16; columns of 16), for tests. In bfloat16 sums and noise are float32, and only the
    driven input and the output are rounded.
    """
    if ranges.device != x.device or not takes(x, array, op, hw, fresh, bias):
        noise = as_noise(fresh, x, op, hw, len(array.weights))
        return mvm(x, array, op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=bias)
    call = Call(array, op, hw, fresh, blocks)
    w = array.weights[0]
    inputs = (x, w, ranges, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        y = _Product.apply(*inputs, call)  # type: ignore[no-untyped-call]
    else:
        y = _forward(x, w, ranges, bias, call, keeps=False).y
    assert call.observed is not None
    return y, call.observed


def as_noise(fresh: Counter | None, x: Tensor, op: Op, hw: Hardware, slices: int) -> Noise:
    """The kernels' normals as a tensor, for ``mvm``."""
    if fresh is None:
        return Noise()
    parts = len(op.blocks(hw.tile.rows)) * slices
    return Noise(launch.fresh_normals(fresh, parts, op, x.new_empty(output_shape(op, x))))


@dataclass(slots=True)
class _Result:
    y: Tensor
    x: Tensor  # dense
    used: Tensor  # the ranges that were used
    kept: Kept
    site: Site


def _wanted(stats: Tensor, count: int, sigmas: float | None) -> Tensor:
    """The range that statistics ask for, 0-d."""
    return stats[:, 0].amax() if sigmas is None else sigmas * (stats[:, 1].sum() / max(count, 1)).sqrt()


def _dense(x: Tensor, op: Op) -> Tensor:
    """``x`` as the kernels walk over it: contiguous, or channels_last for a convolution."""
    if isinstance(op, ConvOp) and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _forward(x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call, *, keeps: bool) -> _Result:
    op, hw, parts, noise = call.op, call.hw, call.parts, call.noise
    x, w, used = _dense(x.detach(), op), _plain(w, op), ranges.detach().float().clone()
    r_in = used[0]
    if hw.dac is not None:
        if call.input_levels:
            _, probed = launch.drive(x, used, 0, probe=True)
            used[0] = torch.where(r_in > 0, r_in, _wanted(probed, x.numel(), hw.dac.range_sigma))
        x_q, seen = launch.drive(x, used, call.input_levels)
        r_in = _wanted(seen, x.numel(), hw.dac.range_sigma)
    else:
        x_q = x
    y = launch.empty_output(op, x)
    site = launch.site_of(op, x_q, y)
    blocks = call.blocks or launch.blocks_for(x.dtype, parts)
    watch = hw.adc is not None
    sigmas, count = None if hw.adc is None else hw.adc.range_sigma, y.numel() * parts
    quiet = Noisy(0.0, None, None)
    if watch:
        probed = launch.read(x_q, w, y, None, used, site, parts, quiet, 0, Kept(), blocks, stats=True, probe=True)
        used[1] = torch.where(used[1] > 0, used[1], _wanted(probed, count, sigmas))
    bits = (parts, site.rows, -(-site.columns // 8))
    rounds = keeps and call.output_levels > 0
    kept = Kept(
        torch.empty(bits, dtype=torch.uint8, device=x.device) if rounds else None,
        torch.empty(bits, dtype=torch.uint8, device=x.device) if rounds and ranges.requires_grad else None,
        torch.empty(parts, site.rows, device=x.device) if noise.reads else None,
    )
    shift = None if bias is None else bias.detach().contiguous()
    stats = launch.read(x_q, w, y, shift, used, site, parts, noise, call.output_levels, kept, blocks, stats=watch)
    call.observed = Observed(r_in, _wanted(stats, count, sigmas) if watch else ranges[1].detach())
    return _Result(y, x, used, kept, site)


def _plain(w: Tensor, op: Op) -> Tensor:
    """The weight without its history; a kernel of a convolution in the order of its indices."""
    w = w.detach()
    return w if isinstance(op, LinearOp) else w.contiguous()


@final
class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call) -> Tensor:
        found = _forward(x, w, ranges, bias, call, keeps=True)
        ctx.call, ctx.site, ctx.strides = call, found.site, found.y.stride()
        ctx.save_for_backward(x, w, ranges, bias, found.used, *found.kept)
        return found.y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w, ranges, bias, used, *kept = ctx.saved_tensors
        call: Call = ctx.call
        (g,) = grads
        needs = ctx.needs_input_grad[:4]
        if torch.is_grad_enabled():
            return _backward_in_torch(g, x, w, ranges, bias, call, used, needs)
        g = g.to(x.dtype)
        if g.stride() != ctx.strides:
            g = torch.empty_strided(g.shape, ctx.strides, dtype=g.dtype, device=g.device).copy_(g)
        return (*_backward(g, x, w, ranges, call, used, Kept(*kept), ctx.site, needs), None)


def _backward(
    g: Tensor, x: Tensor, w: Tensor, ranges: Tensor, call: Call, used: Tensor, kept: Kept, site: Site,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, w, ranges and bias for the gradient ``g`` of y, which lies in memory as y did."""
    op, parts, noise = call.op, call.parts, call.noise
    need_x, need_w, need_r, need_b = needs
    dense = _dense(x, op)
    x_q = launch.drive(dense, used, call.input_levels)[0] if call.input_levels else dense
    need_in = need_x or (need_r and call.input_levels > 0)
    grad_x, grad_w = _contract(g, x_q, w, call, kept.masks, site, need_in, need_w)
    of_in, of_out = used.new_zeros(()), used.new_zeros(())
    of_noise = noise.reads > 0 and need_in
    if of_noise or (need_r and (kept.signs is not None or (noise.draw is not None and noise.periphery > 0))):
        of_norm, of_out = launch.slopes(g, used, site, parts, noise, kept)
        if of_noise and grad_x is not None:
            shape = (parts, *x.shape[:-1], 1) if isinstance(op, LinearOp) else (parts, g.shape[0], 1, *g.shape[2:])
            cuts = (op.cut_input(x_q, block) for block in op.blocks(call.hw.tile.rows))
            pulled = [op.pull_norm2(t.to(c.dtype), c) for t, c in zip(of_norm.view(shape), cuts, strict=True)]
            grad_x = grad_x + op.join_inputs(pulled)
    if grad_x is not None and call.input_levels:
        like = torch.empty_like(dense).copy_(grad_x) if grad_x.stride() != dense.stride() else grad_x
        grad_x, of_in = launch.pass_inside(like, dense, used)
    grad_r = torch.where(ranges > 0, torch.stack((of_in, of_out)), 0.0).to(ranges.dtype) if need_r else None
    return grad_x if need_x else None, grad_w, grad_r, op.sum_to_columns(g) if need_b else None


def _contract(
    g: Tensor, x_q: Tensor, w: Tensor, call: Call, masks: Tensor | None, site: Site, need_x: bool, need_w: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the driven input and of the weight.

    Several tiles of a linear layer: kernels that mask the gradient as they load it, one pass for all tiles. One tile,
    and convolutions: the library's products of the masked gradient, a tile at a time.
    """
    op, parts = call.op, call.parts
    if isinstance(op, LinearOp) and parts > 1:
        blocks = call.blocks or launch.blocks_for(g.dtype, parts)
        grad_x = launch.pull(g, w, masks, site, parts, blocks).view(x_q.shape) if need_x else None
        return grad_x, launch.outer(g, x_q, masks, site, parts, blocks) if need_w else None
    pieces = []
    for part, block in enumerate(op.blocks(call.hw.tile.rows)):
        inside = g if masks is None else launch.keep(g, masks, part, site)
        pieces.append(op.backward(inside, op.cut_input(x_q, block), op.cut_weight(w, block), need_x, need_w))
    inputs, weights = [p for p, _ in pieces if p is not None], [p for _, p in pieces if p is not None]
    return op.join_inputs(inputs) if inputs else None, op.join_weights(weights) if weights else None


def _backward_in_torch(
    g: Tensor, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call, used: Tensor,
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The backward pass with a graph of its own (create_graph=True), through the plain operator."""
    r = torch.where(ranges > 0, ranges, used) if needs[2] else used
    array = call.array._replace(weights=(w,))
    noise = as_noise(call.fresh, x, call.op, call.hw, 1)
    y, _ = mvm(x, array, call.op, call.hw, noise, input_range=r[0], adc_range=r[1], bias=bias)
    wanted = [t if need else None for t, need in zip((x, w, ranges, bias), needs, strict=True)]
    inputs = [t for t in wanted if t is not None]
    found = iter(torch.autograd.grad(y, inputs, g, create_graph=True, allow_unused=True))
    return (*(None if t is None else next(found) for t in wanted), None)
