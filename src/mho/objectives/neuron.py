"""What the saturating analog neuron takes away."""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from mho.errors import HardwareError
from mho.hardware.spec import Neuron
from mho.objectives.observe import Product
from mho.physics import neuron as law

Line = Literal["own", "symmetric"]


def lost(u: Tensor, spec: Neuron, line: Line = "own") -> Tensor:
    """z - f(u): what is missing from the line z that the neuron would follow if it did not bend.

    ``u``: pre-activation in units of the ADC range; so is the result. f is the nominal neuron. ``line``: "own" has the
    neuron's two gains, z = gain_pos max(u, 0) + gain_neg min(u, 0) + offset: unequal gains alone lose nothing (the side
    of gain 0 of a rectifier is its function). "symmetric" goes straight on with the positive side's gain,
    z = gain_pos u + offset: a negative u loses (gain_pos - gain_neg) u besides. With equal gains both are the same.
    Zero inside the linear range low <= z <= high of a hard neuron; a soft one bends everywhere but at its rest point.
    """
    z = _straight(u, spec) if line == "own" else spec.gain_pos * u + spec.offset
    return z - law.transfer(u, spec, None, None)


def _straight(u: Tensor, spec: Neuron) -> Tensor:
    return torch.where(u >= 0, spec.gain_pos * u, spec.gain_neg * u) + spec.offset


def saturated_share(u: Tensor, spec: Neuron) -> float:
    """Share of pre-activations whose straight line is beyond [low, high]."""
    z = _straight(u, spec)
    return float(((z < spec.low) | (z > spec.high)).float().mean())


def in_a_following_range(u: Tensor, range_sigma: float | None) -> Tensor:
    """``u`` itself, with the gradient it has in a range that follows the signal's rms (``range_sigma``) or maximum.

    Smaller signals get a smaller range and lose as much: a gradient that did not know would shrink the weights
    for ever and save nothing.
    """
    size = u.square().mean() if range_sigma is not None else u.abs().amax().square()
    if float(size.detach()) == 0.0:
        return u
    return u * (size.detach() / size).sqrt()


def lost_energy(products: Iterable[Product], line: Line = "own") -> Tensor:
    """Mean of :func:`lost` squared over all pre-activations in front of a neuron; squared ADC ranges.

    Each tile and slice has neurons of its own. Raises :class:`HardwareError` where no product of the pass ends
    in an analog neuron.
    """
    energies, count, names = [], 0, []
    for product in products:
        names.append(product.hw.name)
        spec = product.hw.neuron
        if spec is None:
            continue
        u = torch.stack([part.preactivation for part in product.parts() if part.preactivation is not None])
        if not product.at.site.learned_ranges:
            u = in_a_following_range(u, None if product.hw.adc is None else product.hw.adc.range_sigma)
        energies.append(lost(u, spec, line).square().sum())
        count += u.numel()
    if not energies:
        raise HardwareError(
            f"neuron: no analog neuron in the hardware of the layers ({', '.join(dict.fromkeys(names)) or 'none'}). "
            "Fix: give it a [neuron] section, or neuron = 0."
        )
    return torch.stack(energies).sum() / max(count, 1)


__all__ = ["Line", "in_a_following_range", "lost", "lost_energy", "saturated_share"]
