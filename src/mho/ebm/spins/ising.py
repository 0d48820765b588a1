"""The Ising model on a graph: energy, fields, moments, and the checks of its numbers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.ebm.spins import kernel
from mho.ebm.spins.graph import Graph
from mho.errors import InputError


def check_beta(beta: float) -> None:
    """Raise :class:`InputError` unless 0 < beta < inf: the temperature 1 / beta is positive and finite."""
    if not 0 < beta < math.inf:
        what = "temperature zero: nothing moves but downhill" if beta == math.inf else "no positive temperature"
        raise InputError(
            f"mho.ebm.spins: inverse temperature beta = {beta} means {what}. Fix: a finite beta > 0 (temperature = "
            "1 / beta, in units of the couplings)."
        )


def check_parameters(graph: Graph, couplings: Tensor, biases: Tensor, beta: float) -> None:
    """Raise :class:`InputError` unless couplings are [E], biases [N] or [B, N], all finite, and beta is positive."""
    check_beta(beta)
    if couplings.shape != (graph.n_edges,):
        raise InputError(
            f"mho.ebm.spins: couplings {tuple(couplings.shape)} must be [{graph.n_edges}], one an edge of the graph."
        )
    if biases.dim() not in (1, 2) or biases.shape[-1] != graph.nodes:
        raise InputError(
            f"mho.ebm.spins: biases {tuple(biases.shape)} must be [{graph.nodes}], or [chains, {graph.nodes}] for a "
            "field of each chain's own."
        )
    for name, values in (("couplings", couplings), ("biases", biases)):
        bad = int(torch.count_nonzero(~torch.isfinite(values)))
        if bad:
            raise InputError(
                f"mho.ebm.spins: {bad} of {values.numel()} {name} are NaN or infinite, so the energy is not bounded. "
                "Fix: look at the last training step, or lower its rate."
            )


def check_spins(graph: Graph, spins: Tensor) -> None:
    """Raise :class:`InputError` unless ``spins`` is [B, N] of -1 and +1."""
    if spins.dim() != 2 or spins.shape[1] != graph.nodes:
        raise InputError(f"mho.ebm.spins: spins {tuple(spins.shape)} must be [chains, {graph.nodes}].")
    plain = spins.dtype == torch.int8 and spins.device.type == "cpu" and spins.is_contiguous() and kernel.available()
    bad = kernel.wrong_spins(spins) if plain else int(torch.count_nonzero((spins != 1) & (spins != -1)))
    if bad:
        raise InputError(
            f"mho.ebm.spins: {bad} of {spins.numel()} spins are neither -1 nor +1. Fix: 2 bits - 1 for bits of 0 and 1."
        )


def energy(graph: Graph, spins: Tensor, couplings: Tensor, biases: Tensor) -> Tensor:
    """E(s) = -(sum_edges J_ij s_i s_j + sum_i h_i s_i), [...] for ``spins`` [..., N] of -1 and +1.

    ``couplings`` [E], ``biases`` [N] or [..., N], in units of temperature 1. Differentiable in all three.
    """
    s = spins.to(couplings.dtype)
    edges = graph.edges.to(s.device)
    pairs = s[..., edges[:, 0]] * s[..., edges[:, 1]]
    return -(pairs @ couplings) - (s * biases).sum(-1)


def fields(graph: Graph, spins: Tensor, couplings: Tensor, biases: Tensor) -> Tensor:
    """h_i + sum_j J_ij s_j, the field on each spin [..., N]: p(s_i = +1 | the others) = sigmoid(2 beta field_i)."""
    s = spins.to(couplings.dtype)
    near, which = (t.to(s.device) for t in graph.table)
    padded = torch.cat([couplings, couplings.new_zeros(1)])
    return biases + (s[..., near] * padded[which]).sum(-1)


def moments(graph: Graph, spins: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(<s_i s_j> [E], <s_i> [N]): means over the rows of ``spins`` [B, N] (float32), or under ``weights`` [B]."""
    s = spins.to(torch.float32 if weights is None else weights.dtype)
    share = s.new_full((s.shape[0],), 1 / s.shape[0]) if weights is None else weights
    edges = graph.edges.to(s.device)
    return share @ (s[:, edges[:, 0]] * s[:, edges[:, 1]]), share @ s


def random_spins(chains: int, graph: Graph, generator: torch.Generator) -> Tensor:
    """Fair coins, int8 [chains, N]."""
    return (torch.randint(0, 2, (chains, graph.nodes), generator=generator) * 2 - 1).to(torch.int8)


@dataclass(frozen=True, eq=False)
class Ising:
    """A graph with its ``couplings`` [E], ``biases`` [N] and inverse temperature: p(s) ~ exp(-beta E(s)).

    The tensors may be parameters in training. Raises :class:`InputError` for shapes that do not fit the graph, NaN, and
    a temperature that is zero, negative or infinite.
    """

    graph: Graph
    couplings: Tensor
    biases: Tensor
    beta: float = 1.0

    def __post_init__(self) -> None:
        check_parameters(self.graph, self.couplings, self.biases, self.beta)

    def energy(self, spins: Tensor) -> Tensor:
        """:func:`energy` of ``spins`` [..., N]."""
        return energy(self.graph, spins, self.couplings, self.biases)

    def fields(self, spins: Tensor) -> Tensor:
        """:func:`fields` at ``spins`` [..., N]."""
        return fields(self.graph, spins, self.couplings, self.biases)
