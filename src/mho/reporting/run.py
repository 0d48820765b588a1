"""The page of one run: what ``mho run`` measured, in the order in which a reader asks."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mho.costs.report import EnergyReport
from mho.errors import InputError
from mho.evaluation.atomic import write_atomically
from mho.reporting.energy import compared_table, energy_sections
from mho.reporting.figures import accuracy_vs_age, accuracy_vs_noise, chip_histogram, training_curves
from mho.reporting.maps import conductance_map, dominance_bars
from mho.reporting.page import render
from mho.reporting.sections import Details, Hero, Section, Stat, Table, Text
from mho.reporting.series import Baseline, Curve, DominanceRow, Group, History, slots_by_name, with_slots

_NETWORKS = (
    ("digital_on_chips", "Digital, on the chips"),
    ("digital_quantized", "Quantised digital, on the chips"),
    ("noise_injection", "Noise injection, on the chips"),
    ("hardware_aware", "Hardware-aware, on the chips"),
)
_ABSENT = "\u2013"


@dataclass(frozen=True, kw_only=True, eq=False)
class RunData:
    """What a run found; a part that is None is left out of the page.

    ``summary``: the content of ``summary.json`` (``digital``, ``digital_on_chips``, ``hardware_aware`` and
    perhaps ``digital_quantized``). ``seeds``, ``versions`` and ``wall_s`` are taken from it where not given.
    ``dominance``: (source, dB relative to full scale, note). A network keeps one colour on the page, so
    give it one name everywhere.
    """

    name: str
    hardware: str
    summary: Mapping[str, Any] | None = None
    curves_noise: tuple[Curve, ...] | None = None
    noise_label: str = "Noise, times the described level"
    curves_age: tuple[Curve, ...] | None = None
    age_caption: str = ""
    histogram: tuple[Group, ...] | None = None
    training: tuple[History, ...] | None = None
    training_label: str = "Training loss"
    conductance_uS: ArrayLike | None = None
    conductance_layer: str = ""
    dominance: tuple[tuple[str, float, str], ...] | None = None
    recipe_toml: str | None = None
    versions: Mapping[str, str] | None = None
    seeds: tuple[int, ...] | None = None
    command: str | None = None
    wall_s: float | None = None
    energy: EnergyReport | None = None
    equal_accuracy: str = ""


def run_report(path: str | os.PathLike[str], run: RunData) -> Path:
    """Write the page of ``run`` to ``path``, atomically.

    Raises :class:`~mho.errors.CheckpointError` where it cannot be written and :class:`InputError` for a
    summary without the promised keys.
    """
    page = render(run_sections(run), title=f"{run.name} on {run.hardware}")
    return write_atomically(path, page.encode())


def run_sections(run: RunData) -> tuple[Section, ...]:
    """The sections of ``run``: head, numbers, figures, hardware, how to repeat it."""
    curves = (*(run.curves_noise or ()), *(run.curves_age or ()))
    names = [curve.name for curve in curves] + [group.name for group in run.histogram or ()]
    slots = slots_by_name([*names, *(history.name for history in run.training or ())])
    digital = _baseline(run)
    sections: list[Section] = [_hero(run)]
    if run.summary is not None:
        sections.append(_numbers(run.summary))
    if run.curves_noise:
        sections.append(accuracy_vs_noise(with_slots(run.curves_noise, slots), digital, xlabel=run.noise_label))
    if run.histogram:
        sections.append(chip_histogram(with_slots(run.histogram, slots), digital))
    if run.curves_age:
        sections.append(accuracy_vs_age(with_slots(run.curves_age, slots), digital, caption=run.age_caption))
    if run.training:
        sections.append(training_curves(with_slots(run.training, slots), ylabel=run.training_label))
    if run.dominance:
        sections.extend(_dominance(run.dominance))
    if run.conductance_uS is not None:
        cells = np.asarray(run.conductance_uS, dtype=np.float64)
        sections.append(conductance_map(cells, layer=run.conductance_layer, title="Conductances of a layer"))
    compared = compared_table(run.summary or {})
    if run.energy is not None:
        sections.extend(energy_sections(run.energy, run.equal_accuracy, compared))
    elif run.equal_accuracy:
        sections += [Text(title="Energy", paragraphs=(run.equal_accuracy,)), *compared]
    sections.extend(_repeat(run))
    return tuple(sections)


def _entry(summary: Mapping[str, Any], key: str, needed: tuple[str, ...]) -> Mapping[str, Any] | None:
    entry = summary.get(key)
    if entry is None:
        return None
    missing = [name for name in needed if name not in entry]
    if missing:
        raise InputError(f"RunData.summary[{key!r}]: no {', '.join(missing)}. Fix: Result.numbers() gives all of them.")
    return dict(entry)


def _chips_entry(summary: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    return _entry(summary, key, ("mean", "std", "p5", "worst", "ci95", "chips"))


def _digital(summary: Mapping[str, Any]) -> float | None:
    entry = _entry(summary, "digital", ("accuracy",))
    return None if entry is None else float(entry["accuracy"])


def _baseline(run: RunData) -> Baseline | None:
    digital = _digital(run.summary) if run.summary is not None else None
    return None if digital is None else Baseline("Digital, without noise", digital)


def _hero(run: RunData) -> Hero:
    head = Hero(title=run.name, subtitle=f"mho run, hardware {run.hardware}")
    if run.summary is None:
        return head
    digital = _digital(run.summary)
    raw, aware = (_chips_entry(run.summary, key) for key in ("digital_on_chips", "hardware_aware"))
    stats: list[Stat] = []
    if digital is not None:
        stats.append(Stat(label="Digital", value=f"{digital:.2f} %", note="no analog hardware"))
    if raw is not None:
        stats.append(Stat(label="Digital, on the chips", value=f"{raw['mean']:.2f} %", note=_worst(raw)))
    if aware is not None:
        stats.append(Stat(label="Hardware-aware, on the chips", value=f"{aware['mean']:.2f} %", note=_worst(aware)))
        if digital is not None:
            value = f"{aware['mean'] - digital:+.2f}".replace("-", "\u2212")
            stats.append(Stat(label="Against digital", value=value, note="percentage points, mean over chips"))
    return replace(head, summary_rows=tuple(stats), lead=_verdict(run, digital, raw, aware))


def _worst(entry: Mapping[str, Any]) -> str:
    return f"worst of {entry['chips']}: {entry['worst']:.2f} %"


def _verdict(
    run: RunData, digital: float | None, raw: Mapping[str, Any] | None, aware: Mapping[str, Any] | None
) -> str:
    if aware is None:
        return ""
    text = (
        f"On {aware['chips']} virtual chips of {run.hardware}, the hardware-aware network is right on "
        f"{aware['mean']:.2f} % of the images on average and on {aware['worst']:.2f} % on the worst chip."
    )
    if digital is not None:
        text += f" Its digital baseline reaches {digital:.2f} %"
        text += f"; put on the same chips, it reaches {raw['mean']:.2f} %." if raw is not None else "."
    return text


def _numbers(summary: Mapping[str, Any]) -> Table:
    digital = _digital(summary)
    rows = []
    if digital is not None:
        rows.append(("Digital, without noise", f"{digital:.2f}", *[_ABSENT] * 7))
    for key, label in _NETWORKS:
        entry = _chips_entry(summary, key)
        if entry is not None:
            rows.append((label, *_row(entry, digital)))
    strong = tuple(index for index, row in enumerate(rows) if row[0] == _NETWORKS[-1][1])
    caption = (
        "Percent of test images. std, p5 and worst: over chips. The 95 % interval of the mean is a hierarchical "
        "bootstrap over training seeds, chips and images."
    )
    head = ("Network", "clean", "mean", "std", "p5", "worst", "95 % interval", "against digital", "chips")
    return Table(title="Accuracy", head=head, rows=tuple(rows), caption=caption, strong=strong)


def _row(entry: Mapping[str, Any], digital: float | None) -> tuple[str, ...]:
    numbers = [_percent(entry.get(name)) for name in ("clean", "mean", "std", "p5", "worst")]
    low, high = entry["ci95"]
    against = _ABSENT if digital is None else f"{entry['mean'] - digital:+.2f}".replace("-", "\u2212")
    return (*numbers, f"{low:.2f} to {high:.2f}", against, str(entry["chips"]))


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.2f}"


def _dominance(rows: tuple[tuple[str, float, str], ...]) -> tuple[Section, ...]:
    items = [DominanceRow(*row) for row in rows]
    bars = dominance_bars([replace(item, note="") for item in items])
    if not any(item.note for item in items):
        return (bars,)
    ordered = sorted(items, key=lambda item: -item.level_dB)
    cells = tuple((item.source, _decibel(item.level_dB), item.note) for item in ordered)
    return (bars, Table(title="Noise sources", head=("Source", "dB of full scale", "Note"), rows=cells))


def _decibel(level: float) -> str:
    return f"{level:.1f}".replace("-", "\u2212") if np.isfinite(level) else _ABSENT


def _repeat(run: RunData) -> tuple[Section, ...]:
    known: Mapping[str, Any] = run.summary or {}
    seeds, versions = run.seeds or known.get("seeds"), run.versions or known.get("versions")
    wall_s = run.wall_s if run.wall_s is not None else known.get("wall_s")
    rows = [("Hardware", run.hardware)]
    if seeds:
        rows.append(("Training seeds", ", ".join(str(seed) for seed in seeds)))
    if versions:
        rows.append(("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if wall_s is not None:
        rows.append(("Time", _clock(float(wall_s))))
    if run.command:
        rows.append(("Command", run.command))
    table = Table(title="How to repeat it", head=("What", "Value"), rows=tuple(rows))
    if run.recipe_toml is None:
        return (table,)
    return (table, Details(title="Recipe", summary="Show the recipe", text=run.recipe_toml))


def _clock(wall_s: float) -> str:
    minutes, rest = divmod(round(wall_s), 60)
    return f"{minutes} min {rest} s" if minutes else f"{wall_s:.1f} s"
