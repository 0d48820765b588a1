"""Fresh noise of the cells while a network is at rest: each resistor's noise is a current into its nodes."""

import torch
from torch import Tensor

from mho.ebm.resistive.network import Conductances, Layered, driving
from mho.ebm.resistive.solve import Rest
from mho.hardware.spec import Hardware
from mho.physics.cells import has_read_noise, read_sigma_uS
from mho.rng import derive_seed


def read_currents_uA(
    net: Layered, g_uS: Conductances, found: Rest, hw: Hardware, seed: int
) -> tuple[Tensor, ...] | None:
    """One draw of noise currents into every layer, [batch, nodes] each, uA; ``None`` where reads are noiseless.

    A conductance that fluctuates by dg drives the current dg (A v_far - v) through its resistor, so a node sees the
    variance sum sigma^2 (A v_far - v)^2, at the voltages of the state of rest ``found`` (first order in dg). What the
    layer before sees of the same fluctuation (b times it, through the amplifier) is left out: with b = 1/A and
    many more resistors on the side of the inputs it is small. Fluctuations are held for one inference (slow against its
    settling) and drawn anew for the next.
    """
    if not has_read_noise(hw.cell):
        return None
    generator = torch.Generator(found.outputs.device).manual_seed(derive_seed(seed, "resistive", "read"))
    currents = []
    for layer, v in enumerate(found.states, start=1):
        g = g_uS[f"layer{layer}"]
        sigma = read_sigma_uS(hw.cell, g, g, hw.environment.t_s, temperature_K=hw.environment.temperature_K)
        power = _squared_across(sigma.square(), driving(net, layer, found.states, found.given), v)
        normal = torch.randn(v.shape, generator=generator, device=v.device, dtype=v.dtype)
        currents.append(power.clamp_min(0.0).sqrt() * normal)
    return tuple(currents)


def _squared_across(variance: Tensor, far: Tensor, v: Tensor) -> Tensor:
    """sum over a node's resistors of variance (far - v)^2, [batch, nodes]."""
    if variance.dim() == 0:  # the same for all cells: no matrix product
        sums = far.square().sum(1, keepdim=True) - 2.0 * v * far.sum(1, keepdim=True) + far.shape[1] * v.square()
        return variance * sums
    return far.square() @ variance.t() - 2.0 * v * (far @ variance.t()) + v.square() * variance.sum(1)


__all__ = ["read_currents_uA"]
