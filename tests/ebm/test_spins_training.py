"""Contrastive divergence: its gradient is the likelihood's, and it learns small laws."""

import math

import pytest
import torch
from torch import nn

from mho import rng
from mho.ebm import diagnostics
from mho.ebm.spins import (
    BlockGibbs,
    Ising,
    PBit,
    PersistentChains,
    all_states,
    bipartite,
    contrastive_loss,
    counts,
    couplings_on,
    enumerate_law,
    lattice,
    log_likelihood,
    log_weights,
    moments,
    on_chip,
    sparse_graph,
    with_visible,
)
from mho.errors import InputError
from mho.hardware import GenericCell, load_hardware


def drawn(ising: Ising, count: int, name: str) -> torch.Tensor:
    """Exact independent samples."""
    number = torch.multinomial(enumerate_law(ising).probabilities, count, True, generator=rng.stream(0, name))
    return all_states(ising.graph.nodes)[number]


def test_the_gradient_is_the_likelihoods_when_the_chains_have_the_models_law() -> None:
    graph = lattice(3, 3, 4)
    couplings = (0.5 * rng.normals((12,), 0, "j")).double().requires_grad_()
    biases = (0.3 * rng.normals((9,), 0, "h")).double().requires_grad_()
    data = drawn(Ising(graph, rng.normals((12,), 1, "j"), rng.normals((9,), 1, "h"), 0.5), 64, "data")
    weights = log_weights(graph, couplings, biases, 0.7)
    number = (data > 0).long() @ (2 ** torch.arange(9))
    exact = torch.autograd.grad(-(weights[number].mean() - torch.logsumexp(weights, 0)), (couplings, biases))
    law = enumerate_law(Ising(graph, couplings.detach(), biases.detach(), 0.7))
    pairs, means = moments(graph, data)
    by_hand = (-0.7 * (pairs - law.pairs), -0.7 * (means - law.means))
    for a, b in zip(exact, by_hand, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    j, h = couplings.detach().float().requires_grad_(), biases.detach().float().requires_grad_()
    chains = PersistentChains(BlockGibbs(graph), 200_000, rng.stream(0, "chains"))
    chains.loss(data, j, h, 0.7, sweeps=40).backward()
    for found, wanted in ((j.grad, exact[0]), (h.grad, exact[1])):
        assert found is not None and torch.allclose(found.double(), wanted, atol=0.7 * 5 / 200_000**0.5)


def test_the_loss_is_beta_times_the_difference_of_mean_energies() -> None:
    graph = bipartite(4, 3)
    ising = Ising(graph, rng.normals((12,), 0, "j"), rng.normals((7,), 0, "h"), 1.4)
    up, down = drawn(ising, 20, "up"), drawn(ising, 30, "down")
    found = contrastive_loss(graph, up, down, ising.couplings, ising.biases, 1.4)
    assert float(found) == pytest.approx(1.4 * float(ising.energy(up).mean() - ising.energy(down).mean()), rel=1e-4)


def test_a_visible_machine_learns_its_teacher() -> None:
    graph = lattice(3, 3, 4)
    teacher = Ising(graph, 0.5 * rng.normals((12,), 1, "j"), 0.3 * rng.normals((9,), 1, "h"))
    law = enumerate_law(teacher).probabilities
    data = drawn(teacher, 5_000, "teacher")
    j, h = nn.Parameter(torch.zeros(12)), nn.Parameter(torch.zeros(9))
    optimizer = torch.optim.SGD([j, h], lr=0.3)
    chains = PersistentChains(BlockGibbs(graph), 2000, rng.stream(0, "learn"))
    before = diagnostics.kl_divergence(law, enumerate_law(Ising(graph, j, h)).probabilities)
    for _ in range(100):
        optimizer.zero_grad()
        chains.loss(data, j, h, sweeps=2).backward()
        optimizer.step()
    after = diagnostics.kl_divergence(law, enumerate_law(Ising(graph, j.detach(), h.detach())).probabilities)
    assert before > 0.3 and after < 0.02
    assert torch.allclose(j.detach(), teacher.couplings, atol=0.1)


def test_hidden_spins_carry_the_correlations_of_spins_that_no_edge_joins() -> None:
    data = torch.tensor([[1, 1, 1], [-1, -1, -1]], dtype=torch.int8).repeat(100, 1)
    graph, visible = bipartite(3, 2), torch.arange(3)
    j, h = nn.Parameter(0.3 * rng.normals((6,), 3, "j")), nn.Parameter(torch.zeros(5))
    optimizer = torch.optim.Adam([j, h], lr=0.05)
    chains = PersistentChains(BlockGibbs(graph), 1000, rng.stream(0, "aligned"), visible)
    for _ in range(150):
        optimizer.zero_grad()
        chains.loss(data, j, h, sweeps=3).backward()
        optimizer.step()
    found = log_likelihood(Ising(graph, j.detach(), h.detach()), data, visible)
    assert -3 * math.log(2) + 1 < found <= -math.log(2)  # from fair coins to the data's own entropy


def test_the_posterior_keeps_the_data_and_draws_the_hidden_spins_from_their_law() -> None:
    graph, visible = bipartite(3, 2), torch.arange(3)
    ising = Ising(graph, rng.normals((6,), 2, "j"), rng.normals((5,), 2, "h"), 0.6)
    chains = PersistentChains(BlockGibbs(graph), 1, rng.stream(0, "posterior"), visible)
    data = torch.tensor([[1, -1, 1]], dtype=torch.int8).expand(100_000, 3)
    spins = chains.posterior(data, ising.couplings, ising.biases, 0.6)
    assert torch.equal(spins[:, :3], data)
    p = enumerate_law(ising).probabilities[5::8]
    assert diagnostics.chi_square(counts(spins[:, 3:]), p / p.sum()).p_value > 1e-5


def test_chains_live_on_and_resume_from_spins_and_generator() -> None:
    graph = sparse_graph(5, torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [0, 4]]))
    j, h = torch.full((5,), 0.4), torch.zeros(5)

    def run(steps: int, chains: PersistentChains) -> torch.Tensor:
        for _ in range(steps):
            chains.advance(j, h, sweeps=2)
        return chains.spins

    whole = run(6, PersistentChains(BlockGibbs(graph), 40, rng.stream(0, "resume")))
    first = PersistentChains(BlockGibbs(graph), 40, rng.stream(0, "resume"))
    run(2, first)
    second = PersistentChains(BlockGibbs(graph), 40, rng.stream(9, "another"))
    second.spins, second.generator = first.spins, first.generator
    assert torch.equal(run(4, second), whole)


def test_the_noise_of_persistent_chains_remembers_from_step_to_step_and_resumes_with_its_memory() -> None:
    graph, rho = sparse_graph(2, torch.tensor([[0, 1]])), 0.9
    j, h = torch.zeros(1), torch.zeros(2)
    chains = PersistentChains(BlockGibbs(graph, pbit=PBit(correlation=rho)), 10_000, rng.stream(0, "remembers"))
    before = chains.advance(j, h).double()
    after = chains.advance(j, h).double()
    assert abs(float((before * after).mean()) - 2 / math.pi * math.asin(rho)) < 0.04  # 0 where noise begins anew
    other = PersistentChains(chains.sampler, 10_000, rng.stream(1, "other"))
    assert chains.memory is not None
    other.spins, other.memory = chains.spins, chains.memory.clone()
    other.generator.set_state(chains.generator.get_state())
    assert torch.equal(other.advance(j, h), chains.advance(j, h))


def test_a_machine_on_ideal_hardware_is_itself() -> None:
    graph = lattice(3, 3)
    ising = Ising(graph, rng.normals((12,), 0, "j"), rng.normals((9,), 0, "h"), 0.5)
    held = on_chip(ising, load_hardware("ideal"), chip_seed=0)
    assert torch.equal(held.couplings, ising.couplings) and torch.equal(held.biases, ising.biases)


def test_couplings_of_4_bits_have_at_most_31_values_within_the_bound() -> None:
    hw = load_hardware("ideal").replace(cell=GenericCell(bits=4))
    j, h = rng.normals((500,), 0, "j"), rng.normals((30,), 0, "h")
    held, same = couplings_on(hw, j, h, chip_seed=3, bound=1.5, digital_biases=True)
    assert torch.equal(same, h)
    assert 8 <= torch.unique(held).numel() <= 31
    assert float(held.abs().max()) == pytest.approx(1.5)
    inside = j.abs() < 1.5
    assert float((held - j)[inside].abs().max()) <= 1.5 / 14 + 1e-6


def test_a_noisy_chip_is_its_seed_and_passes_gradients() -> None:
    hw = load_hardware("generic")
    j, h = rng.normals((200,), 0, "j").requires_grad_(), rng.normals((30,), 0, "h")
    held, _ = couplings_on(hw, j, h, chip_seed=3)
    held.sum().backward()
    assert j.grad is not None and bool((j.grad != 0).any())
    assert torch.equal(couplings_on(hw, j, h, chip_seed=3)[0], held)
    assert not torch.equal(couplings_on(hw, j, h, chip_seed=4)[0], held)


def test_bad_input_is_refused() -> None:
    graph = lattice(2, 2)
    with pytest.raises(InputError, match="0 chains"):
        PersistentChains(BlockGibbs(graph), 0, torch.Generator())
    with pytest.raises(InputError, match="2 visible nodes"):
        with_visible(torch.ones(3, 4), torch.ones(3, 3), torch.tensor([0, 1]))
