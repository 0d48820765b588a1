"""What a network costs, as sections of a page: the sentence, the numbers, joules by layer and part."""

from collections.abc import Sequence

import numpy as np

from mho.costs.report import EnergyReport
from mho.costs.spread import Spread
from mho.costs.text import quantity_text, spread_text
from mho.errors import InputError
from mho.reporting.sections import Figure, KeyEntry, Section, Table, Text
from mho.reporting.svg import INK, PAPER, Canvas, color, draw_both

_MOST_PARTS = 6
_REST = "other parts"


def energy_sections(report: EnergyReport, sentence: str = "") -> tuple[Section, ...]:
    """The verdict (or ``sentence``), the table beside the digital network, stacked bars by layer, and every note."""
    sections: list[Section] = [_numbers(report)]
    if report.priced:
        sections.append(energy_bars(report))
    left = f"Left out: {'; '.join(report.left_out)}."
    return (
        Text(title="Energy", paragraphs=(sentence or report.verdict("int8"),)),
        *sections,
        Text(paragraphs=(*report.told, left)),
    )


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
    if report.tops_per_W is not None:
        per_watt = report.tops_per_W
        rows.append(("TOPS/W", *(f"{getattr(per_watt, k):.3g}" for k in ("low", "typical", "high"))))
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

    Raises :class:`InputError` where no layer has a price.
    """
    layers = report.priced
    if not layers:
        raise InputError("energy_bars: no layer has a price. Fix: leave the figure out, or price the hardware.")
    parts, joules = _stacks(report)
    unit = 10.0 ** (3 * np.floor(np.log10(max(float(joules.sum(1).max()), 1e-30)) / 3))

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        places = np.arange(len(layers), dtype=np.float64)
        left = np.zeros(len(layers))
        for slot, row in enumerate(joules.T):
            axes.barh(
                places, row / unit, left=left / unit, height=0.5, color=color(slot), edgecolor=PAPER, linewidth=0.6
            )
            left += row
        axes.set_yticks(places, [layer.name for layer in layers], color=INK)
        axes.set_ylim(len(layers) - 0.4, -0.6)
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(f"Energy of one inference, {quantity_text(unit, 'J').removeprefix('1 ')}")

    height = 0.8 + 0.32 * len(layers)
    wide, narrow = draw_both(draw, height, height)
    said = "; ".join(f"{layer.name} {quantity_text(layer.total_J.typical, 'J')}" for layer in layers)
    whole = report.total_J
    text = f"{caption} Typical constants; all layers: {spread_text(whole, 'J') if whole else ''}.".strip()
    key = tuple(KeyEntry(name=part, slot=slot) for slot, part in enumerate(parts))
    return Figure(svg=wide, narrow=narrow, title=title, caption=text, alt=f"{title}: {said}.", key=key)


def _stacks(report: EnergyReport) -> tuple[Sequence[str], np.ndarray]:
    """Names of what is stacked, largest first, and J [layer, part]."""
    totals: dict[str, float] = {}
    for layer in report.priced:
        for part, value in layer.energy_J.items():
            totals[part] = totals.get(part, 0.0) + value.typical
    order = sorted(totals, key=lambda part: -totals[part])
    kept = order if len(order) <= _MOST_PARTS else order[: _MOST_PARTS - 1]
    columns = [[layer.energy_J[p].typical if p in layer.energy_J else 0.0 for p in kept] for layer in report.priced]
    joules = np.array(columns)
    if len(kept) == len(order):
        return kept, joules
    rest = [sum(v.typical for p, v in layer.energy_J.items() if p not in kept) for layer in report.priced]
    return (*kept, _REST), np.column_stack((joules, rest))
