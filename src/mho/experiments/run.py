"""``mho run``: train, fabricate, measure and report one recipe."""

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mho.data import load_dataset
from mho.evaluation.atomic import write_atomically
from mho.experiments.costs import costs_of
from mho.experiments.device import usable_device
from mho.experiments.folder import make_folder
from mho.experiments.measure import Judge
from mho.experiments.networks import Say, Trainer
from mho.experiments.record import encoded, record_of
from mho.experiments.summary import page_of, summarize
from mho.hardware import dump_hardware, load_hardware
from mho.reporting.run import run_report
from mho.train import Recipe, dump_recipe, load_recipe


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


def run_recipe(
    recipe: Recipe | str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs",
    resume: bool = False,
    seeds: tuple[int, ...] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    say: Say | None = None,
) -> RunSummary:
    """Train the three networks of ``recipe``, put them on virtual chips and write the results.

    Writes ``<out>/<name>/``: ``recipe.toml``, ``hardware.toml``, checkpoints and measurements for each seed and
    network, ``results/*.npz`` (every outcome), ``summary.json``, ``record.json`` (every chip, for tables and plots),
    ``report.html``. ``resume``: continue from the checkpoints and measurements there, to the same bits as an
    uninterrupted run; seeds that ran one by one join to one run. ``device``: where networks train and are judged
    ("cpu", "cuda", "cuda:1"); chips and batches are the same on each. ``say`` is told what begins.

    Raises :class:`RecipeError`, :class:`HardwareError`, :class:`DataError` before anything is written, and
    :class:`CheckpointError` for a folder that cannot be written.
    """
    began = time.monotonic()
    tell: Say = say or (lambda text: None)
    described = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seeds:
        described = described.model_copy(update={"seeds": seeds})
    hw, place = load_hardware(described.hardware), usable_device(device)
    tell(f"data: {described.data.dataset}")
    data = load_dataset(described.data.dataset, data_dir=data_dir).to(place)
    folder = make_folder(Path(out) / described.name)
    write_atomically(folder / "recipe.toml", dump_recipe(described).encode())
    write_atomically(folder / "hardware.toml", dump_hardware(hw).encode())
    command = _command(recipe, described, place)
    trainer = Trainer(described, data, hw, folder, resume, progress, tell, place)
    networks = [trainer.networks(seed) for seed in described.seeds]
    judge = Judge(described, data, hw, folder, resume, progress, tell, command)
    measured = judge.measure(networks)
    make_folder(folder / "results")
    kinds = {"final": measured.final, "noise": measured.noise, "age": measured.age}
    kinds |= {f"unseen{number}": found for number, found in enumerate(measured.unseen.values())}
    for kind, results in kinds.items():
        for name, result in results.items():
            result.save(folder / "results" / f"{kind}_{name}.npz")
    summary = summarize(described, networks, measured, time.monotonic() - began, command)
    tell("energy")
    costs = costs_of([n.to("cpu") for n in networks], measured, data.to("cpu"), hw)
    summary["energy"] = costs.numbers()
    page = replace(
        page_of(described, hw, networks, measured, summary), energy=costs.report, equal_accuracy=costs.sentence
    )
    summary["wall_s"] = round(time.monotonic() - began, 1)
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    record = record_of(described, hw, networks, measured, summary, len(data.classes))
    write_atomically(folder / "record.json", encoded(record))
    run_report(folder / "report.html", replace(page, wall_s=summary["wall_s"]))
    return RunSummary(folder, summary)


def _command(recipe: Recipe | str | os.PathLike[str], described: Recipe, device: torch.device) -> str:
    name = described.name if isinstance(recipe, Recipe) else os.fspath(recipe)
    seeds = "".join(f" --seed {s}" for s in described.seeds)
    return f"mho run {name}{seeds}" + ("" if device.type == "cpu" else f" --device {device}")
