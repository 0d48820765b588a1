"""Fill the results of README.md from a finished run: ``python benchmarks/make_readme.py [runs/mnist-mini]``.

Writes docs/results.svg (every chip of each network as a dot) and the table between the two marks.
"""

import argparse
import json
import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
PICTURE = Path("docs/results.svg")
NETWORKS = (
    ("digital_on_chips", "Digital network, on the chips"),
    ("digital_quantized", "Quantised digital network, on the chips"),
    ("hardware_aware", "Hardware-aware network, on the chips"),
)
WIDTH, ROW, LEFT, RIGHT, TOP = 760, 46, 290, 24, 34


def block(summary: dict[str, Any]) -> str:
    """The text between the marks: picture, table, and how it was measured."""
    digital = summary["digital"]["accuracy"]
    seeds, chips = len(summary["seeds"]), summary["hardware_aware"]["chips"]
    lines = [
        BEGIN,
        f"![Accuracy of each virtual chip, for three networks]({PICTURE.as_posix()})",
        "",
        f"| accuracy in percent, {chips} chips | mean | std | 5th percentile | worst | 95 % interval of the mean |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        f"| Digital network, no chip | {digital:.2f} | | | | |",
    ]
    for key, name in NETWORKS:
        entry = summary[key]
        numbers = " | ".join("" if entry[k] is None else f"{entry[k]:.2f}" for k in ("mean", "std", "p5", "worst"))
        low, high = entry["ci95"]
        lines.append(f"| {name} | {numbers} | {low:.2f} to {high:.2f} |")
    lines += [
        "",
        f"`{summary['command']}`: {summary['images']:,} test images, {chips} chips of the hardware "
        f"`{summary['hardware']}`, {seeds} training seed{'s' * (seeds != 1)}, {summary['wall_s']:.0f} s.",
        END,
    ]
    return "\n".join(lines)


def fill(readme: str, text: str) -> str:
    """``readme`` with ``text`` (marks included) between its marks; ``ValueError`` unless each mark is there once."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"the README must hold {BEGIN} and then {END}, once each")
    return readme[: readme.index(BEGIN)] + text + readme[readme.index(END) + len(END) :]


def picture(chips: dict[str, np.ndarray], digital: float) -> str:
    """An SVG with a line of dots for each network and the digital accuracy as a rule; light and dark."""
    lowest = min(float(values.min()) for values in chips.values())
    step = 5.0 if digital - lowest > 8 else 1.0
    floor = step * math.floor(lowest / step)
    height = TOP + ROW * len(NETWORKS) + 34
    bottom = TOP + ROW * len(NETWORKS)

    def x(value: float) -> float:
        return LEFT + (value - floor) / (100.0 - floor) * (WIDTH - LEFT - RIGHT)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        "<title>Accuracy of each virtual chip, in percent</title>",
        "<style>text{font:14px system-ui,sans-serif;fill:#24292f}.m{fill:#656d76;font-size:12px}"
        ".g{stroke:#d0d7de}.d{stroke:#24292f;stroke-dasharray:4 3}.a{fill:#0969da}.b{fill:#8c959f}"
        "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.m{fill:#8d96a0}.g{stroke:#30363d}.d{stroke:#e6edf3}"
        ".a{fill:#4493f8}.b{fill:#8d96a0}}</style>",
    ]
    for tick in np.arange(floor, 100.0 + step / 2, step):
        parts.append(f'<line class="g" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text class="m" x="{x(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="d" x1="{x(digital):.1f}" x2="{x(digital):.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
    label = f"digital, no chip: {digital:.2f} %"
    parts.append(f'<text class="m" x="{x(digital):.1f}" y="{TOP - 14}" text-anchor="end">{label}</text>')
    for place, (key, name) in enumerate(NETWORKS):
        y = TOP + ROW * (place + 0.5)
        parts.append(f'<text x="0" y="{y + 5:.1f}">{escape(name)}</text>')
        paint = "a" if key == "hardware_aware" else "b"
        places = (x(float(value)) for value in chips[key].ravel())
        parts += (f'<circle class="{paint}" cx="{p:.1f}" cy="{y:.1f}" r="5" fill-opacity=".55"/>' for p in places)
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Read the run, write the picture, then the README."""
    options = argparse.ArgumentParser(description="Fill README.md from a finished run.")
    options.add_argument("folder", nargs="?", type=Path, default=Path("runs/mnist-mini"))
    options.add_argument("--readme", type=Path, default=Path("README.md"))
    given = options.parse_args()
    summary = json.loads((given.folder / "summary.json").read_text(encoding="utf-8"))
    results = {key: Result.load(given.folder / "results" / f"final_{key}.npz") for key, _ in NETWORKS}
    chips = {key: result.accuracy().to_numpy() for key, result in results.items()}
    filled = fill(given.readme.read_text(encoding="utf-8"), block(summary))
    write_atomically(given.readme.parent / PICTURE, picture(chips, summary["digital"]["accuracy"]).encode())
    write_atomically(given.readme, filled.encode())


if __name__ == "__main__":
    main()
