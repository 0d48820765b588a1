"""The gradient of the denoising likelihood: correlations with the data clamped minus those of the free machine."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.ebm.generate.model import DenoisingModel
from mho.ebm.generate.sampler import Step
from mho.ebm.spins import BlockGibbs, Graph


@final
@dataclass(frozen=True, eq=False)
class Gradient:
    """Ascent direction of log p(x_{t-1} | x_t): ``couplings`` [E], ``biases`` [N]; what a step is to follow."""

    couplings: Tensor
    biases: Tensor


@torch.no_grad()
def denoising_gradient(
    model: DenoisingModel,
    machine: BlockGibbs,
    step: Step,
    x_before: Tensor,
    x_t: Tensor,
    beta: float,
    *,
    sweeps: int,
    positive_sweeps: int,
    penalty: float,
    generator: torch.Generator,
) -> Gradient:
    """d/dJ_ij <log p(x_{t-1} | x_t)> = beta (<s_i s_j>_clamped - <s_i s_j>_free), and likewise for the biases.

    ``x_before``, ``x_t`` [B, P]. Clamped: pixels at x_{t-1}, latent nodes after ``positive_sweeps`` (1, exact, where
    no edge joins two latent nodes). Free: all nodes after ``sweeps``, begun at x_t as in generation. Both averages use
    the conditional mean tanh(beta field) of a free spin instead of its value (Rao-Blackwell: same mean, less noise).

    ``penalty``: strength of the penalty on total correlation, sum_ij (<s_i s_j> - <s_i><s_j>) given x_t, whose
    descent direction is beta times minus the connected correlation; <s> given x_t is the mean over four late states.
    """
    placement = model.placement
    graph, visible = placement.graph, placement.visible
    fields = step.fields(x_t, visible)
    quick = 1 if placement.restricted else positive_sweeps
    clamped = machine.run(
        placement.states(x_before, generator),
        step.couplings,
        fields,
        sweeps=quick,
        generator=generator,
        clamped=placement.is_visible,
    ).float()
    free = machine.run(
        placement.states(x_t, generator), step.couplings, fields, sweeps=sweeps, generator=generator
    ).float()
    matrix = coupling_matrix(graph, step.couplings)
    mean_clamped, mean_free = (torch.tanh(beta * ((matrix @ s.t()).t() + fields)) for s in (clamped, free))
    mean_clamped[:, visible] = clamped[:, visible]
    couplings = products(graph, clamped, mean_clamped) - products(graph, free, mean_free)
    biases = (mean_clamped - mean_free).mean(0)
    if penalty > 0.0:
        late = machine.collect(
            free.to(torch.int8),
            step.couplings,
            fields,
            samples=4,
            every=max(sweeps // 4, 1),
            generator=generator,
        ).float()
        alone = late.mean(0)
        pairs = torch.stack([products(graph, s, s) for s in late]).mean(0)
        couplings -= penalty * (pairs - products(graph, alone, alone))
    return Gradient(beta * couplings, beta * biases)


def coupling_matrix(graph: Graph, couplings: Tensor) -> Tensor:
    """The symmetric sparse matrix [N, N] of ``couplings`` [E]."""
    offsets, neighbours, edge = graph.adjacency
    rows = torch.repeat_interleave(torch.arange(graph.nodes), offsets.diff())
    return torch.sparse_coo_tensor(
        torch.stack([rows, neighbours]), couplings[edge], (graph.nodes, graph.nodes), check_invariants=False
    )


def products(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """Batch mean of (a_i b_j + b_i a_j) / 2 for each edge [E], of states [B, N]."""
    i, j = graph.edges.unbind(1)
    if len(graph.blocks) == 2:
        return _between_blocks(graph, a, b)
    columns_a, columns_b = a.t().contiguous(), b.t().contiguous()
    return ((columns_a[i] * columns_b[j]).mean(1) + (columns_b[i] * columns_a[j]).mean(1)) / 2


def _between_blocks(graph: Graph, a: Tensor, b: Tensor) -> Tensor:
    """The same on two colours: one dense product of the two blocks, which is faster than gathering each edge."""
    first, second = graph.blocks
    place = torch.empty(graph.nodes, dtype=torch.int64)
    place[first], place[second] = torch.arange(len(first)), torch.arange(len(second))
    i, j = graph.edges.unbind(1)
    swapped = graph.colours[i] == 1
    u, v = torch.where(swapped, j, i), torch.where(swapped, i, j)
    left, right = torch.cat([a[:, first], b[:, first]]), torch.cat([b[:, second], a[:, second]])
    return (left.t() @ right).flatten()[place[u] * len(second) + place[v]] / (2 * len(a))
