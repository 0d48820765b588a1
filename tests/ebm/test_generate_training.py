"""Training: likelihood rises, a broken run resumes to the same bits, and the whole experiment writes its files."""

import itertools
import json
from dataclasses import replace

import pytest
import torch

from mho.data import load_dataset
from mho.ebm.generate import (
    BitFlips,
    DenoisingModel,
    DiffusionTraining,
    PersistentTraining,
    RestrictedMachine,
    Schedule,
    Training,
    VirtualSampler,
    binarized,
    cosine_flips,
    generate,
    place,
    sample_diffusion,
    sample_rbm,
    train,
    train_diffusion,
    train_rbm,
)
from mho.ebm.generate.training import chip_of_update
from mho.errors import CheckpointError, TrainingError
from mho.experiments.ebm import generate as experiment
from mho.experiments.ebm import generate_compare
from mho.rng import stream

BARS = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]])
"""Two images of 2 x 2 pixels: the upper row or the lower row."""


def model_of(levels: tuple[float, ...] = (0.2, 0.5)) -> DenoisingModel:
    return DenoisingModel(place(2, 2, connectivity=8), BitFlips(levels), coupling_limit=1.0)


SHORT = Training(updates=12, batch=8, sweeps=4, check_every=4, lr=0.02)


def test_training_learns_which_images_there_are():
    model = model_of()
    train(model, BARS, Training(updates=400, batch=32, sweeps=20, check_every=400, lr=0.05))
    for sampler in (VirtualSampler(), VirtualSampler(temperature_error=0.2), VirtualSampler(coupling_error=0.05)):
        made = generate(model, 512, sampler=sampler, schedule=Schedule(20))
        good = [(made == bar).all(1).float().mean() for bar in BARS]
        assert sum(good) > 0.75 and min(good) > 0.2  # chance: 1/8


def test_a_broken_run_resumes_to_the_same_bits(tmp_path):
    whole, broken, resumed = model_of(), model_of(), model_of()
    checks = train(whole, BARS, SHORT)

    def stop(check):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(broken, BARS, SHORT, checkpoint=tmp_path, on_check=stop)
    found = train(resumed, BARS, SHORT, checkpoint=tmp_path, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert [c.autocorrelation for c in found] == [c.autocorrelation for c in checks]
    assert [c.penalty for c in found] == [c.penalty for c in checks]


def test_a_save_of_other_settings_is_refused(tmp_path):
    train(model_of(), BARS, SHORT, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match="lr was"):
        train(model_of(), BARS, replace(SHORT, lr=0.01), checkpoint=tmp_path, resume=True)


def test_parameters_stay_inside_their_full_scale():
    model = DenoisingModel(place(2, 2, connectivity=8), BitFlips((0.5,)), coupling_limit=0.05, bias_limit=0.1)
    train(model, BARS, replace(SHORT, lr=0.5))
    assert float(model.couplings[0].detach().abs().max()) <= 0.05 + 1e-7
    assert float(model.biases[0].detach().abs().max()) <= 0.1 + 1e-7


def test_each_update_meets_a_sampler_within_its_range():
    chips = [chip_of_update(Training(), update) for update in range(300)]
    errors = torch.tensor([c.temperature_error for c in chips])
    assert -0.2 <= float(errors.min()) < -0.15 and 0.2 < float(errors.max()) <= 0.25
    levels = sorted({c.coupling_error for c in chips})
    assert levels == pytest.approx([0.05 * k / 7 for k in range(8)])
    assert chip_of_update(Training(), 5) == chips[5]
    exact = Training(coupling_error=0.0, temperature_range=0.0)
    assert chip_of_update(exact, 5) == VirtualSampler()


@pytest.mark.parametrize("change", [{"updates": 0}, {"batch": 1}, {"sweeps": 1}, {"lr": -1.0}, {"lr": float("nan")}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(TrainingError, match=next(iter(change))):
        Training(**change)


def test_images_of_another_size_are_refused():
    with pytest.raises(TrainingError, match="visible nodes"):
        train(model_of(), torch.ones(3, 5), SHORT)


def rbm_log_likelihood(machine: RestrictedMachine, images: torch.Tensor) -> float:
    states = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)))

    def free(v):
        field = v @ machine.weight + machine.hidden_bias
        return v @ machine.visible_bias + torch.nn.functional.softplus(2 * field).sub(field).sum(1)

    with torch.no_grad():
        return float(free(images).mean() - torch.logsumexp(free(states), 0))


def test_the_restricted_machine_learns_the_two_images():
    machine = RestrictedMachine(4, 4)
    before = rbm_log_likelihood(machine, BARS)
    train_rbm(machine, BARS, PersistentTraining(updates=400, batch=32, chains=64, lr=0.02))
    assert before == pytest.approx(-4 * 0.6931, abs=1e-3)
    assert rbm_log_likelihood(machine, BARS) > -1.6  # the best: -ln 2
    assert sample_rbm(machine, 9, sweeps=3).shape == (9, 4)


def test_the_digital_diffusion_learns_a_constant_image():
    image = torch.where(torch.rand(1, 784, generator=stream(0, "image")) < 0.2, 1.0, -1.0)
    flips = cosine_flips(3)
    network = train_diffusion(image, flips, 2, DiffusionTraining(updates=60, batch=16, lr=0.05))
    made = sample_diffusion(network, flips, 4)
    assert float((made == image).float().mean()) > 0.78  # all pixels off: 0.8 at best without learning the image
    assert torch.equal(made, sample_diffusion(network, flips, 4))


def never(*args, **options):
    raise AssertionError("trained again")


def test_the_experiment_writes_its_files_and_resumes(tmp_path, monkeypatch):
    data = load_dataset(limit_per_class=20)
    small = replace(data, test_x=data.test_x[:64], test_y=data.test_y[:64])
    monkeypatch.setattr(experiment, "load_dataset", lambda name, data_dir: small)
    settings = experiment.Settings(
        levels=(0.2, 0.5),
        connectivity=4,
        sweeps=4,
        updates=4,
        batch=4,
        check_every=2,
        rbm_updates=2,
        rbm_sweeps=2,
        diffusion_updates=2,
        diffusion_steps=2,
        judge_epochs=1,
        images=16,
        chips=2,
    )
    first = experiment.run(settings, out=tmp_path)
    page = first.report.read_text()
    assert "data:image/png;base64," in page and "Frechet distance" in page and "system model" in page
    summary = json.loads((first.folder / "summary.json").read_text())
    assert len(summary["rows"]) == 10 and set(summary["error_over_chip"]) < set(summary["rows"])
    assert summary["energy_an_image"]["p-bit sampler"]["updates"] == 2 * 4 * 1568
    assert len(json.loads(first.record.read_text())["checks"][0]) == 2
    again = experiment.run(settings, out=tmp_path, resume=True)
    assert again.summary["rows"] == first.summary["rows"]
    for name in ("train_rbm", "train_diffusion"):
        monkeypatch.setattr(generate_compare, name, never)
    monkeypatch.setattr(experiment, "train_judge", never)
    more = experiment.run(settings.model_copy(update={"images": 20, "chips": 1}), out=tmp_path, resume=True)
    assert (more.summary["images"], more.summary["chips"]) == (20, 1)
    with pytest.raises(CheckpointError, match="rbm_updates was 2 and is 3"):
        experiment.run(settings.model_copy(update={"rbm_updates": 3}), out=tmp_path, resume=True)
    (first.folder / "seed0" / "rbm.safetensors").write_bytes(b"half")
    with pytest.raises(CheckpointError, match=r"rbm\.safetensors: no weights of this baseline"):
        experiment.run(settings, out=tmp_path, resume=True)


def test_binary_digits_are_what_the_model_is_trained_on():
    data = load_dataset(limit_per_class=1)
    assert set(binarized(data.train_x).unique().tolist()) == {-1.0, 1.0}
