"""The analog neuron in front of an ADC: asymmetric gains, saturation, mismatch."""

import torch
from torch import Tensor

from mho import ste
from mho.hardware.spec import Neuron


def _soft_clip(z: Tensor, low: float, high: float) -> Tensor:
    """tanh-shaped approach to each bound from the rest point c = clip(0, low, high).

    z >= c: c + (high - c) tanh((z - c) / (high - c)); the same towards ``low`` below c. Slope 1 at c, so
    small signals pass unchanged. A bound that is the rest point itself (low = 0, a rectifier) is
    a hard corner: there is nothing to approach.
    """
    rest = min(max(0.0, low), high)
    up, down = high - rest, rest - low
    above = rest + up * torch.tanh((z - rest) / up) if up > 0 else rest + 0.0 * z
    below = rest + down * torch.tanh((z - rest) / down) if down > 0 else rest + 0.0 * z
    return ste.clamp(torch.where(z >= rest, above, below), low, high)


def transfer(a: Tensor, neuron: Neuron, gain_draws: Tensor | None, offset_draws: Tensor | None) -> Tensor:
    """f(a) = clip(gain_pos max(a, 0) + gain_neg min(a, 0) + offset, low, high), in units of the ADC range.

    a: any shape, floating dtype. ``gain_draws`` and ``offset_draws`` are standard normals, one a neuron,
    which broadcast with a: both gains are multiplied by (1 + gain_d2d xi) and offset_d2d xi is
    added to the offset; ``None``: the nominal neuron. ``soft``: the hard clip becomes a
    tanh-shaped approach to the same bounds (slope 1 at the rest point). Every value lies in [low, high];
    NaN stays NaN.

    The gradient is exact; at a = 0 it is the one of the positive side, and the hard clip passes it at
    its bounds. A behavioural model: the numbers of a neuron come from its own measured transfer curve.
    """
    z = torch.where(a >= 0, neuron.gain_pos * a, neuron.gain_neg * a)
    if gain_draws is not None:
        z = z * (1.0 + neuron.gain_d2d * gain_draws)
    z = z + neuron.offset
    if offset_draws is not None:
        z = z + neuron.offset_d2d * offset_draws
    return _soft_clip(z, neuron.low, neuron.high) if neuron.soft else ste.clamp(z, neuron.low, neuron.high)
