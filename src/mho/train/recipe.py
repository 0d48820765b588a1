"""Recipes: an experiment in one TOML file, built in or the user's own."""

import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from mho.errors import RecipeError, nearest
from mho.train.settings import Recipe


def builtin_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    found = (p.name for p in files("mho.train").joinpath("recipes").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


def _read(name_or_path: str | os.PathLike[str]) -> tuple[str, str, Path | None]:
    """The text of a recipe, how errors call it, and its folder if it is the user's file."""
    name = os.fspath(name_or_path)
    if name in builtin_recipes():
        return files("mho.train").joinpath("recipes", f"{name}.toml").read_text("utf-8"), f"recipe {name}", None
    path = Path(name)
    if not path.is_file():
        here = [str(p) for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise RecipeError(
            f"recipe {name!r} is neither built in nor a file. {nearest(name, [*builtin_recipes(), *here])} "
            f"Fix: use one of {', '.join(builtin_recipes())}, or the path of a TOML file."
        )
    try:
        return path.read_text("utf-8"), str(path), path.parent
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read: {error}. Fix: make it readable UTF-8 text.") from error


def _table_at(place: tuple[int | str, ...]) -> type[BaseModel]:
    """The table that holds the last key of ``place``."""
    table: type[BaseModel] = Recipe
    for key in place[:-1]:
        inner = table.model_fields[str(key)].annotation if key in table.model_fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            break
        table = inner
    return table


def _choices(place: tuple[int | str, ...]) -> list[str]:
    """The admissible words of a field that takes one of a few, else an empty list."""
    fields = _table_at(place).model_fields
    names = [str(key) for key in place if key in fields]
    found: list[str] = []
    waiting: list[Any] = [fields[names[-1]].annotation] if names else []
    while waiting:
        for part in get_args(waiting.pop()):
            if isinstance(part, str):
                found.append(part)
            else:
                waiting.append(part)
    return found


def _explain(problem: Any, source: str) -> str:
    """One line for one problem: file, key, value, cause, way out."""
    place = problem["loc"]
    key = ".".join(str(part) for part in place) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{source}: {key} is not a known key. {nearest(str(place[-1]), _table_at(place).model_fields)}"
    if problem["type"] == "missing":
        return f'{source}: {key} is missing. Fix: add it, e.g. {place[-1]} = "my-run".'
    line = f"{source}: {key} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}."
    known = _choices(place)
    if problem["type"] == "literal_error" and isinstance(problem["input"], str) and known:
        return f"{line} {nearest(problem['input'], known)}"
    return line


def parse_recipe(text: str, source: str = "recipe") -> Recipe:
    """A recipe from TOML text. Raises :class:`RecipeError` naming ``source``, each wrong key and the fix."""
    try:
        return Recipe.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}. Fix: correct that place.") from error
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(p, source) for p in error.errors())) from error
    except RecipeError as error:
        raise RecipeError(f"{source}: network: {error}") from error


def load_recipe(name_or_path: str | os.PathLike[str]) -> Recipe:
    """A recipe by built-in name or path; a hardware file is looked for beside the recipe first.

    Raises :class:`RecipeError` for an unknown name, unreadable or invalid TOML, an unknown key (with the
    nearest ones) or a value out of range; all problems at once.
    """
    text, source, folder = _read(name_or_path)
    recipe = parse_recipe(text, source)
    if folder is not None and (folder / recipe.hardware).is_file():
        return recipe.model_copy(update={"hardware": str(folder / recipe.hardware)})
    return recipe


def dump_recipe(recipe: Recipe) -> str:
    """TOML with every key, defaults too (keys that are None have no TOML and are left out)."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))
