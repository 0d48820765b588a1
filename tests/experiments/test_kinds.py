"""A recipe says which experiment it is; every built-in one is sound, and every typo has an answer."""

import json
from pathlib import Path

import numpy as np
import pytest

from mho.cli import main
from mho.errors import RecipeError
from mho.evaluation.result import Result
from mho.experiments.kinds import all_recipes, check_recipe, run_any
from mho.experiments.run_kinds import kind_of_run
from mho.train import builtin_recipes
from mho.train.recipe import recipes_of


@pytest.mark.parametrize("name", all_recipes())
def test_every_built_in_recipe_is_one(name: str) -> None:
    found = recipes_of("mho.train") | recipes_of("mho.experiments.ebm")
    check_recipe(found[name].read_text("utf-8"), name)


def test_energy_based_recipes_stand_beside_the_others() -> None:
    assert {"ebm-eqprop", "ebm-resistive", "ebm-generate"} <= set(all_recipes()) - set(builtin_recipes())
    assert set(builtin_recipes()) < set(all_recipes())


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ('experiment = "eqprob"', r"experiment = 'eqprob' is not known\. Did you mean 'eqprop'"),
        ('experiment = "eqprop"\nhardwear = "generic"', "hardwear is not a known key"),
        ('experiment = "eqprop"\n[train]\nepoch = 3', r"train\.epoch is not a known key.*'epochs'"),
        ('experiment = "resistive"\nepochs = 0', "epochs = 0"),
        ('experiment = "generate"\nconnectivity = 13', "connectivity = 13"),
        ("experiment = ", "not valid TOML"),
        ('name = "x"\nepochs = 3', "epochs is not a known key"),
    ],
)
def test_typos_are_answered_with_the_file_the_key_and_what_is_near(text: str, answer: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=answer) as raised:
        run_any(path, out=tmp_path / "runs")
    assert str(path) in str(raised.value)
    assert not (tmp_path / "runs").exists()


FINISHED = {
    "eqprop": {"experiment": "eqprop"},
    "resistive": {"experiment": "resistive", "inference": {}},
    "generate": {"experiment": "generate", "energy_an_image": {}},
}


def finished(folder: Path, kind: str, *, named: bool = True) -> Path:
    """The summary of a finished run of ``kind``, and results where it has some."""
    table = {"title": f"mine: {kind}", "columns": ["network", "mean"], "rows": [["one of them", "97.53"]]}
    told = {**FINISHED[kind], "table": table, "sentence": "What was found."}
    if not named:
        del told["experiment"]
    folder.mkdir()
    (folder / "summary.json").write_text(json.dumps(told))
    if kind != "generate":
        (folder / "results").mkdir()
        outcomes = np.ones((1, 2, 1, 1, 1, 10), dtype=bool)
        result = Result.of(outcomes, clean=outcomes[:, 0, 0, 0, 0], seeds=(0,), ages_s=(25.0,), noise_scales=(1.0,))
        result.save(folder / "results" / "chips.npz")
    return folder


@pytest.mark.parametrize("kind", FINISHED)
def test_report_prints_the_table_of_an_energy_based_run(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tmp_path / "mine", kind)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder)])
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert f"mine: {kind}" in said.out and "97.53" in said.out and "What was found." in said.out
    page = folder / ("report.html" if kind == "generate" else "results.html")
    assert said.out.splitlines()[-1] == f"report: {page}"


def test_a_page_is_not_made_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished(tmp_path / "mine", "generate")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(folder), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2 and "the run's own page" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("kind", FINISHED)
def test_evaluate_says_which_kind_of_run_it_is_and_the_way_out(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished(tmp_path / "mine", kind)
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(folder)])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert f"experiment = '{kind}'" in said and "mho report" in said and "mho run RECIPE --resume" in said


def test_the_kind_of_a_run_is_told_by_its_summary(tmp_path: Path) -> None:
    for kind in FINISHED:
        assert kind_of_run(finished(tmp_path / kind, kind)) == kind
    for kind in ("resistive", "generate"):  # runs from before the summary said it
        assert kind_of_run(finished(tmp_path / f"old-{kind}", kind, named=False)) == kind
    assert kind_of_run(tmp_path) is None
    (tmp_path / "eqprop" / "recipe.toml").touch()
    assert kind_of_run(tmp_path / "eqprop") is None


def test_a_name_that_is_none_is_answered_with_the_nearest_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "ebm-eqprp"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "ebm-eqprop" in said and "ebm-resistive" in said and "mnist-mini" in said
