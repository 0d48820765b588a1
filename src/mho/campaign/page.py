"""One page for all cells of a campaign."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mho.campaign.cells import Cell
from mho.campaign.store import labels_of, outcomes
from mho.evaluation.statistics import fifth_percentile, hierarchical_bootstrap
from mho.reporting.api import report
from mho.reporting.figures import accuracy_vs_age, accuracy_vs_noise
from mho.reporting.sections import Details, Figure, Hero, Section, Stat, Table
from mho.reporting.series import Curve
from mho.units import duration_text

Row = Mapping[str, Any]
MOST_CURVES = 6
MOST_POINTS = 400
BOOTSTRAPS = 1000
NAMES = {
    "hardware_aware": "hardware-aware",
    "digital": "digital",
    "quantized": "quantised",
    "noise_injection": "noise injection",
}


@dataclass(frozen=True, order=True)
class Point:
    """Everything but seed and lot: what one line of the table stands for."""

    recipe: str
    network: str
    hardware: str
    age_s: float
    noise_scale: float

    @property
    def line(self) -> tuple[str, str]:
        return self.network, self.hardware


def write_page(path: Path, name: str, cells: Sequence[Cell], rows: Iterable[Row], text: str) -> Path:
    """Write the page of ``cells`` as far as ``rows`` has them; ``text``: the campaign's TOML."""
    by_id = {row["id"]: row for row in rows}
    here = [by_id[cell.id] for cell in cells if cell.id in by_id]
    points = _points(here)
    sections = [
        _hero(name, cells, here),
        *_figures(points),
        *_table_of_points(points),
        *_table_of_runs(here),
        *_table_of_failures(here),
        Details(title="The campaign", summary="campaign.toml", text=text),
    ]
    return report(path, *sections)


def _points(rows: Sequence[Row]) -> dict[Point, list[Row]]:
    found: dict[Point, list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and row["kind"] == "evaluate" and row["accuracy"]:
            key = Point(row["recipe"], row["network"], row["hardware"], row["age_s"], row["noise_scale"])
            found[key].append(row)
    return dict(sorted(found.items()))


def _hero(name: str, cells: Sequence[Cell], rows: Sequence[Row]) -> Hero:
    status = [row["status"] for row in rows]
    lead = f"{status.count('done')} of {len(cells)} cells are done."
    failed, given_up = status.count("failed"), status.count("given up")
    if failed or given_up:
        lead += f" {failed} failed and {given_up} were given up; they are named below."
    versions = sorted({row["mho"] for row in rows})
    if len(versions) > 1:
        lead += f" They were computed by several versions of mho: {', '.join(versions)}."
    seeds = {(row["recipe"], row["seed"]) for row in rows}
    chips = {(row["hardware"], row["lot"], c) for row in rows for c in range(row["chips"] or 0)}
    stats = (
        Stat(label="Cells done", value=f"{status.count('done')}", note=f"of {len(cells)}"),
        Stat(label="Trained networks", value=f"{len(seeds)}", note="recipe and seed"),
        Stat(label="Virtual chips", value=f"{len(chips)}", note="of all hardware"),
    )
    return Hero(title=name, subtitle="mho campaign", lead=lead, summary_rows=stats)


def _figures(points: Mapping[Point, Sequence[Row]]) -> list[Figure]:
    figures: list[Figure] = []
    for recipe in sorted({p.recipe for p in points}):
        mine = {p: rows for p, rows in points.items() if p.recipe == recipe}
        youngest = min(p.age_s for p in mine)
        nominal = min((p.noise_scale for p in mine), key=lambda s: abs(s - 1.0))
        noise = _curves({p: r for p, r in mine.items() if p.age_s == _first_age(mine, p)}, "noise_scale")
        age = _curves({p: r for p, r in mine.items() if p.noise_scale == nominal}, "age_s")
        if noise:
            caption = f"Age: {duration_text(youngest)}, or the youngest that was measured. {_left_out(noise)}"
            title = f"{recipe}: accuracy against noise"
            figures.append(accuracy_vs_noise(noise[:MOST_CURVES], title=title, caption=caption.strip()))
        if age:
            caption = f"Noise: {nominal:g} times the described level. {_left_out(age)}"
            title = f"{recipe}: accuracy against age"
            figures.append(accuracy_vs_age(age[:MOST_CURVES], title=title, caption=caption.strip()))
    return figures


def _first_age(points: Iterable[Point], of: Point) -> float:
    return min(p.age_s for p in points if p.line == of.line)


def _curves(points: Mapping[Point, Sequence[Row]], along: str) -> list[Curve]:
    """A curve for each network and hardware that has two or more points with the same number of chips."""
    lines: dict[tuple[str, str], list[tuple[float, NDArray[np.float64]]]] = defaultdict(list)
    for point, rows in points.items():
        accuracy = np.concatenate([np.asarray(row["accuracy"]) for row in rows])
        lines[point.line].append((getattr(point, along), accuracy))
    curves = []
    for (network, hardware), found in lines.items():
        most = max(len(accuracy) for _, accuracy in found)
        whole = sorted(((x, a) for x, a in found if len(a) == most), key=lambda pair: pair[0])
        if len(whole) > 1:
            name = f"{NAMES.get(network, network)} on {hardware}"
            curves.append(Curve(name, np.array([x for x, _ in whole]), np.stack([a for _, a in whole])))
    return [replace(curve, slot=slot % MOST_CURVES) for slot, curve in enumerate(curves)]


def _left_out(curves: Sequence[Curve]) -> str:
    if len(curves) <= MOST_CURVES:
        return ""
    return f"The first {MOST_CURVES} of {len(curves)} combinations; the table has all."


def _table_of_points(points: Mapping[Point, Sequence[Row]]) -> list[Section]:
    if not points:
        return []
    shown = list(points.items())[:MOST_POINTS]
    rows = []
    for point, cells in shown:
        accuracy = np.concatenate([np.asarray(cell["accuracy"]) for cell in cells])
        rows.append(
            (
                f"{point.recipe}, {NAMES.get(point.network, point.network)}",
                point.hardware,
                f"{point.noise_scale:g}",
                duration_text(point.age_s),
                f"{accuracy.mean():.2f}",
                f"{fifth_percentile(accuracy):.2f}",
                f"{accuracy.min():.2f}",
                _interval(cells),
                f"{len({cell['seed'] for cell in cells})} x {len(accuracy) // len({cell['seed'] for cell in cells})}",
            )
        )
    caption = "Percent of test images; p5 and worst over the chips of all seeds."
    caption += " The interval of the mean resamples seeds, chips and images."
    if len(points) > len(rows):
        caption += f" The first {len(rows)} of {len(points)} points; results.parquet has all."
    head = ("Network", "hardware", "noise x", "age", "mean", "p5", "worst", "95 % interval", "seeds x chips")
    return [Table(title="Accuracy", head=head, rows=tuple(rows), caption=caption)]


def _interval(cells: Sequence[Row]) -> str:
    """Hierarchical bootstrap of the mean; a dash where not all seeds have the same chips yet."""
    by_seed: dict[int, list[NDArray[np.bool_]]] = defaultdict(list)
    for cell in sorted(cells, key=lambda c: (c["seed"], c["lot"])):
        by_seed[cell["seed"]].append(outcomes(cell))
    joined = [np.concatenate(parts) for parts in by_seed.values()]
    if len({array.shape for array in joined}) > 1:
        return "\u2013"
    low, high = hierarchical_bootstrap(np.stack(joined), n_boot=BOOTSTRAPS)
    return f"{low:.2f} to {high:.2f}"


def _table_of_runs(rows: Sequence[Row]) -> list[Section]:
    made = []
    for row in rows:
        if row["kind"] != "run" or row["status"] != "done" or row["summary"] is None:
            continue
        summary = json.loads(row["summary"])
        numbers = [summary.get("digital", {}).get("accuracy")]
        numbers += [summary.get("hardware_aware", {}).get(key) for key in ("mean", "p5", "worst")]
        made.append(
            (
                row["recipe"],
                f"{row['seed']}",
                row["hardware"] or "",
                *("\u2013" if number is None else f"{number:.2f}" for number in numbers),
                f"{row['seconds']:.0f} s",
            )
        )
    head = ("Recipe", "seed", "hardware", "digital", "hardware-aware: mean", "p5", "worst", "took")
    caption = "As 'mho run' measures each: percent of test images on the virtual chips of the recipe."
    return [Table(title="Trained networks", head=head, rows=tuple(made), caption=caption)] if made else []


def _table_of_failures(rows: Sequence[Row]) -> list[Section]:
    bad = tuple((str(labels_of(row)), row["status"], row["message"] or "") for row in rows if row["status"] != "done")
    if not bad:
        return []
    caption = "They run again with 'mho sweep --retry'."
    return [Table(title="Cells that failed", head=("Cell", "status", "message"), rows=bad, caption=caption)]
