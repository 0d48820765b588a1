"""The denoising model on small lattices, against enumeration of all states."""

import itertools
import math

import pytest
import torch
from scipy import stats

from mho.ebm.generate import (
    DIGITAL,
    AdaptivePenalty,
    BitFlips,
    DenoisingModel,
    Schedule,
    Training,
    VirtualSampler,
    autocorrelation,
    chip_steps,
    denoised,
    denoising_gradient,
    generate,
    gibbs,
    on_chip,
    place,
)
from mho.ebm.generate.gradient import products
from mho.ebm.spins import PBit, energy
from mho.errors import HardwareError, InputError, TrainingError
from mho.rng import stream

STATES = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=8)))


def model_2x2(levels: tuple[float, ...] = (0.1, 0.5), scale: float = 0.6, layout: str = "chessboard") -> DenoisingModel:
    """Four pixels and four latent nodes with random couplings."""
    placement = place(2, 2, layout=layout, connectivity=4)
    model = DenoisingModel(placement, BitFlips(levels), coupling_limit=1.0)
    generator = stream(0, "test model")
    with torch.no_grad():
        for p in model.parameters():
            p.normal_(0.0, scale, generator=generator)
    model.confine()
    return model


def log_likelihood(model, couplings, biases, t, before, after, beta):
    """log p(x_{t-1} | x_t) of each row, by summing over all 256 states."""
    graph, visible = model.placement.graph, model.placement.visible
    found = []
    for x, y in zip(before, after, strict=True):
        fields = biases + torch.zeros(8).index_add(0, visible, model.flips.field(t) * y)
        logs = -beta * energy(graph, STATES, couplings, fields)
        fits = (STATES[:, visible] == x).all(1)
        found.append(torch.logsumexp(logs[fits], 0) - torch.logsumexp(logs, 0))
    return torch.stack(found).mean()


@pytest.mark.parametrize("layout", ["chessboard", "columns"])
def test_the_gradient_is_that_of_the_enumerated_likelihood(layout):
    model, t, beta = model_2x2(layout=layout), 1, 0.8
    generator = stream(1, "gradient")
    before, after = model.flips.pair(torch.tensor([[1.0, -1.0, 1.0, 1.0]]), t, generator)
    couplings, biases = (p[0].detach().clone().requires_grad_(True) for p in (model.couplings, model.biases))
    log_likelihood(model, couplings, biases, t, before, after, beta).backward()
    sampler = VirtualSampler(None, None, temperature_error=1 / beta - 1)
    found = denoising_gradient(
        model,
        gibbs(model, sampler),
        on_chip(model, t, sampler, 0),
        before.expand(20_000, -1),
        after.expand(20_000, -1),
        beta,
        sweeps=40,
        positive_sweeps=40,
        penalty=0.0,
        generator=generator,
    )
    assert torch.allclose(found.couplings, couplings.grad, atol=0.02)
    assert torch.allclose(found.biases, biases.grad, atol=0.02)
    assert not torch.allclose(found.biases / beta, biases.grad, atol=0.02)  # without beta it is another gradient


def test_products_are_the_same_by_blocks_and_by_edges():
    graph = place(4, 4, connectivity=8).graph
    a, b = torch.randn(2, 30, graph.nodes, generator=stream(0, "ab")).unbind(0)
    i, j = graph.edges.unbind(1)
    assert torch.allclose(products(graph, a, b), (a[:, i] * b[:, j] + b[:, i] * a[:, j]).mean(0) / 2, atol=1e-5)


def test_the_penalty_pushes_down_couplings_that_correlate():
    model = model_2x2((0.5,), scale=0.0)
    with torch.no_grad():
        model.couplings[0].fill_(0.5)
    x = torch.ones(2_000, 4)
    arguments = {"sweeps": 20, "positive_sweeps": 1, "generator": stream(0, "penalty")}
    step, machine = on_chip(model, 1, DIGITAL, 0), gibbs(model, DIGITAL)
    plain = denoising_gradient(model, machine, step, x, x, 1.0, penalty=0.0, **arguments)
    pushed = denoising_gradient(model, machine, step, x, x, 1.0, penalty=1.0, **arguments)
    assert bool((pushed.couplings < plain.couplings - 0.1).all())


def pixel_counts(images: torch.Tensor) -> torch.Tensor:
    """How often each of the 16 images of four pixels appears."""
    index = ((images > 0).long() * torch.tensor([8, 4, 2, 1])).sum(1)
    return torch.bincount(index, minlength=16)


def chain_law(model: DenoisingModel, beta: float) -> torch.Tensor:
    """Law of the 16 images after the whole chain, exactly: a product of conditional laws."""
    pixels = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))
    visible = model.placement.visible
    law = torch.full((16,), 1 / 16, dtype=torch.float64)
    for t in range(model.steps, 0, -1):
        kernel = torch.zeros(16, 16, dtype=torch.float64)
        for row, y in enumerate(pixels):
            fields = model.biases[t - 1] + torch.zeros(8).index_add(0, visible, model.flips.field(t) * y)
            logs = -beta * energy(model.placement.graph, STATES, model.couplings[t - 1], fields)
            weight = torch.softmax(logs.detach().double(), 0)
            index = ((STATES[:, visible] > 0).long() * torch.tensor([8, 4, 2, 1])).sum(1)
            kernel[row].index_add_(0, index, weight)
        law = law @ kernel
    return law


def test_the_chain_has_the_enumerated_law_and_a_wrong_temperature_has_not():
    model, count = model_2x2((0.15, 0.5), scale=0.4), 40_000
    law = chain_law(model, 1.0).numpy()
    schedule = Schedule(30, "last")
    found = pixel_counts(generate(model, count, sampler=DIGITAL, schedule=schedule))
    assert stats.chisquare(found.numpy(), count * law).pvalue > 1e-5
    hot = pixel_counts(generate(model, count, sampler=VirtualSampler(None, None, 0.0, 0.2), schedule=schedule))
    assert stats.chisquare(hot.numpy(), count * law).pvalue < 1e-5
    assert stats.chisquare(hot.numpy(), count * chain_law(model, 1 / 1.2).numpy()).pvalue > 1e-5


def test_offsets_of_the_p_bits_are_biases_of_their_chip():
    model, shifted, count, chip = model_2x2((0.5,), scale=0.4), model_2x2((0.5,), scale=0.4), 20_000, 7
    bits = PBit(offset_std=0.5)
    with torch.no_grad():
        shifted.biases[0].add_(bits.offsets(8, chip))
    options = {"sampler": VirtualSampler(None, None, pbit=bits), "schedule": Schedule(30, "last")}
    found = pixel_counts(generate(model, count, chip_seed=chip, **options)).numpy()
    assert stats.chisquare(found, count * chain_law(shifted, 1.0).numpy()).pvalue > 1e-5
    assert stats.chisquare(found, count * chain_law(model, 1.0).numpy()).pvalue < 1e-5
    assert not torch.equal(
        generate(model, 100, chip_seed=chip, **options), generate(model, 100, chip_seed=8, **options)
    )


def test_what_this_sampler_has_not_is_refused():
    with pytest.raises(HardwareError, match=r"pbit\.correlation = 0\.5"):
        VirtualSampler(pbit=PBit(correlation=0.5))
    with pytest.raises(HardwareError, match=r"Fix: VirtualSampler\(temperature_error"):
        VirtualSampler(pbit=PBit(temperature_error=0.1))
    with pytest.raises(TrainingError, match="conditional means"):
        Training(sampler=VirtualSampler(pbit=PBit(offset_std=0.1)))
    # What identifies a training's checkpoint.
    assert repr(DIGITAL).endswith("(coupling_bits=None, bias_bits=None, coupling_error=0.0, temperature_error=0.0)")


def test_an_image_does_not_depend_on_how_many_are_made():
    model, options = model_2x2(), {"sampler": VirtualSampler(), "schedule": Schedule(6), "seed": 3}
    many = generate(model, 300, **options)
    assert torch.equal(many[:7], generate(model, 7, **options))
    assert set(many.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(many[:256], generate(model, 256, **{**options, "seed": 4}))


def test_the_majority_is_the_likelier_pixel():
    model = model_2x2((0.5,), scale=0.0)
    with torch.no_grad():
        model.biases[0].fill_(0.4)
    last = generate(model, 2_000, sampler=DIGITAL, schedule=Schedule(40, "last"))
    majority = generate(model, 2_000, sampler=DIGITAL, schedule=Schedule(40, "majority"))
    up = 1 / (1 + math.exp(-0.8))
    assert float((last > 0).float().mean()) == pytest.approx(up, abs=0.02)
    assert float((majority > 0).float().mean()) == pytest.approx(1 - stats.binom.cdf(9, 19, up), abs=0.01)


def test_a_chain_is_shown_from_coins_to_image():
    model = model_2x2((0.1, 0.3, 0.5))
    steps = chip_steps(model, VirtualSampler(), 0)
    shown = list(denoised(model, gibbs(model, VirtualSampler()), steps, Schedule(4), 5, stream(0, "chain")))
    assert [tuple(x.shape) for x in shown] == [(5, 4)] * 4


def test_the_digital_sampler_holds_the_trained_numbers():
    model = model_2x2()
    step = on_chip(model, 1, DIGITAL, 7)
    assert torch.equal(step.couplings, model.couplings[0]) and torch.equal(step.biases, model.biases[0])
    assert torch.allclose(step.inputs, torch.full((4,), model.flips.field(1)))


def test_a_four_bit_coupling_has_fifteen_levels_with_its_sign():
    model = DenoisingModel(place(6, 6), BitFlips((0.5,)), coupling_limit=0.7)
    with torch.no_grad():
        model.couplings[0].copy_(torch.linspace(-0.7, 0.7, model.placement.graph.n_edges))
    held = on_chip(model, 1, VirtualSampler(), 0).couplings
    assert len(held.unique()) == 15
    assert float((held - model.couplings[0].detach()).abs().max()) <= 0.05 + 1e-6  # half of 0.7 / 7


@pytest.mark.parametrize("fast", [False, True])
def test_coupling_errors_are_a_share_of_full_scale_and_fixed_by_the_chip(fast):
    model = DenoisingModel(place(20, 20), BitFlips((0.5,)), coupling_limit=0.5)
    sampler = VirtualSampler(None, None, coupling_error=0.05)
    held = on_chip(model, 1, sampler, 3, fast=fast).couplings
    low, high = stats.chi2.ppf([0.5e-5, 1 - 0.5e-5], len(held)) / len(held)
    ratio = float(held.square().mean()) / (0.05 * 0.5) ** 2
    assert low < ratio < high and not low < ratio * 1.3 < high
    assert torch.equal(held, on_chip(model, 1, sampler, 3, fast=fast).couplings)
    assert not torch.equal(held, on_chip(model, 1, sampler, 4, fast=fast).couplings)


def test_pixels_and_latent_nodes_alternate_on_the_chessboard():
    board = place(4, 4, connectivity=12)
    assert board.restricted and int(board.is_visible.sum()) == 16
    assert not place(4, 4, layout="columns", connectivity=12).restricted
    scattered = place(4, 4, layout="random")
    assert len(scattered.visible.unique()) == 16
    images = torch.where(torch.rand(3, 16, generator=stream(0, "x")) < 0.5, 1.0, -1.0)
    assert torch.equal(board.images(board.states(images, stream(0, "s"))), images)


def test_impossible_descriptions_are_refused():
    with pytest.raises(InputError, match="layout"):
        place(4, 4, layout="spiral")
    with pytest.raises(InputError, match="sweeps"):
        Schedule(1)
    with pytest.raises(HardwareError, match="coupling_bits"):
        VirtualSampler(coupling_bits=1)
    with pytest.raises(InputError, match="temperature"):
        VirtualSampler(temperature_error=-1.0)
    with pytest.raises(InputError, match="full scale"):
        DenoisingModel(place(2, 2, connectivity=4), BitFlips((0.5,)), coupling_limit=0.0)
    with pytest.raises(InputError, match="count"):
        generate(model_2x2(), 0, sampler=DIGITAL, schedule=Schedule(4))


def test_autocorrelation_tells_a_mixing_machine_from_a_frozen_one():
    free, frozen = model_2x2((0.5,), scale=0.0), model_2x2((0.5,), scale=0.0)
    with torch.no_grad():
        frozen.couplings[0].fill_(1.0)  # its full scale
    x, options = torch.ones(40, 4), {"replicas": 32}
    for model, low, high in ((free, -0.05, 0.05), (frozen, 0.6, 1.01)):
        step, machine = on_chip(model, 1, DIGITAL, 0), gibbs(model, DIGITAL)
        found = autocorrelation(model, machine, step, x, 2, stream(0, "auto"), **options)
        assert low < found[0] < high
    with pytest.raises(InputError, match="replicas"):
        autocorrelation(free, machine, step, x, 2, stream(0, "auto"), replicas=1)


def test_the_penalty_grows_only_above_its_target_and_when_not_falling():
    start = AdaptivePenalty()
    grown = start.after(0.2)
    assert grown.strength == start.floor
    assert grown.after(0.3).strength > grown.strength
    assert grown.after(0.1).strength == grown.strength
    assert grown.after(0.01).strength == 0.0
    strong = AdaptivePenalty(strength=0.1, last=0.2)
    assert 0.0 < strong.after(0.01).strength < 0.1
