"""What docs/results.md says of recipes: elements that are on, records of another recipe or version, elements without
worth."""

from collections.abc import Iterator
from typing import Any

from mho.errors import RecipeError
from mho.train import Recipe, TrainSettings, builtin_recipes, load_recipe, parse_recipe

DEFAULT = "hybrid"


def elements(train: TrainSettings) -> list[str]:
    """The elements of hybrid training that ``train`` has on, in words."""
    found = {
        f"bounds at {train.clip_sigma} sigma": train.clip_sigma is not None,
        f"weight decay {train.weight_decay_bounded} of bounded weights": train.weight_decay_bounded is not None,
        f"averaged weights ({train.ema_decay})": train.ema_decay is not None,
        f"{train.noise_scale:g} times the noise": train.noise_scale != 1.0,
        f"a ramp over {100 * train.ramp_fraction:g} % of the steps": train.ramp_fraction > 0,
        f"noise levels drawn {train.noise_levels}": train.noise_levels != "fixed",
        f"censored noise at {train.censor} sigma": train.censor is not None,
        "learned converter ranges": train.ranges == "learned",
        "chips of random gain and offset": train.chip_gain > 0 or train.chip_offset_lsb > 0,
        f"a teacher ({train.distill:g} of the loss)": train.distill > 0,
        "terms of the physics-informed loss": train.loss is not None,
        "a digital start": train.warm_start is not None,
    }
    return [words for words, on in found.items() if on]


def on_in(name: str) -> list[str]:
    """A line with the elements of the built-in recipe ``name`` and of the default one; nothing for another recipe."""
    if name not in builtin_recipes():
        return []
    own, default = (", ".join(elements(load_recipe(r).train)) or "nothing" for r in (name, DEFAULT))
    return ["", f"On in recipe `{name}`: {own}. On in the default recipe `{DEFAULT}`: {default}."]


def without_worth(entries: list[dict[str, Any]]) -> list[str]:
    """One sentence naming the elements whose difference to the recipe has an interval that includes 0."""
    names = [e["name"] for e in entries if e.get("against") and e["against"]["low"] <= 0 <= e["against"]["high"]]
    removed = [name.removeprefix("without ") for name in names if name.startswith("without ")]
    others = [name.removeprefix("with ") for name in names if not name.startswith("without ")]
    kinds = (("Removed", removed), ("Added or changed", others))
    said = " ".join(f"{what}: {', '.join(these)}." for what, these in kinds if these)
    return ["", f"No worth seen here, the interval includes 0. {said}"] if said else []


def _flat(table: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value


def _table(recipe: Recipe) -> dict[str, Any]:
    return dict(_flat(recipe.model_dump(mode="json", exclude={"seeds"})))


def _shown(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    return ", ".join(f'"{v["name"]}"' if isinstance(v, dict) else f"{v}" for v in value) or "none"


def other_recipe(record: dict[str, Any]) -> list[str]:
    """A line where a record was made by another recipe than the built-in one of its name is now."""
    name = record["summary"]["name"]
    if name not in builtin_recipes():
        return []
    try:
        then = _table(parse_recipe(record["recipe"]))
    except RecipeError:
        return ["", f"Its recipe is of an earlier version, which the built-in `{name}` is no longer."]
    now = _table(load_recipe(name))
    keys = [key for key in [*now, *(k for k in then if k not in now)] if then.get(key) != now.get(key)]
    if not keys:
        return []
    told = "; ".join(f"{key} {_shown(then.get(key))} (now {_shown(now.get(key))})" for key in keys)
    return ["", f"Not the built-in recipe `{name}` as it is now: {told}."]


def older_energy(record: dict[str, Any]) -> list[str]:
    """A line where the record's sentence on energy was made before the accuracy at int8 and int4 was measured."""
    energy = record["summary"].get("energy")
    if not energy or "int8_accuracy" in energy or "int8" not in energy.get("sentence", ""):
        return []
    return [
        "",
        "The record's sentence on energy is older than the measurement of int8: the accuracy that it gives to digital "
        "int8 is that of float, and int4 was not asked.",
    ]
