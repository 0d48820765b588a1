"""``mho run ebm-resistive``: resistors and diodes learn digits by equilibrium propagation, on new chips each step."""

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field

from mho.data import Dataset, load_dataset
from mho.ebm.resistive import (
    Layered,
    Learning,
    ResistiveNetwork,
    Solver,
    cocontent_uW,
    inference_cost,
    kirchhoff,
    resistor_power_uW,
    rest,
    sweeps,
)
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.experiments.ebm.described import RunSettings, begin
from mho.experiments.ebm.kept import Ages
from mho.experiments.ebm.resistive_judge import Judge, digital, test_images, training_images
from mho.experiments.ebm.resistive_page import Certificate, Finding, page
from mho.experiments.folder import make_folder
from mho.experiments.networks import Say
from mho.experiments.run import RunSummary
from mho.experiments.summary import versions
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.reporting.api import report
from mho.train import History, TrainSettings, fit

_SHOWN, _CERTIFIED = 64, 4


class Settings(RunSettings):
    """What the run does; every field has a default. Voltages in V.

    ``subset``: the first so many training images. ``hidden``: nodes of each hidden layer. ``nudge``: how far a whole
    error moves an output, in units of ``temperature_V``. ``fill``: the start, as the share of the conductance range.
    ``noise_scales``: multiples of the hardware's noise at which the chips are judged, 1 among them; ``ages`` (e.g.
    "1 day"): of the chips, judged once more at each, at the hardware's own noise.
    """

    EVALUATION: ClassVar = frozenset({"test_subset", "chips", "chip_seed", "noise_scales", "ages"})

    name: str = "ebm-resistive"
    dataset: Literal["mnist-mini", "mnist", "fashion-mnist"] = "mnist-mini"
    subset: int | None = Field(default=None, ge=1)
    test_subset: int | None = Field(default=None, ge=1)
    hardware: str = "generic"
    hidden: tuple[int, ...] = Field(default=(256,), min_length=1)
    voltage_gain: float = Field(default=4.0, gt=0)
    current_gain: float | None = Field(default=None, gt=0)
    input_V: float = Field(default=0.2, gt=0)
    temperature_V: float = Field(default=0.001, gt=0)
    fill: float = Field(default=0.2, gt=0, le=1)
    nudge: float = Field(default=0.5, gt=0)
    variant: Literal["centred", "positive", "negative"] = "centred"
    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=64, ge=1)
    lr: float = Field(default=0.1, gt=0)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    chips: int = Field(default=25, ge=1)
    chip_seed: int = Field(default=1000, ge=0)
    noise_scales: tuple[float, ...] = Field(default=(0.0, 0.5, 1.0, 1.5, 2.0), min_length=1)
    ages: Ages = ()


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
    """Train, put on chips, write ``<out>/<name>/``: summary.json, record.json, report.html, results/, checkpoints.

    The network is a :class:`~mho.ebm.resistive.ResistiveNetwork` trained by :func:`mho.train.fit`, so Ctrl-C
    saves and ``resume`` goes on to the same bits, and measures nothing again. Raises what loading of hardware and data
    raises, and :class:`~mho.errors.CheckpointError` where ``resume`` meets the training of other settings, before
    anything is written; :class:`~mho.ebm.relax.RelaxationError` where a state of rest is not found.
    """
    began = time.monotonic()
    tell: Say = say or (lambda text: None)
    chosen = settings if seeds is None else settings.model_copy(update={"seeds": tuple(seeds)})
    hw = load_hardware(chosen.hardware)
    tell(f"data: {chosen.dataset}")
    data = load_dataset(chosen.dataset, data_dir=None if data_dir is None else Path(data_dir))
    folder = Path(out) / chosen.name
    begin(folder, chosen, hw, resume=resume)
    models, histories, beside = [], [], []
    for seed in chosen.seeds:
        beside.append(digital(chosen, data, seed, folder, resume, tell))
        tell(f"seed {seed}: training, {chosen.epochs} epochs")
        model, history = _train(chosen, data, hw, seed, folder, resume, progress)
        models.append(model)
        histories.append(history)
    tell(f"{chosen.chips} chips, {len(chosen.noise_scales)} levels of noise")
    scales = sorted({*chosen.noise_scales, 1.0})
    judge = Judge(chosen, data, hw, folder, resume, progress)
    result = judge.measure("chips", models, noise_scales=scales)
    make_folder(folder / "results")
    result.save(folder / "results" / "chips.npz")
    aged = None
    if chosen.ages:
        tell(f"{chosen.chips} chips, {len(chosen.ages)} ages")
        aged = judge.measure("ages", models, ages=chosen.ages)
        aged.save(folder / "results" / "ages.npz")
    found = _finding(chosen, data, hw, models[0], result, aged, histories)
    summary = _summary(chosen, found, float(np.mean(beside)), time.monotonic() - began)
    write_atomically(folder / "summary.json", json.dumps(summary, indent=2, allow_nan=False).encode())
    write_atomically(folder / "record.json", json.dumps(_record(chosen, found), allow_nan=False).encode())
    report(folder / "report.html", *page(chosen, summary, found))
    return RunSummary(folder, summary)


def network(settings: Settings, inputs: int, classes: int, hw: Hardware, seed: int) -> ResistiveNetwork:
    """The untrained network of the settings."""
    net = Layered(
        inputs=inputs,
        hidden=settings.hidden,
        outputs=classes,
        voltage_gain=settings.voltage_gain,
        current_gain=settings.current_gain,
        rail_V=settings.input_V,
    )
    return ResistiveNetwork(
        net,
        hw,
        input_V=settings.input_V,
        temperature_V=settings.temperature_V,
        fill=settings.fill,
        learning=Learning(nudge=settings.nudge, variant=settings.variant),
        seed=seed,
    )


def _train(
    settings: Settings, data: Dataset, hw: Hardware, seed: int, folder: Path, resume: bool, progress: bool
) -> tuple[ResistiveNetwork, History]:
    model = network(settings, data.train_x[0].numel(), len(data.classes), hw, seed)
    plan = TrainSettings(
        epochs=settings.epochs,
        optimizer="adamw",
        lr=settings.lr,
        weight_decay=0.0,
        schedule="onecycle",
        label_smoothing=0.0,
    )
    history = fit(
        model,
        training_images(settings, data, seed),
        recipe=plan,
        seed=seed,
        checkpoint=folder / f"seed{seed}",
        resume=resume,
        on_batch=lambda step, loss: model.project(),
        progress=progress,
    )
    return model.eval(), history


def _finding(
    settings: Settings,
    data: Dataset,
    hw: Hardware,
    model: ResistiveNetwork,
    result: Result,
    aged: Result | None,
    histories: list[History],
) -> Finding:
    """Everything that page and record show of the first seed's network."""
    x, _ = test_images(settings, data)[0]
    images = x[:_SHOWN]
    g = model.wanted()
    settled = model.at_rest(images, g)
    trace = _trace(model, images[:1], g)
    cost = inference_cost(model.net, g, settled)
    layers = [float(v) for v in resistor_power_uW(model.net, g, settled.states, settled.given).mean(0)]
    return Finding(
        result=result,
        aged=aged,
        histories=tuple(histories),
        cost=cost,
        power_by_layer_uW=tuple(layers),
        residuals=settled.residuals,
        certificate=certificate(model, images[:_CERTIFIED], g),
        trace_hidden=trace[0],
        trace_outputs=trace[1],
        trace_energy_uW=trace[2],
        output_spread_V=float(settled.outputs.std(0).mean()),
        at_bounds={name: float((w.detach().abs() >= 1).float().mean()) for name, w in model.w.items()},
        hardware=hw.name,
    )


def certificate(model: ResistiveNetwork, images: torch.Tensor, g: dict[str, torch.Tensor]) -> Certificate:
    """Of ``images`` on conductances ``g``: the state of rest as training and chips find it, beside float64's."""
    wide = {name: value.double() for name, value in g.items()}
    exact = rest(model.net, wide, model.volts(images).double(), solver=Solver(tolerance=1e-12))
    used = model.at_rest(images, g)
    widened = replace(exact, states=tuple(v.double() for v in used.states))
    pairs = zip(widened.states, exact.states, strict=True)
    return Certificate(
        images=len(images),
        dtype=str(used.outputs.dtype).removeprefix("torch."),
        tolerance=model.learning.solver.tolerance,
        in_use=float(kirchhoff(model.net, wide, widened).max()),
        in_use_V=max(float((ours - true).abs().max() / true.abs().max()) for ours, true in pairs),
        float64=float(kirchhoff(model.net, wide, exact).max()),
    )


def _trace(
    model: ResistiveNetwork, image: torch.Tensor, g: dict[str, torch.Tensor]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Hidden voltages, output voltages and co-content of one image after each sweep of the solver."""
    hidden, outputs, energy = [], [], []
    volts = model.volts(image).double()
    wide = {name: value.double() for name, value in g.items()}
    for found in sweeps(model.net, wide, volts, solver=Solver(tolerance=1e-12)):
        hidden.append(found.states[0][0, :8].numpy())
        outputs.append(found.outputs[0].numpy())
        energy.append(float(cocontent_uW(model.net, wide, found.states, found.given)))
    return np.array(hidden), np.array(outputs), np.array(energy)


def _summary(settings: Settings, found: Finding, digital: float, wall_s: float) -> dict[str, Any]:
    described = found.result.select(noise_scale=1.0)
    numbers = described.numbers()
    summary: dict[str, Any] = {
        "name": settings.name,
        "experiment": "resistive",
        "hardware": found.hardware,
        "dataset": settings.dataset,
        "seeds": list(settings.seeds),
        "digital": digital,
        "clean": numbers["clean"],
        "on_chips": {key: value for key, value in numbers.items() if key != "clean"},
        "images": int(described.data.sizes["image"]),
        "inference": found.cost.numbers(),
        "power_by_layer_uW": list(found.power_by_layer_uW),
        "kirchhoff_residual": asdict(found.certificate),
        "output_spread_V": found.output_spread_V,
        "share_at_bounds": found.at_bounds,
        "refused_steps": sum(h.refused for h in found.histories),
        "wall_s": round(wall_s, 1),
        "versions": versions(),
        "command": "mho run ebm-resistive" + "".join(f" --seed {s}" for s in settings.seeds),
    }
    return summary | {"table": _table(summary), "sentence": _sentence(summary)}


def _table(summary: dict[str, Any]) -> dict[str, Any]:
    """What ``mho run`` prints."""
    chips = summary["on_chips"]
    numbers = [f"{chips[k]:.2f}" if chips[k] is not None else "" for k in ("mean", "std", "p5", "worst")]
    return {
        "title": f"{summary['name']}: {summary['images']:,} test images on {chips['chips']} virtual chips of "
        f"{summary['hardware']}",
        "columns": ["network", "clean", "mean", "std", "p5", "worst"],
        "rows": [
            ["digital, same shape, backpropagation", f"{summary['digital']:.2f}", "", "", "", ""],
            ["resistors and diodes, equilibrium propagation", f"{summary['clean']:.2f}", *numbers],
        ],
    }


def _record(settings: Settings, found: Finding) -> dict[str, Any]:
    accuracy = found.result.accuracy().isel(age_s=0, bits=0).transpose("noise_scale", "seed", "chip")
    aged = {}
    if found.aged is not None:
        at = found.aged.accuracy().isel(noise_scale=0, bits=0).transpose("age_s", "seed", "chip")
        aged = {"age_s": at["age_s"].to_numpy().tolist(), "accuracy_at_age": at.to_numpy().tolist()}
    return {
        "settings": settings.model_dump(mode="json"),
        "noise_scales": accuracy["noise_scale"].to_numpy().tolist(),
        "accuracy": accuracy.to_numpy().tolist(),
        **aged,
        "histories": [[asdict(epoch) for epoch in h.epochs] for h in found.histories],
        "residuals": list(found.residuals),
        "energy_uW": found.trace_energy_uW.tolist(),
    }


def _sentence(summary: dict[str, Any]) -> str:
    energy, chips = summary["inference"]["energy_J"], summary["on_chips"]
    return (
        f"{summary['clean']:.2f} % without noise, {chips['mean']:.2f} % on {chips['chips']} chips (worst "
        f"{chips['worst']:.2f} %); {summary['inference']['power_uW'] / 1e3:.3g} mW for "
        f"{summary['inference']['settling_s']['typical'] * 1e9:.3g} ns: about {energy['typical'] * 1e12:.3g} pJ an "
        f"inference ({energy['low'] * 1e12:.3g} to {energy['high'] * 1e12:.3g}) in the resistors alone. The digital "
        f"network of the same shape: {summary['digital']:.2f} %."
    )


__all__ = ["Settings", "network", "run"]
