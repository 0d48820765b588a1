"""The sweep over chips, ages, noise levels and bits."""

import numpy as np
import pytest
import torch
from torch import nn

import mho
from mho.errors import ConversionError, InputError
from mho.evaluation.run import chip_outcomes
from mho.evaluation.statistics import StopRule
from mho.hardware import load_hardware


@pytest.fixture(scope="module")
def task():
    """A separable problem, a network that solves it, and fixed batches of it."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(4, 12, generator=generator)
    y = torch.arange(200) % 4
    x = centres[y] + torch.randn(200, 12, generator=generator)
    net = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for layer in (net[0], net[2]):
            layer.reset_parameters()
        optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
        for _ in range(120):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
    batches = [(x[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)]
    return net, batches


def converted(task, hardware="generic"):
    net, batches = task
    return mho.calibrate(mho.convert(net, hardware), batches)


def test_every_label_is_there(task):
    result = mho.evaluate(
        converted(task), task[1], chips=3, ages=["1 s", "1 day"], noise_scales=[0.0, 1.0], bits=[0, 4], seed=5
    )
    sizes = {name: int(result.data.sizes[name]) for name in result.data["correct"].dims}
    assert sizes == {"seed": 1, "chip": 3, "age_s": 2, "noise_scale": 2, "bits": 2, "image": 200}
    assert result.data.attrs["hardware"] == "generic"
    assert result.data.attrs["chip_seed"] == 5


def test_without_noise_all_chips_are_the_clean_network(task):
    result = mho.evaluate(converted(task), task[1], chips=2, noise_scales=[0.0])
    clean = result.data["clean"].to_numpy()[0]
    for chip in range(2):
        assert np.array_equal(result.data["correct"].to_numpy()[0, chip, 0, 0, 0], clean)


def test_noise_lowers_accuracy_and_chips_differ(task):
    result = mho.evaluate(converted(task), task[1], chips=10, noise_scales=[1.0, 4.0])
    mean = result.summary()["mean"].to_numpy().ravel()
    assert mean[0] > mean[1] + 3
    assert result.accuracy().to_numpy()[0, :, 0, 1, 0].std() > 0


def test_the_same_seed_gives_the_same_outcomes_in_any_sweep(task):
    model = converted(task)
    alone = mho.evaluate(model, task[1], chips=4, seed=3)
    swept = mho.evaluate(model, task[1], chips=6, noise_scales=[0.5, 1.0], seed=3).select(noise_scale=1.0)
    assert np.array_equal(alone.data["correct"].to_numpy(), swept.data["correct"].to_numpy()[:, :4])
    other = mho.evaluate(model, task[1], chips=4, seed=4, noise_scales=[3.0])
    again = mho.evaluate(model, task[1], chips=4, seed=3, noise_scales=[3.0])
    assert not np.array_equal(other.data["correct"].to_numpy(), again.data["correct"].to_numpy())


def test_blocks_of_a_stop_rule_are_the_same_chips(task):
    model = converted(task)
    stopped = mho.evaluate(model, task[1], chips=40, noise_scales=[4.0], stop=StopRule(width=50.0, min_chips=10))
    assert stopped.chips == 10
    whole = mho.evaluate(model, task[1], chips=10, noise_scales=[4.0])
    assert np.array_equal(stopped.data["correct"].to_numpy(), whole.data["correct"].to_numpy())
    never = mho.evaluate(model, task[1], chips=12, noise_scales=[4.0], stop=StopRule(width=1e-6, min_chips=10))
    assert never.chips == 12


def test_drift_compensation_recovers_an_aged_pcm_network(task):
    model = converted(task, "pcm-joshi2020")
    raw = mho.fabricate(model, 5, age="1 year")
    compensated = raw.compensated()
    x = task[1][0][0]
    fresh = mho.fabricate(model, 5, age=0)(x).abs().mean()
    assert raw(x).abs().mean() < 0.75 * fresh
    assert compensated(x).abs().mean() == pytest.approx(float(fresh), rel=0.15)
    result = mho.evaluate(model, task[1], chips=5, ages=["1 year"], compensate=True)
    assert np.array_equal(
        result.data["correct"].to_numpy()[0, :, 0, 0, 0], chip_outcomes(compensated_again(raw), task[1])
    )


def compensated_again(lot):
    return lot.aged("1 year").compensated()


def test_several_training_seeds(task):
    result = mho.evaluate([converted(task), converted(task)], task[1], chips=2, seeds=[7, 9])
    assert list(result.data["seed"].to_numpy()) == [7, 9]
    assert np.array_equal(*result.data["correct"].to_numpy())


def test_another_hardware_than_that_of_training(task):
    model = converted(task)
    result = mho.evaluate(model, task[1], chips=2, hardware="pcm-hermes")
    assert result.data.attrs["hardware"] == "pcm-hermes"
    assert float(result.data["age_s"][0]) == load_hardware("pcm-hermes").environment.t_s


def test_progress_counts_every_chip(task):
    seen = []
    mho.evaluate(
        converted(task),
        task[1],
        chips=2,
        noise_scales=[0.0, 1.0],
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(2, 4), (4, 4)]


@pytest.mark.parametrize("batches", [[], [torch.zeros(2, 12)]])
def test_unusable_loaders_are_errors(task, batches):
    with pytest.raises(InputError, match="evaluate"):
        mho.evaluate(converted(task), batches, chips=1)


def test_unusable_arguments_are_errors(task):
    with pytest.raises(InputError, match="chips = 0"):
        mho.evaluate(converted(task), task[1], chips=0)
    with pytest.raises(InputError, match="no network"):
        mho.evaluate([], task[1])
    with pytest.raises(ConversionError, match="convert"):
        mho.evaluate(task[0], task[1], chips=1)
    with pytest.raises(ValueError, match="unknown unit"):
        mho.evaluate(converted(task), task[1], chips=1, ages=["1 fortnight"])
