"""The forward process, the metrics and the energies of generation, against closed forms."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import sqrtm

from mho.data import load_dataset
from mho.ebm.generate import (
    BitFlips,
    Denoiser,
    DenoisingModel,
    Schedule,
    binarized,
    cosine_flips,
    denoiser_size,
    diffusion_energy,
    digital_sampler_energy,
    flipped,
    frechet_distance,
    hidden_for,
    load_judge,
    nearest_training,
    place,
    precision_recall,
    sampler_energy,
    train_judge,
    width_for,
)
from mho.ebm.generate.diffusion import posterior
from mho.ebm.generate.energy import CONSTANTS, LATCH_BIT, mean_wire, multiplications
from mho.errors import CheckpointError, DataError, InputError
from mho.rng import stream

FLIPS = BitFlips((0.04, 0.12, 0.25, 0.5))


@given(st.lists(st.floats(0.001, 0.499), min_size=1, max_size=6, unique=True))
@settings(max_examples=50, deadline=None)
def test_single_flips_compose_to_the_levels(levels):
    flips = BitFlips((*sorted(levels), 0.5))
    kept = 1.0
    for t in range(1, flips.steps + 1):
        kept *= 1.0 - 2.0 * flips.flip(t)
        assert (1.0 - kept) / 2.0 == pytest.approx(flips.level(t), abs=1e-9)


def test_the_field_is_the_energy_of_the_flip():
    for t in range(1, 4):
        g, p = FLIPS.field(t), FLIPS.flip(t)
        assert math.exp(-g) / (2.0 * math.cosh(g)) == pytest.approx(p, abs=1e-12)
    assert FLIPS.field(4) == 0.0


def test_the_share_of_flipped_pixels_is_binomial():
    x = torch.ones(100_000)
    count = int((flipped(x, 0.12, stream(0, "flips")) < 0).sum())
    assert stats.binomtest(count, len(x), 0.12).pvalue > 1e-5
    assert stats.binomtest(count, len(x), 0.12 * 1.05).pvalue < 1e-5


def test_a_pair_has_the_levels_of_its_times():
    before, after = FLIPS.pair(torch.ones(2_000, 100), 3, stream(1, "pair"))
    assert float((before < 0).float().mean()) == pytest.approx(0.12, abs=0.005)
    assert float((after < 0).float().mean()) == pytest.approx(0.25, abs=0.006)
    assert float((before != after).float().mean()) == pytest.approx(FLIPS.flip(3), abs=0.006)


@pytest.mark.parametrize("levels", [(), (0.1,), (0.2, 0.1, 0.5), (0.0, 0.5), (0.1, 0.5, 0.5)])
def test_levels_that_do_not_rise_to_a_half_are_refused(levels):
    with pytest.raises(InputError, match="levels"):
        BitFlips(levels)


def test_only_grey_bytes_are_binarised():
    images = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 1, 2, 2)
    assert binarized(images).tolist() == [[-1.0, -1.0, 1.0, 1.0]]
    with pytest.raises(InputError, match="uint8"):
        binarized(images.float())


def test_the_posterior_of_the_digital_diffusion_is_bayes_rule():
    t, clean = 2, torch.tensor([0.3])
    for seen in (1.0, -1.0):
        total = {1.0: 0.0, -1.0: 0.0}
        for x0, weight in ((1.0, 0.3), (-1.0, 0.7)):
            joint = {}
            for middle in (1.0, -1.0):
                first = FLIPS.level(t - 1) if middle != x0 else 1.0 - FLIPS.level(t - 1)
                joint[middle] = first * (FLIPS.flip(t) if middle != seen else 1.0 - FLIPS.flip(t))
            for middle, value in joint.items():
                total[middle] += weight * value / sum(joint.values())
        found = posterior(torch.tensor([seen]), clean, FLIPS, t)
        assert float(found) == pytest.approx(total[1.0], abs=1e-6)


def test_the_cosine_levels_end_at_a_half():
    assert cosine_flips(10).steps == 10 and cosine_flips(10).levels[-1] == 0.5


def normal_features(mean: float, scales: list[float], name: str) -> torch.Tensor:
    return mean + torch.randn(20_000, 3, generator=stream(0, name)) * torch.tensor(scales)


def test_the_frechet_distance_of_normals_has_its_closed_form():
    a, b = normal_features(0.0, [1.0, 2.0, 0.5], "a"), normal_features(1.0, [2.0, 1.0, 0.5], "b")
    exact = 3 * 1.0 + 1.0 + 1.0 + 0.0  # |difference of means|^2 and squared differences of the deviations
    assert frechet_distance(a, b) == pytest.approx(exact, rel=0.03)
    assert abs(frechet_distance(a, a)) < 1e-9
    assert frechet_distance(a, a + 2.0) == pytest.approx(12.0, rel=1e-5)


def test_the_frechet_distance_agrees_with_the_matrix_root():
    a = torch.randn(200, 5, generator=stream(1, "a")) @ torch.randn(5, 5, generator=stream(1, "mix"))
    b = torch.randn(300, 5, generator=stream(1, "b")) + 0.5
    x, y = a.double().numpy(), b.double().numpy()
    ca, cb = np.cov(x.T), np.cov(y.T)
    exact = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    assert frechet_distance(a, b) == pytest.approx(float(exact), rel=1e-8)


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(InputError, match="finite"):
        frechet_distance(torch.ones(5, 2), torch.full((5, 2), float("nan")))
    with pytest.raises(InputError, match="equal D"):
        frechet_distance(torch.ones(5, 2), torch.ones(5, 3))
    with pytest.raises(InputError, match="more images"):
        precision_recall(torch.ones(3, 2), torch.ones(5, 2))


def test_precision_and_recall_see_collapse_and_strangers():
    real = torch.randn(400, 2, generator=stream(0, "real"))
    assert precision_recall(real, real) == (1.0, 1.0)
    collapsed = 0.02 * torch.randn(400, 2, generator=stream(0, "one place"))
    precision, recall = precision_recall(real, collapsed)
    assert precision > 0.95 and recall < 0.05
    assert precision_recall(real, real + 100.0) == (0.0, 0.0)


def test_precision_is_the_count_of_points_in_balls():
    real, made = torch.randn(30, 2, generator=stream(3, "r")), torch.randn(25, 2, generator=stream(3, "m"))
    inside = 0
    for point in made:
        for i, centre in enumerate(real):
            radius = sorted((real[j] - centre).norm().item() for j in range(30) if j != i)[2]
            if (point - centre).norm().item() <= radius:
                inside += 1
                break
    assert precision_recall(real, made)[0] == pytest.approx(inside / 25, abs=1e-6)


def test_a_copy_of_the_training_set_is_found():
    training = torch.where(torch.rand(50, 20, generator=stream(0, "t")) < 0.5, 1.0, -1.0)
    changed = training[:10].clone()
    changed[:, :2] *= -1
    found = nearest_training(torch.cat([training[:10], changed]), training)
    assert found.copies == pytest.approx(0.5) and 0.0 <= found.median <= 2.0
    with pytest.raises(InputError, match="pixels"):
        nearest_training(training, training[:, :5])


def test_the_classifier_learns_and_survives_the_disk(tmp_path):
    data = load_dataset(limit_per_class=40)
    data = replace(data, test_x=data.test_x[:300], test_y=data.test_y[:300])
    judge = train_judge(data, epochs=3, batch=32)
    assert judge.accuracy > 0.35  # chance: 0.1
    judge.save(tmp_path / "judge.safetensors")
    again = load_judge(tmp_path / "judge.safetensors", data)
    x = binarized(data.test_x[:5])
    assert again.accuracy == judge.accuracy and torch.equal(again.features(x), judge.features(x))
    (tmp_path / "judge.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="train it again"):
        load_judge(tmp_path / "judge.safetensors", data)
    with pytest.raises(DataError, match="28 x 28"):
        train_judge(replace(data, train_x=data.train_x[:, :, :4, :4], test_x=data.test_x[:, :, :4, :4]))


def small_model() -> DenoisingModel:
    return DenoisingModel(place(3, 4, connectivity=4), BitFlips((0.1, 0.5)))


def test_joules_are_counts_times_constants():
    model = small_model()
    energy = sampler_energy(model, Schedule(10))
    assert energy.updates == 2 * 10 * 24
    assert energy.parts["random bits"].low == pytest.approx(480 * 0.35e-15)
    assert energy.total_J.typical == pytest.approx(sum(p.typical for p in energy.parts.values()))
    assert energy.total_J.low < energy.total_J.typical < energy.total_J.high
    moved = energy.parts["clamping and reading"].typical  # 2 images clamped, 1 read, 5 reads of the majority
    assert moved == pytest.approx(12 * (2 + 1 + 5) * LATCH_BIT.value.typical * 1e-12)
    once = sampler_energy(model, Schedule(10, readout="last"))
    assert once.parts["clamping and reading"].typical == pytest.approx(moved * 4 / 8)
    twice = sampler_energy(model, Schedule(20))
    assert twice.parts["fields"].high == pytest.approx(2 * energy.parts["fields"].high)
    assert digital_sampler_energy(model, Schedule(10)).total_J.typical > energy.total_J.typical
    assert mean_wire(model) == pytest.approx(2 * model.placement.graph.n_edges / 24)  # neighbours at distance 1
    assert all(constant.source for constant in CONSTANTS)


def test_operations_of_the_digital_network_are_counted_by_hand():
    network = Denoiser(2, 3)
    convolutions = 784 * 2 * 9 + 196 * 4 * 2 * 9 + 49 * 4 * 4 * 9 + 196 * 4 * 8 * 9 + 784 * 2 * 6 * 9 + 784 * 2 * 9
    linear = 2 * (4 * 49 * 2)
    assert multiplications(network) == convolutions + linear
    assert diffusion_energy(network, 3).updates == 3 * (convolutions + linear)


def test_baselines_get_the_size_of_the_model():
    hidden = hidden_for(60_000, 784)
    assert abs(784 * hidden + 784 + hidden - 60_000) <= 785 / 2
    width = width_for(60_000, 10)
    assert abs(denoiser_size(width, 10) - 60_000) < 6_000


def test_the_classifier_that_ships_with_the_benchmark_knows_digits() -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "mnist-features.safetensors"
    assert load_judge(path, load_dataset("mnist-mini")).accuracy > 0.98
