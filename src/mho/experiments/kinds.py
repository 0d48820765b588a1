"""Which experiment a recipe asks for: a classifier on chips, or one of the energy-based models.

A recipe with ``experiment = "eqprop"`` on top has the tables of :mod:`mho.experiments.ebm.eqprop`, and so on; one
without has those of :class:`mho.train.Recipe`.
"""

import os
import tomllib
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from mho.errors import RecipeError, nearest
from mho.experiments.run import RunSummary, run_recipe
from mho.experiments.run_kinds import ENERGY_BASED
from mho.train.explain import problems
from mho.train.recipe import parse_recipe, recipe_text, recipes_of


def all_recipes() -> tuple[str, ...]:
    """Names of every recipe that comes with the package."""
    return tuple(_builtin())


def run_any(recipe: str | os.PathLike[str], *, device: str = "cpu", **options: Any) -> RunSummary:
    """Run a built-in recipe or a TOML file, whatever it asks for; ``options`` as for :func:`run_recipe`.

    Raises :class:`RecipeError` for an unknown name, experiment or key, with the nearest ones, and for an energy-based
    model on a ``device`` other than the CPU.
    """
    text, source, folder = recipe_text(recipe, _builtin())
    kind = _kind(text, source)
    if kind is None:
        return run_recipe(recipe, device=device, **options)
    if device != "cpu":
        raise RecipeError(
            f"{source}: experiment = {kind!r} runs on the CPU only, not on {device!r}. Fix: leave --device out."
        )
    module = import_module(f"mho.experiments.ebm.{kind}")
    found: RunSummary = module.run(_settings(module, text, source, folder), **options)
    return found


def kind_of_recipe(recipe: str | os.PathLike[str]) -> str | None:
    """One of :data:`ENERGY_BASED` where a recipe (name or file) is of that experiment, ``None`` for a classifier's.

    Raises :class:`RecipeError` for what is no recipe's name or file, and for an unknown experiment.
    """
    text, source, _ = recipe_text(recipe, _builtin())
    return _kind(text, source)


def check_recipe(text: str, source: str = "recipe") -> None:
    """Raise :class:`RecipeError` where ``text`` is no recipe of any kind."""
    kind = _kind(text, source)
    if kind is None:
        parse_recipe(text, source)
    else:
        _settings(import_module(f"mho.experiments.ebm.{kind}"), text, source, None)


def _builtin() -> dict[str, Any]:
    return recipes_of("mho.train") | recipes_of("mho.experiments.ebm")


def _kind(text: str, source: str) -> str | None:
    try:
        named = tomllib.loads(text).get("experiment")
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}. Fix: correct that place.") from error
    if named is None or named in ENERGY_BASED:
        return named
    raise RecipeError(f"{source}: experiment = {named!r} is not known. {nearest(str(named), ENERGY_BASED)}")


def _settings(module: ModuleType, text: str, source: str, folder: Path | None) -> Any:
    tables = {key: value for key, value in tomllib.loads(text).items() if key != "experiment"}
    try:
        settings = module.Settings.model_validate(tables)
    except ValidationError as error:
        raise RecipeError(problems(error, source, module.Settings)) from error
    hardware = getattr(settings, "hardware", None)  # a sampler is described by its own table
    if folder is not None and hardware is not None and (folder / hardware).is_file():
        return settings.model_copy(update={"hardware": str(folder / hardware)})
    return settings
