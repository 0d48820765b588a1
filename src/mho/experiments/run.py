"""``mho run``: train, fabricate, measure and report one recipe."""

import os
import time
from dataclasses import replace
from pathlib import Path

import torch

from mho.costs.components import check_prices
from mho.data import load_dataset
from mho.experiments.costs import costs_of, energy_of
from mho.experiments.device import usable_device
from mho.experiments.facts import NetworkFacts
from mho.experiments.folder import RunSummary, make_folder, save_description, save_results, write_numbers
from mho.experiments.measure import Judge
from mho.experiments.networks import Say, Trainer
from mho.experiments.record import record_of
from mho.experiments.summary import page_of, summarize, versions, with_networks
from mho.hardware import load_hardware
from mho.train import Recipe, load_recipe


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

    Raises :class:`RecipeError`, :class:`HardwareError`, :class:`DataError` before anything is written,
    :class:`CheckpointError` for a folder that cannot be written, and :class:`TrainingError` in one of many processes.
    """
    began = time.monotonic()
    tell: Say = say or (lambda text: None)
    described = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if seeds:
        described = described.model_copy(update={"seeds": seeds})
    hw, place = load_hardware(described.hardware), usable_device(device)
    if hw.cost is not None:
        check_prices(hw.cost)
    tell(f"data: {described.data.dataset}")
    data = load_dataset(described.data.dataset, data_dir=data_dir).to(place)
    folder = make_folder(Path(out) / described.name)
    save_description(folder, described, hw)
    command = _command(recipe, described, place)
    trainer = Trainer(described, data, hw, folder, resume, progress, tell, place)
    networks = [trainer.networks(seed) for seed in described.seeds]
    judge = Judge(described, data, hw, folder, resume, progress, tell, command)
    measured = judge.measure(networks)
    save_results(folder, measured)
    tell("energy")
    networks, data = [n.to("cpu") for n in networks], data.to("cpu")
    report = energy_of(networks, data, hw)
    costs = costs_of(report, networks, measured, data, hw)
    facts = NetworkFacts.of(networks)
    wall_s = time.monotonic() - began
    summary = summarize(described, facts, measured, costs, wall_s=wall_s, made_with=versions(), command=command)
    record = record_of(described, hw, facts, measured, summary, len(data.classes))
    page = with_networks(page_of(described, measured, summary), hw, networks[0])
    return write_numbers(folder, summary, record, replace(page, energy=report))


def _command(recipe: Recipe | str | os.PathLike[str], described: Recipe, device: torch.device) -> str:
    name = described.name if isinstance(recipe, Recipe) else os.fspath(recipe)
    seeds = "".join(f" --seed {s}" for s in described.seeds)
    return f"mho run {name}{seeds}" + ("" if device.type == "cpu" else f" --device {device}")
