"""The energy's second derivative over all nodes, dense: for implicit differentiation and for time constants."""

import torch
from torch import Tensor

from mho.ebm.resistive.network import Conductances, Layered, States


def layer_slices(net: Layered) -> list[slice]:
    """Where each layer's nodes lie among all."""
    places, start = [], 0
    for size in net.sizes:
        places.append(slice(start, start + size))
        start += size
    return places


def hessian(net: Layered, g_uS: Conductances, states: States | None = None) -> Tensor:
    """d2E/dv2 [nodes, nodes], uS, diodes at the first image of ``states``; ``None``: all diodes open.

    Ideal diodes add nothing: what they hold is to be left out by the caller.
    """
    places = layer_slices(net)
    found = g_uS["layer1"].new_zeros(places[-1].stop, places[-1].stop)
    for layer, here in enumerate(places, start=1):
        share, g = net.share(layer), g_uS[f"layer{layer}"]
        diagonal = share * g.sum(1)
        signs = net.signs(layer)
        if signs is not None and net.diode is not None and states is not None:
            forward = net.diode.bias_V - signs.to(g) * states[layer - 1][0]
            diagonal = diagonal + share * net.diode.slope_uS(forward)
        found[here, here] += torch.diag(diagonal)
        if layer > 1:
            before, inner, gain = places[layer - 2], g[:, :-2], net.voltage_gain
            found[before, before] += torch.diag(share * gain * gain * inner.sum(0))
            found[here, before] -= share * gain * inner
            found[before, here] -= share * gain * inner.t()
    return found


__all__ = ["hessian", "layer_slices"]
