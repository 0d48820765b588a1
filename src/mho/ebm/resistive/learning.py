"""Equilibrium propagation on a resistive network: the gradient from two states of rest, each resistor on its own.

Scellier and Bengio 2017; Kendall et al. 2020 for circuits. A resistor needs the voltage across it at rest and with
the outputs nudged by small currents, nothing else:

    dC/dg = lim 1/beta [dE/dg (beta) - dE/dg (0)],   dE/dg = s_l (dV)^2 / 2

The nudging current into the outputs is J = -beta dC/dv / s_L. Here dC/dv is taken at the free state and held, as a
current source would, so that any differentiable loss is served and no strength of nudging can unbind the outputs.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mho.ebm.resistive.network import Conductances, Layered, States
from mho.ebm.resistive.solve import Rest, Solver, rest
from mho.errors import InputError

Variant = Literal["centred", "positive", "negative"]
_WAYS: dict[str, tuple[float, float]] = {"centred": (1.0, -1.0), "positive": (1.0, 0.0), "negative": (0.0, -1.0)}


class Nudged(NamedTuple):
    """Gradients by name (of a sum over the batch, 1/uS times the unit of the cost), and the two states compared."""

    gradients: dict[str, Tensor]
    high: Rest
    low: Rest


def ep_gradients(
    net: Layered,
    g_uS: Conductances,
    free: Rest,
    slope: Tensor,
    *,
    nudge_uW: float | Tensor,
    variant: Variant = "centred",
    solver: Solver | None = None,
    noise_uA: States | None = None,
) -> Nudged:
    """dC/dg of a cost whose slope at the free outputs is ``slope`` [batch, outputs] (1/V times the unit of C).

    ``nudge_uW`` (beta): a number or [batch, 1]. "centred" compares +beta with -beta (error of second order in beta),
    "positive" +beta with 0, "negative" 0 with -beta (first order). Between two flips of an ideal diode the network is
    linear and the centred estimate is exact. ``noise_uA``: currents into every layer that the free state had, and that
    the nudged ones keep. Raises :class:`InputError` for a nudge that is not above 0.
    """
    beta = torch.as_tensor(nudge_uW, dtype=slope.dtype, device=slope.device)
    if not bool((beta > 0).all()) or not bool(torch.isfinite(beta).all()):
        raise InputError(f"ep_gradients: nudge_uW = {nudge_uW!r} must be above 0 and finite.")
    if variant not in _WAYS:
        raise InputError(f"ep_gradients: variant {variant!r} is unknown. Fix: one of {sorted(_WAYS)}.")
    current = -beta * slope / net.share(len(net.sizes))
    x = free.given.sources[:, : net.inputs]

    def nudged(way: float) -> Rest:
        if way == 0.0:
            return free
        into = way * current if noise_uA is None else (*noise_uA[:-1], noise_uA[-1] + way * current)
        return rest(net, g_uS, x, injected_uA=into, start=free, solver=solver, checked=True)

    up, down = _WAYS[variant]
    high, low = nudged(up), nudged(down)
    weight = 1.0 / ((up - down) * beta)
    return Nudged(_difference(net, high, low, weight), high, low)


def _difference(net: Layered, high: Rest, low: Rest, weight: Tensor) -> dict[str, Tensor]:
    """sum over the batch of weight s_l/2 (dV_high^2 - dV_low^2) = weight s_l/2 (dV_high - dV_low)(dV_high + dV_low).

    The product of difference and sum loses no digits where the states are close, as the difference of squares would.
    """
    gradients = {}
    for layer in range(1, len(net.sizes) + 1):
        d_v = weight * (high.states[layer - 1] - low.states[layer - 1])
        s_v = high.states[layer - 1] + low.states[layer - 1]
        d_far, s_far = _far(net, layer, high, low)
        half = 0.5 * net.share(layer)
        found = (d_v * s_v).sum(0).unsqueeze(1) - d_v.t() @ s_far
        if d_far is not None:
            moved = weight * d_far
            found = found - s_v.t() @ moved + (moved * s_far).sum(0)
        gradients[f"layer{layer}"] = half * found
    return gradients


def _far(net: Layered, layer: int, high: Rest, low: Rest) -> tuple[Tensor | None, Tensor]:
    """Difference (``None``: nothing moves) and sum of the far voltages in the two states, rails last."""
    v = high.given.sources
    rail = 2.0 * net.rail_before(layer)
    rails = v.new_tensor([rail, -rail]).expand(len(v), 2)
    if layer == 1:
        return None, torch.cat([2.0 * v, rails], 1)
    a, b = high.states[layer - 2], low.states[layer - 2]
    gain = net.voltage_gain
    still = torch.zeros_like(rails)
    return torch.cat([gain * (a - b), still], 1), torch.cat([gain * (a + b), rails], 1)


__all__ = ["Nudged", "Variant", "ep_gradients"]
