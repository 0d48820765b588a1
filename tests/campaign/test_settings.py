"""The TOML of a campaign: what it becomes, and every problem at once."""

import re

import pytest

from mho.campaign import dump_campaign, load_campaign, parse_campaign
from mho.campaign.plan import plan
from mho.errors import RecipeError

TINY = """
name = "tiny"
seeds = [0, 1]
[network]
model = "mlp"
args = {sizes = [784, 16, 10]}
"""
GRID = """
name = "ages"
recipes = ["tiny.toml", "mnist-mini"]
seeds = [3, 4]
[evaluate]
networks = ["hardware_aware", "digital"]
hardware = ["generic", "pcm-joshi2020"]
noise_scales = [0.5, 1]
ages = ["25 s", "1 day", "1 year"]
lots = [0, 1]
chips = 2
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny.toml").write_text(TINY)
    return tmp_path


def loaded(folder, text):
    (folder / "campaign.toml").write_text(text)
    return load_campaign(folder / "campaign.toml")


def test_the_cells_are_the_product_and_training_is_shared(folder):
    cells = plan(loaded(folder, GRID), folder)
    runs = [c for c in cells if c.kind == "run"]
    assert [(c.labels.recipe, c.labels.seed) for c in runs] == [
        ("tiny", 3), ("tiny", 4), ("mnist-mini", 3), ("mnist-mini", 4)
    ]  # fmt: skip
    evaluations = cells[len(runs) :]
    assert len(evaluations) == 4 * (2 * 2 * 2 * 3 * 2)
    assert {c.after for c in evaluations} == {c.id for c in runs}
    assert len({c.id for c in cells}) == len(cells)


def test_a_cell_keeps_its_id_where_nothing_that_matters_changed(folder, tmp_path_factory):
    campaign = loaded(folder, GRID)
    ids = {c.id for c in plan(campaign, folder)}
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "tiny.toml").write_text(TINY)
    assert {c.id for c in plan(loaded(elsewhere, GRID), elsewhere / "results")} == ids
    more = {c.id for c in plan(loaded(folder, GRID.replace("[0.5, 1]", "[0.5, 1, 2]")), folder)}
    assert ids < more
    other = {c.id for c in plan(loaded(folder, GRID.replace("chips = 2", "chips = 3")), folder)}
    assert len(ids & other) == 4  # the runs alone
    (folder / "tiny.toml").write_text(TINY + "[train]\nlr = 0.05\n")
    assert len(ids & {c.id for c in plan(campaign, folder)}) == len(ids) // 2


def test_without_hardware_seeds_or_ages_the_recipe_has_them(folder):
    cells = plan(loaded(folder, 'name = "own"\nrecipes = ["tiny.toml"]\n[evaluate]\n'), folder)
    assert [c.labels.seed for c in cells] == [0, 1, 0, 1]
    assert {c.labels.hardware for c in cells} == {"generic"} and cells[-1].task["age_s"] is None


def test_a_campaign_is_its_own_toml(folder):
    campaign = loaded(folder, GRID)
    assert parse_campaign(dump_campaign(campaign)) == campaign


def test_typos_are_answered_with_the_nearest_names_all_at_once(folder):
    text = GRID.replace("lots =", "lot =").replace("recipes =", "recipe =").replace('"digital"', '"digitl"')
    with pytest.raises(RecipeError) as raised:
        loaded(folder, text.replace("chips = 2", "chips = 0"))
    message = str(raised.value)
    assert len(message.splitlines()) == 4 and message.count("campaign.toml: ") == 4
    assert "recipe is not a known key. Did you mean 'recipes'" in message
    assert "evaluate.lot is not a known key. Did you mean 'lots'" in message
    assert "'digitl' is no network of a run. Did you mean 'digital'" in message
    assert "evaluate.chips = 0" in message


def test_unknown_recipes_runs_and_hardware_come_at_once(folder):
    text = GRID.replace("pcm-joshi2020", "pcm-joshi202").replace("mnist-mini", "mnist-mni").replace(
        "seeds = [3, 4]", 'runs = ["runs/nowhere"]'
    )  # fmt: skip
    with pytest.raises(RecipeError) as raised:
        plan(loaded(folder, text), folder)
    message = str(raised.value)
    assert len(message.splitlines()) == 3
    assert "Did you mean 'pcm-joshi2020'" in message and "'mnist-mini'" in message
    assert "runs: runs/nowhere: no finished run is in it" in message


def test_energy_based_models_are_no_part_of_a_campaign(folder):
    (folder / "mine.toml").write_text('experiment = "resistive"\n')
    (folder / "old").mkdir()
    (folder / "old" / "summary.json").write_text('{"experiment": "eqprop"}')
    text = f'name = "x"\nrecipes = ["ebm-eqprop", "{folder}/mine.toml"]\nruns = ["{folder}/old"]\n[evaluate]\n'
    with pytest.raises(RecipeError) as raised:
        plan(loaded(folder, text), folder)
    lines = str(raised.value).splitlines()
    assert len(lines) == 3 and all("energy-based model" in line and "Fix: take it out" in line for line in lines)
    assert "'mho run ebm-eqprop --seeds 0-2'" in lines[0] and "'resistive'" in lines[1]
    assert lines[2].startswith("campaign x: runs: ")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('name = "x"', "there is no network"),
        ('name = "x"\nruns = ["r"]', r"Fix: add a table \[evaluate\]"),
        ('name = "a/b"\nrecipes = ["mnist"]', "name = 'a/b'"),
        ('name = "x"\nrecipes = ["mnist", "mnist"]', "recipes has a value twice"),
        ('name = "x"\nrecipes = ["mnist"]\n[evaluate]\nages = ["1 day", "24 h"]', "ages has a value twice"),
        ('name = "x"\nrecipes = ["mnist"]\n[evaluate]\nages = ["1 fortnight"]', "unknown unit 'fortnight'"),
        ('name = "x"\nrecipes = ["mnist"]\n[evaluate]\nnoise_scales = []', "noise_scales"),
        ('name = "x"\nrecipes = "mnist"', "recipes = 'mnist'"),
        ("name = ", "not valid TOML"),
    ],
)
def test_what_makes_no_campaign_is_refused(text, match):
    with pytest.raises(RecipeError, match=match):
        parse_campaign(text)


def test_a_baseline_that_a_recipe_does_not_train_is_refused(folder):
    text = GRID.replace('"digital"', '"noise_injection"')
    with pytest.raises(RecipeError, match="recipe tiny trains no 'noise_injection'"):
        plan(loaded(folder, text), folder)


def test_a_missing_file_is_answered_with_those_that_are_there(folder):
    loaded(folder, GRID)
    with pytest.raises(RecipeError, match=re.escape("campaign.toml'")):
        load_campaign(folder / "campaing.toml")
