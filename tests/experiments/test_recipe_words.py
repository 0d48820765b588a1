"""What the page of results says of recipes follows from recipes and records alone."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from mho.train import TrainSettings, dump_recipe, load_recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recipe_words", ROOT / "benchmarks" / "recipe_words.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_element_of_hybrid_training_that_is_on_is_named(words: ModuleType) -> None:
    assert words.elements(TrainSettings()) == []
    hybrid = load_recipe("hybrid").train
    assert words.elements(hybrid) == ["bounds at 1.5 sigma", "averaged weights (0.99)"]
    assert words.elements(hybrid.for_digital()) == ["averaged weights (0.99)"]
    changes = {
        "weight_decay_bounded": 0.0, "noise_scale": 1.2, "ramp_fraction": 0.3, "noise_levels": "uniform", "censor": 1.5,
        "ranges": "learned", "chip_gain": 0.1, "distill": 0.5, "warm_start": "digital",
    }  # fmt: skip
    for key, value in changes.items():
        assert len(words.elements(TrainSettings(**{key: value}))) == 1, key
    assert words.on_in("no-recipe") == []


def test_elements_whose_interval_includes_zero_are_named_and_no_others(words: ModuleType) -> None:
    def entry(name: str, low: float, high: float) -> dict[str, object]:
        return {"name": name, "against": {"points": 0.0, "low": low, "high": high}}

    entries = [
        {"name": "the recipe", "against": None},
        {"name": "without bounds", "failed": "diverged"},
        entry("without the ramp", -0.2, 0.2),
        entry("with bounds at 2.5 sigma", -1.3, -0.5),
        entry("with learned converter ranges", 0.0, 0.3),
        entry("with 1.2 times the noise", 0.1, 0.3),
    ]
    said = "No worth seen here, the interval includes 0. Removed: the ramp. Added or changed: learned converter ranges."
    assert words.without_worth(entries) == ["", said]
    assert words.without_worth(entries[:2]) == []


def test_a_record_of_another_recipe_than_the_built_in_one_says_where_it_differs(words: ModuleType) -> None:
    recipe = load_recipe("mnist")

    def record(name: str, text: str) -> dict[str, object]:
        return {"summary": {"name": name}, "recipe": text}

    assert words.other_recipe(record("mnist", dump_recipe(recipe.model_copy(update={"seeds": (0, 1, 2)})))) == []
    other = recipe.model_copy(update={"hardware": "generic", "train": recipe.train.model_copy(update={"distill": 0.0})})
    (_, line) = words.other_recipe(record("mnist", dump_recipe(other)))
    assert "hardware generic (now generic-channel); train.distill 0.0 (now 0.5)." in line
    assert words.other_recipe(record("somebody's", dump_recipe(other))) == []
    (_, line) = words.other_recipe(record("mnist", 'name = "mnist"\nold_key = 1'))
    assert "of an earlier version" in line


def test_a_sentence_on_energy_from_before_int8_was_measured_is_said_to_be_old(words: ModuleType) -> None:
    sentence = "No analog network comes within 0.5 points of digital int8 (89.27 %)."
    assert (
        "older than the measurement of int8" in words.older_energy({"summary": {"energy": {"sentence": sentence}}})[1]
    )
    measured = {"sentence": sentence, "int8_accuracy": 89.0}
    for summary in ({"energy": measured}, {"energy": {"sentence": "No part has a price."}}, {"energy": None}, {}):
        assert words.older_energy({"summary": summary}) == []
