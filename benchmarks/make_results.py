"""docs/results.md and its plots from benchmarks/results/*.json: ``python benchmarks/make_results.py``.

A file with ``summary`` and ``networks`` is a record that ``mho run`` wrote (record.json), one with ``ablation`` is what
benchmarks/ablation.py wrote, one with ``networks`` alone what forecast.py wrote. Nothing in the page is typed by hand.
"""

import argparse
import json
import math
import tomllib
from pathlib import Path
from typing import Any

import budget_table
import ebm_tables
import envelope_table
import lab_tables
import matplotlib as mpl
import numpy as np
import recipe_words

from mho.evaluation.atomic import write_atomically
from mho.evaluation.statistics import fifth_percentile
from mho.experiments.record import areas

NETWORKS = {
    "digital_on_chips": "Digital, on the chips",
    "digital_quantized": "Digital, quantisation-aware, on the chips",
    "noise_injection": "Noise injection",
    "hardware_aware": "Hybrid",
}
COLORS = {
    "digital_on_chips": "#8c959f",
    "digital_quantized": "#bf8700",
    "noise_injection": "#8250df",
    "hardware_aware": "#0969da",
}
HEAD = """# Results

Made by `python benchmarks/make_results.py` from the records in [benchmarks/results](../benchmarks/results); each names
the command that repeats it. Accuracies in percent. mean, 5th percentile (p5) and worst: over all chips of all
training seeds. 95 % interval: hierarchical bootstrap over seeds, chips and images; with fewer than five seeds it is
too narrow on the side of the seeds. area: normalised area under the robustness curve, over the levels that the column
names (to twice the described noise, and over the whole sweep); none where the sweep does not begin without noise.
noise at 1 point: the static noise at which the mean has fallen one point below the digital network. rho: root mean
square of the weights over full scale. Mean g is proportional to the power of the array.
"""


def mean_of(values: Any) -> float:
    """Mean over a nested list."""
    return float(np.mean(values))


def row(name: str, record: dict[str, Any]) -> str:
    """One network of the main table."""
    entry, summary = record["networks"][name], record["summary"][name]
    found, both = entry.get("robustness"), ("", "")
    against = summary["mean"] - mean_of(record["digital"])
    at = "" if found is None else _noise_at(found)
    lowest = min(entry["noise"]["noise_scale"]) * (record["static_noise_percent"] or 1.0) if "noise" in entry else 0.0
    if found is not None and lowest > 0:  # a sweep that does not begin without noise has no area, and an end alone
        at = f"at most {lowest:g}" if (found["noise_at_1_point"] or math.inf) <= lowest else at
    elif found is not None:
        both = _areas(record, name)
    cells = [
        NETWORKS[name],
        f"{summary['clean']:.2f}",
        f"{summary['mean']:.2f}",
        f"{against:+.2f}",
        f"{summary['p5']:.2f}",
        f"{summary['worst']:.2f}",
        f"{summary['ci95'][0]:.2f} to {summary['ci95'][1]:.2f}",
        *both,
        at,
        f"{np.mean([f['rho'] for f in entry['filling']]):.2f}",
        f"{np.mean([f['mean_conductance_uS'] for f in entry['filling']]):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _levels(record: dict[str, Any], name: str) -> np.ndarray:
    """Levels of a network's sweep: percent of the range, or multiples of the described noise."""
    return np.asarray(record["networks"][name]["noise"]["noise_scale"]) * (record["static_noise_percent"] or 1.0)


def _areas(record: dict[str, Any], name: str) -> tuple[str, str]:
    """Area to twice the described noise, and over the whole sweep, from all chips of the curve."""
    means = [mean_of(point) for point in record["networks"][name]["noise"]["accuracy"]]
    found = areas(
        _levels(record, name),
        means,
        reference=mean_of(record["digital"]),
        chance=100.0 / record["classes"],
        level=record["static_noise_percent"],
    )
    twice, whole = ("" if found[key] is None else f"{found[key]:.3f}" for key in ("area_to_twice", "area"))
    return twice, whole


def _area_names(record: dict[str, Any]) -> str:
    """Heads of the two columns: over which levels."""
    level, name = record["static_noise_percent"], next(n for n in NETWORKS if n in record["networks"])
    ends = [2.0 * (level or 1.0)]
    ends.append(float(_levels(record, name).max()) if "noise" in record["networks"][name] else ends[0])
    return " | ".join(f"area, noise x 0 to {end:g}" if level is None else f"area, 0 to {end:g} %" for end in ends)


def _noise_at(found: dict[str, Any]) -> str:
    at = found["noise_at_1_point"]
    return f"above {found['levels_to']:g}" if at is None else f"{at:.1f}"


def main_table(record: dict[str, Any]) -> list[str]:
    """Digital float, then every network on the chips of the described hardware."""
    lines = [
        f"| network | clean | mean | against digital | p5 | worst | 95 % interval | {_area_names(record)} "
        "| noise at 1 point | rho | mean g, uS |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
        f"| Digital float, no chip | {mean_of(record['digital']):.2f} | | | | | | | | | | |",
    ]
    return lines + [row(name, record) for name in NETWORKS if name in record["networks"]]


def sweep_table(record: dict[str, Any]) -> list[str]:
    """Mean / 5th percentile of every network at every noise level and on hardware that none was trained for."""
    names = [name for name in NETWORKS if name in record["networks"]]
    curves = {name: record["networks"][name].get("noise") for name in names}
    if curves[names[0]] is None:
        return []
    level = record["static_noise_percent"]
    images = tomllib.loads(record["recipe"])["evaluate"].get("sweep_images")
    which = f", first {images:,} test images" if images else ""
    lines = ["", f"| mean / p5{which} | " + " | ".join(NETWORKS[n] for n in names) + " | hybrid - noise injection |"]
    lines.append("| --- |" + " ---: |" * (len(names) + 1))
    against = record["against_noise_injection"]
    for place, scale in enumerate(curves[names[0]]["noise_scale"]):
        shown = f"noise x {scale:g}" if level is None else f"{scale * level:g} %"
        points = [curves[name]["accuracy"][place] for name in names]
        lines.append(
            f"| {shown} | " + " | ".join(map(_mean_p5, points)) + f" | {_difference(against, 'noise', place)} |"
        )
    for other in record["networks"][names[0]]["unseen"]:
        points = [record["networks"][name]["unseen"][other] for name in names]
        lines.append(
            f"| {other} | " + " | ".join(map(_mean_p5, points)) + f" | {_difference(against, 'unseen', other)} |"
        )
    return lines


def _mean_p5(chips: Any) -> str:
    return f"{mean_of(chips):.2f} / {fifth_percentile(chips):.2f}"


def _difference(against: dict[str, Any] | None, kind: str, place: int | str) -> str:
    if against is None:
        return ""
    found = against[kind][place]
    return f"{found['points']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


def plot(record: dict[str, Any], path: Path) -> None:
    """Accuracy against static noise with bands from the 5th to the 95th percentile of the chips, as SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    level = record["static_noise_percent"]
    for name, label in NETWORKS.items():
        curve = record["networks"].get(name, {}).get("noise")
        if curve is None:
            continue
        x = np.asarray(curve["noise_scale"]) * (1.0 if level is None else level)
        values = np.asarray(curve["accuracy"])
        flat = values.reshape(len(x), -1)
        low, high = np.quantile(flat, [0.05, 0.95], axis=1)
        axes.fill_between(x, low, high, color=COLORS[name], alpha=0.16, linewidth=0)
        axes.plot(x, flat.mean(1), color=COLORS[name], marker="o", markersize=4, label=label)
    axes.axhline(mean_of(record["digital"]), color="#24292f", linestyle=(0, (4, 3)), linewidth=1, label="Digital float")
    axes.set_xlabel("Noise, times the described level" if level is None else "Static weight noise, % of the range")
    axes.set_ylabel("Accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    with mpl.rc_context({"svg.hashsalt": "mho", "svg.fonttype": "none"}):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def section(record: dict[str, Any], docs: Path) -> list[str]:
    """All that one record says."""
    summary = record["summary"]
    picture = f"results-{summary['name']}.svg"
    lines = ["", f"## {summary['name']}", ""]
    seeds = ", ".join(map(str, summary["seeds"]))
    chips = summary["hardware_aware"]["chips"]
    lines += [
        f"`{summary['command']}`: {record['parameters']:,} parameters, hardware `{summary['hardware']}`, training "
        f"seeds {seeds}, {chips} chips, {summary['images']:,} test images, "
        f"{summary['wall_s'] / 60:.0f} minutes in the last sitting, mho {summary['versions']['mho']}, "
        f"torch {summary['versions']['torch']}.",
        *recipe_words.other_recipe(record),
        *recipe_words.older_energy(record),
        "",
        *main_table(record),
    ]
    sweep = sweep_table(record)
    if sweep:
        plot(record, docs / picture)
        lines += [*sweep, "", f"![Accuracy against static noise, {summary['name']}]({picture})"]
    return lines


def ablation_section(found: dict[str, Any]) -> list[str]:
    """What each element of the hybrid recipe is worth: the recipe without it, paired with the recipe."""
    lines = ["", f"## Ablation: {found['name']}", "", found["caption"], ""]
    lines += [f"`{found['command']}`", *recipe_words.on_in(found["name"]), ""]
    lines += ["| hybrid | mean | p5 | clean | rho | against the recipe |", "| --- | ---: | ---: | ---: | ---: | --- |"]
    for entry in found["ablation"]:
        if "failed" in entry:
            lines.append(f"| {entry['name']} | diverged | | | | loss or gradients NaN or infinite |")
            continue
        against = entry.get("against")
        shown = "" if against is None else f"{against['points']:+.2f} ({against['low']:+.2f} to {against['high']:+.2f})"
        lines.append(
            f"| {entry['name']} | {entry['mean']:.2f} | {entry['p5']:.2f} | {entry['clean']:.2f} | {entry['rho']:.2f} "
            f"| {shown} |"
        )
    return lines + recipe_words.without_worth(found["ablation"])


def forecast_section(found: dict[str, Any]) -> list[str]:
    """The analytic forecast beside simulated chips."""
    first = next(iter(found["networks"].values()))
    levels = [row["static_percent"] for row in first["rows"]]
    lines = ["", "## Forecast of the accuracy over chips", ""]
    lines.append(
        f"`{first['command']}`: forecast minus {first['chips']} simulated chips on {first['images']:,} images, mean / "
        "5th percentile in points, at each level of static noise (mho.forecast; 1 % read noise, 6-bit converters)."
    )
    lines += ["", "| network | " + " | ".join(f"{level:g} %" for level in levels) + " |"]
    lines.append("| --- |" + " --- |" * len(levels))
    for name, network in found["networks"].items():
        cells = [f"{row['mean_difference']:+.2f} / {row['p5_difference']:+.2f}" for row in network["rows"]]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def page(folder: Path, docs: Path) -> str:
    """The whole page; plots are written on the way."""
    lines = [HEAD.rstrip()]
    every = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    for found in sorted(every, key=lambda found: ("summary" not in found, "ablation" not in found)):
        if "summary" in found and "networks" in found:
            lines += section(found, docs)
        elif "networks" in found:
            lines += forecast_section(found)
        elif "ablation" in found:
            lines += ablation_section(found)
    lines += envelope_table.sections(folder)
    lines += budget_table.section(folder)
    lines += lab_tables.sections(folder)
    lines += ebm_tables.sections(folder)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Read the records, write the page and its plots."""
    options = argparse.ArgumentParser(description="Write docs/results.md from benchmarks/results.")
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options.add_argument("--docs", type=Path, default=Path(__file__).parents[1] / "docs")
    given = options.parse_args()
    write_atomically(given.docs / "results.md", page(given.results, given.docs).encode())


if __name__ == "__main__":
    main()
