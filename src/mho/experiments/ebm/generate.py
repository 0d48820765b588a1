"""``mho run ebm-generate``: images out of a chain of small Boltzmann machines whose sampler makes mistakes."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mho.data import Dataset, load_dataset
from mho.ebm.generate import (
    Check,
    DenoisingModel,
    Judge,
    Reference,
    Score,
    autocorrelation,
    binarized,
    chip_steps,
    denoised,
    diffusion_energy,
    digital_sampler_energy,
    gibbs,
    load_judge,
    sampler_energy,
    train,
    train_judge,
)
from mho.ebm.generate.energy import CONSTANTS
from mho.evaluation.atomic import write_atomically
from mho.experiments.ebm.described import begin
from mho.experiments.ebm.generate_compare import Row, baselines, real_row, rows_of, verdict
from mho.experiments.ebm.generate_page import Finding, page
from mho.experiments.ebm.generate_settings import Settings
from mho.experiments.networks import Say
from mho.experiments.run import RunSummary
from mho.experiments.summary import versions
from mho.reporting.api import report
from mho.rng import stream

_LAGS = 8


def run(
    settings: Settings,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "runs",
    resume: bool = False,
    seeds: tuple[int, ...] | None = None,
    progress: bool = False,
    say: Say | None = None,
    judge_file: str | os.PathLike[str] | None = None,
) -> RunSummary:
    """Train, generate, judge, write ``<out>/<name>/``: summary.json, record.json, report.html, weights, checkpoints.

    Ctrl-C saves after the running update; ``resume`` goes on to the same bits. ``judge_file``: the classifier in whose
    features images are compared; without it one is trained, and distances of two runs are then not comparable to the
    last digit. Raises :class:`mho.errors.DataError` for missing data before anything is written, and
    :class:`mho.errors.CheckpointError` for a classifier or a baseline that cannot be read, and, before anything is
    written, where ``resume`` meets the training of other settings.
    """
    began = time.monotonic()
    tell: Say = say or (lambda text: None)
    chosen = settings if seeds is None else settings.model_copy(update={"seeds": tuple(seeds)})
    tell(f"data: {chosen.dataset}")
    data = load_dataset(chosen.dataset, data_dir=None if data_dir is None else Path(data_dir))
    images, test = binarized(data.train_x), binarized(data.test_x[chosen.skip_test :])
    folder = Path(out) / chosen.name
    begin(folder, chosen, None, resume=resume)
    judge = _judge(chosen, data, folder, resume, tell, judge_file)
    reference = Reference.of(judge, test, images)
    tables: list[list[Row]] = []
    models, histories, digital = [], [], None
    for seed in chosen.seeds:
        place = folder / f"seed{seed}"
        model = chosen.model()
        tell(f"seed {seed}: {model.steps} machines of {model.placement.graph.nodes} spins, {model.size} parameters")
        history = train(
            model, images, chosen.training(seed), checkpoint=place / "model", resume=resume, progress=progress
        )
        rows = rows_of(model, chosen, reference, seed, tell)
        if chosen.baselines:
            if not resume:
                for name in ("rbm", "diffusion"):
                    (place / f"{name}.safetensors").unlink(missing_ok=True)
            more, network = baselines(chosen, model.size, images, reference, seed, place, progress, tell)
            rows += more
            digital = diffusion_energy(network, chosen.diffusion_steps)
        rows.append(real_row(chosen, images, reference, test))
        tables.append(rows)
        models.append(model)
        histories.append(history)
    found = _finding(chosen, judge, models[0], histories, tables, images)
    energies = {
        "p-bit sampler": sampler_energy(models[0], chosen.schedule()),
        "the same chain, digital 45 nm": digital_sampler_energy(models[0], chosen.schedule()),
    }
    if digital is not None:
        energies["digital diffusion, int8, 45 nm"] = digital
    summary = _summary(chosen, judge, models[0], tables, time.monotonic() - began)
    summary["energy_an_image"] = {name: energy.numbers() for name, energy in energies.items()}
    summary |= {"table": _table(summary), "sentence": _sentence(summary)}
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode())
    write_atomically(folder / "record.json", json.dumps(_record(chosen, tables, histories, found)).encode())
    report(folder / "report.html", *page(chosen, summary, found, energies))
    return RunSummary(folder, summary)


def _judge(
    settings: Settings, data: Dataset, folder: Path, resume: bool, tell: Say, given: str | os.PathLike[str] | None
) -> Judge:
    path = folder / "judge.safetensors"
    if given is not None:
        judge = load_judge(given, data)
        judge.save(path)
        return judge
    if resume and path.is_file():
        return load_judge(path, data)
    path.unlink(missing_ok=True)  # a run that is killed while this one trains must not go on with that of before
    tell(f"classifier of the features: {settings.judge_epochs} epochs")
    judge = train_judge(data, epochs=settings.judge_epochs)
    judge.save(path)
    return judge


def _finding(
    settings: Settings,
    judge: Judge,
    model: DenoisingModel,
    histories: list[tuple[Check, ...]],
    tables: list[list[Row]],
    images: Tensor,
) -> Finding:
    """What the page shows of the first seed: a chain of denoising, autocorrelations, examples."""
    sampler = settings.sampler()
    steps, machine = chip_steps(model, sampler, 0), gibbs(model, sampler)
    chain = list(denoised(model, machine, steps, settings.schedule(), 8, stream(settings.seeds[0], "shown chain")))
    generator = stream(settings.seeds[0], "shown autocorrelation")
    lag, decays = max(1, settings.sweeps // _LAGS), []
    for t in range(1, model.steps + 1):
        _, after = model.flips.pair(images[:8], t, generator)
        decays.append(autocorrelation(model, machine, steps[t - 1], after, lag, generator, points=_LAGS))
    return Finding(
        rows=tuple(tables[0]),
        chain=torch.stack(chain).numpy(),
        lags=np.arange(1, _LAGS + 1) * float(lag),
        decays=np.array(decays),
        checks=histories[0],
        accuracy=judge.accuracy,
    )


def _mean(scores: list[Score]) -> dict[str, float]:
    """Means over seeds of what a row says."""
    flat = [{**s.numbers(), **{f"nearest_{k}": v for k, v in asdict(s.nearest).items()}} for s in scores]
    return {
        key: round(float(np.mean([f[key] for f in flat])), 4) for key in flat[0] if key not in ("nearest", "images")
    }


def _summary(
    settings: Settings, judge: Judge, model: DenoisingModel, tables: list[list[Row]], wall_s: float
) -> dict[str, Any]:
    names = [row.name for row in tables[0]]
    by_name = {name: [next(r for r in rows if r.name == name) for rows in tables] for name in names}
    verdicts = [verdict({row.name: row.score for row in rows}) for rows in tables]
    errors = {
        name: round(float(np.mean([v["error_over_chip"][name] for v in verdicts])), 4)
        for name in verdicts[0]["error_over_chip"]
    }
    return {
        "name": settings.name,
        "experiment": "generate",
        "dataset": settings.dataset,
        "seeds": list(settings.seeds),
        "images": settings.images,
        "chips": settings.chips,
        "parameters": model.size,
        "spins": model.placement.graph.nodes,
        "couplings": model.placement.graph.n_edges,
        "steps": model.steps,
        "judge_accuracy": round(100.0 * judge.accuracy, 3),
        "rows": {
            name: {**_mean([r.score for r in rows]), "parameters": rows[0].parameters} for name, rows in by_name.items()
        },
        "chip_over_digital": round(float(np.mean([v["chip_over_digital"] for v in verdicts])), 4),
        "error_over_chip": errors,
        "wall_s": round(wall_s, 1),
        "versions": versions(),
        "command": "mho run ebm-generate" + "".join(f" --seed {s}" for s in settings.seeds),
    }


def _record(
    settings: Settings, tables: list[list[Row]], histories: list[tuple[Check, ...]], found: Finding
) -> dict[str, Any]:
    return {
        "settings": settings.model_dump(mode="json"),
        "rows": [{row.name: row.numbers() for row in rows} for rows in tables],
        "checks": [[asdict(check) for check in history] for history in histories],
        "autocorrelation": {"lags": found.lags.tolist(), "steps": found.decays.tolist()},
        "constants": [asdict(constant) for constant in CONSTANTS],
    }


def _table(summary: dict[str, Any]) -> dict[str, Any]:
    """What ``mho run`` prints."""
    rows = [
        [name, f"{r['frechet']:.1f}", f"{r['precision']:.3f}", f"{r['recall']:.3f}", f"{r['parameters']:,}"]
        for name, r in summary["rows"].items()
    ]
    return {
        "title": f"{summary['name']}: {summary['images']:,} images of {summary['dataset']}",
        "columns": ["sampler", "Frechet distance", "precision", "recall", "parameters"],
        "rows": rows,
    }


def _sentence(summary: dict[str, Any]) -> str:
    worst = max(summary["error_over_chip"].items(), key=lambda item: item[1])
    total = summary["energy_an_image"]["p-bit sampler"]["J"]["total"]
    return (
        f"Frechet distance of the chip {summary['chip_over_digital']:.2f} times the noise-free digital sampler's; "
        f"worst error ({worst[0]}) {worst[1]:.2f} times the chip's; about {1e9 * total[1]:.3g} nJ an image "
        f"({1e9 * total[0]:.2g} to {1e9 * total[2]:.2g}), a system model."
    )


__all__ = ["Settings", "run"]
