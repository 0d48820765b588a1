"""From a campaign to its cells: names are looked up, all problems come at once."""

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mho.campaign.cells import Cell, Labels
from mho.campaign.settings import Campaign, EvaluateGrid
from mho.errors import CheckpointError, HardwareError, RecipeError
from mho.experiments.finished import check_kept
from mho.experiments.kinds import kind_of_recipe
from mho.experiments.run_kinds import kind_of_run
from mho.hardware import dump_hardware, load_hardware, preset_names
from mho.hardware.spec import Hardware
from mho.train import Recipe, dump_recipe, load_recipe
from mho.units import seconds


@dataclass(frozen=True, eq=False)
class _Source:
    """One training: its label, what identifies it, where its run lies, and the cell that makes it (or None)."""

    recipe: Recipe
    seed: int
    hw: Hardware
    identity: dict[str, Any]
    folder: Path
    made_by: Cell | None


def plan(campaign: Campaign, folder: Path) -> tuple[Cell, ...]:
    """Every cell of ``campaign``: first one run for each recipe and seed, then the evaluations, network by network.

    ``folder``: of the campaign's results, absolute like every path in the cells: a worker may stand in another folder.
    Raises :class:`RecipeError` with every recipe, run, network and hardware that is not as it should be.
    """
    problems: list[str] = []
    recipes = [_recipe(name, problems) for name in campaign.recipes]
    runs = [_finished(Path(name), problems) for name in campaign.runs]
    grid = campaign.evaluate
    hardware = {} if grid is None else _hardware(grid.hardware, problems)
    named = [found[0] for found in [*recipes, *runs] if found is not None]
    if len({recipe.name for recipe in named}) != len(named):
        problems.append(f"recipes and runs: a name is there twice in {', '.join(r.name for r in named)}. Fix: rename.")
    if grid is not None:
        problems += [p for recipe in named for p in _untrained(recipe, grid)]
    if problems:
        raise RecipeError("\n".join(f"campaign {campaign.name}: {problem}" for problem in problems))
    sources = [s for found in recipes if found is not None for s in _to_train(*found, campaign.seeds, folder)]
    sources += [s for found in runs if found is not None for s in _trained(*found)]
    cells = [source.made_by for source in sources if source.made_by is not None]
    if grid is not None:
        cells += [cell for source in sources for cell in _evaluations(source, grid, hardware)]
    return tuple(cells)


def _recipe(name: str, problems: list[str]) -> tuple[Recipe, Hardware] | None:
    kind = _energy_based(name)
    if kind is not None:
        problems.append(
            f"recipes: {name}: a recipe of experiment = {kind!r}, an energy-based model; campaigns are of classifiers "
            f"only. Fix: take it out, and 'mho run {name} --seeds 0-2'."
        )
        return None
    try:
        recipe = load_recipe(name)
        return recipe, load_hardware(recipe.hardware)
    except (RecipeError, HardwareError) as error:
        problems.append(f"recipes: {error}")
        return None


def _energy_based(name: str) -> str | None:
    try:
        return kind_of_recipe(name)
    except RecipeError:  # no recipe's name, or no TOML: said where it is loaded
        return None


def _finished(folder: Path, problems: list[str]) -> tuple[Recipe, Hardware, Path] | None:
    kind = kind_of_run(folder)
    if kind is not None:
        problems.append(
            f"runs: {folder}: a run of experiment = {kind!r}, an energy-based model; campaigns are of classifiers "
            "only. Fix: take it out."
        )
        return None
    missing = [n for n in ("recipe.toml", "hardware.toml", "summary.json") if not (folder / n).is_file()]
    if missing:
        problems.append(f"runs: {folder}: no finished run is in it ({', '.join(missing)} missing). Fix: 'mho run' it.")
        return None
    try:
        recipe, hw = load_recipe(folder / "recipe.toml"), load_hardware(folder / "hardware.toml")
        for seed, network in itertools.product(recipe.seeds, ("digital", "hardware_aware")):
            check_kept(folder, seed, network)
        return recipe, hw, folder.resolve()
    except (RecipeError, HardwareError, CheckpointError) as error:
        problems.append(f"runs: {error}")
        return None


def _hardware(names: tuple[str, ...], problems: list[str]) -> dict[str, Hardware]:
    found: dict[str, Hardware] = {}
    for name in names:
        try:
            hw = load_hardware(name)
        except HardwareError as error:
            problems.append(f"evaluate.hardware: {error}")
            continue
        if hw.name in found:
            problems.append(f"evaluate.hardware: {name!r} has the name {hw.name!r} of another one. Fix: rename it.")
        found[hw.name] = hw
    return found


def _untrained(recipe: Recipe, grid: EvaluateGrid) -> Iterator[str]:
    for name in grid.networks:
        if name in ("quantized", "noise_injection") and name not in recipe.baselines:
            yield (
                f"evaluate.networks: recipe {recipe.name} trains no {name!r}. "
                f'Fix: baselines = ["{name}"] in the recipe, or leave it out.'
            )


def _to_train(recipe: Recipe, hw: Hardware, seeds: tuple[int, ...] | None, folder: Path) -> Iterator[_Source]:
    described = recipe.model_copy(update={"hardware": hw.name, "seeds": (0,)})
    for seed in recipe.seeds if seeds is None else seeds:
        identity = {"recipe": dump_recipe(described), "trained_on": dump_hardware(hw), "seed": seed}
        digest = hashlib.blake2b(repr(sorted(identity.items())).encode(), digest_size=4).hexdigest()
        # The folder's name is the recipe's within this run: one folder a training, whatever else has that name.
        own = {"name": f"{recipe.name}-seed-{seed}-{digest}", "seeds": (seed,), "hardware": _absolute(recipe.hardware)}
        named = recipe.model_copy(update=own)
        out = folder / "runs"
        cell = Cell(
            kind="run",
            labels=Labels(recipe=recipe.name, seed=seed, hardware=hw.name),
            task=identity,
            given={"recipe": named, "out": str(out)},
        )
        yield _Source(recipe, seed, hw, identity, out / named.name, cell)


def _absolute(hardware: str) -> str:
    """A preset by its name, a file by its absolute path."""
    return hardware if hardware in preset_names() else str(Path(hardware).resolve())


def _trained(recipe: Recipe, hw: Hardware, folder: Path) -> Iterator[_Source]:
    # The summary holds the accuracies and the wall time: another training has another one.
    digest = hashlib.blake2b((folder / "summary.json").read_bytes(), digest_size=16).hexdigest()
    for seed in recipe.seeds:
        yield _Source(recipe, seed, hw, {"run": digest, "seed": seed}, folder, None)


def _evaluations(source: _Source, grid: EvaluateGrid, hardware: dict[str, Hardware]) -> Iterator[Cell]:
    on = hardware or {source.hw.name: source.hw}
    axes = (grid.networks, on.values(), grid.lots, grid.ages or (None,), grid.noise_scales)
    for network, hw, lot, age, scale in itertools.product(*axes):
        age_s = None if age is None else seconds(age)
        condition = {
            "network": network,
            "hardware": dump_hardware(hw),
            "noise_scale": float(scale),
            "age_s": age_s,
            "compensate": grid.compensate,
            "chips": grid.chips,
            "lot": lot,
            "images": grid.images,
            "batch_size": grid.batch_size,
        }
        yield Cell(
            kind="evaluate",
            labels=Labels(
                recipe=source.recipe.name,
                seed=source.seed,
                network=network,
                hardware=hw.name,
                noise_scale=float(scale),
                age_s=hw.environment.t_s if age_s is None else age_s,
                lot=lot,
            ),
            task={**source.identity, **condition},
            given={"folder": str(source.folder), "hardware": hw},
            after=None if source.made_by is None else source.made_by.id,
        )
