"""``mho join``: one run of several finished runs of one recipe with different training seeds.

A campaign of hours goes over several sittings and machines. Checkpoints are large and stay where they were made; the
outcomes of a run are small, and enough for every number of all seeds together.
"""

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mho.errors import CheckpointError, RecipeError
from mho.evaluation.result import Result
from mho.experiments.costs import RunCosts, compared, remark_of
from mho.experiments.differences import differences
from mho.experiments.facts import NetworkFacts
from mho.experiments.folder import RunSummary, make_folder, save_description, save_results, write_numbers
from mho.experiments.measure import Measured
from mho.experiments.networks import Say
from mho.experiments.outcomes import Outcomes
from mho.experiments.record import record_of
from mho.experiments.summary import page_of, summarize
from mho.hardware import dump_hardware

OWN_KEYS = ("seeds", "hardware")
"""Keys in which recipes may differ: a hardware's file may lie elsewhere, and what is in it is compared."""


def join_runs(
    folders: Sequence[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] = "runs-joined",
    say: Say | None = None,
) -> RunSummary:
    """Write ``<out>/<name>/``: the run of all training seeds of the finished runs in ``folders``, in that order.

    Its numbers, intervals and paired differences are those of one run of all seeds. Read are recipe.toml,
    hardware.toml, summary.json, record.json and results/*.npz; no checkpoint is read, nothing is trained or measured.
    Joules, versions and, where hardware has no prices, the verdict are those of the first run. What only networks can
    show (training curves, conductances, noise sources, joules by layer) is not on the page. ``say`` is told where
    versions differ.

    Raises :class:`RecipeError` where recipes differ, :class:`CheckpointError` for fewer than two runs, a folder without
    a finished run, other hardware or networks, a seed twice, and where ``out`` holds a run of its own.
    """
    if len(folders) < 2:
        raise CheckpointError(f"join: {len(folders)} of at least two runs given. Way out: the folders of all of them.")
    runs = [Outcomes.read(folder) for folder in folders]
    first = runs[0]
    for other in runs[1:]:
        _check_alike(first, other)
    _check_distinct(runs)
    folder = _place(Path(out) / first.recipe.name, runs)
    if say is not None:
        for warning in _versions(runs):
            say(warning)
    facts = NetworkFacts.joined([run.facts for run in runs])
    recipe = first.recipe.model_copy(update={"seeds": facts.seeds})
    command = "; ".join([*dict.fromkeys(run.command for run in runs), "mho join"])
    measured = joined_measured([run.measured for run in runs], command)
    summary = summarize(
        recipe,
        facts,
        measured,
        joined_costs(runs, measured),
        wall_s=sum(run.wall_s for run in runs),
        made_with=first.versions,
        command=command,
    )
    record = record_of(recipe, first.hw, facts, measured, summary, first.classes)
    save_description(make_folder(folder), recipe, first.hw)
    save_results(folder, measured)
    return write_numbers(folder, summary, record, page_of(recipe, measured, summary))


def joined_measured(several: Sequence[Measured], command: str) -> Measured:
    """The outcomes of all seeds, in this order; their attributes are those of the first, but for ``command``."""

    def joined(kinds: Sequence[Mapping[str, Result]]) -> dict[str, Result]:
        found = {name: Result.joined([kind[name] for kind in kinds]) for name in kinds[0]}
        return {name: Result(result.data.assign_attrs(command=command)) for name, result in found.items()}

    first = several[0]
    return Measured(
        digital_accuracy=tuple(accuracy for measured in several for accuracy in measured.digital_accuracy),
        final=joined([m.final for m in several]),
        noise=joined([m.noise for m in several]),
        age=joined([m.age for m in several]),
        age_hardware=first.age_hardware,
        unseen={name: joined([m.unseen[name] for m in several]) for name in first.unseen},
    )


def joined_costs(runs: Sequence[Outcomes], measured: Measured) -> RunCosts:
    """Joules of the first run beside accuracies of all seeds; the sentence is made anew."""
    first = runs[0]
    alone = compared(first.joules, first.hw.name, first.measured.final["hardware_aware"], first.percent)
    joules = replace(first.joules, remark=remark_of(first.sentence, alone))
    seeds = sum(len(run.facts.seeds) for run in runs)
    percent = {name: sum(run.percent[name] * len(run.facts.seeds) for run in runs) / seeds for name in first.percent}
    return compared(joules, first.hw.name, measured.final["hardware_aware"], percent)


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Dotted names of the keys in which ``a`` and ``b`` differ, with both values."""
    return [f"{key} ({ours!r}, {theirs!r})" for key, (ours, theirs) in differences(a, b).items()]


def _check_alike(first: Outcomes, other: Outcomes) -> None:
    keys = differing(_recipe(first), _recipe(other))
    if keys:
        raise RecipeError(
            f"{first.folder}, {other.folder}: different recipes, in {'; '.join(keys)}. Fix: join runs of one recipe."
        )
    if first.hw != other.hw:
        keys = differing(_hardware(first), _hardware(other))
        raise CheckpointError(
            f"{first.folder}, {other.folder}: different hardware, in {'; '.join(keys)}. Way out: join runs on one."
        )
    ours, theirs = _networks(first), _networks(other)
    if ours != theirs:
        raise CheckpointError(
            f"{first.folder}, {other.folder}: different networks, in {'; '.join(differing(ours, theirs))}. Way out: "
            "join runs of one network."
        )


def _recipe(run: Outcomes) -> dict[str, Any]:
    return run.recipe.model_dump(mode="json", exclude=set(OWN_KEYS))


def _hardware(run: Outcomes) -> dict[str, Any]:
    return tomllib.loads(dump_hardware(run.hw))


def _networks(run: Outcomes) -> dict[str, Any]:
    facts = run.facts
    names = {"on chips": sorted(facts.filling), "trained": sorted(facts.refused)}
    return {"parameters": facts.parameters, "classes": run.classes, **names}


def _check_distinct(runs: Sequence[Outcomes]) -> None:
    owner: dict[int, Path] = {}
    for run in runs:
        for seed in run.facts.seeds:
            if seed in owner:
                raise CheckpointError(
                    f"{run.folder}: training seed {seed} is in {owner[seed]} too. Way out: each seed once."
                )
            owner[seed] = run.folder


def _place(folder: Path, runs: Sequence[Outcomes]) -> Path:
    """``folder``, where it is free for a joined run."""
    given = any(folder.resolve() == run.folder.resolve() for run in runs)
    if given or any(folder.glob("seed-*")):
        raise CheckpointError(
            f"{folder}: a run of its own is in it, which the joined one would overwrite. Way out: --out with another "
            "folder."
        )
    return folder


def _versions(runs: Sequence[Outcomes]) -> list[str]:
    first = runs[0]
    return [
        f"warning: {first.folder}, {run.folder}: measured with different versions, {'; '.join(keys)}"
        for run in runs[1:]
        if (keys := differing(first.versions, run.versions))
    ]
