"""``mho run ebm-eqprop``: networks trained by equilibrium propagation, without noise and on virtual chips."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mho.chips.substrate import chip_seed
from mho.data import Dataset, load_dataset
from mho.ebm import HopfieldNet, clamp, eqprop_optimizer, fit_eqprop, program_cells, written_on_cells
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.experiments.ebm.described import begin
from mho.experiments.ebm.eqprop_judge import Judge
from mho.experiments.ebm.eqprop_page import Finding, Trajectory, page
from mho.experiments.ebm.eqprop_settings import Settings
from mho.experiments.folder import make_folder
from mho.experiments.networks import Say
from mho.experiments.run import RunSummary
from mho.experiments.summary import versions
from mho.hardware.spec import Hardware
from mho.reporting.api import report
from mho.rng import derive_seed, stream
from mho.train import History

NOISE_FREE, ON_CHIPS = "noise_free", "hardware_aware"


def run(
    settings: Settings,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs",
    resume: bool = False,
    seeds: tuple[int, ...] | None = None,
    progress: bool = False,
    say: Say | None = None,
) -> RunSummary:
    """Train, put on chips, write ``<out>/<name>/``: settings.json, hardware.toml, checkpoints, results/*.npz,
    summary.json, record.json, report.html.

    Ctrl-C saves after the running step; ``resume`` goes on to the same bits, and measures nothing again. Raises
    :class:`mho.errors.DataError`, :class:`mho.errors.RecipeError`, and :class:`mho.errors.CheckpointError` where
    ``resume`` meets the training of other settings, before anything is written.
    """
    began = time.monotonic()
    tell: Say = say or (lambda text: None)
    chosen = settings if not seeds else settings.model_copy(update={"seeds": tuple(seeds)})
    hw = chosen.hw()
    tell(f"data: {chosen.data.dataset}")
    data = chosen.pictures(load_dataset(chosen.data.dataset, data_dir=None if data_dir is None else Path(data_dir)))
    chosen.net(data, 0)  # a network that does not fit is said before a folder is made
    folder = Path(out) / chosen.name
    begin(folder, chosen, hw, resume=resume)
    nets, histories = _trained(chosen, data, hw, folder, resume, progress, tell)
    judge = Judge(chosen, data, hw, folder, resume, progress, tell)
    final = {name: judge.final(name, members) for name, members in nets.items()}
    sweep = {name: judge.noise(name, members) for name, members in nets.items()}
    aged = {name: judge.ages(name, members) for name, members in nets.items()}
    make_folder(folder / "results")
    for kind, results in (("final", final), ("noise", sweep), ("age", aged)):
        for name, result in results.items():
            if result is not None:
                result.save(folder / "results" / f"{kind}_{name}.npz")
    trajectory = _trajectory(chosen, data, hw, nets[next(reversed(nets))][0])
    found = Finding(final, _there(sweep), _there(aged), histories, trajectory, hw.name)
    summary = _summary(chosen, hw, found, judge.digital(), time.monotonic() - began)
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_atomically(folder / "record.json", (json.dumps(_record(found), indent=1) + "\n").encode())
    report(folder / "report.html", *page(chosen, summary, found))
    return RunSummary(folder, summary)


def _there(results: dict[str, Result | None]) -> dict[str, Result]:
    return {name: result for name, result in results.items() if result is not None}


def _trained(
    settings: Settings, data: Dataset, hw: Hardware, folder: Path, resume: bool, progress: bool, tell: Say
) -> tuple[dict[str, list[HopfieldNet]], dict[str, list[History]]]:
    """Networks and histories of all seeds by name; both networks of a seed start from the same weights."""
    wanted = {NOISE_FREE: settings.train.noise_free, ON_CHIPS: settings.train.on_chips}
    names = [name for name, chosen in wanted.items() if chosen]
    nets: dict[str, list[HopfieldNet]] = {name: [] for name in names}
    histories: dict[str, list[History]] = {name: [] for name in names}
    table = settings.train
    for seed in settings.seeds:
        for name in names:
            tell(f"seed {seed}: {name.replace('_', ' ')}, {table.epochs} epochs")
            net = settings.net(data, seed)
            history = fit_eqprop(
                net,
                settings.batches(data, seed),
                settings.loss(hw if name == ON_CHIPS else None, data),
                epochs=table.epochs,
                lr=table.lr,
                optimizer=_optimizer(settings, net, hw, seed) if name == ON_CHIPS else table.optimizer,
                momentum=table.momentum,
                nesterov=table.nesterov,
                weight_decay=table.weight_decay,
                schedule=table.schedule,
                seed=seed,
                checkpoint=folder / f"seed{seed}" / name,
                resume=resume,
                progress=progress,
            )
            nets[name].append(net)
            histories[name].append(history)
    return nets, histories


def _optimizer(settings: Settings, net: HopfieldNet, hw: Hardware, seed: int) -> Any:
    """Of the network that trains on chips: its name, or an optimizer whose steps cells write."""
    table = settings.train
    if table.update == "none":
        return table.optimizer
    named = table.model_dump(include={"momentum", "nesterov", "weight_decay"})
    made = eqprop_optimizer(net, table.lr, table.optimizer, **named)
    return written_on_cells(net, made, hw, rule=table.update, seed=derive_seed(seed, "cells"))


@torch.no_grad()
def _trajectory(settings: Settings, data: Dataset, hw: Hardware, net: HopfieldNet) -> Trajectory:
    """Energy, residual and outputs of one test image, sweep by sweep, without noise and on one chip."""
    x, y = next(iter(data.test_batches(8)))
    x, y = x[:1], y[:1]
    cells = program_cells(
        net.values(),
        hw,
        chip_seed=chip_seed(settings.evaluate.seed, 0),
        bounds=net.full_scales,
        digital=net.digital,
    )
    quiet = clamp(net, x)
    dynamics = settings.judging(hw, data)
    noisy = clamp(net, x, cells=cells, dynamics=dynamics, generator=stream(settings.evaluate.seed, "shown"))
    energies, residuals, outputs = [], [], []
    for system in (quiet, noisy):
        states, its_energy, its_output = net.initial(x), [], []
        for _ in range(settings.network.free_steps):
            system.sweep(states)
            its_energy.append(float(net.energy(states, system.x, dict(system.values))))
            its_output.append(system.cost.scores(states[-1], system.values)[0].numpy().copy())
            if system is quiet:
                residuals.append(float(system.residual(states)))
        energies.append(its_energy)
        outputs.append(np.stack(its_output))
    return Trajectory(
        energy=np.array(energies[0]),
        noisy_energy=np.array(energies[1]),
        residual=np.array(residuals),
        outputs=outputs[0],
        noisy_outputs=outputs[1],
        label=int(y[0]),
        classes=data.classes,
    )


def _summary(settings: Settings, hw: Hardware, found: Finding, digital: float | None, wall_s: float) -> dict[str, Any]:
    networks = {name: {k: _rounded(v) for k, v in result.numbers().items()} for name, result in found.final.items()}
    summary: dict[str, Any] = {
        "name": settings.name,
        "experiment": "eqprop",
        "digital": _rounded(digital),
        "dataset": settings.data.dataset,
        "hardware": hw.name,
        "seeds": list(settings.seeds),
        **networks,
        "images": int(found.final[found.shown].data.sizes["image"]),
        "train_s": {name: [round(h.seconds, 1) for h in members] for name, members in found.histories.items()},
        "wall_s": round(wall_s, 1),
        "versions": versions(),
        "command": f"mho run {settings.name}" + "".join(f" --seed {s}" for s in settings.seeds),
    }
    return summary | {"table": _table(summary, networks), "sentence": _sentence(summary, found.shown)}


def _table(summary: dict[str, Any], networks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What ``mho run`` prints."""
    rows = []
    if summary["digital"] is not None:
        rows.append(["digital, same shape, backpropagation", f"{summary['digital']:.2f}", "", "", "", ""])
    chips = next(iter(networks.values()))["chips"]
    for name, entry in networks.items():
        numbers = [entry[k] for k in ("clean", "mean", "std", "p5", "worst")]
        rows.append([f"trained {name.replace('_', ' ')}", *("" if n is None else f"{n:.2f}" for n in numbers)])
    return {
        "title": f"{summary['name']}: {summary['images']:,} images, {chips} virtual chips of {summary['hardware']}",
        "columns": ["equilibrium propagation", "clean", "mean", "std", "p5", "worst"],
        "rows": rows,
    }


def _record(found: Finding) -> dict[str, Any]:
    """Every chip, every noise level, every epoch."""
    return {
        "final": {name: result.accuracy().to_numpy()[:, :, 0, 0, 0].tolist() for name, result in found.final.items()},
        "noise": {
            name: {
                "noise_scale": result.data["noise_scale"].to_numpy().tolist(),
                "accuracy": result.accuracy().to_numpy()[:, :, 0, :, 0].tolist(),
            }
            for name, result in found.noise.items()
        },
        **_aged_record(found),
        "training": {name: [h.as_dict() for h in members] for name, members in found.histories.items()},
        "trajectory": {
            "energy": found.trajectory.energy.tolist(),
            "noisy_energy": found.trajectory.noisy_energy.tolist(),
            "residual": found.trajectory.residual.tolist(),
        },
    }


def _aged_record(found: Finding) -> dict[str, Any]:
    """Every chip at every age, where the settings name some."""
    if not found.ages:
        return {}
    return {
        "age": {
            name: {
                "age_s": result.data["age_s"].to_numpy().tolist(),
                "accuracy": result.accuracy().to_numpy()[:, :, :, 0, 0].tolist(),
            }
            for name, result in found.ages.items()
        }
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    return [_rounded(v) for v in value] if isinstance(value, list) else value


def _sentence(summary: dict[str, Any], shown: str) -> str:
    entry, digital = summary[shown], summary["digital"]
    how = "on chips" if shown == ON_CHIPS else "without noise"
    beside = "" if digital is None else f" The digital network of the same shape: {digital:.2f} %."
    return (
        f"Trained {how}: {entry['clean']:.2f} % without noise, {entry['mean']:.2f} % on {entry['chips']} chips "
        f"(worst {entry['worst']:.2f} %).{beside}"
    )


__all__ = ["Settings", "run"]
