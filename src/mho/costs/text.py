"""A report as a table for people."""

from mho.costs.constants import Constant
from mho.costs.report import MEASURED_TOPS_PER_W, EnergyReport, LayerCost
from mho.costs.spread import Spread

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"), (1e-15, "f"), (1e-18, "a"))


def quantity_text(value: float, unit: str) -> str:
    """``1.234e-9, "J"`` -> ``"1.23 nJ"``."""
    if value == 0:
        return f"0 {unit}"
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s), _PREFIXES[-1])
    return f"{value / scale:.3g} {prefix}{unit}"


def spread_text(value: Spread, unit: str) -> str:
    """Typical, and low to high behind it."""
    if value.low == value.high:
        return quantity_text(value.typical, unit)
    low, high = quantity_text(value.low, unit), quantity_text(value.high, unit)
    return f"{quantity_text(value.typical, unit)} ({low} to {high})"


def constant_text(constant: Constant) -> str:
    """One line: value, status, process (``not stated`` where the constant does not say), source, note."""
    node = "node not stated" if constant.node_nm is None else f"{constant.node_nm:g} nm"
    supply = "voltage not stated" if constant.voltage_V is None else f"{constant.voltage_V:g} V"
    note = f" ({constant.note})" if constant.note else ""
    value = constant.value
    doubt = "" if value.low == value.high else f" ({value.low:g} to {value.high:g})"
    return (
        f"{constant.name}: {value.typical:g}{doubt} {constant.unit}; {constant.status}; {node}, {supply}; "
        f"{constant.source}{note}"
    )


def _number(value: Spread) -> str:
    return f"{value.typical:.3g} ({value.low:.3g} to {value.high:.3g})"


def report_text(report: EnergyReport) -> str:
    """Layers by parts (typical J an inference), totals, floors, the digital network, notes."""
    parts = list(dict.fromkeys(part for layer in report.priced for part in layer.energy_J))
    header = ("layer", "MACs", "tiles", "full", "conversions", *parts, "total")
    rows = [header, *(_row(layer, parts, report.inferences) for layer in report.layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    lines = [f"{report.model}: typical energy of one inference, {report.process}", *(line.rstrip() for line in lines)]
    lines += ["", *_totals(report), "", *_digital(report)]
    lines += [f"note: {sentence}" for sentence in report.told]
    if report.left_out:
        lines.append(f"left out: {'; '.join(report.left_out)}.")
    return "\n".join(lines)


def _row(layer: LayerCost, parts: list[str], inferences: int) -> tuple[str, ...]:
    def energy(part: str) -> str:
        return quantity_text(layer.energy_J[part].typical, "J") if part in layer.energy_J else "-"

    return (
        layer.name,
        f"{layer.counts.macs / inferences:,.0f}",
        f"{layer.place.tiles:,}",
        f"{100 * layer.place.utilisation:.0f} %",
        f"{layer.counts.conversions / inferences:,.0f}",
        *(energy(part) for part in parts),
        quantity_text(layer.total_J.typical, "J") if layer.energy_J else "no price",
    )


def _totals(report: EnergyReport) -> list[str]:
    total = report.total_J
    if total is None:
        return ["energy of one inference: not known, no layer has a price"]
    lines = [
        f"energy of one inference: {spread_text(total, 'J')}" + ("" if report.complete else ", priced layers only")
    ]
    lines += [f"  of it {part}: {spread_text(value, 'J')}" for part, value in report.beside_J.items()]
    if report.programming_J is not None and report.uses is None:
        lines.append(f"programming, once and not in the sum: {spread_text(report.programming_J, 'J')}")
    if report.tops_per_W is not None and report.fJ_per_mac is not None:
        lines.append(f"{_number(report.tops_per_W)} TOPS/W, {_number(report.fJ_per_mac)} fJ a MAC")
        if report.tops_per_W.typical > MEASURED_TOPS_PER_W:
            lines.append(
                f"  more than any whole chip was measured at with 8 bits ({MEASURED_TOPS_PER_W:g} TOPS/W): an envelope "
                "of the parts that are priced, not a measured chip"
            )
    if report.latency_s is not None and report.interval_s is not None:
        lines.append(
            f"latency {spread_text(report.latency_s, 's')}, pipelined a result each "
            f"{quantity_text(report.interval_s.typical, 's')}"
        )
    if report.area_mm2 is not None:
        lines.append(f"area of the tiles: {_number(report.area_mm2)} mm2")
    found = report.floors
    floors = (
        ("converters at the survey's envelope", found.converters_J),
        ("columns with thermal noise of half an LSB", found.column_J),
        ("kT ln 2 a converted bit", found.erasure_J),
    )
    told = [f"{name} {quantity_text(value, 'J')}" for name, value in floors if value is not None]
    return [*lines, f"floors: {', '.join(told)}"] if told else lines


def _digital(report: EnergyReport) -> list[str]:
    lines = []
    for found in report.digital:
        ratio = report.against(found.format)
        times = "" if ratio is None else f"; {_number(ratio)} times the analog energy"
        where = ", weights in DRAM" if found.weights_in_dram else ""
        lines.append(f"digital {found.format}: {spread_text(found.total_J, 'J')}{where}{times}")
    if report.layers:
        lines.append(report.verdict("int8"))
    if report.measured is not None:
        lines.append(f"digital on this machine: {report.measured}")
    return lines
