"""A whole run in little: every file that it promises, and what it refuses."""

import html
import json
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch

from mho.costs import energy
from mho.costs.front import Point, at_equal_accuracy
from mho.costs.spread import Spread
from mho.errors import CheckpointError, HardwareError, RecipeError
from mho.evaluation.result import Result
from mho.experiments import run_recipe
from mho.experiments.costs import Joules, RunCosts
from mho.experiments.finished import evaluate_stored
from mho.experiments.kept import fingerprint
from mho.experiments.networks import training_hardware
from mho.experiments.record import areas
from mho.hardware import Cost, dump_hardware, load_hardware
from mho.models import build
from mho.nn import calibrate, convert
from mho.train import TrainSettings, load_recipe, parse_recipe

RECIPE = """
name = "tiny"
hardware = "generic"
seeds = [0, 1]
baselines = ["quantized", "noise_injection"]
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
[[evaluate.unseen]]
name = "PCM, 1 month"
hardware = "pcm-joshi2020"
age = "1 month"
compensate = true
[[evaluate.unseen]]
name = "log-normal"
hardware = "lognormal"
"""
ON_CHIPS = ("digital_on_chips", "digital_quantized", "noise_injection", "hardware_aware")


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
    for network in ON_CHIPS:
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


def test_the_record_holds_every_chip_and_what_it_was_compared_with(run):
    found, _ = run
    record = json.loads((found.folder / "record.json").read_text())
    assert record["summary"] == found.summary
    assert record["static_noise_percent"] == 10.0 and record["classes"] == 10
    assert record["parameters"] == sum(p.numel() for p in build("lenet", width=4).parameters())
    for name in ON_CHIPS:
        entry = record["networks"][name]
        assert np.shape(entry["chips"]) == (2, 3)
        assert np.mean(entry["chips"]) == pytest.approx(found.summary[name]["mean"], abs=1e-3)
        assert np.shape(entry["noise"]["accuracy"]) == (2, 2, 3) and entry["noise"]["noise_scale"] == [0.0, 1.0]
        assert np.shape(entry["age"]["accuracy"]) == (2, 2, 3)
        assert {key: np.shape(v) for key, v in entry["unseen"].items()} == {
            "PCM, 1 month": (2, 3),
            "log-normal": (2, 3),
        }
        assert all(0 < f["rho"] <= 1 and f["mean_conductance_uS"] > 0 for f in entry["filling"])
        assert 0 <= entry["robustness"]["area"] <= 1.5 and entry["robustness"]["levels_to"] == 10.0
        assert (
            entry["robustness"]["area_to_twice"] is None and entry["robustness"]["twice"] == 20.0
        )  # sweep to 10 % alone
    against = record["against_noise_injection"]
    ours, theirs = found.summary["hardware_aware"]["mean"], found.summary["noise_injection"]["mean"]
    assert against["final"]["points"] == pytest.approx(ours - theirs, abs=1e-3)
    assert against["final"]["low"] <= against["final"]["points"] <= against["final"]["high"]
    assert [row["noise_scale"] for row in against["noise"]] == [0.0, 1.0]
    assert parse_recipe(record["recipe"]).name == "tiny"


def test_the_area_to_twice_the_noise_does_not_depend_on_where_the_sweep_ends() -> None:
    # 90 % at 0, 50 % at 20 %, 10 % at 40 %: normalised 1, 1/2, 0.
    told = {"reference": 90.0, "chance": 10.0, "level": 10.0}
    whole, half = areas([0.0, 20.0, 40.0], [90.0, 50.0, 10.0], **told), areas([0.0, 20.0], [90.0, 50.0], **told)
    assert whole == {"area": 0.5, "area_to_twice": 0.75, "twice": 20.0} and half["area"] == 0.75
    assert half["area_to_twice"] == whole["area_to_twice"]
    between = areas([0.0, 40.0], [90.0, 10.0], **told)  # 20 % is interpolated
    assert between["area_to_twice"] == 0.75
    assert areas([0.0, 10.0], [90.0, 70.0], **told)["area_to_twice"] is None
    scales = areas([0.0, 2.0, 4.0], [90.0, 50.0, 10.0], **(told | {"level": None}))
    assert scales == whole | {"twice": 2.0}


def test_bounded_weights_fill_their_range_better_than_those_scaled_by_their_largest(run):
    record = json.loads((run[0].folder / "record.json").read_text())
    rho = {name: record["networks"][name]["filling"][0]["rho"] for name in ON_CHIPS}
    assert rho["hardware_aware"] > rho["noise_injection"]


def test_a_network_that_was_not_trained_is_named(run):
    with pytest.raises(CheckpointError, match="no finished run"):
        evaluate_stored(run[0].folder.parent)
    with pytest.raises(RecipeError, match="noise_injection"):
        evaluate_stored(run[0].folder, "noise_injektion")
    result = evaluate_stored(run[0].folder, "noise_injection", chips=2)
    assert result.chips == 2


def test_training_chips_may_have_errors_that_the_hardware_has_not():
    generic = load_hardware("generic")
    assert training_hardware(generic, TrainSettings()) is generic
    other = training_hardware(generic, TrainSettings(chip_gain=0.02, chip_offset_lsb=0.5))
    assert (other.adc.gain_d2d, other.adc.offset_d2d_lsb, other.adc.bits) == (0.02, 0.5, 6)
    with pytest.raises(RecipeError, match="no ADC"):
        training_hardware(load_hardware("ideal"), TrainSettings(chip_gain=0.02))


def test_the_run_can_be_repeated_from_its_folder(run):
    folder = run[0].folder
    assert load_recipe(folder / "recipe.toml").name == "tiny"
    assert load_hardware(folder / "hardware.toml") == load_hardware("generic")
    assert tomllib.loads((folder / "recipe.toml").read_text())["train"]["clip_sigma"] == 2.0


def test_the_report_shows_the_run(run):
    page = run[0].report.read_text()
    for text in ("Hardware-aware network", "Digital network", "pcm-joshi2020", "clip_sigma", "mho run"):
        assert text in page


def test_the_run_ends_with_the_energy_of_both_networks_and_who_wins(run):
    found, _ = run
    costs = found.summary["energy"]
    for which in ("analog", "fp32", "int8", "int4"):
        low, typical, high = costs[f"{which}_J"]
        assert 0 < low <= typical <= high
    page = html.unescape(found.report.read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert costs["sentence"] in page and "analog, hardware-aware, mean over chips" in page


def test_the_sentence_compares_at_equal_accuracy_only(run):
    """On the very same report: as accurate, it compares joules; six points behind, it says that analog does not win."""
    net = calibrate(convert(build("mlp", sizes=(4, 3)), "generic"), [torch.randn(8, 4)])
    report = energy(net, torch.randn(8, 4))
    int8 = next(d.total_J for d in report.digital if d.format == "int8")

    def sentence(accuracy: float) -> str:
        analog = Point("analog on generic", report.total_J, accuracy, accuracy)
        found = at_equal_accuracy([analog], [Point("digital int8", int8, 98.0, 98.0)])
        return RunCosts(Joules.of(report), found).sentence

    assert sentence(97.9).startswith("At equal accuracy to 0.5 points (97.90 % of analog on generic, 98.00 %")
    assert "% of the analog energy is" in sentence(97.9)
    assert "No analog network comes within 0.5 points" in sentence(92.0)
    free = energy(calibrate(convert(build("mlp", sizes=(4, 3)), "ideal"), [torch.randn(8, 4)]), torch.randn(8, 4))
    assert RunCosts(Joules.of(free), None).sentence == free.verdict("int8")


def test_joules_that_may_be_0_are_not_compared():
    net = calibrate(convert(build("mlp", sizes=(4, 3)), "generic"), [torch.randn(8, 4)])
    report = energy(net, torch.randn(8, 4))
    bare = tuple(replace(layer, energy_J={"adc": Spread(0.0, 1e-12, 2e-12)}) for layer in report.layers)
    free = Joules.of(replace(report, layers=bare, static_J=None))
    assert not free.complete and "may cost nothing at all" in free.remark and free.analog.high > 0
    assert Joules.of(report).complete


def test_it_says_what_it_does(run):
    assert any("hardware-aware" in line for line in run[1])


def test_resuming_a_finished_run_trains_nothing_and_finds_the_same(run, recipe):
    found, _ = run
    again = run_recipe(recipe, out=found.folder.parent, resume=True)
    for key in ("digital", *ON_CHIPS):
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
    generic = load_hardware("generic")
    lacking = generic.replace(cost=Cost(node_nm=250, supply_V=2.5))  # its joules would fail after training
    (tmp_path / "lacking.toml").write_text(dump_hardware(lacking))
    broken.write_text(RECIPE.replace('"generic"', '"lacking.toml"'))
    with pytest.raises(HardwareError, match=r"cost\.node_nm = 250.*cost\.move\.buffer_pJ"):
        run_recipe(broken, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path, recipe):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot be made"):
        run_recipe(recipe, out=blocked)


def test_seeds_measured_one_by_one_are_the_run_of_all_and_are_not_measured_again(run, recipe, tmp_path, monkeypatch):
    whole = run[0].summary
    for seed in (0, 1):
        run_recipe(recipe, out=tmp_path, seeds=(seed,))
    monkeypatch.setattr("mho.experiments.measure.evaluate", lambda *_, **__: pytest.fail("measured again"))
    joined = run_recipe(recipe, out=tmp_path, resume=True).summary
    for network in ON_CHIPS:
        assert joined[network] == whole[network]


def test_a_measurement_belongs_to_its_weights_and_its_conditions():
    network = convert(build("lenet", width=4), load_hardware("generic"))
    key = fingerprint(network, {"chips": 3})
    assert key == fingerprint(network, {"chips": 3}) != fingerprint(network, {"chips": 4})
    with torch.no_grad():
        next(network.parameters())[0] += 1e-3
    assert key != fingerprint(network, {"chips": 3})
