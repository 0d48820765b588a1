"""Recipes: an experiment in one TOML file, built in or the user's own."""

import os
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import tomli_w
from pydantic import ValidationError

from mho.errors import RecipeError, nearest
from mho.train.explain import problems
from mho.train.settings import Recipe


def recipes_of(package: str) -> dict[str, Traversable]:
    """The TOML files in the folder ``recipes`` of a package, by name."""
    found = {p.name.removesuffix(".toml"): p for p in files(package).joinpath("recipes").iterdir()}
    return {name: found[name] for name in sorted(found) if found[name].name.endswith(".toml")}


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    return tuple(recipes_of("mho.train"))


def recipe_text(
    name_or_path: str | os.PathLike[str], builtin: Mapping[str, Traversable]
) -> tuple[str, str, Path | None]:
    """The text of a recipe, how errors call it, and its folder if it is the user's file.

    Raises :class:`RecipeError` for what is neither in ``builtin`` nor a readable file, with the nearest names.
    """
    name = os.fspath(name_or_path)
    if name in builtin:
        return builtin[name].read_text("utf-8"), f"recipe {name}", None
    path = Path(name)
    if not path.is_file():
        here = [str(p) for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise RecipeError(
            f"recipe {name!r} is neither built in nor a file. {nearest(name, [*builtin, *here])} "
            f"Fix: use one of {', '.join(builtin)}, or the path of a TOML file."
        )
    try:
        return path.read_text("utf-8"), str(path), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}. Fix: make it readable UTF-8 text.") from error


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """A recipe from TOML text. Raises :class:`RecipeError` naming ``source``, each wrong key and the fix."""
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}. Fix: correct that place.") from error
    except ValidationError as error:
        raise RecipeError(problems(error, source, Recipe)) from error
    except RecipeError as error:
        raise RecipeError(f"{source}: network: {error}") from error


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """A recipe by built-in name or path; a hardware file is looked for beside the recipe first.

    Raises :class:`RecipeError` for an unknown name, unreadable or invalid TOML, an unknown key (with the
    nearest ones) or a value out of range; all problems at once.
    """
    text, source, folder = recipe_text(name_or_path, recipes_of("mho.train"))
    recipe = parse_recipe(text, source)
    if folder is not None and (folder / recipe.hardware).is_file():
        return recipe.model_copy(update={"hardware": str(folder / recipe.hardware)})
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """TOML with every key, defaults too (keys that are None have no TOML and are left out)."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
