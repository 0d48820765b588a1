"""The page of ``mho run ebm-resistive``."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mho.ebm.resistive import InferenceCost
from mho.evaluation.result import Result
from mho.reporting.figures import accuracy_vs_age, accuracy_vs_noise, chip_histogram, training_curves
from mho.reporting.sections import Details, Figure, Hero, KeyEntry, Section, Stat, Table, Text
from mho.reporting.series import Baseline, Curve, Group
from mho.reporting.series import History as Series
from mho.reporting.svg import Canvas, color, draw_both, marker
from mho.train import History

if TYPE_CHECKING:
    from mho.experiments.ebm.resistive import Settings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """How well states of rest of ``images`` test images on the wanted conductances are at rest; the worst node of all.

    Residuals: current left over at a node as a share of the currents there, summed branch by branch in float64.
    ``in_use``: of the solver that training and chips have (the network's dtype, stopped at ``tolerance``).
    ``in_use_V``: how far its voltages are from those of the float64 solution, as a share of the layer's largest
    voltage. ``float64``: residual of that solution itself, stopped at 1e-12.
    """

    images: int
    dtype: str
    tolerance: float
    in_use: float
    in_use_V: float
    float64: float

    def __str__(self) -> str:
        return (
            f"Kirchhoff's current law holds to {self.float64:.1e} of a node's currents in float64. Where training and "
            f"chips stop ({self.dtype}, tolerance {self.tolerance:.0e}) it holds to {self.in_use:.1e}, and voltages "
            f"are within {self.in_use_V:.1e} of a layer's largest one ({self.images} test images, no noise)."
        )


@dataclass(frozen=True, eq=False)
class Finding:
    """What a run found: ``result`` of all chips, ``aged`` of them at the ages of the settings, and of the first seed's
    network its traces [sweep, ...] and costs."""

    result: Result
    aged: Result | None
    histories: tuple[History, ...]
    cost: InferenceCost
    power_by_layer_uW: tuple[float, ...]
    residuals: tuple[float, ...]
    certificate: Certificate
    trace_hidden: Floats
    trace_outputs: Floats
    trace_energy_uW: Floats
    output_spread_V: float
    at_bounds: dict[str, float]
    hardware: str


def page(settings: "Settings", summary: dict[str, Any], found: Finding) -> tuple[Section, ...]:
    """Sections of the report in their order."""
    return (
        _hero(summary, settings),
        _histogram(summary, found),
        *([_against_noise(summary, found)] if found.result.data.sizes["noise_scale"] > 1 else []),
        *([] if found.aged is None else [_against_age(summary, found.aged)]),
        _training(found),
        _voltages(found.trace_hidden, "Voltages of hidden nodes on the way to rest", "Hidden node"),
        _voltages(found.trace_outputs, "Voltages of the outputs on the way to rest", "Output"),
        _energy(found),
        _costs(summary, found),
        Text(
            title="What is left out",
            paragraphs=(
                "Amplifiers, converters, diodes and the nudged phases of training are not in the energy. Wires have no "
                "resistance here. Training applies the gradient of each step's chip to the wanted conductances, and "
                "clips them to what a cell can hold.",
            ),
        ),
        Details(summary="Settings", text=settings.model_dump_json(indent=2)),
    )


def _hero(summary: dict[str, Any], settings: "Settings") -> Hero:
    chips, cost = summary["on_chips"], summary["inference"]
    sizes = " - ".join(str(n) for n in settings.hidden)
    return Hero(
        title=settings.name,
        subtitle="Deep resistive network, equilibrium propagation",
        lead=f"A network of resistors and ideal diodes ({sizes} hidden nodes) on {summary['hardware']}, trained on "
        f"{summary['dataset']} by comparing states of rest, with a new virtual chip at each step.",
        summary_rows=(
            Stat(label="Digital, same shape", value=f"{summary['digital']:.2f} %"),
            Stat(label="Without noise", value=f"{summary['clean']:.2f} %"),
            Stat(label="Mean over chips", value=f"{chips['mean']:.2f} %", note=f"{chips['chips']} chips", slot=0),
            Stat(label="Worst chip", value=f"{chips['worst']:.2f} %", slot=0),
            Stat(
                label="Energy an inference",
                value=f"{cost['energy_J']['typical'] * 1e12:.3g} pJ",
                note="estimate, resistors alone",
            ),
        ),
    )


def _accuracies(found: Result) -> Floats:
    """[noise scale, all chips of all seeds], percent."""
    values = found.accuracy().isel(age_s=0, bits=0).transpose("noise_scale", "seed", "chip").to_numpy()
    return np.asarray(values.reshape(len(values), -1), dtype=np.float64)


def _histogram(summary: dict[str, Any], found: Finding) -> Figure:
    described = _accuracies(found.result.select(noise_scale=1.0))[0]
    baseline = Baseline("Without noise", summary["clean"])
    return chip_histogram([Group("Resistive network", described)], baseline)


def _against_noise(summary: dict[str, Any], found: Finding) -> Figure:
    scales = found.result.data["noise_scale"].to_numpy()
    curve = Curve("Resistive network", scales, _accuracies(found.result))
    return accuracy_vs_noise([curve], Baseline("Without noise", summary["clean"]))


def _against_age(summary: dict[str, Any], aged: Result) -> Figure:
    values = aged.accuracy().isel(noise_scale=0, bits=0).transpose("age_s", "seed", "chip").to_numpy()
    ages = aged.data["age_s"].to_numpy()
    order = np.argsort(ages)
    curve = Curve("Resistive network", ages[order], values.reshape(len(ages), -1)[order])
    caption = "Drift is not compensated."
    return accuracy_vs_age([curve], Baseline("Without noise", summary["clean"]), caption=caption)


def _training(found: Finding) -> Figure:
    series = [
        Series(
            f"Seed {number + 1}",
            np.arange(1, len(h.epochs) + 1, dtype=np.float64),
            np.array([e.loss for e in h.epochs]),
        )
        for number, h in enumerate(found.histories)
    ]
    caption = "Mean cross entropy of the steps of an epoch, each on a chip of its own."
    return training_curves(series, ylabel="Training loss", caption=caption)


def _voltages(trace: Floats, title: str, what: str) -> Figure:
    """One line a node against the sweep."""
    sweeps = np.arange(1, len(trace) + 1)

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        for node in range(trace.shape[1]):
            axes.plot(sweeps, 1e3 * trace[:, node], color=color(node), marker=marker(node), markersize=3, linewidth=1.2)
        axes.set_xlabel("Sweep of the solver")
        axes.set_ylabel("Voltage, mV")

    wide, narrow = draw_both(draw, 3.2, 3.0)
    last = ", ".join(f"{1e3 * v:.3g}" for v in trace[-1])
    return Figure(
        svg=wide,
        narrow=narrow,
        title=title,
        caption=f"One test image; {what.lower()}s 1 to {trace.shape[1]}.",
        alt=f"{title}. At rest: {last} mV.",
        key=tuple(KeyEntry(name=f"{what} {n + 1}", slot=n) for n in range(min(6, trace.shape[1]))),
    )


def _energy(found: Finding) -> Figure:
    """How far the co-content still is above its minimum."""
    above = np.maximum(found.trace_energy_uW - found.trace_energy_uW.min(), 0.0)
    positive = above[above > 0]
    floor = float(positive.min()) if positive.size else 1e-12

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        axes.semilogy(np.arange(1, len(above) + 1), np.maximum(above, floor), color=color(0), marker=marker(0))
        axes.set_xlabel("Sweep of the solver")
        axes.set_ylabel("Co-content above its minimum, uW")

    wide, narrow = draw_both(draw, 3.0, 2.8)
    return Figure(
        svg=wide,
        narrow=narrow,
        title="The network minimises its co-content",
        caption=f"Same image, solved in float64. {found.certificate}",
        alt=f"Co-content above its minimum falls from {above[0]:.3g} uW in {len(above)} sweeps.",
    )


def _costs(summary: dict[str, Any], found: Finding) -> Table:
    cost = summary["inference"]

    def row(label: str, key: str, factor: float, unit: str) -> tuple[str, ...]:
        return (label, *(f"{cost[key][part] * factor:.3g} {unit}" for part in ("low", "typical", "high")))

    heat = f"{cost['power_uW'] / 1e3:.4g} mW"
    layers = [
        (f"Heat in layer {n}", *(3 * (f"{p / 1e3:.4g} mW",))) for n, p in enumerate(found.power_by_layer_uW, start=1)
    ]
    return Table(
        title="What an inference costs",
        head=("Quantity", "Low", "Typical", "High"),
        rows=(
            ("Heat in the resistors", heat, heat, heat),
            *layers,
            row("Slowest time constant", "tau_s", 1e9, "ns"),
            row(f"Settling to {cost['settled_to_bits']} bits", "settling_s", 1e9, "ns"),
            row("Energy", "energy_J", 1e12, "pJ"),
        ),
        caption="Estimate: power at rest times settling time, at "
        f"{cost['capacitance_fF_per_resistor']:.3g} fF a resistor ({cost['capacitance_source']}). "
        f"Left out: {cost['left_out']}.",
        strong=(len(layers) + 3,),
    )


__all__ = ["Certificate", "Finding", "page"]
