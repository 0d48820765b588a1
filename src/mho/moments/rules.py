"""What functions of torch do to moments: one rule a function, for a network's own forward code.

Rearrangements act on mean, variance and amplitude alike; sums add; a bend goes through its gain. A function
without a rule is an error that names it (``Signal.__torch_function__``).
"""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from mho.errors import ConversionError
from mho.moments import gauss
from mho.moments.product import added
from mho.moments.signal import RULES, Rule, Signal, sure

AnyRule = TypeVar("AnyRule", bound=Rule)


def rule(*functions: Any) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for these functions of torch."""

    def register(chosen: AnyRule) -> AnyRule:
        RULES.update(dict.fromkeys(functions, chosen))
        return chosen

    return register


def _put(x: Signal, result: Signal, inplace: bool) -> Signal:
    """``result``, written over ``x`` where torch would have: other names of x see it too."""
    if not inplace:
        return result
    x.m, x.v, x.amp, x.group = result.m, result.v, result.amp, result.group
    x.before, x.terms = result.before, result.terms
    return x


def _in_place(chosen: Rule) -> Rule:
    def changed(x: Any, *args: Any, **options: Any) -> Signal:
        if not isinstance(x, Signal):
            raise _refuse("in-place sum or product", "a known tensor cannot become random", "x = x + y")
        return _put(x, chosen(x, *args, **options), True)

    return changed


def _refuse(name: str, cause: str, way_out: str) -> ConversionError:
    return ConversionError(f"mho.moments: {name}: {cause}. Way out: {way_out}.")


# Bends


@rule(F.relu, torch.relu, Tensor.relu)
def _relu(x: Signal, inplace: bool = False) -> Signal:
    return _put(x, x.rectified(), inplace)


rule(torch.relu_, Tensor.relu_)(_in_place(_relu))


@rule(F.leaky_relu)
def _leaky_relu(x: Signal, negative_slope: float = 0.01, inplace: bool = False) -> Signal:
    return _put(x, x.bend(lambda m, v: gauss.leaky_relu(m, v, negative_slope)), inplace)


@rule(F.hardtanh, torch.clamp, Tensor.clamp)
def _clamp(x: Signal, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Signal:
    return _put(x, x.bend(lambda m, v: gauss.clamp(m, v, float(min_val), float(max_val))), inplace)


@rule(F.relu6)
def _relu6(x: Signal, inplace: bool = False) -> Signal:
    return _put(x, x.bend(lambda m, v: gauss.clamp(m, v, 0.0, 6.0)), inplace)


def _smooth(f: Callable[..., Tensor]) -> Rule:
    def bent(x: Signal, *args: Any, inplace: bool = False, **options: Any) -> Signal:
        # ``inplace`` is not handed on: it would change the nodes of the quadrature.
        return _put(x, x.bend(lambda m, v: gauss.elementwise(m, v, lambda z: f(z, *args, **options))), inplace)

    return bent


for _functions in ((torch.tanh, Tensor.tanh, F.tanh), (torch.sigmoid, Tensor.sigmoid, F.sigmoid), (F.gelu,)):
    rule(*_functions)(_smooth(_functions[0]))
for _activation in (F.silu, F.softplus, F.elu, F.selu, F.mish):
    rule(_activation)(_smooth(_activation))


# Rearrangements


@rule(torch.flatten, Tensor.flatten)
def _flatten(x: Signal, start_dim: int = 0, end_dim: int = -1) -> Signal:
    return _reshaped(x, x.m.flatten(start_dim, end_dim).shape)


@rule(torch.reshape, Tensor.reshape, Tensor.view, Tensor.view_as, Tensor.reshape_as)
def _reshape(x: Signal, *shape: Any) -> Signal:
    sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    if isinstance(sizes, Tensor):
        sizes = sizes.shape
    return _reshaped(x, x.m.reshape(sizes).shape)


def _reshaped(x: Signal, shape: torch.Size) -> Signal:
    if shape == x.m.shape:
        return x
    flattened = x.group == 1 and x.dim() > 2 and len(shape) == 2 and shape[0] == x.m.shape[0]
    if flattened:
        return x.through(lambda z: z.reshape(shape), group=math.prod(x.m.shape[2:]))
    return x.through(lambda z: z.reshape(shape), group=1, shared=False)


@rule(Tensor.__getitem__)
def _getitem(x: Signal, index: Any) -> Signal:
    made = x.m[index]
    entries = index if isinstance(index, tuple) else (index,)
    slices = all(isinstance(i, slice) for i in entries) and x.group == 1
    return x.through(lambda z: z[index], group=1, shared=slices and made.dim() == x.dim())


@rule(F.pad)
def _pad(x: Signal, pad: Any, mode: str = "constant", value: float | None = None) -> Signal:
    if mode == "constant" and value:
        zeros = x.through(lambda z: F.pad(z, pad), group=1)
        mask = F.pad(torch.zeros_like(x.m), pad, value=1.0)
        return zeros.affine(1.0, value * mask)
    return x.through(lambda z: F.pad(z, pad, mode=mode), group=1, shared=x.group == 1)


def _movement(f: Callable[..., Tensor]) -> Rule:
    return lambda x, *args, **options: x.through(lambda z: f(z, *args, **options), group=1, shared=False)


for _function in (
    torch.permute, Tensor.permute, torch.transpose, Tensor.transpose, torch.squeeze, Tensor.squeeze, torch.unsqueeze,
    Tensor.unsqueeze, torch.unflatten, Tensor.unflatten, torch.movedim, Tensor.movedim, Tensor.expand,
):  # fmt: skip
    rule(_function)(_movement(_function))


@rule(Tensor.contiguous, Tensor.clone, torch.clone)
def _same(x: Signal, *args: Any, **options: Any) -> Signal:
    return x


@rule(torch.cat, torch.concat)
def _cat(tensors: Any, dim: int = 0) -> Signal:
    tape = next(z.tape for z in tensors if isinstance(z, Signal))
    signals = [z if isinstance(z, Signal) else sure(z, tape) for z in tensors]
    group = signals[0].group if len({z.group for z in signals}) == 1 else 1
    shared = any(z.amp is not None for z in signals) and dim == 1 and (group > 1 or signals[0].dim() > 2)
    t = torch.cat([torch.zeros_like(z.v) if z.amp is None else z.amp for z in signals], dim) if shared else None
    m, v = torch.cat([z.m for z in signals], dim), torch.cat([z.v for z in signals], dim)
    return Signal(m, v, t, group if shared else 1, tape)


@rule(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout)
def _dropout(x: Signal, p: float = 0.5, training: bool = True, inplace: bool = False) -> Signal:
    if training and p > 0:
        raise _refuse("dropout", "it is in training mode", "model.eval()")
    return x


# Sums


def _sum(x: Signal, y: Any) -> Signal:
    if not isinstance(y, Signal):
        return x.affine(1.0, y)
    if x.m.shape != y.m.shape:
        raise _refuse("add", f"shapes {tuple(x.m.shape)}, {tuple(y.m.shape)} differ", "expand before adding")
    return added(x, y)


@rule(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(x: Any, y: Any, *, alpha: float = 1) -> Signal:
    if isinstance(y, Signal) and alpha != 1:
        y = y.affine(float(alpha))
    elif alpha != 1:
        y = y * alpha
    return _sum(x, y) if isinstance(x, Signal) else _sum(y, x)


@rule(torch.sub, Tensor.sub, Tensor.__sub__)
def _sub(x: Any, y: Any, *, alpha: float = 1) -> Signal:
    return _add(x, y, alpha=-alpha)


@rule(Tensor.__rsub__, torch.rsub)
def _rsub(x: Signal, y: Any) -> Signal:
    return x.affine(-1.0, y)


@rule(torch.neg, Tensor.neg, Tensor.__neg__)
def _neg(x: Signal) -> Signal:
    return x.affine(-1.0)


@rule(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(x: Any, y: Any) -> Signal:
    if isinstance(x, Signal) and isinstance(y, Signal):
        raise _refuse("mul", "both factors are random", "simulate virtual chips with mho.evaluate")
    random, known = (x, y) if isinstance(x, Signal) else (y, x)
    scaled: Signal = random.affine(known)
    return scaled


@rule(torch.div, Tensor.div, Tensor.__truediv__)
def _div(x: Any, y: Any) -> Signal:
    if isinstance(y, Signal):
        raise _refuse("div", "the divisor is random", "simulate virtual chips with mho.evaluate")
    scaled: Signal = x.affine(1.0 / y)
    return scaled


rule(Tensor.add_, Tensor.__iadd__)(_in_place(_add))
rule(Tensor.sub_, Tensor.__isub__)(_in_place(_sub))
rule(Tensor.mul_, Tensor.__imul__)(_in_place(_mul))
rule(Tensor.div_, Tensor.__itruediv__)(_in_place(_div))


@rule(F.batch_norm, torch.batch_norm)
def _batch_norm(
    x: Signal,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Signal:
    if training or running_mean is None or running_var is None:
        raise _refuse("batch_norm", "it would use the batch's own statistics", "model.eval(), with running statistics")
    scale = torch.rsqrt(running_var + eps)
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    shape = (-1, *([1] * (x.dim() - 2)))
    return x.affine(scale.reshape(shape), shift.reshape(shape))


# Averages: of n elements the shared amplitude averages in amplitude, the rest in variance.


def _averaged(x: Signal, f: Callable[[Tensor], Tensor], count: float) -> Signal:
    rest = x.v if x.amp is None else (x.v - x.amp.square()).clamp_min(0)
    t = None if x.amp is None else f(x.amp)
    var = f(rest) / count
    return Signal(f(x.m), var if t is None else var + t.square(), t, 1, x.tape)


def _sizes(value: Any, ndim: int) -> tuple[int, ...]:
    return (int(value),) * ndim if isinstance(value, int) else tuple(int(v) for v in value)


def _avg_pool(ndim: int, f: Callable[..., Tensor]) -> Rule:
    def pool(
        x: Signal,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> Signal:
        if ceil_mode or divisor_override is not None or (any(_sizes(padding, ndim)) and not count_include_pad):
            raise _refuse(f"avg_pool{ndim}d", "windows of several sizes", "pad the input before, and pool without")
        count = math.prod(_sizes(kernel_size, ndim))
        return _averaged(x, lambda z: f(z, kernel_size, stride, padding), count)

    return pool


for _ndim, _pool in ((1, F.avg_pool1d), (2, F.avg_pool2d), (3, F.avg_pool3d)):
    rule(_pool)(_avg_pool(_ndim, _pool))


def _windows(name: str, x: Signal, output_size: Any, ndim: int) -> tuple[int, ...]:
    """Window of an adaptive pool, where all windows are of one size."""
    outs = (output_size,) * ndim if isinstance(output_size, int) or output_size is None else tuple(output_size)
    sizes = x.m.shape[-ndim:]
    wanted = tuple(size if out is None else out for size, out in zip(sizes, outs, strict=True))
    if any(size % out for size, out in zip(sizes, wanted, strict=True)):
        raise _refuse(name, f"{tuple(sizes)} positions do not divide into {wanted}", "an output size that divides them")
    return tuple(size // out for size, out in zip(sizes, wanted, strict=True))


def _adaptive_avg(ndim: int) -> Rule:
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[ndim - 1]

    def pool(x: Signal, output_size: Any) -> Signal:
        window = _windows(f"adaptive_avg_pool{ndim}d", x, output_size, ndim)
        return _averaged(x, lambda z: average(z, window), math.prod(window))

    return pool


for _ndim, _adaptive in ((1, F.adaptive_avg_pool1d), (2, F.adaptive_avg_pool2d), (3, F.adaptive_avg_pool3d)):
    rule(_adaptive)(_adaptive_avg(_ndim))


@rule(torch.mean, Tensor.mean)
def _mean(x: Signal, dim: Any = None, keepdim: bool = False) -> Signal:
    dims = tuple(range(x.dim())) if dim is None else _sizes(dim, 1)
    dims = tuple(d % x.dim() for d in dims)
    if dim is None or 0 in dims or 1 in dims or x.group > 1:
        raise _refuse("mean", f"over dimensions {dims}; only positions (2 and up) can be averaged", "AdaptiveAvgPool")
    count = math.prod(x.m.shape[d] for d in dims)
    return _averaged(x, lambda z: z.mean(dims, keepdim=keepdim), count)


__all__ = ["rule"]
