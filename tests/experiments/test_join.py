"""Runs of one seed each, joined, are the run of all seeds: the same numbers to the last digit."""

import html
import json
import shutil

import numpy as np
import pytest
import torch

from mho.cli import main
from mho.costs import energy
from mho.costs.spread import Spread
from mho.errors import CheckpointError, RecipeError
from mho.evaluation.result import Result
from mho.experiments import run_recipe
from mho.experiments.costs import Joules, compared, remark_of
from mho.experiments.finished import evaluate_stored
from mho.experiments.join import join_runs
from mho.experiments.outcomes import exact
from mho.models import build
from mho.nn import calibrate, convert

RECIPE = """
name = "tiny-join"
hardware = "generic-channel"
baselines = ["quantized", "noise_injection"]
[data]
dataset = "mnist-mini"
subset = 256
batch_size = 64
[network]
model = "mlp"
args = {sizes = [784, 16, 10]}
[train]
epochs = 2
clip_sigma = 2.0
[evaluate]
chips = 3
noise_scales = [0.0, 1.0, 2.0]
ages = ["1 day"]
ages_hardware = "pcm-joshi2020"
sweep_images = 100
batch_size = 1200
[[evaluate.unseen]]
name = "log-normal"
hardware = "lognormal"
"""


DRAW = "mho.experiments.folder.run_report"


@pytest.fixture(autouse=True)
def no_pages(monkeypatch):
    """Pages take most of the time; that of the fixture ``joined`` is drawn before."""
    monkeypatch.setattr(DRAW, lambda path, page: path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The run of both seeds, and the folders of what is left of runs of one seed each without their checkpoints."""
    place = tmp_path_factory.mktemp("join")
    recipe = place / "tiny.toml"
    recipe.write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DRAW, lambda path, page: path)
        whole = run_recipe(recipe, out=place / "whole", seeds=(0, 1))
        alone = [run_recipe(recipe, out=place / f"alone{seed}", seeds=(seed,)).folder for seed in (0, 1)]
    for folder in alone:
        shutil.rmtree(next(folder.glob("seed-*")))
    return whole, alone


@pytest.fixture(scope="module")
def joined(runs, tmp_path_factory):
    return join_runs(runs[1], out=tmp_path_factory.mktemp("joined"))


@pytest.fixture
def copies(runs, tmp_path):
    """Copies of both runs of one seed, to be spoilt."""
    return [shutil.copytree(folder, tmp_path / f"copy{number}") for number, folder in enumerate(runs[1])]


def numbers(path):
    """What a file of numbers holds, but for what must differ."""
    found = json.loads(path.read_text())
    for entry in (found, found.get("summary", {})):
        entry.pop("wall_s", None), entry.pop("command", None)
    return found


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_number_is_that_of_one_run_of_all_seeds(runs, joined):
    whole, alone = runs
    assert numbers(joined.folder / "summary.json") == numbers(whole.folder / "summary.json")
    assert numbers(joined.record) == numbers(whole.record)
    assert numbers(joined.record) != numbers(alone[0] / "record.json")
    assert joined.summary["seeds"] == [0, 1] and len(joined.summary["digital"]["by_seed"]) == 2
    for name in ("recipe.toml", "hardware.toml"):
        assert (joined.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_every_outcome_is_that_of_one_run_of_all_seeds(runs, joined):
    files = sorted(p.name for p in (runs[0].folder / "results").iterdir())
    assert len(files) == 16 and files == sorted(p.name for p in (joined.folder / "results").iterdir())
    for name in files:
        ours, theirs = (Result.load(run.folder / "results" / name).data for run in (joined, runs[0]))
        assert ours.drop_attrs().identical(theirs.drop_attrs())
        assert {k for k in theirs.attrs if ours.attrs.get(k) != theirs.attrs[k]} == {"command"}


def test_it_says_what_it_is_made_of(runs, joined):
    parts = [json.loads((folder / "summary.json").read_text()) for folder in runs[1]]
    assert joined.summary["wall_s"] == pytest.approx(sum(part["wall_s"] for part in parts), abs=0.06)
    assert joined.summary["command"] == "; ".join([*(part["command"] for part in parts), "mho join"])
    page = html.unescape(joined.report.read_text()).replace("\N{NO-BREAK SPACE}", " ")
    assert joined.summary["energy"]["sentence"] in page and "Training seeds" in page
    assert "chips of pcm-joshi2020" in page and "Training loss" not in page


def test_the_order_is_that_of_the_folders_and_a_joined_run_can_be_joined(runs, joined, tmp_path):
    third = shutil.copytree(runs[1][0], tmp_path / "third")
    as_seed(third, 7)
    three = join_runs([third, joined.folder], out=tmp_path / "more").summary
    assert three["seeds"] == [7, 0, 1]
    first = json.loads((third / "summary.json").read_text())
    for name in ("int4_accuracy", "fp32_accuracy"):
        two = joined.summary["energy"][name]
        assert three["energy"][name] == pytest.approx((2 * two + first["energy"][name]) / 3, abs=1e-4)
    assert three["digital"]["by_seed"] == [first["digital"]["accuracy"], *joined.summary["digital"]["by_seed"]]


def as_seed(folder, seed):
    """Make a run of seed 0 look like one of another seed."""
    recipe = folder / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("seeds = [\n    0,\n]", f"seeds = [{seed}]"))
    for name in ("summary.json", "record.json"):
        found = json.loads((folder / name).read_text())
        found.get("summary", found)["seeds"] = [seed]
        (folder / name).write_text(json.dumps(found))
    for path in (folder / "results").iterdir():
        Result(Result.load(path).data.assign_coords(seed=np.array([seed]))).save(path)


def test_the_command_prints_the_table_of_a_run(runs, joined, tmp_path, capsys):
    record = tmp_path / "records" / "tiny.json"
    with pytest.raises(SystemExit) as ended:
        main(["join", *map(str, runs[1]), "--out", str(tmp_path / "out"), "--record", str(record)])
    said = capsys.readouterr()
    assert ended.value.code == 0 and said.err == ""
    assert numbers(record) == numbers(joined.record)
    lines = said.out.splitlines()
    assert lines[-2] == joined.summary["energy"]["sentence"]
    assert lines[-1] == f"report: {tmp_path / 'out' / 'tiny-join' / 'report.html'}"
    assert sum("on the chips" in line for line in lines) == 4


def test_networks_of_a_joined_run_are_not_trained_anew(joined):
    with pytest.raises(CheckpointError, match="no checkpoint is in it"):
        evaluate_stored(joined.folder)
    assert not list(joined.folder.glob("seed-*"))


# --- what is not joined ----------------------------------------------------------------------------------------------


def test_two_runs_at_least_and_every_seed_once(runs, tmp_path):
    for folders in ([], runs[1][:1]):
        with pytest.raises(CheckpointError, match="at least two runs"):
            join_runs(folders, out=tmp_path)
    with pytest.raises(CheckpointError, match="training seed 1 is in"):
        join_runs([runs[0].folder, runs[1][1]], out=tmp_path)
    with pytest.raises(CheckpointError, match="no finished run is in it"):
        join_runs([runs[1][0], tmp_path], out=tmp_path)
    assert not (tmp_path / "tiny-join").exists()


def test_an_energy_based_run_is_refused(runs, tmp_path):
    (tmp_path / "summary.json").write_text('{"experiment": "eqprop"}')
    with pytest.raises(CheckpointError, match="eqprop"):
        join_runs([runs[1][0], tmp_path], out=tmp_path / "out")


def test_another_recipe_is_named_by_its_keys_and_where_a_hardware_file_lies_does_not_matter(copies, tmp_path):
    edit(copies[1] / "recipe.toml", 'hardware = "generic-channel"', 'hardware = "elsewhere/own.toml"')
    assert join_runs(copies, out=tmp_path / "out").summary["hardware"] == "generic-channel"
    edit(copies[1] / "recipe.toml", "epochs = 2", "epochs = 3")
    edit(copies[1] / "recipe.toml", "clip_sigma = 2.0", "")
    with pytest.raises(RecipeError, match=r"train.epochs \(2, 3\); train.clip_sigma \(2.0, None\)\. Fix"):
        join_runs(copies, out=tmp_path / "out")


def test_other_hardware_is_named_by_its_keys(copies, tmp_path):
    edit(copies[1] / "hardware.toml", "programming_noise = 0.1", "programming_noise = 0.2")
    with pytest.raises(CheckpointError, match=r"hardware, in cell.programming_noise \(0.1, 0.2\)"):
        join_runs(copies, out=tmp_path / "out")


def test_other_networks_are_refused(copies, tmp_path):
    edit(copies[1] / "record.json", '"parameters": 12730', '"parameters": 12731')
    with pytest.raises(CheckpointError, match=r"different networks, in parameters \(12730, 12731\)"):
        join_runs(copies, out=tmp_path / "out")


def test_another_version_is_said(copies, tmp_path):
    said = []
    summary = json.loads((copies[1] / "summary.json").read_text())
    summary["versions"]["mho"] = "9.9"
    (copies[1] / "summary.json").write_text(json.dumps(summary))
    found = join_runs(copies, out=tmp_path / "out", say=said.append)
    assert len(said) == 1 and said[0].startswith("warning") and "'9.9'" in said[0]
    assert found.summary["versions"]["mho"] != "9.9"


def test_files_that_are_missing_or_of_another_run_are_named(copies, tmp_path):
    edit(copies[0] / "recipe.toml", "    0,\n", "    5,\n")
    with pytest.raises(CheckpointError, match="recipe has seeds 5, other files have 0"):
        join_runs(copies, out=tmp_path / "out")
    edit(copies[0] / "recipe.toml", "    5,\n", "    0,\n")
    result = copies[0] / "results" / "age_hardware_aware.npz"
    kept = result.read_bytes()
    shutil.copy(copies[1] / "results" / "age_hardware_aware.npz", result)
    with pytest.raises(CheckpointError, match="recipe has seeds 0, other files have 1"):
        join_runs(copies, out=tmp_path / "out")
    result.unlink()
    with pytest.raises(CheckpointError, match=r"age_hardware_aware.npz"):
        join_runs(copies, out=tmp_path / "out")
    result.write_bytes(kept)
    edit(copies[0] / "summary.json", '"int8_accuracy"', '"int8"')
    with pytest.raises(CheckpointError, match=r"no 'int8_accuracy' in summary\.json"):
        join_runs(copies, out=tmp_path / "out")
    (copies[1] / "record.json").unlink()
    with pytest.raises(CheckpointError, match=r"record.json: cannot be read"):
        join_runs(copies[::-1], out=tmp_path / "out")


def test_a_run_is_never_written_over(runs, copies, tmp_path):
    with pytest.raises(CheckpointError, match="a run of its own"):
        join_runs(runs[1], out=runs[0].folder.parent)  # another run with checkpoints
    before = (runs[1][0] / "summary.json").read_bytes()
    with pytest.raises(CheckpointError, match="a run of its own"):
        join_runs(runs[1], out=runs[1][0].parent)  # one of those that are joined
    assert (runs[1][0] / "summary.json").read_bytes() == before


# --- the parts -------------------------------------------------------------------------------------------------------


def test_rounded_percentages_are_whole_images_again():
    right = np.array([1, 2, 1199, 2399, 2400])
    assert [exact(round(100 * k / 2400, 4), 2400) for k in right] == [100.0 * (k / 2400) for k in right]
    assert exact(round(100 * (1000 + 1001) / 4800, 4), 2400, 2) == 100.0 * (2001 / 4800)


def test_the_remark_of_a_run_is_what_its_sentence_says_besides_accuracies():
    joules = Joules("45 nm", Spread(1.0, 2.0, 3.0), {"fp32": Spread(9.0, 9.0, 9.0)}, True, "In 45 nm, links.")
    aware = Result.of(np.arange(200).reshape(1, 2, 1, 1, 1, 100) % 50 > 0)
    costs = compared(joules, "own", aware, {"fp32": 98.0})
    assert costs.sentence.startswith("At equal accuracy") and costs.sentence.endswith("98.00 % at fp32.")
    assert remark_of(costs.sentence, costs) == "In 45 nm, links."
    assert remark_of(costs.sentence.replace("At equal", "Equal"), costs) == ""


def test_hardware_without_prices_keeps_its_verdict():
    net = calibrate(convert(build("mlp", sizes=(4, 3)), "ideal"), [torch.randn(8, 4)])
    report = energy(net, torch.randn(8, 4))
    costs = compared(
        Joules.of(report),
        "ideal",
        Result.of(np.ones((1, 2, 1, 1, 1, 9), bool)),
        dict.fromkeys(("fp32", "int8", "int4"), 98.0),
    )
    assert costs.equal is None and costs.sentence.startswith(report.verdict("int8"))
    read = Joules.read(costs.numbers())
    assert (read.analog, read.complete, read.digital) == (None, False, Joules.of(report).digital)
    assert remark_of(costs.sentence, costs) == report.verdict("int8")
