"""The table of one network beside the envelope, for ``docs/results.md``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from mho.evaluation.statistics import fifth_percentile


def sections(folder: Path) -> list[str]:
    """Every envelope whose data is there."""
    lines: list[str] = []
    for path in sorted(folder.glob("envelope-*.json")):
        lines += _section(json.loads(path.read_text(encoding="utf-8")))
    return lines


def _section(found: dict[str, Any]) -> list[str]:
    percent = found["unit"] == "percent of the range"
    heads = [f"{level:g} %" if percent else f"x {level:g}" for level in found["levels"]]
    digital = float(np.mean(found["digital"]))
    lines = [
        "",
        f"## One network for all levels: {found['name']}",
        "",
        f"`{found['command']}`: hardware `{found['hardware']}`, training seeds {', '.join(map(str, found['seeds']))}, "
        f"{found['chips']} chips, {found['images']:,} test images, mean / 5th percentile; digital float {digital:.2f}. "
        f"Noise levels of the one network in training: {found['one']}.",
        "",
        "| network | " + " | ".join(heads) + " | area | at the lowest level, against digital |",
        "| --- |" + " ---: |" * (len(heads) + 2),
    ]
    for name, curve in found["envelope"].items():
        points = curve["accuracy"]
        shown = " | ".join(f"{np.mean(p):.2f} / {fifth_percentile(p):.2f}" for p in points)
        lines.append(f"| {name} | {shown} | {curve['area']:.3f} | {np.mean(points[0]) - digital:+.2f} |")
    return lines
