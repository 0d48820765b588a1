"""Score matching: training a continuous energy without sampling it. The score of exp(-E / T) is -grad E / T."""

import torch
from torch import Tensor

from mho.ebm.langevin import Energy
from mho.ebm.langevin_noise import check_temperature, normal
from mho.errors import InputError


def score(energy: Energy, x: Tensor, temperature: float = 1.0) -> Tensor:
    """grad log p = -grad E / T at ``x`` [B, ...], differentiable in the parameters of ``energy`` and in ``x``."""
    point = x if x.requires_grad else x.detach().requires_grad_(True)
    value = energy(point)
    if value.shape != x.shape[:1]:
        raise InputError(
            f"mho.ebm.score: the energy gives {tuple(value.shape)} for x {tuple(x.shape)}; it must be [{x.shape[0]}]."
        )
    (slope,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    return -slope / temperature


def denoising_loss(
    energy: Energy, x: Tensor, *, sigma: float, generator: torch.Generator, temperature: float = 1.0
) -> Tensor:
    """mean over the batch of |sigma score(x + sigma n) + n|^2 / 2: minimal where p is the data's law blurred by sigma.

    Vincent, Neural Computation 23 (2011). ``x`` [B, ...]; sigma > 0 in the units of x.
    """
    check_temperature("mho.ebm.denoising_loss", temperature)
    if not sigma > 0:
        raise InputError(f"mho.ebm.denoising_loss: sigma = {sigma} must be above 0.")
    n = normal(x, generator)
    return 0.5 * (sigma * score(energy, x + sigma * n, temperature) + n).flatten(1).square().sum(1).mean()


def sliced_loss(
    energy: Energy, x: Tensor, *, generator: torch.Generator, temperature: float = 1.0, slices: int = 1
) -> Tensor:
    """mean of v^T (ds/dx) v + |s|^2 / 2 over the batch, ``slices`` random signs v: Hyvarinen's loss, sampled trace.

    Minimal where p is the data's law; needs second derivatives of the energy. Song, Garg, Shi, Ermon, UAI 2019 (the
    form with reduced variance); Hyvarinen, JMLR 6 (2005).
    """
    check_temperature("mho.ebm.sliced_loss", temperature)
    if slices < 1:
        raise InputError(f"mho.ebm.sliced_loss: {slices} slices; give at least 1.")
    point = x.detach().requires_grad_(True)
    s = score(energy, point, temperature)
    trace = s.new_zeros(x.shape[0])
    for _ in range(slices):
        v = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(s)
        (slope,) = torch.autograd.grad((s * v).sum(), point, create_graph=True)
        trace = trace + (slope * v).flatten(1).sum(1) / slices
    return (trace + 0.5 * s.flatten(1).square().sum(1)).mean()
