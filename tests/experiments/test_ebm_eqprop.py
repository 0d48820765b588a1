"""``mho run ebm-eqprop`` on a few images: files, numbers, resuming."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from mho.data import load_dataset
from mho.ebm import evaluate_on_chips
from mho.errors import CheckpointError, RecipeError
from mho.experiments.ebm import eqprop_judge
from mho.experiments.ebm.eqprop import Settings, run
from mho.experiments.kinds import run_any
from mho.hardware import ConstantStep, GenericCell, Hardware, Mapping, PulsedDevice, dump_hardware
from mho.train import load_checkpoint
from mho.train.recipe import recipes_of


def small(**changes: object) -> Settings:
    tables = {
        "name": "small",
        "data": {"subset": 200, "batch_size": 50},
        "network": {"units": [16], "free_steps": 10},
        "train": {"epochs": 1, "free_steps": 8, "nudged_steps": 6, "settle": 6, "reads": 2},
        "evaluate": {"chips": 2, "noise_scales": [0.0, 1.0], "sweep_chips": 2, "sweep_images": 100, "ages": ["1 day"]},
    }
    return Settings.model_validate({**tables, **changes})


def never(*args: object, **options: object) -> None:
    raise AssertionError("measured again")


def test_a_run_writes_its_files_and_resumes_to_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    found = run(small(), out=tmp_path, say=said.append)
    for name in ("settings.json", "hardware.toml", "summary.json", "record.json", "report.html"):
        assert (found.folder / name).is_file(), name
    assert found.summary["hardware_aware"]["clean"] > 10
    record = json.loads(found.record.read_text())
    assert len(record["final"]["noise_free"][0]) == 2
    assert record["noise"]["hardware_aware"]["noise_scale"] == [0.0, 1.0]
    assert record["age"]["noise_free"]["age_s"] == [86_400.0]
    page = found.report.read_text()
    assert "Accuracy against age" in page and "Its updates are written exactly" in page
    assert "Energy on the way to rest" in page and "Distance from rest" in page
    assert any("2 chips" in line for line in said)
    for name in ("evaluate_on_chips", "digital_accuracy"):
        monkeypatch.setattr(eqprop_judge, name, never)
    again = run(small(), out=tmp_path, resume=True)
    for name in ("digital", "noise_free", "hardware_aware"):
        assert again.summary[name] == found.summary[name]
    measured: list[dict[str, Any]] = []

    def counted(*args: Any, **options: Any) -> Any:
        measured.append(options)
        return evaluate_on_chips(*args, **options)

    monkeypatch.setattr(eqprop_judge, "evaluate_on_chips", counted)
    more = run(small(evaluate={**small().evaluate.model_dump(), "chips": 3}), out=tmp_path, resume=True)
    assert more.summary["hardware_aware"]["chips"] == 3
    assert [(m["chips"], "noise_scales" in m, "ages" in m) for m in measured] == [(3, False, False)] * 2
    for name, epochs in json.loads(more.record.read_text())["training"].items():  # no network was trained again
        assert epochs[0]["epochs"] == record["training"][name][0]["epochs"]
    with pytest.raises(CheckpointError, match=r"train\.lr was 0\.002 and is 0\.01"):
        run(small(train={**small().train.model_dump(), "lr": 0.01}), out=tmp_path, resume=True)


@pytest.mark.parametrize("name", [n for n in recipes_of("mho.experiments.ebm") if n.startswith("ebm-eqprop")])
def test_built_in_recipes_are_valid(name: str) -> None:
    tables = tomllib.loads(recipes_of("mho.experiments.ebm")[name].read_text())
    assert tables.pop("experiment") == "eqprop"
    settings = Settings.model_validate(tables)
    assert settings.name == name
    settings.hw()


def test_mistakes_are_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="extra"):
        small(train={"epoch": 1})
    with pytest.raises(RecipeError, match="laws of their own"):
        run(small(hardware="pcm-hermes"), out=tmp_path)
    with pytest.raises(RecipeError, match="conv has 2 numbers"):
        run(small(network={"kind": "conv", "channels": [4]}), out=tmp_path)
    with pytest.raises(RecipeError, match=r"generic-channel does not say .*\[update\]"):
        run(small(train={"update": "pulses"}), out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_chips_are_read_as_long_as_an_inference_takes() -> None:
    deep = small(
        network={"kind": "conv", "free_steps": 30}, train={"free_steps": 25, "reads": 5}, evaluate={"reads": 6}
    )
    hw = deep.hw()
    assert (deep.judging(hw).settle, deep.judging(hw).reads) == (24, 6)
    training = deep.loss(hw).dynamics
    assert training is not None and (training.settle, training.reads) == (20, 5)
    assert small(network={"free_steps": 4}, evaluate={"reads": 6}).judging(hw).settle == 0
    assert small(evaluate={"settle": 7}).judging(hw).settle == 7


def test_the_mnist_recipe_reads_chips_as_its_figures_were_made() -> None:
    tables = tomllib.loads(recipes_of("mho.experiments.ebm")["ebm-eqprop-mnist"].read_text())
    del tables["experiment"]
    settings = Settings.model_validate(tables)
    judged, trained = settings.judging(settings.hw()), settings.loss(settings.hw()).dynamics
    assert trained is not None and (judged.settle, judged.reads, trained.settle, trained.reads) == (12, 8, 12, 4)


def test_none_in_toml_is_a_word_and_the_hardwares_own_laws_are_within_reach() -> None:
    own = {"programming_noise": "none", "read_noise": "none", "bits": "none"}
    settings = small(hardware="pcm-hermes", conditions=own, network={"bound_sigma": "none"})
    assert settings.hw().name == "pcm-hermes" and settings.network.bound_sigma is None
    again = Settings.model_validate_json(settings.model_dump_json())
    assert again == settings


def test_pixels_are_shifted_and_divided_as_the_recipe_says() -> None:
    data = load_dataset("mnist-mini")
    for pixels in ("unit", "normalised"):
        plain = small(data={"pixels": pixels}).pictures(data)
        scaled = small(data={"pixels": pixels, "pixel_scale": 3.0}).pictures(data)
        assert torch.allclose(scaled.normalise(data.test_x[:5]) * 3.0, plain.normalise(data.test_x[:5]), atol=1e-5)
    far = small(data={"augment": ["shift"], "max_shift": 6, "batch_size": 200, "subset": 200})
    near = small(data={"augment": ["shift"], "batch_size": 200, "subset": 200})
    rows = [next(iter(s.batches(s.pictures(data), 0)))[0].amax((0, 1, 3)) > 0 for s in (far, near)]
    assert int(rows[0].sum()) > int(rows[1].sum())


def test_what_no_network_of_a_recipe_can_do_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('experiment = "eqprop"\n[train]\nvariant = "holomorphic"\n')
    with pytest.raises(RecipeError, match=r"clipping is not analytic.*Sigmoid"):
        run_any(path, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    assert small(train={"variant": "holomorphic", "points": 2}).train.points == 2  # two points are the centred rule
    with pytest.raises(ValidationError, match="only SGD with a momentum"):
        small(train={"nesterov": True})
    with pytest.raises(ValidationError, match="no network is trained on cells"):
        small(train={"update": "pulses", "on_chips": False})


def test_cells_write_the_updates_that_a_recipe_asks_for(tmp_path: Path) -> None:
    device = PulsedDevice(response=ConstantStep(), dw_min=0.002)
    cell = GenericCell(programming_noise=0.05, read_noise=0.01)
    hw = Hardware(name="pulsed", cell=cell, update=device, mapping=Mapping(scheme="signed"))
    (tmp_path / "pulsed.toml").write_text(dump_hardware(hw))
    train = {"epochs": 1, "free_steps": 6, "nudged_steps": 4, "noise_free": False, "update": "pulses"}
    with pytest.raises(RecipeError, match="share of a fixed full scale"):
        small(hardware=str(tmp_path / "pulsed.toml"), train=train, network={"bound_sigma": "none"}).hw()
    settings = small(
        hardware=str(tmp_path / "pulsed.toml"), train=train, evaluate={"chips": 2, "noise_scales": [], "reads": 2}
    )
    found = run(settings, out=tmp_path)
    assert "as the cells of pulsed answer to pulses" in found.report.read_text()
    saved = load_checkpoint(found.folder / "seed0" / "hardware_aware")
    assert saved is not None and saved.optimizer is not None and saved.optimizer["achievable"]["steps"] == 4


def test_one_of_the_two_networks_is_enough(tmp_path: Path) -> None:
    train = {"epochs": 1, "free_steps": 8, "nudged_steps": 6, "settle": 6, "reads": 2, "on_chips": False}
    found = run(small(train=train, evaluate={"chips": 2, "noise_scales": []}), out=tmp_path)
    assert "hardware_aware" not in found.summary and found.summary["noise_free"]["chips"] == 2
    assert found.summary["sentence"].startswith("Trained without noise")
    with pytest.raises(ValidationError, match="nothing to train"):
        small(train={"noise_free": False, "on_chips": False})
