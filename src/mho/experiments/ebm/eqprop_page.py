"""The page of ``mho run ebm-eqprop``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from mho.evaluation.result import Result
from mho.reporting.figures import accuracy_vs_age, accuracy_vs_noise, chip_histogram, training_curves
from mho.reporting.sections import Details, Figure, Hero, KeyEntry, Section, Stat, Table, Text
from mho.reporting.series import Baseline, Curve, Group
from mho.reporting.series import History as Series
from mho.reporting.svg import Canvas, color, draw_both, marker
from mho.train import History

if TYPE_CHECKING:
    from mho.experiments.ebm.eqprop_settings import Settings

Floats = NDArray[np.float64]
NAMES = {"noise_free": "Trained without noise", "hardware_aware": "Trained on virtual chips"}
SLOTS = {"noise_free": 0, "hardware_aware": 1}


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One image on its way to rest: ``energy`` [sweep], ``residual`` [sweep], ``outputs`` [sweep, class], without
    noise and (``noisy_...``) on a chip; ``label``: its class."""

    energy: Floats
    noisy_energy: Floats
    residual: Floats
    outputs: Floats
    noisy_outputs: Floats
    label: int
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Finding:
    """What a run found, by network: final results, sweeps of noise and age, histories; and one trajectory."""

    final: Mapping[str, Result]
    noise: Mapping[str, Result]
    ages: Mapping[str, Result]
    histories: Mapping[str, list[History]]
    trajectory: Trajectory
    hardware: str

    @property
    def shown(self) -> str:
        """The network that the page is about: the last one, trained on chips where one was."""
        return list(self.final)[-1]


def page(settings: "Settings", summary: dict[str, Any], found: Finding) -> tuple[Section, ...]:
    """Sections of the report in their order."""
    return (
        _hero(settings, summary, found),
        _table(summary, found),
        chip_histogram(_groups(found), _baseline(summary)),
        *([_against_noise(found)] if found.noise else []),
        *([_against_age(found)] if found.ages else []),
        _training(found),
        *_paths(found.trajectory),
        _about(settings, found),
        Details(summary="Settings", text=settings.model_dump_json(indent=2)),
        Details(summary="Command and versions", text=f"{summary['command']}\n{summary['versions']}"),
    )


def _hero(settings: "Settings", summary: dict[str, Any], found: Finding) -> Hero:
    entry = summary[found.shown]
    return Hero(
        title=summary["name"],
        subtitle="Hopfield network, equilibrium propagation",
        lead=f"A network that answers by coming to rest, trained on {summary['dataset']} by comparing states of rest, "
        f"and read on virtual chips of {found.hardware}.",
        summary_rows=(
            Stat(label="Without noise", value=f"{entry['clean']:.2f} %", slot=1),
            Stat(label="Mean over chips", value=f"{entry['mean']:.2f} %", note=_chips(found), slot=1),
            Stat(label="Worst chip", value=f"{entry['worst']:.2f} %", slot=1),
            Stat(label="Nudge", value=f"{settings.train.nudge:g}", note=settings.train.variant),
        ),
    )


def _chips(found: Finding) -> str:
    result = found.final[found.shown]
    return f"{result.chips} chips, {result.data.sizes['seed']} seed{'s' * (result.data.sizes['seed'] != 1)}"


def _table(summary: dict[str, Any], found: Finding) -> Table:
    rows = tuple(
        (
            NAMES[name],
            *(f"{summary[name][key]:.2f} %" for key in ("clean", "mean", "p5", "worst")),
            f"{np.mean([h.seconds for h in found.histories[name]]):.0f} s",
        )
        for name in found.final
    )
    if summary["digital"] is not None:
        beside = ("Digital, same shape, backpropagation", f"{summary['digital']:.2f} %", "", "", "", "")
        rows = (beside, *rows)
    return Table(
        title="Numbers",
        head=("Network", "Without noise", "Mean over chips", "5th percentile", "Worst chip", "Training"),
        rows=rows,
        strong=(len(rows) - 1,),
    )


def _baseline(summary: dict[str, Any]) -> Baseline | None:
    if "noise_free" not in summary:
        return None
    return Baseline(name="Trained and read without noise", percent=float(summary["noise_free"]["clean"]))


def _groups(found: Finding) -> list[Group]:
    return [
        Group(NAMES[name], result.accuracy().to_numpy().reshape(-1), SLOTS[name])
        for name, result in found.final.items()
    ]


def _against_noise(found: Finding) -> Figure:
    curves = []
    for name, result in found.noise.items():
        accuracy = result.accuracy().transpose("noise_scale", "seed", "chip", "age_s", "bits").to_numpy()
        scales = result.data["noise_scale"].to_numpy()
        order = np.argsort(scales)
        curves.append(Curve(NAMES[name], scales[order], accuracy.reshape(len(scales), -1)[order], SLOTS[name]))
    read = found.noise.get("noise_free", next(iter(found.noise.values())))
    images = int(read.data.sizes["image"])
    clean = read.clean_accuracy()
    quiet = None if clean is None else Baseline(name="Trained and read without noise", percent=float(clean.mean()))
    return accuracy_vs_noise(curves, quiet, caption=f"The first {images:,} test images.")


def _against_age(found: Finding) -> Figure:
    curves = []
    for name, result in found.ages.items():
        accuracy = result.accuracy().transpose("age_s", "seed", "chip", "noise_scale", "bits").to_numpy()
        ages = result.data["age_s"].to_numpy()
        order = np.argsort(ages)
        curves.append(Curve(NAMES[name], ages[order], accuracy.reshape(len(ages), -1)[order], SLOTS[name]))
    images = int(next(iter(found.ages.values())).data.sizes["image"])
    return accuracy_vs_age(curves, caption=f"The first {images:,} test images; drift is not compensated.")


def _training(found: Finding) -> Figure:
    series = [
        Series(
            NAMES[name],
            np.array([r.epoch + 1 for r in members[0].epochs]),
            np.array([r.loss for r in members[0].epochs]),
            SLOTS[name],
        )
        for name, members in found.histories.items()
    ]
    return training_curves(series, ylabel="Cost of the free state", caption="Mean over the steps of an epoch.")


def _paths(seen: Trajectory) -> tuple[Figure, ...]:
    sweeps = np.arange(1, len(seen.energy) + 1)
    residual = np.maximum(seen.residual, 1e-8)

    def energy(axes: Axes) -> None:
        _line(axes, sweeps, seen.energy, 0)
        _line(axes, sweeps, seen.noisy_energy, 1)
        axes.set_ylabel("Energy")

    def rest(axes: Axes) -> None:
        _line(axes, sweeps, residual, 0)
        axes.set_yscale("log")
        axes.set_ylabel("Residual")

    def outputs(axes: Axes) -> None:
        for k in range(seen.outputs.shape[1]):
            strong = k == seen.label
            axes.plot(sweeps, seen.noisy_outputs[:, k], color=color(1), linewidth=1.9 if strong else 0.8)
            axes.plot(sweeps, seen.outputs[:, k], color=color(0), linewidth=1.9 if strong else 0.8)
        axes.set_ylabel("Output")

    both = (KeyEntry(name="Without noise", slot=0), KeyEntry(name="On a chip", slot=1))
    label = seen.classes[seen.label]
    return (
        _figure(
            energy,
            "Energy on the way to rest",
            "Each sweep solves every layer exactly for its neighbours: without noise the energy never rises.",
            f"Energy from {seen.energy[0]:.2f} to {seen.energy[-1]:.2f} in {len(sweeps)} sweeps.",
            both,
        ),
        _figure(
            rest,
            "Distance from rest",
            "Largest difference of a unit from its own solution, the certificate of relaxation.",
            f"Residual from {residual[0]:.2g} to {residual[-1]:.2g}.",
            both[:1],
        ),
        _figure(
            outputs,
            "Outputs on the way to rest",
            f"One test image of class {label}: its own output is drawn heavier.",
            f"Outputs of one image of class {label}, sweep by sweep.",
            both,
        ),
    )


def _line(axes: Axes, x: NDArray[Any], y: NDArray[Any], slot: int) -> None:
    every = max(1, len(x) // 12)
    axes.plot(x, y, color=color(slot), linewidth=1.8, marker=marker(slot), markersize=4, markevery=every)


def _figure(draw: Any, title: str, caption: str, alt: str, key: tuple[KeyEntry, ...]) -> Figure:
    def on_canvas(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        draw(axes)
        axes.set_xlabel("Sweep")

    wide, narrow = draw_both(on_canvas, 3.2, 3.0)
    return Figure(svg=wide, narrow=narrow, title=title, caption=caption, alt=f"{title}. {alt}", key=key)


def _about(settings: "Settings", found: Finding) -> Text:
    train, conditions = settings.train, settings.conditions
    written = (
        "exactly"
        if train.update == "none"
        else f"as the cells of {found.hardware} answer to pulses (rule {train.update!r}), biases exactly"
    )
    return Text(
        title="What is left out",
        paragraphs=(
            f"Training compares the free state with states under nudges ({train.variant}, {train.nudge:g}); no "
            "gradient passes through the dynamics. The network that trains on virtual chips sees a new chip, fresh "
            f"reads and {conditions.bits or 'the described'} bits of state in every step. Its updates are written "
            f"{written}, to weights that the next chip holds with its own errors. Biases are digital. Time and energy "
            "are not estimated here.",
        ),
    )
