"""The true gradient by implicit differentiation: the oracle of equilibrium propagation.

At rest dE/dv = 0 over the nodes that no ideal diode holds, so dv/dg = -H^-1 d2E/dvdg, with H the Hessian of E over
those nodes. One linear solve for the adjoint voltages w = H^-1 dC/dv, then dC/dg = -s_l (A v_far - v)(A w_far - w).
"""

import torch
from torch import Tensor

from mho.ebm.resistive.hessian import hessian, layer_slices
from mho.ebm.resistive.network import Conductances, Layered, States, driving
from mho.ebm.resistive.solve import Rest


def implicit_gradients(net: Layered, g_uS: Conductances, free: Rest, slope: Tensor) -> dict[str, Tensor]:
    """dC/dg summed over the batch; arguments as :func:`~mho.ebm.resistive.learning.ep_gradients`.

    A dense solve of all nodes for each image: for small networks and tests. A node that lies exactly on the knee of an
    ideal diode has two derivatives; the one with the diode open is taken if no current flows in it.
    """
    places = layer_slices(net)
    adjoint = slope.new_zeros(len(slope), sum(net.sizes))
    for image in range(len(slope)):
        states = tuple(s[image : image + 1] for s in free.states)
        second = hessian(net, g_uS, states)
        loose = torch.nonzero(~_held(net, states)).flatten()
        right = slope.new_zeros(sum(net.sizes))
        right[places[-1]] = slope[image]
        adjoint[image, loose] = torch.linalg.solve(second[loose][:, loose], right[loose])
    w = [adjoint[:, place] for place in places]
    gradients = {}
    for layer in range(1, len(net.sizes) + 1):
        far = driving(net, layer, free.states, free.given)
        w_far = torch.zeros_like(far)
        if layer > 1:
            w_far[:, :-2] = net.voltage_gain * w[layer - 2]
        v = free.states[layer - 1]
        across = far.unsqueeze(1) - v.unsqueeze(2)
        moved = w_far.unsqueeze(1) - w[layer - 1].unsqueeze(2)
        gradients[f"layer{layer}"] = -net.share(layer) * (across * moved).sum(0)
    return gradients


def _held(net: Layered, states: States) -> Tensor:
    """Which nodes an ideal diode holds at zero."""
    held = []
    for layer, v in enumerate(states, start=1):
        bound = net.signs(layer) is not None and net.diode is None
        held.append((v[0] == 0) if bound else torch.zeros(v.shape[1], dtype=torch.bool, device=v.device))
    return torch.cat(held)


__all__ = ["implicit_gradients"]
