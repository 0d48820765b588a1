"""The noise budget's table for ``docs/results.md``."""

import json
from pathlib import Path
from typing import Any

SAME, LAYER = "the same for all layers", "a layer"
PARTS = (("array",), ("array", "adc"), ("total",))
NANO, MICRO = 1e9, 1e6


def section(folder: Path) -> list[str]:
    """Every noise budget whose data is there, with what they show together."""
    lines: list[str] = []
    tables: list[dict[str, Any]] = []
    for path in sorted(folder.glob("noise-budget-*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        for noise, table in found["read_noise"].items():
            lines += ["", *_table(found, float(noise), table)]
            tables.append(table)
    if not lines:
        return []
    head = [
        "Each table is a run of its own: weights that were trained on differ from run to run, and with them the energy "
        "of the array as it was. Read time: seconds of an inference in which the arrays are read; conversions, logic "
        "and buffers are not in it. Savings: energy or time as it was over the new one, typical constants. Where no "
        "bits stand they are those of the description.",
        "",
        what_is_shown(tables),
    ]
    return ["", "## Noise budget: read time and ADC bits a layer", "", *head, *lines]


def what_is_shown(tables: list[dict[str, Any]]) -> str:
    """A layer against the same for all layers, in words."""
    told = [words for words in map(a_layer_against_the_same, tables) if words]
    rest = [table for table in tables if not a_layer_against_the_same(table)]
    same = sum(map(_is_the_same_for_all, rest))
    words = [f"A layer against the same for all layers: {len(told)} of {len(tables)} tables have both rows.", *told]
    if same:
        words.append(f"In {same} of the others the plan a layer came out the same for all layers.")
    if len(rest) > same:
        words.append(f"In {len(rest) - same} there is nothing to compare with: what a layer adds there is not known.")
    return " ".join(words)


def a_layer_against_the_same(table: dict[str, Any]) -> str:
    """A sentence where a table has both rows. Better: no worse in mean accuracy and in all energy, better in one."""
    if SAME not in table or LAYER not in table:
        return ""
    same, layer = table[SAME], table[LAYER]
    points = layer["mean"] - same["mean"]
    array, both, whole = (_joules(layer, what) / _joules(same, what) for what in PARTS)
    better = points >= 0 and whole <= 1 and (points > 0 or whole < 1)
    verdict = "a layer is better" if better else "a layer is no better than the same for all"
    return (
        f"Mean accuracy {points:+.2f} points, energy of the array {array:.2f} times, of array and ADC {both:.2f} "
        f"times, of all {whole:.2f} times: {verdict}."
    )


def _is_the_same_for_all(table: dict[str, Any]) -> bool:
    settings = [{k: v for k, v in s.items() if k != "name"} for s in table.get(LAYER, {}).get("settings", ())]
    return bool(settings) and all(s == settings[0] for s in settings)


def _joules(row: dict[str, Any], parts: tuple[str, ...]) -> float:
    return float(sum(row["energy_J"][part] for part in parts))


def _table(found: dict[str, Any], noise: float, table: dict[str, dict[str, Any]]) -> list[str]:
    before = table["as it was"]
    lines = [
        f"`{found['command']}`: read noise {100 * noise:g} % at today's read time, {found['images']:,} test images, "
        f"{found['chips']} chips, seed {', '.join(map(str, found['seeds']))}. As it was, an inference takes "
        f"{NANO * before['energy_J']['array']:.1f} nJ in the array, {NANO * before['energy_J']['adc']:.0f} nJ in the "
        f"ADCs, {NANO * before['energy_J']['total']:.0f} nJ in all, and {MICRO * before['read_s']:.0f} us of reads.",
        "",
        "| allocation | mean | p5 | against today | array | read time | array and ADC | all | bits |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for name, row in table.items():
        saved = [_joules(before, what) / _joules(row, what) for what in PARTS]
        against = row.get("difference")
        shown = "" if against is None else f"{against['points']:+.2f} ({against['low']:+.2f} to {against['high']:+.2f})"
        bits = " ".join(str(s["bits"]) for s in row.get("settings", ()))
        lines.append(
            f"| {name} | {row['mean']:.2f} | {row['p5']:.2f} | {shown} | {saved[0]:.1f} "
            f"| {before['read_s'] / row['read_s']:.1f} | {saved[1]:.2f} | {saved[2]:.2f} | {bits} |"
        )
    return lines
