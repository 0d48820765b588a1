"""Ising and Boltzmann machines on sparse graphs: block Gibbs sampling, exact enumeration, contrastive divergence."""

from mho.ebm.spins.chip import couplings_on, on_chip
from mho.ebm.spins.contrastive import PersistentChains, contrastive_loss, with_visible
from mho.ebm.spins.counter import words_of
from mho.ebm.spins.exact import (
    Exact,
    all_states,
    counts,
    enumerate_law,
    log_likelihood,
    log_weights,
    state_numbers,
)
from mho.ebm.spins.gibbs import BlockGibbs
from mho.ebm.spins.graph import PATTERNS, Graph, bipartite, check_colours, colour, lattice, sparse_graph
from mho.ebm.spins.ising import Ising, energy, fields, moments, random_spins
from mho.ebm.spins.kernel import available, status
from mho.ebm.spins.pbit import PBit

__all__ = [
    "PATTERNS",
    "BlockGibbs",
    "Exact",
    "Graph",
    "Ising",
    "PBit",
    "PersistentChains",
    "all_states",
    "available",
    "bipartite",
    "check_colours",
    "colour",
    "contrastive_loss",
    "counts",
    "couplings_on",
    "energy",
    "enumerate_law",
    "fields",
    "lattice",
    "log_likelihood",
    "log_weights",
    "moments",
    "on_chip",
    "random_spins",
    "sparse_graph",
    "state_numbers",
    "status",
    "with_visible",
    "words_of",
]
