"""A noisy backward pass: the array read in the other direction, with noise and converters of its own.

Error vectors are driven into the columns and the rows are sensed: grad_x = g W. The periphery is that
of the description, its ranges set by each batch's own maximum ("noise management"; Gokmen and
Vlasov, Front. Neurosci. 10, 333, 2016), since gradients shrink during training. The gradient of
the weight, an outer product, stays exact: it is formed by the update, not by a read.
"""

from typing import Any, final

import torch
from torch import Tensor

from mho.crossbar.noise import Draw, as_tensor
from mho.crossbar.ops import Op
from mho.hardware.spec import Hardware
from mho.physics import cells, converters


def output_sigma(hw: Hardware) -> float:
    """Sigma of the noise of the output periphery as a fraction of the ADC's range.

    ``output_noise`` and what the ADC's effective bits lack, added in variance.
    """
    adc = hw.adc
    lacking = 0.0 if adc is None or adc.enob is None or adc.bits is None else converters.enob_sigma(adc.bits, adc.enob)
    return float((hw.output_noise**2 + lacking**2) ** 0.5)


def reversible(x: Tensor, w: Tensor, op: Op, hw: Hardware, draw: Draw) -> Tensor:
    """``op.apply(x, w)`` whose gradient with respect to x is a noisy read of the transposed array.

    ``draw``: normals of the shape of x. The cell's read noise enters as for full-scale max|w|.
    """
    return _Reversible.apply(x, w, op, hw, draw)  # type: ignore[no-any-return, no-untyped-call]


@final
class _Reversible(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, op: Op, hw: Hardware, draw: Draw) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.op, ctx.hw, ctx.draw = op, hw, draw
        return op.apply(x, w, None)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        op, hw, (g,) = ctx.op, ctx.hw, grads
        need_x, need_w = ctx.needs_input_grad[:2]
        _, grad_w = op.backward(g, x, w, False, need_w) if need_w else (None, None)
        grad_x = _read_backwards(g, x, w, op, hw, ctx.draw) if need_x else None
        return grad_x, grad_w, None, None, None


def _read_backwards(g: Tensor, x: Tensor, w: Tensor, op: Op, hw: Hardware, draw: Draw) -> Tensor:
    driven = g
    if hw.dac is not None and hw.dac.bits is not None and g.numel():
        driven = converters.quantize(g, g.abs().amax(), hw.dac.bits)
    a, _ = op.backward(driven, x, w, True, False)
    assert a is not None
    if a.numel() == 0:
        return a
    variance = torch.zeros_like(a)
    read = cells.uniform_read_sigma(hw.cell, temperature_K=hw.environment.temperature_K)
    if read:
        energy, _ = op.backward(driven.square(), x, torch.ones_like(w), True, False)
        assert energy is not None
        variance = variance + (read * w.abs().amax()) ** 2 * energy.clamp_min(0)
    periphery = output_sigma(hw)
    if periphery:
        variance = variance + (periphery * a.abs().amax()) ** 2
    if read or periphery:
        a = a + variance.sqrt() * as_tensor(draw, tuple(a.shape), a)
    if hw.adc is not None and hw.adc.bits is not None:
        a = converters.quantize(a, a.abs().amax(), hw.adc.bits)
    return a
