"""The page of ``mho run ebm-generate``."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mho.ebm.generate import Check, Energy
from mho.ebm.generate.energy import CONSTANTS
from mho.experiments.ebm.generate_compare import CHIP_ROW, DIGITAL_ROW, Row
from mho.experiments.ebm.generate_settings import Settings
from mho.reporting.figures import training_curves
from mho.reporting.sections import Details, Figure, Hero, KeyEntry, Section, Stat, Table, Text
from mho.reporting.series import History
from mho.reporting.svg import Canvas, color, draw_both, marker

Floats = NDArray[np.float64]
_SIDE = 28


@dataclass(frozen=True, eq=False)
class Finding:
    """What a run found: rows of the first seed, a chain [T + 1, B, P], autocorrelations [T, lags], the training."""

    rows: tuple[Row, ...]
    chain: NDArray[np.float32]
    lags: Floats
    decays: Floats
    checks: Sequence[Check]
    accuracy: float


def page(
    settings: Settings, summary: dict[str, Any], found: Finding, energies: Mapping[str, Energy]
) -> tuple[Section, ...]:
    """Sections of the report in their order."""
    return (
        _hero(settings, summary),
        _samples(found),
        _chain(settings, found),
        _table(summary),
        _decay(found),
        *_training(found),
        _energy(energies),
        Table(
            title="Constants of the energy",
            head=("Constant", "Low", "Typical", "High", "Unit", "Source"),
            rows=tuple(
                (c.name, f"{c.value.low:g}", f"{c.value.typical:g}", f"{c.value.high:g}", c.unit, c.source)
                for c in CONSTANTS
            ),
        ),
        Text(
            title="What is left out",
            paragraphs=(
                "The joules are a system model: counts of events times constants, no measured chip. Programming the "
                "couplings, clocks, supplies and the digital surroundings are not in them. Distances are in the "
                "features of one small classifier and compare only with one another.",
            ),
        ),
        Details(summary="Settings", text=settings.model_dump_json(indent=2)),
    )


def _hero(settings: Settings, summary: dict[str, Any]) -> Hero:
    rows, total = summary["rows"], summary["energy_an_image"]["p-bit sampler"]["J"]["total"]
    worst = max(summary["error_over_chip"].values())
    return Hero(
        title=settings.name,
        subtitle="Denoising thermodynamic model",
        lead=f"{summary['steps']} Boltzmann machines of {summary['spins']} spins with local couplings of "
        f"{settings.coupling_bits} bits turn noise into images of {summary['dataset']}, one after the other.",
        summary_rows=(
            Stat(label="Frechet distance", value=f"{rows[CHIP_ROW]['frechet']:.1f}", note="chip as meant", slot=0),
            Stat(label="Noise-free digital", value=f"{rows[DIGITAL_ROW]['frechet']:.1f}", note="the same model"),
            Stat(label="Worst with errors", value=f"{worst:.2f}", note="times the chip's distance"),
            Stat(label="Energy an image", value=f"{1e9 * total[1]:.3g} nJ", note="estimate, a system model"),
        ),
    )


def picture(grid: NDArray[np.float32], alt: str, caption: str, title: str) -> Figure:
    """A grid of images [rows, columns, P] of -1 and +1 as one inline PNG."""
    rows, columns, _ = grid.shape
    cells = grid.reshape(rows, columns, _SIDE, _SIDE)
    framed = np.full((rows * (_SIDE + 2), columns * (_SIDE + 2)), 128, np.uint8)
    for y in range(rows):
        for x in range(columns):
            top, left = y * (_SIDE + 2) + 1, x * (_SIDE + 2) + 1
            framed[top : top + _SIDE, left : left + _SIDE] = np.where(cells[y, x] > 0, 255, 0)
    stream = io.BytesIO()
    Image.fromarray(framed).save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    height, width = framed.shape
    svg = (
        f'<svg viewBox="0 0 {width} {height}"><image width="{width}" height="{height}" '
        f'style="image-rendering: pixelated" href="data:image/png;base64,{data}"/></svg>'
    )
    return Figure(svg=svg, alt=alt, caption=caption, title=title)


def _samples(found: Finding) -> Figure:
    grid = np.stack([row.examples.numpy() for row in found.rows])
    names = "; ".join(f"{number + 1}: {row.name}" for number, row in enumerate(found.rows))
    return picture(
        grid,
        f"Sixteen images of each sampler in a row. {names}.",
        f"One row each, from above. {names}. The first images of the first chip, not chosen.",
        "Images",
    )


def _chain(settings: Settings, found: Finding) -> Figure:
    grid = found.chain.transpose(1, 0, 2)
    levels = ", ".join(f"{100 * level:g} %" for level in reversed(settings.levels))
    return picture(
        grid,
        "Eight chains, each from fair coins on the left to an image on the right.",
        f"Each row is one chain. From the left: pixels with {levels} of them flipped, and the image.",
        "From noise to images",
    )


def _table(summary: dict[str, Any]) -> Table:
    rows = tuple(
        (
            name,
            f"{row['frechet']:.1f}",
            f"{row['precision']:.3f}",
            f"{row['recall']:.3f}",
            f"{row['nearest_median']:.0f}",
            f"{100 * row['nearest_copies']:.1f} %",
            f"{row['parameters']}" if row["parameters"] else "-",
        )
        for name, row in summary["rows"].items()
    )
    return Table(
        title="Beside other samplers",
        head=("Sampler", "Frechet distance", "Precision", "Recall", "Nearest, pixels", "Copies", "Parameters"),
        rows=rows,
        strong=(1,),
        caption=f"{summary['images']} images a row, from {summary['chips']} chips where chips differ. Features: a "
        f"classifier that is right on {summary['judge_accuracy']:.2f} % of test images. Nearest: median number of "
        "pixels that differ from the nearest training image; in the last row, those of real test images.",
    )


def _decay(found: Finding) -> Figure:
    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        for t, values in enumerate(found.decays):
            axes.plot(found.lags, values, color=color(t), marker=marker(t), markersize=4, linewidth=1.6)
        axes.set_xlabel("Sweeps between two samples")
        axes.set_ylabel("Autocorrelation")

    wide, narrow = draw_both(draw, 3.2, 3.0)
    ends = "; ".join(f"step {t + 1}: {values[-1]:.3f}" for t, values in enumerate(found.decays))
    return Figure(
        svg=wide,
        narrow=narrow,
        title="Does each step mix?",
        caption="Share of the variance, given the noisy image, that is remembered. Near zero: every sample is new.",
        alt=f"Autocorrelation of each step against sweeps. At {found.lags[-1]:g} sweeps: {ends}.",
        key=tuple(KeyEntry(name=f"Step {t + 1}", slot=t) for t in range(min(6, len(found.decays)))),
    )


def _training(found: Finding) -> list[Figure]:
    if not found.checks:
        return []
    updates = np.array([check.update for check in found.checks], dtype=np.float64)
    steps = range(len(found.checks[0].autocorrelation))

    def series(name: str) -> list[History]:
        return [History(f"Step {t + 1}", updates, np.array([getattr(c, name)[t] for c in found.checks])) for t in steps]

    return [
        training_curves(
            series("autocorrelation"),
            ylabel="Autocorrelation after a whole step",
            title="Training: mixing",
            caption="Measured on the chip as meant; above its target the penalty on correlations grows. Axis: updates.",
        ),
        training_curves(
            series("gradient"),
            ylabel="Size of the gradient",
            title="Training: gradient",
            caption="Root mean square over the couplings, running mean. Axis: updates.",
        ),
    ]


def _energy(energies: Mapping[str, Energy]) -> Table:
    rows = []
    for name, energy in energies.items():
        parts = {**energy.parts, "total": energy.total_J}
        rows += [
            (f"{name}: {part}", f"{1e9 * value.low:.3g}", f"{1e9 * value.typical:.3g}", f"{1e9 * value.high:.3g}")
            for part, value in parts.items()
        ]
    return Table(
        title="Energy an image, estimated",
        head=("Part", "Low, nJ", "Typical, nJ", "High, nJ"),
        rows=tuple(rows),
        strong=tuple(index for index, row in enumerate(rows) if row[0].endswith(": total")),
        caption="A system model. Digital: additions, multiplications and on-chip memory alone.",
    )
