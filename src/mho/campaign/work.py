"""What a worker does: trains and summarises a run, or puts a trained network on virtual chips."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mho.campaign.cells import Cell, Do, Found
from mho.campaign.lock import held
from mho.data import Dataset, load_dataset
from mho.evaluation.run import evaluate
from mho.experiments.networks import Networks, Trainer
from mho.hardware import load_hardware
from mho.train import load_recipe

T = TypeVar("T")
RUNS_KEPT = 4
"""Trained runs that a worker keeps in memory: cells of one network come one after another."""
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
        self.runs = _Recent(RUNS_KEPT)

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
        source = (str(folder), task["seed"], task.get("run"))
        networks, data = self.runs.get(source, lambda: self._trained(folder, task["seed"]))
        images = data.test_batches(task["batch_size"], subset=task["images"])
        with torch.random.fork_rng(devices=[]):
            result = evaluate(
                _named(networks, task["network"]),
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

    def _trained(self, folder: Path, seed: int) -> tuple[Networks, Dataset]:
        recipe, hw = load_recipe(folder / "recipe.toml"), load_hardware(folder / "hardware.toml")
        name = recipe.data.dataset
        data = self.data.get(name, lambda: load_dataset(name, data_dir=self.data_dir))
        trainer = Trainer(recipe, data, hw, folder, resume=True, progress=False, say=lambda text: None)
        return trainer.networks(seed), data


def _named(networks: Networks, name: str) -> nn.Module:
    """A converted network of a run by the name that campaigns have for it; "digital" is the digital one, converted."""
    return networks.digital_on_hardware if name == "digital" else networks.trained()[name].network
