"""The product of one array on a GPU, with its backward pass; ``mvm`` for whatever the kernels do not cover.

The ranges of the converters stay on the device: no call waits for it. A range that is not known yet is looked for by a
launch that returns at once where it is known.
"""

from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar.array import Array
from mho.crossbar.gpu import launch, shapes
from mho.crossbar.gpu.launch import Backward, Blocks, Route
from mho.crossbar.gpu.shapes import Kept, Noisy, Site
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
    blocks: Blocks
    route: Route
    backward: Backward
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
    route: Route | None = None,
    backward: Backward = "mended",
) -> tuple[Tensor, Observed]:
    """:func:`mho.crossbar.mvm.mvm` with normals from (seed; part, row, column), by the kernels where they apply.

    ``ranges``: [input, ADC], on the device of ``x``; 0: not known, taken from this batch. For tests and measurements,
    ``blocks``: sizes of a program's tile (multiples of 16; columns of 16); ``route``: who multiplies (the library only
    one tile); ``backward``: how several tiles of a linear layer go back. In bfloat16 sums and noise are float32, and
    only the driven input and the output are rounded ("library-narrow" rounds the sums too).
    """
    if ranges.device != x.device or not takes(x, array, op, hw, fresh, bias):
        noise = as_noise(fresh, x, op, hw, len(array.weights))
        return mvm(x, array, op, hw, noise, input_range=ranges[0], adc_range=ranges[1], bias=bias)
    w, parts = array.weights[0], len(op.blocks(hw.tile.rows))
    call = Call(
        array, op, hw, fresh, blocks or launch.blocks_for(x.dtype, parts),
        "fused" if parts > 1 else route or launch.route_for(op, x.dtype, parts),
        backward,
    )  # fmt: skip
    inputs = (x, w, ranges, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs):
        y, _ = _Product.apply(*inputs, call)  # type: ignore[no-untyped-call]
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
    x: Tensor  # as the rows are driven; dense
    inside: Tensor | None  # bits of what the DAC did not clip
    used: Tensor  # the ranges that were used
    kept: Kept
    site: Site


def _dense(x: Tensor, op: Op) -> Tensor:
    """``x`` as the kernels walk over it: contiguous, or channels_last for a convolution."""
    if isinstance(op, ConvOp) and x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _forward(x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call, *, keeps: bool) -> _Result:
    op, hw, parts, noise, blocks = call.op, call.hw, call.parts, call.noise, call.blocks
    x, w, known = _dense(x.detach(), op), _plain(w, op), ranges.detach()
    y = shapes.empty_output(op, x)
    site = shapes.site_of(op, x, y)
    watch, fused = hw.adc is not None, call.route == "fused"
    outputs = (launch.reads(site, blocks) if fused else launch.converts(site)[-1]) if watch else 0
    sigmas = (None if hw.dac is None else hw.dac.range_sigma, None if hw.adc is None else hw.adc.range_sigma)
    inputs = 0 if hw.dac is None else shapes.cut(x.numel(), launch.FLAT)
    seen = shapes.seen_by(x.device, (inputs, outputs), (x.numel(), y.numel() * parts), sigmas)
    used = launch.seek(x, known, 0, sigmas[0]) if call.input_levels else known.float().clone()
    inside = None
    if inputs:
        x, inside = launch.drive(x, used, call.input_levels, seen.of_input, bits=keeps)
    bits = (parts, site.rows, -(-site.columns // 8))
    rounds = keeps and call.output_levels > 0
    kept = Kept(
        torch.empty(bits, dtype=torch.uint8, device=x.device) if rounds else None,
        torch.empty(bits, dtype=torch.uint8, device=x.device) if rounds and ranges.requires_grad else None,
        None if not noise.reads
        else torch.empty(parts, site.rows, device=x.device) if fused else launch.row_norms(x, op, site.rows),
    )  # fmt: skip
    shift = None if bias is None else bias.detach().contiguous()
    if fused:
        if watch:
            quiet = Noisy(0.0, None, None)
            launch.read(
                x, w, y, None, used, site, parts, quiet, 0, Kept(), blocks, seen.of_output, watch=True, probe=True
            )
            used = launch.settle(seen, used, probed=True)
        launch.read(
            x, w, y, shift, used, site, parts, noise, call.output_levels, kept, blocks, seen.of_output, watch=watch
        )
    else:
        sums = launch.library(x, w, op, y, wide=call.route == "library")
        if watch:
            used = launch.seek(sums, used, 1, sigmas[1])
        y = sums if sums.dtype == y.dtype else y
        launch.convert(sums, y, shift, used, site, noise, call.output_levels, kept, seen.of_output, watch=watch)
    if inputs or outputs:
        call.observed = Observed(*launch.settle(seen, used).unbind())
    else:
        call.observed = Observed(known[0], known[1])
    return _Result(y, x, inside, used, kept, site)


def _plain(w: Tensor, op: Op) -> Tensor:
    """The weight without its history; a kernel of a convolution in the order of its indices."""
    w = w.detach()
    return w if isinstance(op, LinearOp) else w.contiguous()


@final
class _Product(torch.autograd.Function):
    """(y, driven input): the second output connects what is kept to the graph, for a second derivative."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, ranges: Tensor, bias: Tensor | None, call: Call
    ) -> tuple[Tensor, Tensor | None]:
        found = _forward(x, w, ranges, bias, call, keeps=True)
        ctx.call, ctx.site, ctx.strides = call, found.site, found.y.stride()
        ctx.set_materialize_grads(False)
        driven = None if found.inside is None else found.x
        ctx.save_for_backward(x if driven is None else driven, found.inside, w, ranges, bias, found.used, *found.kept)
        return found.y, driven

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        x, inside, w, ranges, bias, used, *kept = ctx.saved_tensors
        call: Call = ctx.call
        g, of_driven = grads
        needs = ctx.needs_input_grad[:4]
        if g is None and of_driven is None:
            return None, None, None, None, None
        if torch.is_grad_enabled() or of_driven is not None:
            return _backward_in_torch(g, of_driven, x, inside, w, ranges, bias, call, used, needs)
        assert g is not None
        g = g.to(x.dtype)
        if g.stride() != ctx.strides:
            g = torch.empty_strided(g.shape, ctx.strides, dtype=g.dtype, device=g.device).copy_(g)
        return (*_backward(g, x, inside, w, ranges, call, used, Kept(*kept), ctx.site, needs), None)


def _backward(
    g: Tensor, x: Tensor, inside: Tensor | None, w: Tensor, ranges: Tensor, call: Call, used: Tensor, kept: Kept,
    site: Site, needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients of x, w, ranges and bias for the gradient ``g`` of y, which lies in memory as y did.

    ``x``: as the rows were driven.
    """
    op, parts, noise = call.op, call.parts, call.noise
    need_x, need_w, need_r, need_b = needs
    x = _dense(x, op)
    need_in = need_x or (need_r and inside is not None)
    grad_x, grad_w, grad_b = _contract(g, x, w, call, kept.masks, site, need_in, need_w, need_b)
    of_in = of_out = None
    of_noise = noise.reads > 0 and need_in
    if of_noise or (need_r and (kept.signs is not None or (noise.draw is not None and noise.periphery > 0))):
        of_norm, of_out = launch.slopes(g, used, site, parts, noise, kept)
        if of_noise and grad_x is not None:
            shape = (parts, *x.shape[:-1], 1) if isinstance(op, LinearOp) else (parts, g.shape[0], 1, *g.shape[2:])
            cuts = (op.cut_input(x, block) for block in op.blocks(call.hw.tile.rows))
            pulled = [op.pull_norm2(t.to(c.dtype), c) for t, c in zip(of_norm.view(shape), cuts, strict=True)]
            grad_x = grad_x + op.join_inputs(pulled)
    if grad_x is not None and inside is not None:
        grad_x = torch.empty_like(x).copy_(grad_x) if grad_x.stride() != x.stride() else grad_x
        of_in = launch.pass_inside(grad_x, x, inside, of_range=need_r)
    grad_r = _known_only(of_in, of_out, ranges, used) if need_r else None
    return grad_x if need_x else None, grad_w, grad_r, grad_b


def _known_only(of_in: Tensor | None, of_out: Tensor | None, ranges: Tensor, used: Tensor) -> Tensor:
    """Gradient of the ranges: none for a range that came from this batch."""
    zero = used.new_zeros(())
    both = torch.stack((zero if of_in is None else of_in, zero if of_out is None else of_out))
    return torch.where(ranges > 0, both, 0.0).to(ranges.dtype)


def _contract(
    g: Tensor, x: Tensor, w: Tensor, call: Call, masks: Tensor | None, site: Site, need_x: bool, need_w: bool,
    need_b: bool,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients of the driven input, of the weight and of the bias.

    Several tiles of a linear layer: the library's products of the whole gradient, mended where an ADC clipped; or
    kernels that mask the gradient as they load it. One tile, and convolutions: the library's products of the masked
    gradient, a tile at a time.
    """
    op, parts = call.op, call.parts
    if isinstance(op, LinearOp) and parts > 1 and (call.backward == "mended" or masks is None):
        grad_x, grad_w = op.backward(g, x, w, need_x, need_w)
        if masks is not None and grad_x is not None:
            launch.mend_inputs(grad_x, g, w, masks, site, parts)
        if masks is not None and grad_w is not None:
            launch.mend_weights(grad_w, g, x, masks, site, parts)
        return grad_x, grad_w, op.sum_to_columns(g) if need_b else None
    if isinstance(op, LinearOp) and parts > 1:
        grad_x = launch.pull(g, w, masks, site, parts, call.blocks).view(x.shape) if need_x else None
        grad_w = launch.outer(g, x, masks, site, parts, call.blocks) if need_w else None
        return grad_x, grad_w, op.sum_to_columns(g) if need_b else None
    pieces, grad_b = [], None
    for part, block in enumerate(op.blocks(call.hw.tile.rows) if need_x or need_w else ()):
        inside = g
        if masks is not None:
            inside, sums = launch.keep(g, masks, part, site, sums=need_b and part == 0)
            grad_b = grad_b if sums is None else sums.to(g.dtype)
        pieces.append(op.backward(inside, op.cut_input(x, block), op.cut_weight(w, block), need_x, need_w))
    if need_b and grad_b is None:
        grad_b = op.sum_to_columns(g)
    inputs, weights = [p for p, _ in pieces if p is not None], [p for _, p in pieces if p is not None]
    return op.join_inputs(inputs) if inputs else None, op.join_weights(weights) if weights else None, grad_b


def _backward_in_torch(
    g: Tensor | None, of_driven: Tensor | None, x: Tensor, inside: Tensor | None, w: Tensor, ranges: Tensor,
    bias: Tensor | None, call: Call, used: Tensor, needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """The backward pass with a graph of its own (create_graph=True), through the plain operator.

    ``x``: as the rows were driven, so the product runs without its DAC, whose backward pass is the mask ``inside``.
    """
    need_x, need_w, need_r, need_b = needs
    found: dict[str, Tensor | None] = {}
    if g is not None:
        r = torch.where(ranges > 0, ranges, used) if need_r else used
        noise = as_noise(call.fresh, x, call.op, call.hw, 1)
        hw, array = call.hw if inside is None else replace(call.hw, dac=None), call.array._replace(weights=(w,))
        y, _ = mvm(x, array, call.op, hw, noise, input_range=r[0], adc_range=r[1], bias=bias)
        wanted = {"x": x if need_x else None, "w": w if need_w else None}
        wanted |= {"r": ranges if need_r else None, "b": bias if need_b else None}
        inputs = {name: t for name, t in wanted.items() if t is not None}
        grads = torch.autograd.grad(y, list(inputs.values()), g, create_graph=True, allow_unused=True)
        found = dict(zip(inputs, grads, strict=True))
    # The gradient of ``ranges`` above holds what comes through the driven input: by this function, with g = None.
    grad_x, grad_r = found.get("x"), found.get("r")
    if inside is not None:
        lost = ~_bits(inside, x)
        if of_driven is not None and need_r:
            of_in = torch.where(lost, of_driven * x.detach().sign(), 0.0).sum()
            of_in = torch.where(ranges > 0, torch.stack((of_in, of_in.new_zeros(()))), 0.0).to(ranges.dtype)
            grad_r = of_in if grad_r is None else grad_r + of_in
        if of_driven is not None:
            grad_x = of_driven if grad_x is None else grad_x + of_driven
        grad_x = None if grad_x is None else torch.where(lost, 0.0, grad_x)
    return grad_x if need_x else None, found.get("w"), grad_r, found.get("b"), None


def _bits(octets: Tensor, like: Tensor) -> Tensor:
    """Truth values that lie eight a byte, in the order of memory of ``like``, as a tensor of its shape."""
    flat = ((octets.unsqueeze(1) >> torch.arange(8, device=octets.device)) & 1).view(-1)[: like.numel()] != 0
    return torch.empty_like(like, dtype=torch.bool).copy_(torch.as_strided(flat, like.shape, like.stride()))
