"""The noise budget's table for ``docs/results.md``."""

import json
from pathlib import Path
from typing import Any


def section(folder: Path) -> list[str]:
    """Every noise budget whose data is there."""
    lines: list[str] = []
    for path in sorted(folder.glob("noise-budget-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for noise, table in found["read_noise"].items():
            lines += ["", *_table(found, float(noise), table)]
    return ["", "## Noise budget: read time and ADC bits a layer", *lines] if lines else []


def _table(found: dict[str, Any], noise: float, table: dict[str, dict[str, Any]]) -> list[str]:
    lines = [
        f"`{found['command']}`: read noise {100 * noise:g} % at today's read time, {found['images']:,} test images, "
        f"{found['chips']} chips, seed {', '.join(map(str, found['seeds']))}. Savings: energy or time of today over "
        "the new one, typical constants. Where no bits stand they are those of the description.",
        "",
        "| allocation | mean | p5 | against today | array | read time | array and ADC | all | bits |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    before = table["as it was"]
    for name, row in table.items():
        now, then = before["energy_J"], row["energy_J"]
        both = [e["array"] + e["adc"] for e in (now, then)]
        against = row.get("difference")
        shown = "" if against is None else f"{against['points']:+.2f} ({against['low']:+.2f} to {against['high']:+.2f})"
        bits = " ".join(str(s["bits"]) for s in row.get("settings", ()))
        lines.append(
            f"| {name} | {row['mean']:.2f} | {row['p5']:.2f} | {shown} | {now['array'] / then['array']:.1f} "
            f"| {before['read_s'] / row['read_s']:.1f} | {both[0] / both[1]:.2f} | {now['total'] / then['total']:.2f} "
            f"| {bits} |"
        )
    return lines
