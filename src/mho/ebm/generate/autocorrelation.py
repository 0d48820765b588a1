"""Does a step mix? The autocorrelation of its samples, and the penalty on it that adapts while training."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.ebm.generate.model import DenoisingModel
from mho.ebm.generate.sampler import Step
from mho.ebm.spins import BlockGibbs
from mho.errors import InputError


@torch.no_grad()
def autocorrelation(
    model: DenoisingModel,
    machine: BlockGibbs,
    step: Step,
    x_t: Tensor,
    lag: int,
    generator: torch.Generator,
    *,
    replicas: int = 16,
    points: int = 1,
) -> list[float]:
    """Share of the samples' variance given x_t that is remembered after ``lag``, 2 lag ... ``points`` lag sweeps.

    For each of ``x_t`` [B, P] ``replicas`` chains run side by side, begun as in generation and warmed up for ``lag``
    sweeps. With m the mean over replicas, the result is

        a(k) = sum_i <(s_i(0) - m_i(0)) (s_i(k) - m_i(k))> / sum_i sqrt(<(s_i(0) - m_i(0))^2> <(s_i(k) - m_i(k))^2>),

    summed over all nodes and averaged over the x_t. 0: independent samples; 1: frozen. Its own error is about
    1 / sqrt(B replicas N) for chains that mix.
    Raises :class:`InputError` for a lag below 1 or fewer than 2 replicas.
    """
    if lag < 1 or replicas < 2 or points < 1:
        raise InputError(
            f"autocorrelation: lag = {lag}, replicas = {replicas}, points = {points}. Fix: at least 1, 2 and 1."
        )
    placement = model.placement
    x = x_t.repeat_interleave(replicas, 0)
    fields = step.fields(x, placement.visible)
    spins = placement.states(x, generator)
    spins = machine.run(spins, step.couplings, fields, sweeps=lag, generator=generator)
    first = _centred(spins, replicas)
    found = []
    for _ in range(points):
        spins = machine.run(spins, step.couplings, fields, sweeps=lag, generator=generator)
        then = _centred(spins, replicas)
        scale = (first.square().mean(1) * then.square().mean(1)).sqrt().sum()
        found.append(float((first * then).mean(1).sum() / scale.clamp_min(1e-12)))
    return found


def _centred(spins: Tensor, replicas: int) -> Tensor:
    values = spins.float().view(-1, replicas, spins.shape[1])
    return values - values.mean(1, keepdim=True)


@final
@dataclass(frozen=True)
class AdaptivePenalty:
    """How strong the penalty on correlations is, moved by what was measured.

    Above ``target`` and not falling: ``strength`` grows by ``rate``; below ``target``: it shrinks by ``rate``; above it
    and falling: it stays. It begins at ``floor`` and is zero below it. The idea is the adaptive correlation penalty of
    arXiv:2510.23972; the form of the rule is ours.
    """

    strength: float = 0.0
    last: float = 0.0
    target: float = 0.03
    rate: float = 0.25
    floor: float = 1e-3

    def after(self, measured: float) -> "AdaptivePenalty":
        """The penalty for what follows a measured autocorrelation."""
        strength = self.strength
        if measured < self.target:
            strength = 0.0 if strength <= self.floor else strength * (1.0 - self.rate)
        elif measured >= self.last or strength == 0.0:
            strength = max(strength * (1.0 + self.rate), self.floor)
        return AdaptivePenalty(strength, measured, self.target, self.rate, self.floor)
