"""Recipes: round trip, defaults, and an answer to every typo."""

from pathlib import Path

import pytest

from mho.errors import RecipeError
from mho.models import build
from mho.train import Recipe, TrainSettings, builtin_recipes, dump_recipe, load_recipe, parse_recipe


@pytest.mark.parametrize("name", builtin_recipes())
def test_builtin_recipes_load_and_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    build(recipe.network.model, **recipe.network.args)
    path = tmp_path / "copy.toml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe


def test_every_key_survives_the_round_trip() -> None:
    text = """
name = "all"
hardware = "pcm-hermes"
seeds = [3, 1]
baselines = ["noise_injection"]
[data]
dataset = "cifar10"
subset = 500
batch_size = 32
augment = ["shift", "flip"]
[network]
model = "mlp"
args = {sizes = [8, 4, 2]}
[train]
epochs = 2
optimizer = "adamw"
lr = 1
momentum = 0.8
weight_decay = 0
schedule = "cosine"
label_smoothing = 0.05
ema_decay = 0.9
clip_sigma = 2.5
noise_scale = 1.5
ramp_fraction = 0.25
weight_decay_bounded = 0.25
ranges = "learned"
noise_levels = "uniform"
censor = 1.5
chip_gain = 0.02
chip_offset_lsb = 0.5
warm_start = "digital"
epochs_hardware = 4
lr_hardware = 0.01
distill = 0.5
distill_T = 4
[evaluate]
chips = 9
ages = ["25 s", "1 day"]
noise_scales = [0, 1.0]
bits = [4, 8]
seed = 5
batch_size = 100
[[evaluate.unseen]]
name = "PCM"
hardware = "pcm-joshi2020"
age = "1 month"
compensate = true
"""
    recipe = parse_recipe(text)
    assert recipe.data.augment == ("shift", "flip")
    assert recipe.seeds == (3, 1)
    assert recipe.train.lr == 1.0
    assert recipe.evaluate.bits == (4, 8)
    assert parse_recipe(dump_recipe(recipe)) == recipe
    # Nothing in the text is a default: each key was read.
    for table, default in ((recipe.train, TrainSettings()), (recipe.data, Recipe(name="x").data)):
        for key in type(table).model_fields:
            if (key != "momentum" or table is recipe.train) and key != "loss":  # see test_recipe_loss.py
                assert getattr(table, key) != getattr(default, key), key


def test_for_hardware_and_for_digital() -> None:
    cold = TrainSettings(epochs=3, lr=0.1, noise_scale=1.5, ramp_fraction=0.5, distill=0.3)
    warm = TrainSettings(**cold.model_dump(exclude={"warm_start", "epochs_hardware", "lr_hardware"}),
                         warm_start="digital", epochs_hardware=7, lr_hardware=0.02)  # fmt: skip
    for settings, budget in ((cold, (3, 0.1)), (warm, (7, 0.02))):
        hardware, digital, first = settings.for_hardware(), settings.for_digital(), settings.for_pretraining()
        assert (hardware.epochs, hardware.lr, hardware.distill, hardware.noise_scale) == (*budget, 0.3, 1.5)
        assert (digital.epochs, digital.lr, digital.distill, digital.moves_noise) == (*budget, 0.0, False)
        assert (first.epochs, first.lr, first.moves_noise) == (3, 0.1, False)


def test_a_budget_of_its_own_needs_a_warm_start() -> None:
    with pytest.raises(RecipeError, match="warm_start"):
        parse_recipe('name = "x"\n[train]\nepochs_hardware = 3')


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[train]\nepoch = 3", ["train.epoch", "'epochs'"]),
        ("[trian]\nepochs = 3", ["trian", "'train'"]),
        ("[data]\nbatchsize = 3", ["data.batchsize", "'batch_size'"]),
        ("[train]\nlr = -1.0", ["train.lr", "-1.0", "greater than 0"]),
        ("[train]\nlr = inf", ["train.lr", "inf"]),
        ("[train]\nepochs = 2.5", ["train.epochs", "2.5"]),
        ("[train]\nepochs = '3'", ["train.epochs", "'3'"]),
        ("[train]\noptimizer = 'sdg'", ["train.optimizer", "'sdg'", "Did you mean 'sgd'"]),
        ("[train]\nwarm_start = 'digitla'", ["train.warm_start", "'digitla'", "Did you mean 'digital'"]),
        ("[data]\ndataset = 'minst'", ["data.dataset", "'minst'", "'mnist'"]),
        ("[data]\naugment = ['shfit']", ["data.augment.0", "'shfit'", "Did you mean 'shift'"]),
        ("[network]\nmodel = 'lenett'", ["network", "'lenett'", "'lenet'"]),
        ("[network]\nargs = {widht = 3}", ["network", "'widht'", "'width'"]),
        ("[evaluate]\nages = ['1 dya']", ["evaluate.ages", "dya"]),
        ("[evaluate]\nbits = [1]", ["evaluate.bits.0", "= 1"]),
        ("seeds = []", ["seeds"]),
        ("seeds = [1, 1]", ["seeds", "same seed twice"]),
        ("hardware = 3", ["hardware", "3"]),
        ("x = ", ["not valid TOML", "line 2"]),
    ],
)
def test_wrong_recipes_are_answered(line: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n' + line + "\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    for word in ["mine.toml", *words]:
        assert word in str(caught.value)


def test_all_problems_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe("[train]\nepoch = 3\nlr = 0\n")
    text = str(caught.value)
    assert len(text.splitlines()) == 3
    assert "name is missing" in text


def test_unknown_name_and_neighbour_file(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'mnist-mini'"):
        load_recipe("mnist-mni")
    (tmp_path / "mine.toml").write_text('name = "mine"\n')
    with pytest.raises(RecipeError, match=r"mine\.toml"):
        load_recipe(tmp_path / "mien.toml")


def test_hardware_file_beside_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "chip.toml").write_text("")
    (tmp_path / "mine.toml").write_text('name = "mine"\nhardware = "chip.toml"\n')
    assert Path(load_recipe(tmp_path / "mine.toml").hardware) == tmp_path / "chip.toml"


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match=r"bad\.toml"):
        load_recipe(path)
