"""What a worker does: trains and summarises a run, or puts a trained network on virtual chips."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import torch

from mho.campaign.cells import Cell, Do, Found
from mho.campaign.lock import held
from mho.data import load_dataset
from mho.evaluation.run import evaluate
from mho.experiments.finished import FinishedRun, check_finished
from mho.hardware import load_hardware
from mho.train import load_recipe

T = TypeVar("T")
NETWORKS_KEPT = 4
"""Trained networks that a worker keeps in memory: cells of one network come one after another."""
PATIENCE_S = 60.0
"""How long a training waits for a killed driver's worker to let go of its folder."""


def campaign_work(data_dir: str | os.PathLike[str] | None = None) -> Do:
    """The work of ``mho sweep`` on one thread of torch, with its own cache of data sets and networks."""
    torch.set_num_threads(1)  # As many workers as cores: more threads would only wait for one another.
    return _Worker(None if data_dir is None else os.fspath(data_dir))


class _Recent:
    """The last few things made, by what they were made from."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        if key not in self.kept:
            self.kept[key] = make()
            while len(self.kept) > self.most:
                self.kept.popitem(last=False)
        self.kept.move_to_end(key)
        found: T = self.kept[key]
        return found


class _Worker:
    def __init__(self, data_dir: str | None) -> None:
        self.data_dir = data_dir
        self.data = _Recent(1)
        self.networks = _Recent(NETWORKS_KEPT)

    def __call__(self, cell: Cell) -> Found:
        return self._run(cell) if cell.kind == "run" else self._evaluate(cell)

    def _run(self, cell: Cell) -> Found:
        from mho.experiments import run_recipe  # Its page draws, which a worker that evaluates need not import.

        recipe, out = cell.given["recipe"], Path(cell.given["out"])
        with held(out / f".{recipe.name}.lock", f"run {recipe.name}", PATIENCE_S):
            # What a killed worker had trained is read from its checkpoints.
            made = run_recipe(recipe, data_dir=self.data_dir, out=out, resume=True)
        return Found(summary=made.summary)

    def _evaluate(self, cell: Cell) -> Found:
        folder, task = Path(cell.given["folder"]), cell.task
        run, name = self._finished(folder), task["network"]
        source = (str(folder), task["seed"], task.get("run"), name)
        network = self.networks.get(source, lambda: run.for_chips(name, task["seed"]))
        images = run.data.test_batches(task["batch_size"], subset=task["images"])
        with torch.random.fork_rng(devices=[]):
            result = evaluate(
                network,
                images,
                chips=task["chips"],
                ages=() if task["age_s"] is None else (task["age_s"],),
                noise_scales=(task["noise_scale"],),
                seed=task["lot"],
                seeds=(task["seed"],),
                hardware=cell.given["hardware"],
                compensate=task["compensate"],
            )
        clean = result.clean_accuracy()
        correct = result.data["correct"].isel(seed=0, age_s=0, noise_scale=0, bits=0).transpose("chip", "image")
        return Found(correct=correct.to_numpy(), clean=None if clean is None else float(clean[0]))

    def _finished(self, folder: Path) -> FinishedRun:
        """The run in ``folder``; raises :class:`CheckpointError` rather than training what is gone."""
        check_finished(folder)
        recipe, hw = load_recipe(folder / "recipe.toml"), load_hardware(folder / "hardware.toml")
        name = recipe.data.dataset
        data = self.data.get(name, lambda: load_dataset(name, data_dir=self.data_dir))
        return FinishedRun(folder, recipe, hw, data)
