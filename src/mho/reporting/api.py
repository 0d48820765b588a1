"""One call for every kind of item: results, runs and sections of one's own."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from mho.costs.report import EnergyReport
from mho.errors import InputError
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.reporting.energy import energy_sections
from mho.reporting.figures import accuracy_vs_age, accuracy_vs_noise, chip_histogram
from mho.reporting.page import render
from mho.reporting.run import RunData, run_sections
from mho.reporting.sections import Details, Figure, Hero, Section, Stat, Table, Text
from mho.reporting.series import Baseline, Curve, Group
from mho.units import duration_text

Item = Result | RunData | EnergyReport | Section
_MOST_CURVES = 6


def report(path: str | os.PathLike[str], *items: Item) -> Path:
    """Write one self-contained HTML page of ``items`` to ``path``, atomically, and return the path.

    Items: :class:`~mho.evaluation.result.Result`, :class:`RunData`, :class:`~mho.costs.EnergyReport`, or sections
    (:class:`Hero`, :class:`Text`, :class:`Table`, :class:`Figure`, :class:`Details`), in the order of the page. Text is
    escaped.

    Raises :class:`InputError` for anything else or for no items, and :class:`~mho.errors.CheckpointError`
    naming the path where it cannot be written.
    """
    if not items:
        raise InputError("report: nothing to show. Fix: mho.report(path, result).")
    sections = [section for item in items for section in _sections(item)]
    heads = [section for section in sections if isinstance(section, Hero)]
    if not heads:
        sections.insert(0, Hero(title="Report"))
    title = heads[0].title if heads else "Report"
    return write_atomically(path, render(sections, title=title).encode())


def _sections(item: Item) -> Iterable[Section]:
    if isinstance(item, Result):
        return result_sections(item)
    if isinstance(item, RunData):
        return run_sections(item)
    if isinstance(item, EnergyReport):
        return energy_sections(item)
    if isinstance(item, (Hero, Text, Table, Figure, Details)):
        return (item,)
    raise InputError(
        f"report: cannot show a {type(item).__name__}. "
        "Fix: give a Result, RunData, EnergyReport, or a section (Hero, Text, Table, Figure, Details)."
    )


def result_sections(result: Result) -> tuple[Section, ...]:
    """Head, figures for each swept dimension, and the numbers of one result."""
    summary = result.summary()
    attrs = result.data.attrs
    clean = result.clean_accuracy()
    baseline = None if clean is None else Baseline("Same weights, without noise", float(clean.mean()))
    sections: list[Section] = [_hero(result, summary)]
    if result.data.sizes["noise_scale"] > 1:
        curves = _curves(result, "noise_scale")
        sections.append(accuracy_vs_noise(curves[:_MOST_CURVES], baseline, caption=_left_out(curves)))
    if result.data.sizes["age_s"] > 1:
        curves = _curves(result, "age_s")
        sections.append(accuracy_vs_age(curves[:_MOST_CURVES], baseline, caption=_left_out(curves)))
    if summary["mean"].size <= _MOST_CURVES and result.chips > 1:
        sections.append(chip_histogram(_groups(result), baseline))
    sections.append(_table(result, summary))
    rows = [(str(name), str(value)) for name, value in attrs.items()]
    if rows:
        sections.append(Table(title="How to repeat it", head=("What", "Value"), rows=tuple(rows)))
    return tuple(sections)


def _hero(result: Result, summary: xr.Dataset) -> Hero:
    attrs = result.data.attrs
    # The description's own point where it was measured: noise x 1, converters as described, youngest.
    nominal = {"noise_scale": 1.0, "bits": 0}
    at = {dim: int(np.abs(summary[dim].to_numpy() - value).argmin()) for dim, value in nominal.items()}
    first = summary.isel(
        age_s=int(summary["age_s"].to_numpy().argmin()), noise_scale=at["noise_scale"], bits=at["bits"]
    )
    where = f"on the hardware {attrs['hardware']}" if "hardware" in attrs else "on virtual chips"
    images, seeds = result.data.sizes["image"], result.data.sizes["seed"]
    lead = f"{result.chips} chips, {images} images, {seeds} training seed{'s' * (seeds != 1)}."
    stats = [
        Stat(label="Mean over chips", value=f"{float(first['mean']):.2f} %", note=_label(result, first)),
        Stat(label="Worst chip", value=f"{float(first['worst']):.2f} %", note=_label(result, first)),
    ]
    if "clean" in summary:
        stats.insert(0, Stat(label="Without noise", value=f"{float(summary['clean']):.2f} %", note="same weights"))
    title = str(attrs.get("model", "Evaluation"))
    return Hero(title=title, subtitle=f"mho evaluation {where}", lead=lead, summary_rows=tuple(stats))


def _label(result: Result, point: xr.Dataset | xr.DataArray, without: str = "") -> str:
    """The labels that tell this point from the others; ``without``: not this dimension."""
    texts = {
        "age_s": duration_text(float(point["age_s"])),
        "noise_scale": f"noise x {float(point['noise_scale']):g}",
        "bits": f"{int(point['bits'])} bits" if int(point["bits"]) else "bits as described",
    }
    return ", ".join(text for dim, text in texts.items() if result.data.sizes[dim] > 1 and dim != without)


def _curves(result: Result, along: str) -> tuple[Curve, ...]:
    """One curve for each combination of the other swept labels."""
    accuracy = result.accuracy().sortby(along)
    others = [dim for dim in ("age_s", "noise_scale", "bits") if dim != along]
    curves = []
    for first in range(accuracy.sizes[others[0]]):
        for second in range(accuracy.sizes[others[1]]):
            part = accuracy.isel({others[0]: first, others[1]: second})
            values = part.transpose(along, "seed", "chip").to_numpy().reshape(part.sizes[along], -1)
            name = _label(result, part.isel({along: 0}), without=along) or "On the chips"
            curves.append(Curve(name, part[along].to_numpy(), values))
    return tuple(curves)


def _left_out(curves: tuple[Curve, ...]) -> str:
    """More lines than colours cannot be told apart: the caption says what is in the table alone."""
    if len(curves) <= _MOST_CURVES:
        return ""
    return f"The first {_MOST_CURVES} of {len(curves)} combinations; the table has all."


def _groups(result: Result) -> tuple[Group, ...]:
    accuracy = result.accuracy()
    groups = []
    for index in np.ndindex(tuple(accuracy.sizes[dim] for dim in ("age_s", "noise_scale", "bits"))):
        part = accuracy.isel(age_s=index[0], noise_scale=index[1], bits=index[2])
        groups.append(Group(_label(result, part) or "On the chips", part.to_numpy().ravel()))
    return tuple(groups)


def _table(result: Result, summary: xr.Dataset) -> Table:
    rows = []
    for index in np.ndindex(summary["mean"].shape):
        here = summary.isel(age_s=index[0], noise_scale=index[1], bits=index[2])
        values = [float(here[name]) for name in ("mean", "std", "p5", "worst")]
        cells = [f"{value:.2f}" if np.isfinite(value) else "\u2013" for value in values]
        interval = f"{float(here['ci95_low']):.2f} to {float(here['ci95_high']):.2f}"
        rows.append((_label(result, here) or "On the chips", *cells, interval))
    notes = ". ".join(("Percent of test images; std, p5 and worst over chips", *result.notes())) + "."
    head = ("Point", "mean", "std", "p5", "worst", "95 % interval")
    return Table(title="Accuracy", head=head, rows=tuple(rows), caption=notes)
