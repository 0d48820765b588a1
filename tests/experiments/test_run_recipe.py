"""A whole run in little: every file that it promises, and what it refuses."""

import json
import tomllib

import pytest

from mho.errors import CheckpointError, HardwareError, RecipeError
from mho.evaluation.result import Result
from mho.experiments import run_recipe
from mho.hardware import load_hardware
from mho.train import load_recipe

RECIPE = """
name = "tiny"
hardware = "generic"
seeds = [0, 1]
[data]
dataset = "mnist-mini"
subset = 512
batch_size = 64
[network]
model = "lenet"
args = {width = 4}
[train]
epochs = 1
ema_decay = 0.9
clip_sigma = 2.0
[evaluate]
chips = 3
noise_scales = [0.0, 1.0]
ages = ["25 s", "1 year"]
ages_hardware = "pcm-joshi2020"
sweep_images = 100
batch_size = 1200
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    said = []
    return run_recipe(recipe, out=tmp_path_factory.mktemp("runs"), say=said.append), said


def test_the_summary_has_the_promised_keys(run):
    found, _ = run
    summary = json.loads((found.folder / "summary.json").read_text())
    assert summary == found.summary
    assert summary["name"] == "tiny" and summary["hardware"] == "generic" and summary["seeds"] == [0, 1]
    assert set(summary["digital"]) >= {"accuracy"}
    for network in ("digital_on_chips", "digital_quantized", "hardware_aware"):
        assert set(summary[network]) >= {"clean", "mean", "std", "p5", "worst", "ci95", "chips"}
        assert summary[network]["worst"] <= summary[network]["p5"] <= summary[network]["mean"]
        assert summary[network]["ci95"][0] <= summary[network]["mean"] <= summary[network]["ci95"][1]
        assert summary[network]["chips"] == 3
    assert summary["images"] == 2400
    assert set(summary["versions"]) >= {"mho", "torch"}
    assert summary["wall_s"] > 0


def test_every_outcome_is_kept(run):
    folder = run[0].folder / "results"
    final = Result.load(folder / "final_hardware_aware.npz")
    assert final.data["correct"].shape == (2, 3, 1, 1, 1, 2400)
    assert Result.load(folder / "noise_digital_on_chips.npz").data["correct"].shape == (2, 3, 1, 2, 1, 100)
    age = Result.load(folder / "age_hardware_aware.npz")
    assert age.data["correct"].shape == (2, 3, 2, 1, 1, 100)
    assert age.data.attrs["hardware"] == "pcm-joshi2020" and age.data.attrs["compensated"]


def test_the_run_can_be_repeated_from_its_folder(run):
    folder = run[0].folder
    assert load_recipe(folder / "recipe.toml").name == "tiny"
    assert load_hardware(folder / "hardware.toml") == load_hardware("generic")
    assert tomllib.loads((folder / "recipe.toml").read_text())["train"]["clip_sigma"] == 2.0


def test_the_report_shows_the_run(run):
    page = run[0].report.read_text()
    for text in ("Hardware-aware network", "Digital network", "pcm-joshi2020", "clip_sigma", "mho run"):
        assert text in page


def test_it_says_what_it_does(run):
    assert any("hardware-aware" in line for line in run[1])


def test_resuming_a_finished_run_trains_nothing_and_finds_the_same(run, recipe):
    found, _ = run
    again = run_recipe(recipe, out=found.folder.parent, resume=True)
    for key in ("digital", "digital_on_chips", "digital_quantized", "hardware_aware"):
        assert again.summary[key] == found.summary[key]


def test_nothing_is_written_for_a_wrong_recipe(tmp_path, recipe):
    with pytest.raises(RecipeError, match="mnist-mini"):
        run_recipe("mnist-mni", out=tmp_path / "runs")
    broken = tmp_path / "broken.toml"
    broken.write_text(RECIPE.replace("clip_sigma", "clip_sigmas"))
    with pytest.raises(RecipeError, match="clip_sigma"):
        run_recipe(broken, out=tmp_path / "runs")
    broken.write_text(RECIPE.replace('"generic"', '"genric"'))
    with pytest.raises(HardwareError, match="generic"):
        run_recipe(broken, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path, recipe):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be made"):
        run_recipe(recipe, out=blocked)
