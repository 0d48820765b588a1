"""Block Gibbs sampling has the Boltzmann law, whatever runs it, and a wrong temperature is noticed."""

import math

import pytest
import torch

from mho import rng
from mho.crossbar.kernels import build as building
from mho.ebm import diagnostics
from mho.ebm.spins import (
    BlockGibbs,
    Graph,
    Ising,
    PBit,
    available,
    bipartite,
    counts,
    enumerate_law,
    kernel,
    lattice,
    random_spins,
    reference,
    sparse_graph,
    words_of,
)
from mho.errors import InputError

ALPHA = 1e-5
needs_compiler = pytest.mark.skipif(not available(), reason="no C compiler here")


def small(name: str) -> Ising:
    """Machines of at most 16 spins, frustrated and biased."""
    pairs = [[i, j] for i in range(10) for j in range(i + 1, 10) if (i * j) % 3 < 2]
    graphs = {
        "lattice": lambda: lattice(3, 4, 8),
        "restricted": lambda: bipartite(6, 5),
        "sparse": lambda: sparse_graph(10, torch.tensor(pairs)),
        "sixteen": lambda: lattice(4, 4, 4),
    }
    graph = graphs[name]()
    couplings = 0.4 * rng.normals((graph.n_edges,), 5, name, "couplings")
    biases = 0.3 * rng.normals((graph.nodes,), 5, name, "biases")
    return Ising(graph, couplings, biases, beta=0.8)


def sampled(ising: Ising, beta: float, samples: int, name: str) -> torch.Tensor:
    """Counts of states, thinned by the autocorrelation of the energy."""
    sampler = BlockGibbs(ising.graph)
    generator = rng.stream(7, "gibbs", name)
    chains = 4096
    spins = random_spins(chains, ising.graph, generator)
    spins = sampler.run(spins, ising.couplings, ising.biases, beta, 60, generator=generator)
    trial = sampler.collect(spins, ising.couplings, ising.biases, beta, samples=100, generator=generator)
    every = diagnostics.thinning(ising.energy(trial[:, :256]))
    kept = sampler.collect(
        trial[-1], ising.couplings, ising.biases, beta, samples=samples // chains, every=every, generator=generator
    )
    return counts(kept)


@needs_compiler
@pytest.mark.parametrize("name", ["lattice", "restricted", "sparse", "sixteen"])
def test_the_law_is_boltzmanns_and_a_temperature_5_percent_off_is_noticed(name: str) -> None:
    ising = small(name)
    exact = enumerate_law(ising)
    found = diagnostics.chi_square(sampled(ising, ising.beta, 400_000, name), exact.probabilities)
    assert found.p_value > ALPHA, str(found)
    for factor in (1.05, 1 / 1.05):
        mutant = diagnostics.chi_square(sampled(ising, ising.beta * factor, 400_000, name), exact.probabilities)
        assert mutant.p_value < ALPHA, str(mutant)


def test_plain_torch_has_the_same_law() -> None:
    ising = small("lattice")
    exact = enumerate_law(ising)
    sampler = BlockGibbs(ising.graph, compiled=False)
    generator = rng.stream(1, "torch")
    spins = sampler.run(
        random_spins(50_000, ising.graph, generator),
        ising.couplings,
        ising.biases,
        ising.beta,
        12,
        generator=generator,
    )
    assert diagnostics.chi_square(counts(spins), exact.probabilities).p_value > ALPHA
    wrong = enumerate_law(Ising(ising.graph, ising.couplings, ising.biases, ising.beta * 1.05))
    assert diagnostics.chi_square(counts(spins), wrong.probabilities).p_value < ALPHA


@needs_compiler
@pytest.mark.parametrize("chains", [1, 16, 17, 70])
@pytest.mark.parametrize("own_biases", [False, True])
def test_the_kernel_gives_the_spins_of_plain_torch(chains: int, own_biases: bool) -> None:
    graph = lattice(9, 11, 12)
    generator = rng.stream(chains, "parity")
    couplings = torch.randn(graph.n_edges, generator=generator)
    biases = torch.randn((chains, graph.nodes) if own_biases else (graph.nodes,), generator=generator)
    clamped = torch.rand(graph.nodes, generator=generator) < 0.2
    spins = random_spins(chains, graph, generator)
    found = [
        BlockGibbs(graph, compiled=c, pbit=PBit(temperature_error=0.1, temperature_std=0.1, offset_std=0.2)).run(
            spins, couplings, biases, 0.7, 12, generator=rng.stream(3, "same"), clamped=clamped
        )
        for c in (True, False)
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0][:, clamped], spins[:, clamped])
    assert not torch.equal(found[0][:, ~clamped], spins[:, ~clamped])


@needs_compiler
def test_threads_and_the_chains_beside_it_change_no_chain() -> None:
    graph = lattice(8, 8, 8)
    couplings, biases = 0.3 * torch.ones(graph.n_edges), torch.zeros(graph.nodes)
    spins = random_spins(100, graph, rng.stream(0, "start"))
    layout = kernel.Layout.of(graph)
    gains = torch.full((graph.nodes,), 2.0)
    before = torch.get_num_threads()
    found = []
    try:
        for threads, chains in ((1, 100), (2, 100), (7, 100), (1, 20), (1, 1)):
            torch.set_num_threads(threads)
            got = kernel.run(layout, spins[:chains], graph.blocks, couplings, biases, gains, 11, 20)
            found.append(got)
    finally:
        torch.set_num_threads(before)
    for got in found[1:]:
        assert torch.equal(got, found[0][: len(got)])


def test_without_a_compiler_torch_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = lattice(5, 5, 4)
    spins = random_spins(8, graph, rng.stream(0, "start"))
    arguments = (spins, torch.ones(graph.n_edges), torch.zeros(graph.nodes), 0.5, 3)
    with_kernel = BlockGibbs(graph).run(*arguments, generator=rng.stream(0, "g"))
    monkeypatch.setattr(building, "find_compiler", lambda: None)
    missing = kernel.load(kernel.build())
    assert missing.library is None and "no C compiler" in missing.reason
    monkeypatch.setattr(kernel, "native", lambda: missing)
    assert torch.equal(BlockGibbs(graph).run(*arguments, generator=rng.stream(0, "g")), with_kernel)


def test_a_source_that_does_not_compile_is_a_reason_and_no_error(tmp_path) -> None:
    (tmp_path / "gibbs.c").write_text("this is no C")
    built = kernel.build(tmp_path / "cache", tmp_path)
    assert built.path is None and ("cannot compile" in built.reason or "no C compiler" in built.reason)


def test_the_decision_has_the_logistic_probability_in_both_tails() -> None:
    x = torch.linspace(-30, 30, 4001)
    p_small = 1 / reference.flips_against(x).double()
    exact = 1 / (1 + torch.exp2(x.double().abs()))
    assert ((p_small / exact - 1).abs() < 4e-7).all()
    edge = torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1])
    assert reference.decide(torch.tensor([40.0] * 5), edge).tolist() == [1, 1, 1, 1, 1]
    assert reference.decide(torch.tensor([-40.0] * 5), edge).tolist() == [-1, -1, -1, -1, -1]
    assert reference.decide(torch.tensor([31.0] * 5), edge).tolist() == [1, 1, 1, -1, -1]
    assert reference.decide(torch.tensor([0.0, -0.0]), torch.tensor([2**31 - 100, 2**31 + 100])).tolist() == [1, -1]


def test_a_spin_is_monotone_in_its_field_and_in_its_word() -> None:
    generator = rng.stream(0, "monotone")
    word = torch.randint(0, 2**32, (50_000,), generator=generator)
    x = 3 * torch.randn(50_000, generator=generator)
    low, high = reference.decide(x, word), reference.decide(x + torch.rand(50_000, generator=generator), word)
    assert (low <= high).all()
    assert (reference.decide(x, word) >= reference.decide(x, (word + 2**28).clamp(max=2**32 - 1))).all()


def test_the_words_are_uniform_bits_without_correlation_between_chains_sweeps_or_spins() -> None:
    found = words_of(5, sweeps=8, nodes=256, chains=256)  # [sweeps, nodes, chains]
    flat = found.flatten()
    for bit in range(32):
        ones = int(((flat >> bit) & 1).sum())
        assert abs(ones / flat.numel() - 0.5) < 5 * 0.5 / math.sqrt(flat.numel())
    table = torch.bincount(flat >> 20, minlength=4096)
    assert diagnostics.chi_square(table, torch.full((4096,), 1 / 4096)).p_value > ALPHA
    z = found.double() / 2**32 - 0.5
    for a, b in ((z[:-1], z[1:]), (z[:, :-1], z[:, 1:]), (z[..., :-1], z[..., 1:])):
        assert abs(float((a * b).mean()) * 12) < 5 / math.sqrt(a.numel())
    pairs = torch.bincount(((found[..., :-1] >> 26) * 64 + (found[..., 1:] >> 26)).flatten(), minlength=4096)
    assert diagnostics.chi_square(pairs, torch.full((4096,), 1 / 4096)).p_value > ALPHA
    assert torch.unique(flat).numel() > flat.numel() * (1 - 2 * flat.numel() / 2**32)


def test_clamped_spins_give_the_conditional_law() -> None:
    ising = small("restricted")
    clamped = torch.zeros(ising.graph.nodes, dtype=torch.bool)
    clamped[:6] = True
    generator = rng.stream(2, "clamped")
    spins = random_spins(200_000, ising.graph, generator)
    spins[:, :6] = torch.tensor([1, -1, 1, 1, -1, 1], dtype=torch.int8)
    spins = BlockGibbs(ising.graph).run(
        spins, ising.couplings, ising.biases, ising.beta, 1, generator=generator, clamped=clamped
    )
    up = torch.sigmoid(2 * ising.beta * ising.fields(spins[:1].float())[0, 6:]).double()
    law = torch.ones(1, dtype=torch.float64)
    for p in up:
        law = torch.cat([law * (1 - p), law * p])
    assert diagnostics.chi_square(counts(spins[:, 6:]), law).p_value > ALPHA


def test_each_chain_may_have_its_own_field() -> None:
    graph = Graph(1, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64))
    chains = 200_000
    field = torch.where(torch.arange(chains) % 2 == 0, 0.4, -0.7)[:, None]
    generator = rng.stream(0, "own")
    spins = BlockGibbs(graph).run(
        random_spins(chains, graph, generator), torch.zeros(0), field, 1.0, 1, generator=generator
    )
    for start, h in ((0, 0.4), (1, -0.7)):
        mean = float(spins[start::2].double().mean())
        assert abs(mean - math.tanh(h)) < 5 / math.sqrt(chains / 2)


@needs_compiler
@pytest.mark.parametrize("error", [0.2, -0.2])
def test_a_temperature_error_is_the_law_at_the_other_temperature(error: float) -> None:
    ising = small("lattice")
    generator = rng.stream(4, "hot")
    sampler = BlockGibbs(ising.graph, pbit=PBit(temperature_error=error))
    start = random_spins(200_000, ising.graph, generator)
    spins = sampler.run(start, ising.couplings, ising.biases, ising.beta, 40, generator=generator)
    hot = enumerate_law(Ising(ising.graph, ising.couplings, ising.biases, ising.beta / (1 + error)))
    assert diagnostics.chi_square(counts(spins), hot.probabilities).p_value > ALPHA
    assert diagnostics.chi_square(counts(spins), enumerate_law(ising).probabilities).p_value < ALPHA


@needs_compiler
def test_offsets_are_biases_that_the_chips_seed_fixes() -> None:
    ising = small("lattice")
    generator = rng.stream(4, "offsets")
    pbit = PBit(offset_std=0.2)
    sampler = BlockGibbs(ising.graph, pbit=pbit, chip_seed=9)
    start = random_spins(200_000, ising.graph, generator)
    spins = sampler.run(start, ising.couplings, ising.biases, ising.beta, 40, generator=generator)
    offsets = pbit.offsets(ising.graph.nodes, 9)
    assert offsets is not None
    moved = Ising(ising.graph, ising.couplings, ising.biases + offsets, ising.beta)
    assert diagnostics.chi_square(counts(spins), enumerate_law(moved).probabilities).p_value > ALPHA
    other = pbit.offsets(ising.graph.nodes, 10)
    assert other is not None and not torch.equal(other, offsets)


def test_noise_with_a_memory_keeps_the_probability_of_a_free_spin_and_correlates_its_draws() -> None:
    graph = Graph(4, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(4, dtype=torch.int64))
    biases = torch.tensor([0.0, 0.3, -0.5, 1.0])
    rho, chains, sweeps = 0.8, 40_000, 6
    words, memory = [], torch.full((1, chains), math.nan, dtype=torch.float64)
    p, q = reference.chain_keys(3, chains)
    for sweep in range(sweeps):
        word = reference.words(reference.update_keys(3, sweep, torch.arange(1), 1), (p, q))
        word, memory = reference.coloured(word, memory, rho)
        words.append(word[0])
    g = torch.special.ndtri((torch.stack(words).double() + 0.5) / 2**32)
    for lag in (1, 2, 3):
        found = float((g[lag:] * g[:-lag]).mean())
        assert abs(found - rho**lag) < 6 / math.sqrt(chains)
    sampler = BlockGibbs(graph, pbit=PBit(correlation=rho))
    generator = rng.stream(0, "colour")
    spins = sampler.run(random_spins(chains, graph, generator), torch.zeros(0), biases, 1.0, 5, generator=generator)
    assert ((spins.double().mean(0) - torch.tanh(biases.double())).abs() < 5 / math.sqrt(chains)).all()


def test_noise_with_a_memory_keeps_it_from_sample_to_sample() -> None:
    graph = Graph(2, torch.zeros(0, 2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64))
    rho, chains, generator = 0.8, 20_000, rng.stream(0, "carried")
    sampler, start = BlockGibbs(graph, pbit=PBit(correlation=rho)), random_spins(chains, graph, generator)
    nothing = torch.zeros(0), torch.zeros(2)
    kept = sampler.collect(start, *nothing, samples=4, generator=generator).double()
    for lag in (1, 2):  # signs of two normals of correlation r agree as (2 / pi) asin r
        found = float((kept[lag:] * kept[:-lag]).mean())
        assert abs(found - 2 / math.pi * math.asin(rho**lag)) < 6 / math.sqrt(chains)
    memory = sampler.memory(start)
    assert memory is not None
    sampler.run(start, *nothing, generator=generator, memory=memory)
    before = memory.clone()
    held = torch.tensor([True, False])
    sampler.run(start, *nothing, generator=generator, clamped=held, memory=memory)
    assert torch.equal(memory[:, 0], before[:, 0]) and not (memory[:, 1] == before[:, 1]).any()
    assert BlockGibbs(graph).memory(start) is None
    with pytest.raises(InputError, match=r"memory \(5, 2\) .* for spins \(20000, 2\)"):
        sampler.run(start, *nothing, generator=generator, memory=memory[:5])


def test_noise_with_a_memory_changes_the_law_of_coupled_spins() -> None:
    ising = small("lattice")
    generator = rng.stream(4, "memory")
    start = random_spins(20_000, ising.graph, generator)
    sampler = BlockGibbs(ising.graph, pbit=PBit(correlation=0.9))
    spins = sampler.run(start, ising.couplings, ising.biases, ising.beta, 30, generator=generator)
    assert diagnostics.chi_square(counts(spins), enumerate_law(ising).probabilities).p_value < ALPHA


def test_the_dtype_of_the_spins_is_kept_and_the_input_is_not_written() -> None:
    graph = lattice(4, 4)
    start = random_spins(5, graph, rng.stream(0, "dtype"))
    for dtype in (torch.int8, torch.float32, torch.float64, torch.int64):
        given = start.to(dtype)
        copy = given.clone()
        out = BlockGibbs(graph).run(
            given, torch.ones(graph.n_edges), torch.zeros(16), 0.3, 4, generator=rng.stream(0, "g")
        )
        assert out.dtype == dtype and torch.equal(given, copy)
        assert torch.equal(
            out.to(torch.int8),
            BlockGibbs(graph, compiled=False).run(
                start, torch.ones(graph.n_edges), torch.zeros(16), 0.3, 4, generator=rng.stream(0, "g")
            ),
        )
    same = BlockGibbs(graph).run(
        start, torch.ones(graph.n_edges), torch.zeros(16), 0.3, 0, generator=rng.stream(0, "g")
    )
    assert torch.equal(same, start) and same.data_ptr() != start.data_ptr()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": math.inf}, "temperature zero"),
        ({"beta": 0.0}, "no positive temperature"),
        ({"beta": -1.0}, "no positive temperature"),
        ({"beta": math.nan}, "no positive temperature"),
        (
            {"couplings": torch.full((12,), math.nan)},
            "12 of 12 couplings are NaN or infinite, so the energy is not bounded",
        ),
        ({"couplings": torch.full((12,), math.inf)}, "12 of 12 couplings"),
        ({"couplings": torch.zeros(11)}, r"couplings \(11,\) must be \[12\]"),
        ({"biases": torch.zeros(8)}, r"biases \(8,\) must be \[9\]"),
        ({"biases": torch.zeros(3, 9)}, "biases of 3 chains for spins of 2"),
        ({"spins": torch.zeros(2, 9)}, "18 of 18 spins are neither -1 nor \\+1"),
        ({"spins": torch.ones(9)}, r"must be \[chains, 9\]"),
        ({"sweeps": -1}, "-1 sweeps"),
        ({"clamped": torch.zeros(9)}, "must be bool"),
    ],
)
def test_bad_input_is_refused_with_its_numbers(change: dict[str, object], message: str) -> None:
    graph = lattice(3, 3)
    good: dict[str, object] = {
        "spins": torch.ones(2, 9), "couplings": torch.zeros(12), "biases": torch.zeros(9), "beta": 1.0, "sweeps": 1,
        "clamped": None,
    }  # fmt: skip
    with pytest.raises(InputError, match=message):
        BlockGibbs(graph).run(**(good | change), generator=torch.Generator())  # type: ignore[arg-type]


def test_blocks_that_do_not_colour_the_graph_are_refused() -> None:
    with pytest.raises(InputError, match="not coloured by the 1 blocks given"):
        BlockGibbs(lattice(3, 3), blocks=(torch.arange(9),))


@pytest.mark.parametrize(
    "fields", [{"temperature_error": -1.0}, {"temperature_std": -0.1}, {"offset_std": math.nan}, {"correlation": 1.0}]
)
def test_impossible_p_bits_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(fields))):
        PBit(**fields)
