"""Enumeration against closed forms and autograd."""

import math

import pytest
import torch

from mho import rng
from mho.ebm.spins import (
    Ising,
    all_states,
    bipartite,
    counts,
    energy,
    enumerate_law,
    fields,
    lattice,
    log_likelihood,
    log_weights,
    moments,
    sparse_graph,
    state_numbers,
)
from mho.errors import InputError


def test_the_chain_of_spins_has_its_transfer_matrix_partition_function() -> None:
    n, j, beta = 10, 0.7, 1.3
    chain = sparse_graph(n, torch.stack([torch.arange(n - 1), torch.arange(1, n)], 1))
    exact = enumerate_law(Ising(chain, torch.full((n - 1,), j), torch.zeros(n), beta))
    assert exact.log_z == pytest.approx(math.log(2) + (n - 1) * math.log(2 * math.cosh(beta * j)), rel=1e-7)
    assert torch.allclose(exact.pairs, torch.full((n - 1,), math.tanh(beta * j), dtype=torch.float64), atol=1e-7)
    assert exact.means.abs().max() < 1e-12
    assert exact.mean_energy == pytest.approx(-(n - 1) * j * math.tanh(beta * j), rel=1e-6)


def test_moments_are_the_gradient_of_log_z() -> None:
    graph = lattice(3, 3, 4)
    couplings = rng.normals((12,), 0, "j").double().requires_grad_()
    biases = rng.normals((9,), 0, "h").double().requires_grad_()
    log_z = torch.logsumexp(log_weights(graph, couplings, biases, 0.6), 0)
    pairs, means = torch.autograd.grad(log_z, (couplings, biases))
    exact = enumerate_law(Ising(graph, couplings.detach(), biases.detach(), 0.6))
    assert torch.allclose(pairs, 0.6 * exact.pairs) and torch.allclose(means, 0.6 * exact.means)
    by_states = moments(graph, all_states(9), exact.probabilities)
    assert torch.allclose(by_states[0], exact.pairs) and torch.allclose(by_states[1], exact.means)


def test_the_energy_difference_of_a_flip_is_twice_spin_times_field() -> None:
    graph = bipartite(4, 3)
    j, h = rng.normals((12,), 0, "j").double(), rng.normals((7,), 0, "h").double()
    states = all_states(7).double()
    field = fields(graph, states, j, h)
    for i in range(7):
        flipped = states.clone()
        flipped[:, i] *= -1
        difference = energy(graph, flipped, j, h) - energy(graph, states, j, h)
        assert torch.allclose(difference, 2 * states[:, i] * field[:, i])


def test_states_and_their_numbers_are_inverse() -> None:
    states = all_states(11)
    assert torch.equal(state_numbers(states), torch.arange(2**11))
    assert torch.equal(counts(states), torch.ones(2**11, dtype=torch.int64))


def test_the_likelihood_sums_over_hidden_spins() -> None:
    graph = bipartite(3, 2)
    ising = Ising(graph, rng.normals((6,), 1, "j"), rng.normals((5,), 1, "h"), 0.5)
    p = enumerate_law(ising).probabilities
    visible = torch.tensor([0, 1, 2])
    data = torch.tensor([[1, -1, 1]])
    wanted = sum(float(p[5 + 8 * k]) for k in range(4))
    assert log_likelihood(ising, data, visible) == pytest.approx(math.log(wanted))


def test_more_than_twenty_spins_are_refused() -> None:
    with pytest.raises(InputError, match="21 spins have 2\\^21 states"):
        all_states(21)
    with pytest.raises(InputError, match="states of 21 spins"):
        state_numbers(torch.ones(1, 21))
