"""One matrix-vector product of an analog array in moments: what ``crossbar.mvm`` computes for draws.

Each tile and bit slice is a part with its own ADC. A part's output, with W the mean weights and S their
variances, both as the op applies them, and the input's mean m, variance v and shared amplitude t:

    mean = W m
    var  = S (m^2 + v)  +  W^2 (v - t^2)  +  sum_c (sum_d W_cd t_cd)^2  +  fresh

c runs over input channels, d over the kernel's positions of one: what a channel shares adds up in amplitude.
"""

import math
from typing import final

import torch
from torch import Tensor

from mho.crossbar.array import slice_factors
from mho.crossbar.mvm import needs_adc_range, needs_input_range
from mho.crossbar.ops import Block, ConvOp, LinearOp, Op
from mho.crossbar.reverse import output_sigma
from mho.errors import ConversionError, HardwareError
from mho.hardware.spec import Hardware
from mho.moments import gauss
from mho.moments.signal import Signal, on_graph, sure
from mho.moments.sources import FreshSource, Tape, WeightSource, energy, grouped, positions
from mho.moments.weights import SiteMoments, WeightMoments, refuse_present, site_moments
from mho.nn.site import Programmed, Site
from mho.nn.surrogate import refuse_unknown_ranges
from mho.physics import converters


@final
class Analytic:
    """A substrate whose products take and give :class:`Signal`: no draws, moments only."""

    simulated = True

    def __init__(self, tape: Tape | None, t_s: float | None, known: dict[str, SiteMoments]) -> None:
        self.tape, self.t_s, self.known = tape, t_s, known

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        """Moments of y = x W^T + bias over chips and reads."""
        hw = site.hw
        if training:
            raise ConversionError(f"{site.name}: moments are of a network in eval mode. Way out: model.eval().")
        _refuse_periphery(hw)
        refuse_unknown_ranges(site, ranges)
        if site.name not in self.known:
            t_s = hw.environment.t_s if self.t_s is None else self.t_s
            self.known[site.name] = site_moments(weight, site.op, hw, bound=bound, t_s=t_s)
        signal = x if isinstance(x, Signal) else sure(x, self.tape)
        r_in, r_out = ranges.tolist()
        return product(signal, self.known[site.name], site.op, hw, r_in, r_out, bias)


def _refuse_periphery(hw: Hardware) -> None:
    adc, dac = hw.adc, hw.dac
    present = {
        "dac.gain_d2d": dac is not None and dac.gain_d2d > 0,
        "dac.inl_lsb": dac is not None and dac.inl_lsb > 0,
        "adc.gain_d2d": adc is not None and adc.gain_d2d > 0,
        "adc.offset_d2d_lsb": adc is not None and adc.offset_d2d_lsb > 0,
        "adc.inl_lsb": adc is not None and adc.inl_lsb > 0,
        "neuron": hw.neuron is not None,
        "readout.repeats": hw.readout.repeats > 1,
        "readout.column_windows": bool(hw.readout.column_windows),
    }
    refuse_present(hw, present)


def product(
    x: Signal, site: SiteMoments, op: Op, hw: Hardware, r_in: float, r_out: float, bias: Tensor | None
) -> Signal:
    """Moments of one product. ``r_in``, ``r_out``: converter ranges, above 0 where a converter needs one."""
    if (needs_input_range(hw) and not r_in > 0) or (needs_adc_range(hw) and not r_out > 0):
        raise HardwareError(f"{hw.name}: converter ranges {r_in}, {r_out} are not known. Way out: mho.calibrate first.")
    if isinstance(op, ConvOp) and x.dim() != op.ndim + 2:
        raise ConversionError(
            f"mho.moments: a convolution got an input of {x.dim()} dimensions, needs a batch: {op.ndim + 2}."
        )
    driven = _drive(x, hw, r_in)
    blocks = op.blocks(hw.tile.rows)
    total: Signal | None = None
    for k, (weights, factor) in enumerate(zip(site.slices, slice_factors(hw), strict=True)):
        for b, block in enumerate(blocks):
            part = _part(driven, site, k, b, block, weights, op, hw, r_in, r_out)
            part = part if factor == 1.0 else part.affine(factor)
            total = part if total is None else added(total, part)
    assert total is not None
    return total if bias is None else total.affine(1.0, op.over_columns(bias).to(x.dtype))


def _drive(x: Signal, hw: Hardware, r_in: float) -> Signal:
    if hw.dac is None or hw.dac.bits is None:
        return x
    levels = converters.levels(hw.dac.bits)
    return x.rounded(lambda m, v: gauss.quantized(m, v, r_in, levels))


def _part(
    x: Signal,
    site: SiteMoments,
    k: int,
    b: int,
    block: Block,
    whole: WeightMoments,
    op: Op,
    hw: Hardware,
    r_in: float,
    r_out: float,
) -> Signal:
    """One tile of one slice: array, fresh noise, ADC."""
    cut = x.through(lambda z: op.cut_input(z, block), group=x.group)
    weights = WeightMoments(
        op.cut_weight(whole.mean, block).to(x.dtype), op.cut_weight(whole.var, block).to(x.dtype), whole.column_var
    )
    inner = _block_op(op, block)
    m, v = cut.moments()
    mean = inner.apply(cut.m, weights.mean, None)
    var, t = _array(m, v, cut.amp, cut.group, weights, inner)
    fresh = _fresh_var(m, v, site, k, b, block, op, hw, r_in, r_out)
    if x.tape is not None:
        mean = on_graph(mean)
        if bool((weights.var > 0).any()):
            x.tape.sources.append(WeightSource(mean, inner, weights, m, v, cut.amp, x.tape.images))
        if fresh is not None:
            x.tape.sources.append(FreshSource(mean, fresh.expand_as(mean)))
    y = Signal(mean, var if fresh is None else var + fresh, t, 1, x.tape)
    if hw.adc is None or hw.adc.bits is None:
        return y
    levels = converters.levels(hw.adc.bits)
    return y.rounded(lambda m, v: gauss.quantized(m, v, r_out, levels))


def _block_op(op: Op, block: Block) -> Op:
    """The op of one block of rows alone."""
    if isinstance(op, LinearOp):
        return LinearOp(block.stop - block.start, op.out_features)
    channels = (block.stop - block.start) * op.groups
    return ConvOp(channels, op.out_channels, op.kernel, op.stride, op.padding, op.dilation, op.groups)


def _array(
    m: Tensor, v: Tensor, t: Tensor | None, group: int, weights: WeightMoments, op: Op
) -> tuple[Tensor, Tensor | None]:
    """(variance, shared amplitude) of the noiseless read of one part."""
    images, w = m.shape[0], weights.mean
    square = m.square() + v
    if weights.column_var is not None:
        static = op.over_columns(weights.column_var.to(m.dtype)) * op.row_norm2(square.clamp_min(0).sqrt())
    else:
        static = op.apply(square, weights.var, None)
    if isinstance(op, LinearOp):
        if t is None or group == 1:
            return static + op.apply(v, w.square(), None), None
        rest = op.apply((v - t.square()).clamp_min(0), w.square(), None)
        per_channel = torch.einsum("ocp,n...cp->n...oc", w.unflatten(1, (-1, group)), t.unflatten(-1, (-1, group)))
        return static + rest + per_channel.square().sum(-1), None
    shape = static.shape
    rest = v if t is None else (v - t.square()).clamp_min(0)
    var = static + op.apply(rest, w.square(), None)
    # Shared amplitudes: project the features of each position on their mean over positions.
    s_w = grouped(op, weights.var)
    column = None if weights.column_var is None else weights.column_var.reshape(s_w.shape[:2]).to(m.dtype)
    pairs = []
    for part in (m,) if t is None else (m, t):
        u = positions(op, part, images)
        centre = u.mean(-1, keepdim=True)
        pairs.append((energy(u * centre, s_w, column), energy(centre.square(), s_w, column)))
    along = sum((p[0] for p in pairs), torch.zeros_like(pairs[0][0]))
    norm2 = sum((p[1] for p in pairs), torch.zeros_like(pairs[0][1]))
    if t is not None:
        kernel = math.prod(op.kernel)
        u = positions(op, t, images).unflatten(2, (-1, kernel))
        per = torch.einsum("gocd,ngcdp->ngocp", grouped(op, w).unflatten(2, (-1, kernel)), u)
        centre = per.mean(-1, keepdim=True)
        var = var + per.square().sum(3).reshape(shape)
        along = along + (per * centre).sum(3)
        norm2 = norm2 + centre.square().sum(3)
    amp = along / norm2.clamp_min(torch.finfo(m.dtype).tiny).sqrt()
    limit = var.clamp_min(0).sqrt()
    return var, torch.minimum(torch.maximum(amp.reshape(shape), -limit), limit)


def _fresh_var(
    m: Tensor,
    v: Tensor,
    site: SiteMoments,
    k: int,
    b: int,
    block: Block,
    op: Op,
    hw: Hardware,
    r_in: float,
    r_out: float,
) -> Tensor | None:
    """Variance of one read of one part, all sources together (``crossbar.mvm.fresh_sigma`` for random inputs)."""
    array, total = site.array, (output_sigma(hw) * r_out) ** 2
    var: Tensor | None = m.new_tensor(total) if total else None
    inner = _block_op(op, block)
    if array.read_var is not None:
        square, read = m.square() + v, array.read_var[k].to(m.dtype)
        if read.dim() == 0 or read[0].numel() == 1:
            read_var = op.over_columns(read.reshape(-1)) * inner.row_norm2(square.clamp_min(0).sqrt())
        else:
            read_var = inner.apply(square, op.cut_weight(read, block), None)
        var = read_var if var is None else var + read_var
    if array.shot_weight is not None:
        shot = r_in * inner.apply(mean_abs(m, v), op.cut_weight(array.shot_weight[k], block).to(m.dtype), None)
        var = shot if var is None else var + shot
    if array.thermal_var is not None:
        rows = array.thermal_var[k * len(op.blocks(hw.tile.rows)) + b].to(m.dtype)
        thermal = r_in**2 * op.over_columns(rows)
        var = thermal if var is None else var + thermal
    return var


def mean_abs(m: Tensor, v: Tensor) -> Tensor:
    """E|x| = max(x, 0) + max(-x, 0), of x ~ N(m, v)."""
    return gauss.relu(m, v).mean + gauss.relu(-m, v).mean


def added(x: Signal, y: Signal) -> Signal:
    """x + y of one shape, taken as independent: means and variances add, amplitudes as one factor a channel.

    Their covariance through common ancestors is in the response (``moments.response``), not in the variances here.
    """
    group = max(x.group, y.group)
    amps = [z.amp for z in (x, y) if z.amp is not None]
    t: Tensor | None = None
    if amps:
        centres = [channel_mean(amp, group) for amp in amps]
        along = sum((a * c for a, c in zip(amps, centres, strict=True)), torch.zeros_like(amps[0]))
        norm2 = sum((c.square() for c in centres), torch.zeros_like(amps[0]))
        t = along / norm2.clamp_min(torch.finfo(norm2.dtype).tiny).sqrt()
    made = Signal(x.m + y.m, x.v + y.v, t, group, x.tape)
    if x.before is not None or y.before is not None:
        made.terms = (x, y) if x.before is not None else (y, x)
    return made


def channel_mean(t: Tensor, group: int) -> Tensor:
    """Mean over the positions of each channel, of the shape of t."""
    if group > 1:
        spots = t.unflatten(-1, (-1, group))
        spread: Tensor = spots.mean(-1, keepdim=True).expand_as(spots)
        return spread.flatten(-2)
    return t.mean(tuple(range(2, t.dim())), keepdim=True).expand_as(t) if t.dim() > 2 else t
