"""What a network costs, as sections of a page: the sentence, the numbers, joules by layer and part."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mho.costs.report import EnergyReport
from mho.costs.spread import Spread
from mho.costs.text import quantity_text, spread_text
from mho.errors import InputError
from mho.reporting.sections import Figure, KeyEntry, Section, Table, Text
from mho.reporting.svg import INK, PAPER, Canvas, color, draw_both

_MOST_PARTS = 6
_REST = "other parts"
WHOLE = "whole network"
"""The bar of what belongs to no layer."""
COMPARED_HEAD = ("Network", "accuracy, %", "J an inference, low", "typical", "high")


def energy_sections(report: EnergyReport, sentence: str = "", compared: tuple[Table, ...] = ()) -> tuple[Section, ...]:
    """The verdict (or ``sentence``), both networks (``compared``), all numbers, stacked bars by layer, every note."""
    sections: list[Section] = [_numbers(report)]
    if report.priced:
        sections.append(energy_bars(report))
    left = f"Left out: {'; '.join(report.left_out)}."
    return (
        Text(title="Energy", paragraphs=(sentence or report.verdict("int8"),)),
        *compared,
        *sections,
        Text(paragraphs=(*report.told, left)),
    )


def compared_rows(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Accuracy and J an inference of the analog network and of the digital ones, from the ``summary`` of a run.

    Rows under :data:`COMPARED_HEAD`; none where the run counted no joules. The analog network is there however accurate
    it is: who wins at equal accuracy is the sentence beside.
    """
    energy, aware = summary.get("energy", {}), summary.get("hardware_aware")
    formats = [key.removesuffix("_J") for key in energy if key.endswith("_J") and key != "analog_J"]
    if aware is None or not formats:
        return ()
    found = [("analog, hardware-aware, mean over chips", aware["mean"], energy.get("analog_J"))]
    for name in formats:
        compared = ", compared with" if energy.get("compared_with") == f"digital {name}" else ""
        found.append((f"digital {name}{compared}", energy.get(f"{name}_accuracy"), energy[f"{name}_J"]))
    return tuple((name, "" if mean is None else f"{mean:.2f}", *_three(joules)) for name, mean, joules in found)


def _three(joules: list[float] | None) -> tuple[str, ...]:
    return ("no price", "", "") if joules is None else tuple(quantity_text(value, "J") for value in joules)


def compared_table(summary: Mapping[str, Any]) -> tuple[Table, ...]:
    """:func:`compared_rows` as a section; none where there are none."""
    rows = compared_rows(summary)
    return (Table(title="Accuracy and energy of both networks", head=COMPARED_HEAD, rows=rows),) if rows else ()


def _numbers(report: EnergyReport) -> Table:
    rows = []

    def add(name: str, value: Spread | None, unit: str) -> None:
        if value is not None:
            rows.append((name, *(quantity_text(getattr(value, k), unit) for k in ("low", "typical", "high"))))

    add("Analog, one inference", report.total_J, "J")
    for part, value in report.parts_J.items():
        add(f"of it {part}", value, "J")
    for found in report.digital:
        add(f"Digital {found.format}{', weights in DRAM' if found.weights_in_dram else ''}", found.total_J, "J")
    add("Latency", report.latency_s, "s")
    for name, plain in (
        ("TOPS/W", report.tops_per_W),
        ("fJ a MAC", report.fJ_per_mac),
        ("Area of the tiles, mm2", report.area_mm2),
    ):
        if plain is not None:
            rows.append((name, *(f"{getattr(plain, k):.3g}" for k in ("low", "typical", "high"))))
    floors = report.floors
    for name, bound in (
        ("Floor: converters at the survey's envelope", floors.converters_J),
        ("Floor: columns at half an LSB of thermal noise", floors.column_J),
        ("Floor: kT ln 2 a converted bit", floors.erasure_J),
    ):
        if bound is not None:
            rows.append((name, *(quantity_text(bound, "J"),) * 3))
    caption = f"{report.process}. An estimate from constants with sources, not a measurement of a chip."
    if report.measured is not None:
        caption += f" Digital network on this machine: {report.measured}"
    return Table(
        title="Cost of one inference", head=("What", "low", "typical", "high"), rows=tuple(rows), caption=caption
    )


def energy_bars(report: EnergyReport, *, title: str = "Where the energy goes", caption: str = "") -> Figure:
    """Typical joules of each priced layer, stacked by part; the largest parts keep a colour of their own.

    What belongs to no layer (static power, digital rest, programming) has a bar of its own, so that all bars together
    are the energy of an inference. Raises :class:`InputError` where no layer has a price.
    """
    if not report.priced:
        raise InputError("energy_bars: no layer has a price. Fix: leave the figure out, or price the hardware.")
    bars, parts, joules = _stacks(report)
    unit = 10.0 ** (3 * np.floor(np.log10(max(float(joules.sum(1).max()), 1e-30)) / 3))

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        places = np.arange(len(bars), dtype=np.float64)
        left = np.zeros(len(bars))
        for slot, row in enumerate(joules.T):
            axes.barh(
                places, row / unit, left=left / unit, height=0.5, color=color(slot), edgecolor=PAPER, linewidth=0.6
            )
            left += row
        axes.set_yticks(places, bars, color=INK)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(f"Energy of one inference, {quantity_text(unit, 'J').removeprefix('1 ')}")

    height = 0.8 + 0.32 * len(bars)
    wide, narrow = draw_both(draw, height, height)
    said = "; ".join(
        f"{bar} {quantity_text(float(total), 'J')}" for bar, total in zip(bars, joules.sum(1), strict=True)
    )
    whole, beside = report.total_J, ", ".join(report.beside_J)
    told = f" {WHOLE[0].upper()}{WHOLE[1:]}: {beside}, of no single layer." if beside else ""
    text = f"{caption} Typical constants; all bars: {spread_text(whole, 'J') if whole else ''}.{told}".strip()
    key = tuple(KeyEntry(name=part, slot=slot) for slot, part in enumerate(parts))
    return Figure(svg=wide, narrow=narrow, title=title, caption=text, alt=f"{title}: {said}.", key=key)


def _stacks(report: EnergyReport) -> tuple[list[str], list[str], np.ndarray]:
    """Names of the bars, names of what is stacked (largest first), and J [bar, part]."""
    bars = {layer.name: layer.energy_J for layer in report.priced}
    if report.beside_J:
        bars[WHOLE] = report.beside_J
    totals = {part: value.typical for part, value in report.parts_J.items()}
    order = sorted(totals, key=lambda part: -totals[part])
    kept = order if len(order) <= _MOST_PARTS else order[: _MOST_PARTS - 1]
    joules = np.array([[bar[p].typical if p in bar else 0.0 for p in kept] for bar in bars.values()])
    if len(kept) == len(order):
        return list(bars), kept, joules
    rest = [sum(v.typical for p, v in bar.items() if p not in kept) for bar in bars.values()]
    return list(bars), [*kept, _REST], np.column_stack((joules, rest))
