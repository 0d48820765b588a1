"""What a layered network minimises, and what it dissipates."""

import torch
from torch import Tensor

from mho.ebm.resistive.network import Conductances, Drive, Layered, States, driving


def cocontent_uW(
    net: Layered, g_uS: Conductances, states: States, given: Drive, injected_uA: Tensor | None = None
) -> Tensor:
    """E = sum_l s_l [1/2 sum g (A v_before - v)^2 + diodes - injected . v], s_l = (b/A)^(l-1); [batch], uW.

    For resistors alone and A = b = 1 it is half of the dissipated power; a diode adds its content, the integral of
    its current over its voltage (0 for an ideal one, which only allows or forbids). The state of rest is its minimum
    over the voltages that the ideal diodes allow (Millar 1951; Kendall et al. 2020).
    """
    total = given.sources.new_zeros(len(given.sources))
    for layer, v in enumerate(states, start=1):
        share = net.share(layer)
        g = g_uS[f"layer{layer}"]
        total = total + share * 0.5 * _squares(g, driving(net, layer, states, given), v)
        signs = net.signs(layer)
        if signs is not None and net.diode is not None:
            bias = torch.as_tensor(net.diode.bias_V, dtype=v.dtype, device=v.device)
            forward = net.diode.bias_V - signs.to(v) * v
            content = net.diode.content_uW(forward) - net.diode.content_uW(bias)
            total = total + share * content.sum(1)
    if injected_uA is not None:
        total = total - net.share(len(states)) * (injected_uA * states[-1]).sum(1)
    return total


def resistor_power_uW(net: Layered, g_uS: Conductances, states: States, given: Drive) -> Tensor:
    """Heat in the resistors, sum g (A v_before - v)^2; [batch, layers], uW. Diodes and amplifiers are not in it."""
    return torch.stack(
        [
            _squares(g_uS[f"layer{layer}"], driving(net, layer, states, given), v)
            for layer, v in enumerate(states, start=1)
        ],
        1,
    )


def _squares(g: Tensor, far: Tensor, v: Tensor) -> Tensor:
    """sum over all resistors of g (far - v)^2, [batch], without a tensor of their size."""
    return (far.square() @ g.sum(0)) - 2.0 * ((far @ g.t()) * v).sum(1) + v.square() @ g.sum(1)


__all__ = ["cocontent_uW", "resistor_power_uW"]
