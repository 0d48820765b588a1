"""``mho sweep`` as a person meets it, on real networks."""

import shutil
from pathlib import Path

import pytest
import torch

from mho.campaign import engine, load_campaign, read_results
from mho.campaign.plan import plan
from mho.campaign.settings import parse_campaign
from mho.campaign.work import campaign_work
from mho.cli import main
from mho.errors import CheckpointError, RecipeError
from mho.experiments.finished import evaluate_stored

RECIPE = """
name = "tiny"
baselines = []
[data]
subset = 256
batch_size = 64
[network]
model = "mlp"
args = {sizes = [784, 16, 10]}
[train]
epochs = 1
[evaluate]
chips = 2
batch_size = 1200
"""
CAMPAIGN = """
name = "first"
recipes = ["tiny.toml"]
seeds = [0]
[evaluate]
networks = ["hardware_aware", "digital"]
hardware = ["generic", "pcm-joshi2020"]
noise_scales = [1, 2]
ages = ["1 day"]
compensate = true
chips = 3
lots = [5]
batch_size = 1200
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("sweep")
    (made / "tiny.toml").write_text(RECIPE)
    (made / "campaign.toml").write_text(CAMPAIGN)
    return made


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.delenv("MHO_DATA", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main(list(map(str, arguments)))
        found = capsys.readouterr()
        return stopped.value.code, found.out, found.err

    return run


def sweep(call, folder, *options):
    return call("sweep", folder / "campaign.toml", "--out", folder / "out", "--workers", 1, *options)


def test_a_campaign_of_a_training_and_eight_evaluations(call, folder):
    code, out, err = sweep(call, folder)
    assert code == 0, err
    assert out.splitlines()[0] == "9 of 9 cells done"
    assert "9/9 done: tiny, seed 0" in err and "left)" in err
    assert (folder / "out/first/report.html").is_file() and str(folder / "out/first/results.parquet") in out


def test_a_cell_is_what_mho_evaluate_says_of_the_same_network(folder):
    (run,) = (folder / "out/first/runs").glob("tiny-*")
    for row in read_results(folder / "out/first").to_pylist():
        if row["kind"] == "run":
            continue
        expected = evaluate_stored(
            run, row["network"], hardware=row["hardware"], chips=3, ages=["1 day"], seed=5, compensate=True,
            noise_scales=[row["noise_scale"]],
        )  # fmt: skip
        assert row["accuracy"] == pytest.approx(expected.accuracy().to_numpy().ravel().tolist())


def test_the_page_has_every_part(folder):
    page = (folder / "out/first/report.html").read_text()
    for text in (
        "9 of 9 cells are done",
        "tiny: accuracy against noise",
        "Trained networks",
        "The interval of the mean",
    ):
        assert text in page
    assert "Cells that failed" not in page


def test_called_again_it_starts_nobody_and_changes_nothing(call, folder, monkeypatch):
    before = read_results(folder / "out/first").to_pylist()
    monkeypatch.setattr(engine, "Pool", None)
    code, out, err = sweep(call, folder)
    assert code == 0 and out.startswith("9 of 9 cells done") and not err
    assert read_results(folder / "out/first").to_pylist() == before


def test_a_longer_list_runs_only_what_is_new_and_a_failure_is_exit_code_1_until_it_is_mended(call, folder):
    before = read_results(folder / "out/first").to_pylist()
    (run,) = (folder / "out/first/runs").glob("tiny-*")
    (run / "hardware.toml").rename(run / "away.toml")  # a part of the run is gone
    (folder / "campaign.toml").write_text(CAMPAIGN.replace("[1, 2]", "[1, 2, 3]"))
    code, out, err = sweep(call, folder)
    assert code == 1 and out.startswith("9 of 13 cells done\n4 failed") and "hardware.toml" in out
    assert err.startswith("9/13") and "10/13 failed: tiny" in err
    (run / "away.toml").rename(run / "hardware.toml")
    code, out, _ = sweep(call, folder, "--quiet", "--retry")
    assert code == 0 and out.startswith("13 of 13 cells done")
    after = {row["id"]: row for row in read_results(folder / "out/first").to_pylist()}
    assert len(after) == 13 and all(after[row["id"]] == row for row in before)


def test_the_networks_of_a_finished_run_need_no_training(folder):
    (run,) = (folder / "out/first/runs").glob("tiny-*")
    grid = 'networks = ["hardware_aware", "digital"]\nnoise_scales = [1]\nages = ["1 day"]\nchips = 3\nlots = [5]\n'
    grid += "batch_size = 1200\n"
    (folder / "runs.toml").write_text(f'name = "again"\nruns = ["{run}"]\n[evaluate]\ncompensate = true\n{grid}')
    cells = plan(load_campaign(folder / "runs.toml"), folder)
    assert [cell.kind for cell in cells] == ["evaluate"] * 2 and not any(cell.after for cell in cells)
    rows = read_results(folder / "out/first").to_pylist()
    threads = torch.get_num_threads()
    do = campaign_work()
    try:
        for cell in cells:
            labels = {"network": cell.labels.network, "hardware": "generic", "noise_scale": 1.0, "age_s": 86400.0}
            (row,) = [r for r in rows if all(r[key] == value for key, value in labels.items())]
            assert do(cell).correct.mean(1) * 100 == pytest.approx(row["accuracy"])
    finally:
        torch.set_num_threads(threads)


def test_a_run_without_checkpoints_is_refused_and_nothing_is_trained(folder, tmp_path):
    (run,) = (folder / "out/first/runs").glob("tiny-*")
    copy = shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "again.toml").write_text(f'name = "again"\nruns = ["{copy}"]\n[evaluate]\nchips = 1\n')
    (cell,) = plan(load_campaign(tmp_path / "again.toml"), tmp_path)
    shutil.rmtree(copy / "seed-0")
    with pytest.raises(RecipeError, match=r"campaign again: runs: .*seed-0.digital: no checkpoint"):
        plan(load_campaign(tmp_path / "again.toml"), tmp_path)
    threads = torch.get_num_threads()
    try:
        with pytest.raises(CheckpointError, match=r"no checkpoint.*Way out"):
            campaign_work()(cell)
    finally:
        torch.set_num_threads(threads)
    assert not (copy / "seed-0").exists()


def test_paths_in_cells_hold_in_any_folder(folder, tmp_path, monkeypatch):
    (run,) = (folder / "out/first/runs").glob("tiny-*")
    shutil.copytree(run, tmp_path / "old")
    (tmp_path / "own.toml").write_text((run / "hardware.toml").read_text())
    for name, hardware in (("one", "own.toml"), ("two", "generic")):
        (tmp_path / f"{name}.toml").write_text(f'hardware = "{hardware}"\n' + RECIPE.replace("tiny", name))
    campaign = parse_campaign('name = "c"\nrecipes = ["one.toml", "two.toml"]\nruns = ["old"]\n[evaluate]\n')
    monkeypatch.chdir(tmp_path)
    cells = plan(campaign, tmp_path / "out")
    hardware = [cell.given["recipe"].hardware for cell in cells if cell.kind == "run"]
    assert hardware == [str(tmp_path / "own.toml"), "generic"]
    assert all(Path(cell.given["folder"]).is_absolute() for cell in cells if cell.kind == "evaluate")


def test_an_error_of_the_campaign_is_exit_code_2(call, folder):
    (folder / "bad.toml").write_text(CAMPAIGN.replace("noise_scales", "noise_scale"))
    code, out, err = call("sweep", folder / "bad.toml")
    assert code == 2 and not out and "Did you mean 'noise_scales'" in err
