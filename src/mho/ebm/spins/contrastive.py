"""Training a Boltzmann machine: contrastive divergence, with chains that live on from step to step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mho.ebm.spins.gibbs import BlockGibbs
from mho.ebm.spins.graph import Graph
from mho.ebm.spins.ising import moments, random_spins
from mho.errors import InputError


def contrastive_loss(
    graph: Graph, positive: Tensor, negative: Tensor, couplings: Tensor, biases: Tensor, beta: float = 1.0
) -> Tensor:
    """beta (<E> over ``positive`` - <E> over ``negative``): its gradient is the one of -log p of the data.

    d/dJ_ij = -beta (<s_i s_j>+ - <s_i s_j>-), d/dh_i = -beta (<s_i>+ - <s_i>-): exact where ``negative`` [C, N] has the
    model's law and ``positive`` [B, N] the data's, hidden spins drawn given the visible ones. The value says nothing
    about the likelihood. ``couplings`` [E] and ``biases`` [N] may be what a chip holds of the wanted ones: the gradient
    goes on to them. Source: Ackley, Hinton, Sejnowski, Cognitive Science 9 (1985).
    """
    with torch.no_grad():
        pairs_up, means_up = moments(graph, positive)
        pairs_down, means_down = moments(graph, negative)
    return -beta * ((pairs_up - pairs_down) @ couplings + (means_up - means_down) @ biases)


def with_visible(spins: Tensor, data: Tensor, visible: Tensor) -> Tensor:
    """A copy of ``spins`` [B, N] whose nodes ``visible`` [V] hold ``data`` [B, V] of -1 and +1."""
    if data.dim() != 2 or data.shape != (spins.shape[0], visible.numel()):
        raise InputError(
            f"mho.ebm.spins: data {tuple(data.shape)} for {spins.shape[0]} chains and {visible.numel()} visible nodes."
        )
    out = spins.clone()
    out[:, visible] = data.to(spins.dtype)
    return out


@dataclass(eq=False)
class PersistentChains:
    """Chains of the model that a training step advances instead of starting anew.

    ``spins`` [C, N] and the ``generator`` are the whole state; save both to resume, and ``memory`` too where the noise
    of the p-bits has one (``PBit.correlation``; else it is ``None``). ``visible``: the nodes that data fill (default
    all). Source: Tieleman, ICML 2008; Younes, Stochastics 65 (1999).
    """

    sampler: BlockGibbs
    chains: int
    generator: torch.Generator
    visible: Tensor | None = None
    spins: Tensor = field(init=False)
    memory: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        if self.chains < 1:
            raise InputError(f"mho.ebm.spins.PersistentChains: {self.chains} chains; give at least 1.")
        self.spins = random_spins(self.chains, self.sampler.graph, self.generator)
        self.memory = self.sampler.memory(self.spins)

    def advance(self, couplings: Tensor, biases: Tensor, beta: float = 1.0, sweeps: int = 1) -> Tensor:
        """``sweeps`` more sweeps of the free-running chains; returns their ``spins``."""
        self.spins = self.sampler.run(
            self.spins, couplings, biases, beta, sweeps, generator=self.generator, memory=self.memory
        )
        return self.spins

    def posterior(self, data: Tensor, couplings: Tensor, biases: Tensor, beta: float = 1.0, sweeps: int = 1) -> Tensor:
        """Spins [B, N] with the ``data`` [B, V] in the visible nodes and the hidden ones drawn given them.

        Hidden nodes start from fair coins, and noise with a memory begins anew; where none of them is joined with
        another, one sweep is exact.
        """
        graph = self.sampler.graph
        if self.visible is None:
            return data.to(torch.int8)
        clamped = torch.zeros(graph.nodes, dtype=torch.bool)
        clamped[self.visible] = True
        start = with_visible(random_spins(data.shape[0], graph, self.generator), data, self.visible)
        return self.sampler.run(start, couplings, biases, beta, sweeps, generator=self.generator, clamped=clamped)

    def loss(
        self,
        data: Tensor,
        couplings: Tensor,
        biases: Tensor,
        beta: float = 1.0,
        *,
        sweeps: int = 1,
        positive_sweeps: int = 1,
    ) -> Tensor:
        """:func:`contrastive_loss` of one batch ``data`` [B, V] against the chains after ``sweeps`` more sweeps.

        ``loss.backward()`` fills the gradients, and any torch optimiser steps.
        """
        positive = self.posterior(data, couplings, biases, beta, positive_sweeps)
        negative = self.advance(couplings, biases, beta, sweeps)
        return contrastive_loss(self.sampler.graph, positive, negative, couplings, biases, beta)
