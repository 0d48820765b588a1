"""``mho run ebm-eqprop`` on a few images: files, numbers, resuming."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from mho.errors import RecipeError
from mho.experiments.ebm.eqprop import Settings, run
from mho.train.recipe import recipes_of


def small(**changes: object) -> Settings:
    tables = {
        "name": "small",
        "data": {"subset": 200, "batch_size": 50},
        "network": {"units": [16], "free_steps": 10},
        "train": {"epochs": 1, "free_steps": 8, "nudged_steps": 6, "settle": 6, "reads": 2},
        "evaluate": {"chips": 2, "noise_scales": [0.0, 1.0], "sweep_chips": 2, "sweep_images": 100, "settle": 6},
    }
    return Settings.model_validate({**tables, **changes})


def test_a_run_writes_its_files_and_resumes_to_the_same_numbers(tmp_path: Path) -> None:
    said: list[str] = []
    found = run(small(), out=tmp_path, say=said.append)
    for name in ("settings.json", "hardware.toml", "summary.json", "record.json", "report.html"):
        assert (found.folder / name).is_file(), name
    assert found.summary["hardware_aware"]["clean"] > 10
    record = json.loads(found.record.read_text())
    assert len(record["final"]["noise_free"][0]) == 2
    assert record["noise"]["hardware_aware"]["noise_scale"] == [0.0, 1.0]
    page = found.report.read_text()
    assert "Energy on the way to rest" in page and "Distance from rest" in page
    assert any("2 chips" in line for line in said)
    again = run(small(), out=tmp_path, resume=True)
    for name in ("noise_free", "hardware_aware"):
        assert again.summary[name] == found.summary[name]


@pytest.mark.parametrize("name", [n for n in recipes_of("mho.experiments.ebm") if n.startswith("ebm-eqprop")])
def test_built_in_recipes_are_valid(name: str) -> None:
    import tomllib

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
    assert not list(tmp_path.iterdir())


def test_one_of_the_two_networks_is_enough(tmp_path: Path) -> None:
    train = {"epochs": 1, "free_steps": 8, "nudged_steps": 6, "settle": 6, "reads": 2, "on_chips": False}
    found = run(small(train=train, evaluate={"chips": 2, "noise_scales": []}), out=tmp_path)
    assert "hardware_aware" not in found.summary and found.summary["noise_free"]["chips"] == 2
    assert found.summary["sentence"].startswith("Trained without noise")
    with pytest.raises(ValidationError, match="nothing to train"):
        small(train={"noise_free": False, "on_chips": False})
