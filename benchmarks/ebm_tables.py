"""Tables of the energy-based models for ``docs/results.md``, each from one file of ``results/``."""

import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any


def sections(folder: Path) -> list[str]:
    """Every table whose data is there."""
    lines: list[str] = []
    for name, table in TABLES.items():
        path = folder / f"{name}.json"
        if path.is_file():
            lines += ["", *table(json.loads(path.read_text(encoding="utf-8")))]
    return ["", "## Energy-based models", *lines] if lines else []


def eqprop(found: dict[str, Any]) -> list[str]:
    """MNIST by equilibrium propagation."""
    summary = found["mnist"]
    return [*_title(found["command"], summary["table"]["title"]), *_markdown(summary["table"])]


def generate(found: dict[str, Any]) -> list[str]:
    """Images, and how far samplers with errors are from the exact one."""
    errors = ", ".join(f"{name} {ratio:.2f}" for name, ratio in found["error_over_chip"].items())
    energy = found["energy_an_image"]
    joules = ", ".join(
        f"{name} {total[1]:.2g} J ({total[0]:.2g} to {total[2]:.2g})"
        for name, total in ((n, e["J"]["total"]) for n, e in energy.items())
    )
    return [
        *_title(found["command"], found["table"]["title"]),
        *_markdown(found["table"]),
        "",
        f"Features: a classifier of {found['judge_accuracy']:.2f} % on binarised test images. Chip over noise-free "
        f"digital sampler: {found['chip_over_digital']:.3f}; errors over the chip: {errors}. An image costs, by a "
        f"model of the system and not by silicon: {joules}.",
    ]


def gibbs(found: dict[str, Any]) -> list[str]:
    """Updates a second beside thrml."""
    lines = [*_title(found["command"], "Block Gibbs, spin updates a second, interleaved on the same cores"), ""]
    lines += ["| lattice | neighbours | chains | mho | thrml | ratio |", "| --- | ---: | ---: | ---: | ---: | ---: |"]
    for case in found["cases"]:
        ours, theirs = (case[tool]["updates_a_second"]["median"] for tool in ("mho", "thrml"))
        lines.append(
            f"| {case['side']} x {case['side']} | {case['neighbours']} | {case['chains']} | {ours:.3g} | {theirs:.3g} "
            f"| {ours / theirs:.1f} |"
        )
    return lines


def resistive(found: dict[str, Any]) -> list[str]:
    """Largest difference from ngspice."""
    rows = found["ngspice"]["rows"]
    worst = max(row["relative_difference"] for row in rows)
    residual = max(row["kirchhoff_residual"] for row in rows)
    return [
        "### Resistive networks",
        "",
        f"{len(rows)} networks with diodes and amplifiers beside {found['ngspice']['version']}: largest difference "
        f"{worst:.1e} of the largest voltage, Kirchhoff's law in ours to {residual:.1e}.",
    ]


def regulariser(found: dict[str, Any]) -> list[str]:
    """Whether noise of training helps networks that rest."""
    title = "Noise as a regulariser of equilibrium propagation, MNIST, 512 hidden units"
    notes = "All are judged without noise and, in the last column, on the same 5 chips."
    columns = {"accuracy": 2, "ece": 2, "nll": 3, "on_chips": 2}
    return [*_title(found["command"], title), *_regularised(found["rows"], notes, columns)]


def regulariser_sampled(found: dict[str, Any]) -> list[str]:
    """Whether noise of training helps machines that sample."""
    machine = f"a Boltzmann machine of {found['hidden']} latent spins that samples its label"
    title = f"Noise as a regulariser of {machine}, MNIST"
    notes = (
        "Accuracy, calibration and likelihood by the exact law of the label; sampled: the label that was up most often "
        "in 50 sweeps of ideal p-bits; on chips: the same on 5 chips of 4-bit couplings with the errors of scale 1 "
        "(5 % of full scale, temperature up to 20 % wrong)."
    )
    columns = {"accuracy": 2, "ece": 2, "nll": 3, "sampled": 2, "on_chips": 2}
    return [*_title(found["command"], title), *_regularised(found["rows"], notes, columns)]


HEADS = {
    "accuracy": "accuracy, %",
    "ece": "calibration error, %",
    "nll": "negative log-likelihood",
    "sampled": "sampled, %",
    "on_chips": "on chips, %",
}


def _regularised(rows: list[dict[str, Any]], notes: str, columns: dict[str, int]) -> list[str]:
    """Means over seeds by images and kind of training; ``columns``: digits of each number."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["images"], row["training"]), []).append(row)
    seeds = max(len(group) for group in groups.values())
    lines = [
        "",
        f"{seeds} training seeds, mean (standard deviation over seeds). {notes} Calibration error after one fitted "
        "temperature each.",
        "",
        "| images | trained with | " + " | ".join(HEADS[key] for key in columns) + " |",
        "| ---: | --- |" + " ---: |" * len(columns),
    ]
    for (images, training), group in groups.items():
        cells = [_spread([row[key] for row in group], digits) for key, digits in columns.items()]
        lines.append(f"| {images:,} | {training} | " + " | ".join(cells) + " |")
    return lines


def _spread(values: list[float], digits: int) -> str:
    spread = f" ({stdev(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


TABLES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "ebm-eqprop-mnist": eqprop,
    "ebm-eqprop-conv": eqprop,
    "ebm-resistive": resistive,
    "ebm-gibbs": gibbs,
    "ebm-generate": generate,
    "ebm-regulariser": regulariser,
    "ebm-regulariser-sampled": regulariser_sampled,
}


def _title(command: str, title: str) -> list[str]:
    return [f"### {title}", "", f"`{command}`"]


def _markdown(table: dict[str, Any]) -> list[str]:
    columns = table["columns"]
    lines = ["", "| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in table["rows"]]
