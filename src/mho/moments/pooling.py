"""Maximum pooling: Clark's formulas, pair after pair over each window."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.crossbar.ops import ConvOp
from mho.errors import ConversionError
from mho.moments import gauss
from mho.moments.rules import _sizes, _windows, rule
from mho.moments.signal import Rule, Signal, on_graph
from mho.moments.sources import BendSource, positions


def max_of_windows(x: Signal, op: ConvOp) -> Signal:
    """Moments of the maximum over each window of ``op``, a convolution with one group a channel.

    Elements of a window are correlated by their shared amplitudes. After each pair the maximum is taken as
    normal again (Clark 1961); the gain of an element is the probability that it wins.
    """
    images = x.m.shape[0]
    if x.tape is not None:
        x = x.corrected(x.tape.factor(x.m, x.v, x.tape))
    shape = (images, op.out_channels, *_out_sizes(op, x.m))

    def elements(z: Tensor) -> list[Tensor]:
        return list(positions(op, z, images).unbind(2))

    ms, vs = elements(x.m), elements(x.v)
    ts = [torch.zeros_like(v) for v in vs] if x.amp is None else elements(x.amp)
    m, v, t, linear = ms[0], vs[0], ts[0], vs[0]
    for m2, v2, t2 in zip(ms[1:], vs[1:], ts[1:], strict=True):
        top, var, first = gauss.larger(m.detach() if x.tape else m, v, m2.detach() if x.tape else m2, v2, t * t2)
        second = 1 - first
        if x.tape is not None:
            straight = first * m + second * m2
            top = straight + (top - straight.detach())
        linear = first.square() * linear + second.square() * v2 + 2 * first * second * t * t2
        m, v, t = top, var, first * t + second * t2
    excess = (v - linear).clamp_min(0).reshape(shape)
    amp = None if x.amp is None else t.reshape(shape)
    mean, var = m.reshape(shape), v.reshape(shape)
    if x.tape is None:
        return Signal(mean, var, amp, 1)
    mean = on_graph(mean)
    share = torch.zeros_like(var) if amp is None else amp.square() / var.clamp_min(torch.finfo(var.dtype).tiny)
    bent = None if amp is None else share.clamp(0, 1) * excess.sqrt() * torch.sign(amp)
    if bool((excess > 0).any()):
        x.tape.sources.append(BendSource(mean, excess, bent, 1))
    return Signal(mean, var, amp, 1, x.tape)


def _out_sizes(op: ConvOp, x: Tensor) -> list[int]:
    return [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, p, d, k, s in zip(x.shape[2:], op.padding, op.dilation, op.kernel, op.stride, strict=True)
    ]


def _max_pool(ndim: int) -> Rule:
    def pool(
        x: Signal,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Signal:
        if ceil_mode or return_indices or any(_sizes(padding, ndim)):
            raise ConversionError(
                f"mho.moments: max_pool{ndim}d: padding, ceil_mode and return_indices have no moments. Way out: pad "
                "the input, or pool without."
            )
        kernel = _sizes(kernel_size, ndim)
        steps = kernel if stride is None or stride == [] else _sizes(stride, ndim)
        return max_of_windows(x, _window_op(x, kernel, steps, _sizes(dilation, ndim)))

    return pool


def _window_op(x: Signal, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]) -> ConvOp:
    channels = x.m.shape[1]
    return ConvOp(channels, channels, kernel, stride, (0,) * len(kernel), dilation, channels)


def _adaptive_max(ndim: int) -> Rule:
    def pool(x: Signal, output_size: Any, return_indices: bool = False) -> Signal:
        window = _windows(f"adaptive_max_pool{ndim}d", x, output_size, ndim)
        return max_of_windows(x, _window_op(x, window, window, (1,) * ndim))

    return pool


for _ndim in (1, 2, 3):
    # torch's Python wrappers hand over under the names of the functions that they wrap.
    _maxima = {getattr(torch, f"max_pool{_ndim}d"), getattr(F, f"max_pool{_ndim}d"), getattr(F, f"_max_pool{_ndim}d")}
    rule(*_maxima)(_max_pool(_ndim))
    _name = f"adaptive_max_pool{_ndim}d"
    _home = torch if _ndim == 1 else torch._C._nn
    rule(getattr(_home, _name), getattr(F, _name), getattr(F, "_" + _name))(_adaptive_max(_ndim))

__all__ = ["max_of_windows"]
