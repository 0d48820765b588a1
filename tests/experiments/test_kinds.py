"""A recipe says which experiment it is; every built-in one is sound, and every typo has an answer."""

from pathlib import Path

import pytest

from mho.cli import main
from mho.errors import RecipeError
from mho.experiments.kinds import all_recipes, check_recipe, run_any
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


def test_a_name_that_is_none_is_answered_with_the_nearest_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "ebm-eqprp"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "ebm-eqprop" in said and "ebm-resistive" in said and "mnist-mini" in said
