"""The tables of a campaign's TOML file, and what is wrong with one that does not fit them."""

import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BeforeValidator, Field, ValidationError, field_validator, model_validator

from mho.errors import RecipeError, nearest
from mho.train.explain import problems
from mho.train.settings import Count, NonNegative, Seed, Table, frozen_list
from mho.units import seconds

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], BeforeValidator(frozen_list)]
Seeds = Annotated[tuple[Seed, ...], BeforeValidator(frozen_list)]
NETWORKS = ("hardware_aware", "digital", "quantized", "noise_injection")


class EvaluateGrid(Table):
    """On what every network is judged: the product of all lists, one cell each.

    ``hardware``: names of presets or TOML files (empty: the hardware of each recipe). ``noise_scales`` multiply every
    random source; ``ages`` after programming (empty: as described), with global drift compensation where
    ``compensate``. ``lots``: seeds of the chips, ``chips`` virtual chips each. ``images``: the first so many test
    images (None: all).
    """

    networks: Annotated[Names, Field(min_length=1)] = ("hardware_aware",)
    hardware: Names = ()
    noise_scales: Annotated[tuple[NonNegative, ...], Field(min_length=1), BeforeValidator(frozen_list)] = (1.0,)
    ages: Annotated[tuple[str, ...], BeforeValidator(frozen_list)] = ()
    compensate: bool = False
    chips: Count = 25
    lots: Annotated[Seeds, Field(min_length=1)] = (0,)
    images: Count | None = None
    batch_size: Count = 500

    @field_validator("networks")
    @classmethod
    def _trained(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in networks if name not in NETWORKS]
        if unknown:
            raise ValueError(" ".join(f"{n!r} is no network of a run. {nearest(n, NETWORKS)}" for n in unknown))
        return networks

    @field_validator("ages")
    @classmethod
    def _durations(cls, ages: tuple[str, ...]) -> tuple[str, ...]:
        for age in ages:
            seconds(age)
        return ages

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        ages = [seconds(age) for age in self.ages]
        for key, values in (
            ("networks", self.networks),
            ("hardware", self.hardware),
            ("noise_scales", self.noise_scales),
            ("ages", ages),
            ("lots", self.lots),
        ):
            if len(set(values)) != len(values):
                raise ValueError(f"{key} has a value twice, which would be the same cell twice. Fix: each once")
        return self


class Campaign(Table):
    """hardware x recipe x seed x noise x age.

    ``recipes``: names of built-in recipes or TOML files, each trained once a seed (``seeds``; None: the recipe's own).
    ``runs``: folders of finished runs, whose networks need no training. ``evaluate``: on what all of them are
    judged (None: they are trained and summarised as ``mho run`` does, no more).
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    recipes: Names = ()
    seeds: Annotated[Seeds, Field(min_length=1)] | None = None
    runs: Names = ()
    evaluate: EvaluateGrid | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.recipes and not self.runs:
            raise ValueError('there is no network. Fix: e.g. recipes = ["mnist-mini"], or runs = ["runs/mnist-mini"]')
        if self.evaluate is None and not self.recipes:
            raise ValueError("finished runs are only evaluated. Fix: add a table [evaluate]")
        for key, values in (("recipes", self.recipes), ("seeds", self.seeds or ()), ("runs", self.runs)):
            if len(set(values)) != len(values):
                raise ValueError(f"{key} has a value twice, which would be the same cell twice. Fix: each once")
        return self


def parse_campaign(text: str, source: str = "campaign") -> Campaign:
    """A campaign from TOML text. Raises :class:`RecipeError` naming ``source`` and every wrong key with its fix."""
    try:
        return Campaign.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source}: not valid TOML: {error}. Fix: correct that place.") from error
    except ValidationError as error:
        raise RecipeError(problems(error, source, Campaign)) from error


def load_campaign(path: str | os.PathLike[str]) -> Campaign:
    """The campaign of a TOML file; recipes, runs and hardware files are looked for beside it first.

    Raises :class:`RecipeError` for a missing or unreadable file and for every problem in it, all at once.
    """
    file = Path(path)
    if not file.is_file():
        here = [str(p) for p in file.parent.glob("*.toml")] if file.parent.is_dir() else []
        near = f" {nearest(str(file), here)}" if here else ""
        raise RecipeError(f"campaign {str(file)!r}: no such file.{near} Fix: the path of a TOML file.")
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{file}: cannot be read: {error}. Fix: make it readable UTF-8 text.") from error
    return _resolved(parse_campaign(text, str(file)), file.parent)


def _resolved(campaign: Campaign, folder: Path) -> Campaign:
    """``campaign`` with the path in place of every name of something that lies in ``folder``."""

    def beside(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str((folder / name).resolve()) if (folder / name).exists() else name for name in names)

    changed: dict[str, Any] = {"recipes": beside(campaign.recipes), "runs": beside(campaign.runs)}
    if campaign.evaluate is not None:
        grid = campaign.evaluate
        changed["evaluate"] = grid.model_copy(update={"hardware": beside(grid.hardware)})
    return campaign.model_copy(update=changed)


def dump_campaign(campaign: Campaign) -> str:
    """TOML with every key, defaults too (keys that are None have no TOML and are left out)."""
    return tomli_w.dumps(campaign.model_dump(mode="json", exclude_none=True))
