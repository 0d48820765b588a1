"""The folder of a run and the files in it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mho.errors import CheckpointError, TrainingError
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.experiments.measure import Measured
from mho.experiments.record import encoded
from mho.hardware import dump_hardware
from mho.hardware.spec import Hardware
from mho.reporting.run import RunData, run_report
from mho.train import Recipe, dump_recipe


@dataclass(frozen=True)
class RunSummary:
    """Where a run left its files, and its numbers (the content of ``summary.json``)."""

    folder: Path
    summary: dict[str, Any]

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def record(self) -> Path:
        return self.folder / "record.json"


def make_folder(path: Path) -> Path:
    """``path``, made with its parents.

    Raises :class:`CheckpointError` where that is not possible, and :class:`TrainingError` in one of many processes.
    """
    _refuse_many_processes(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be made: {error.strerror}. Way out: --out with a folder that you may write to."
        ) from error
    return path


def _refuse_many_processes(path: Path) -> None:
    count = os.environ.get("WORLD_SIZE", "1")  # as torchrun sets it
    if count not in ("", "0", "1"):
        raise TrainingError(
            f"{path}: WORLD_SIZE = {count}: a run is one process, and here so many would write the same files. Way "
            "out: 'mho run' without torchrun; for seeds side by side, runs with --seed and --out of their own and then "
            "'mho join'; or a training loop of your own with mho.train.distributed."
        )


def save_description(folder: Path, recipe: Recipe, hw: Hardware) -> None:
    """Write ``recipe.toml`` and ``hardware.toml``."""
    write_atomically(folder / "recipe.toml", dump_recipe(recipe).encode())
    write_atomically(folder / "hardware.toml", dump_hardware(hw).encode())


def save_results(folder: Path, measured: Measured) -> None:
    """Write every outcome to ``results/*.npz``."""
    make_folder(folder / "results")
    kinds = {"final": measured.final, "noise": measured.noise, "age": measured.age}
    kinds |= {f"unseen{number}": found for number, found in enumerate(measured.unseen.values())}
    for kind, results in kinds.items():
        for name, result in results.items():
            result.save(_result(folder, kind, name))


def load_results(
    folder: Path, recipe: Recipe, hw: Hardware, networks: Mapping[str, Any], digital_accuracy: tuple[float, ...]
) -> Measured:
    """Read what :func:`save_results` wrote of ``networks`` (by their names on chips) under ``recipe``.

    Raises :class:`CheckpointError` naming a missing or damaged file.
    """

    def read(kind: str, asked: object = True) -> dict[str, Result]:
        return {name: Result.load(_result(folder, kind, name)) for name in networks} if asked else {}

    asked = recipe.evaluate
    age = read("age", asked.ages)
    others = {other.name: read(f"unseen{number}") for number, other in enumerate(asked.unseen)}
    on = next((str(result.data.attrs["hardware"]) for result in age.values()), hw.name)
    return Measured(digital_accuracy, read("final"), read("noise", asked.noise_scales), age, on, others)


def write_numbers(folder: Path, summary: dict[str, Any], record: dict[str, Any], page: RunData) -> RunSummary:
    """Write ``summary.json``, ``record.json`` and ``report.html``."""
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_atomically(folder / "record.json", encoded(record))
    run_report(folder / "report.html", page)
    return RunSummary(folder, summary)


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file of a finished run. Raises :class:`CheckpointError` where it cannot be read."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({type(error).__name__}). Way out: copy it from where the run was made, or "
            "'mho run --resume' there."
        ) from error
    return found


def _result(folder: Path, kind: str, name: str) -> Path:
    return folder / "results" / f"{kind}_{name}.npz"
