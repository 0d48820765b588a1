"""All states of a small machine: the law that a sampler must have."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.ebm.spins.graph import Graph
from mho.ebm.spins.ising import Ising
from mho.errors import InputError

LARGEST = 20
_CHUNK = 1 << 15


@dataclass(frozen=True, eq=False)
class Exact:
    """The Boltzmann law of one machine, float64. State number k has spin i up where bit i of k is 1.

    ``log_z`` = log sum_s exp(-beta E(s)); ``probabilities`` [2^N]; ``pairs`` = <s_i s_j> [E]; ``means`` = <s_i> [N];
    ``mean_energy`` = <E> and ``energy_variance``: the heat capacity is beta^2 times the latter.
    """

    log_z: float
    probabilities: Tensor
    pairs: Tensor
    means: Tensor
    mean_energy: float
    energy_variance: float


def all_states(nodes: int) -> Tensor:
    """Every state, int8 [2^nodes, nodes], in the order of :class:`Exact`. Raises :class:`InputError` above 20 nodes."""
    if not 1 <= nodes <= LARGEST:
        raise InputError(
            f"mho.ebm.spins: {nodes} spins have 2^{nodes} states; enumeration takes 1 to {LARGEST}. Way out: sample."
        )
    number = torch.arange(1 << nodes)[:, None]
    return (((number >> torch.arange(nodes)) & 1) * 2 - 1).to(torch.int8)


def state_numbers(spins: Tensor) -> Tensor:
    """The number of each state, int64 [...] for ``spins`` [..., N], N <= 20: bit i is 1 where spin i is up."""
    if spins.shape[-1] > LARGEST:
        raise InputError(f"mho.ebm.spins: states of {spins.shape[-1]} spins; numbers are given to {LARGEST} at most.")
    return ((spins > 0).to(torch.int64) << torch.arange(spins.shape[-1], device=spins.device)).sum(-1)


def counts(spins: Tensor) -> Tensor:
    """How often each state occurs in ``spins`` [..., N]: int64 [2^N]."""
    return torch.bincount(state_numbers(spins).flatten(), minlength=1 << spins.shape[-1])


def log_weights(graph: Graph, couplings: Tensor, biases: Tensor, beta: float = 1.0) -> Tensor:
    """-beta E of every state [2^N], float64, differentiable: log Z is its logsumexp."""
    states = all_states(graph.nodes)
    j, h = couplings.to(torch.float64), biases.to(torch.float64)
    matrix = j.new_zeros(graph.nodes, graph.nodes).index_put((graph.edges[:, 0], graph.edges[:, 1]), j)
    parts = [s @ h + ((s @ matrix) * s).sum(1) for s in (c.to(torch.float64) for c in states.split(_CHUNK))]
    return beta * torch.cat(parts)


def enumerate_law(ising: Ising) -> Exact:
    """The law of ``ising`` by summing over all 2^N states; N <= 20 (20 spins: 0.3 s and 200 MB).

    Raises :class:`InputError` for more spins.
    """
    graph, beta = ising.graph, ising.beta
    with torch.no_grad():
        weights = log_weights(graph, ising.couplings, ising.biases, beta)
        log_z = float(torch.logsumexp(weights, 0))
        p = torch.exp(weights - log_z)
        states = all_states(graph.nodes)
        correlations = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
        means = torch.zeros(graph.nodes, dtype=torch.float64)
        for s, share in zip(states.split(_CHUNK), p.split(_CHUNK), strict=True):
            s = s.to(torch.float64)
            correlations += s.t() @ (s * share[:, None])
            means += share @ s
        energies = -weights / beta
        mean = float(p @ energies)
        variance = float(p @ (energies - mean).square())
    pairs = correlations[graph.edges[:, 0], graph.edges[:, 1]]
    return Exact(log_z, p, pairs, means, mean, variance)


def log_likelihood(ising: Ising, data: Tensor, visible: Tensor | None = None) -> float:
    """Mean log p of the rows of ``data`` [B, V] under ``ising``, N <= 20; other nodes than ``visible`` are summed over.

    ``visible``: the nodes that the columns of ``data`` are, default all N in order.
    """
    exact = enumerate_law(ising)
    nodes = torch.arange(ising.graph.nodes) if visible is None else visible
    seen = state_numbers(all_states(ising.graph.nodes)[:, nodes])
    marginal = torch.zeros(1 << nodes.numel(), dtype=torch.float64).index_add(0, seen, exact.probabilities)
    return float(marginal[state_numbers(data)].clamp(min=math.ulp(0.0)).log().mean())
