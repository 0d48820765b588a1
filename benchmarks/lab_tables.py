"""Sections of ``docs/results.md`` for the lab, the cost model and campaigns, each from files of ``results/``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Section = tuple[str, Callable[[dict[str, Any]], list[str]]]


def sections(folder: Path) -> list[str]:
    """Every section whose data is there."""
    lines: list[str] = []
    for title, parts in SECTIONS.items():
        found: list[str] = []
        for name, made in parts:
            path = folder / f"{name}.json"
            if path.is_file():
                found += ["", *made(json.loads(path.read_text(encoding="utf-8")))]
        lines += ["", f"## {title}", *found] if found else []
    return lines


def loop(found: dict[str, Any]) -> list[str]:
    """What data sheet, twin and loop are worth, a chip each."""
    columns = ("data sheet", "data sheet, columns divided out", "twin", "in the loop")
    lines = [
        f"`{found['command']}`",
        "",
        f"A network {_sizes(found)} on {found['images']:,} test images of MNIST, on virtual chips that deviate from "
        f"their data sheet, each behind gRPC in a process of its own. Digital: {found['digital']:.2f} %. "
        "One training seed.",
        "",
        "| trained for | " + " | ".join(f"chip {chip['chip']}" for chip in found["chips"]) + " |",
        "| --- |" + " ---: |" * len(found["chips"]),
    ]
    lines += [f"| {c}, % | " + " | ".join(f"{chip[c]:.2f}" for chip in found["chips"]) + " |" for c in columns]
    calls = [str(chip["loop_calls"]["mvms"]) for chip in found["chips"]]
    seconds = [chip["loop_s"] for chip in found["chips"]]
    return [
        *lines,
        "",
        f"Training in the loop took {min(seconds):.0f} to {max(seconds):.0f} s and {' / '.join(dict.fromkeys(calls))} "
        "products a chip.",
    ]


def faults(found: dict[str, Any]) -> list[str]:
    """The same run with and without faults."""
    clean, faulty = found["clean"], found["faulty"]
    return [
        f"`{found['command']}`: one epoch, without faults {clean['accuracy']:.2f} %; with "
        f"{sum(faulty['injected'].values())} injected faults and {len(faulty['kills'])} kills of server or trainer "
        f"{faulty['accuracy']:.2f} %, {faulty['steps']} steps, {faulty['refused']} refused. Replayed without a server "
        f"to the same bits: {'yes' if faulty['replayed to the same bits'] else 'no'}.",
    ]


def twin(found: dict[str, Any]) -> list[str]:
    """How often intervals of a fitted twin hold the truth."""
    summary = found["summary"]
    worst = min(summary["holds"], key=summary["holds"].get)
    return [
        f"`{found['command']}`: twins of {summary['chips']} hidden chips of {' x '.join(map(str, found['tile']))} "
        f"cells; each of {len(summary['holds'])} parameters lies in its 95 % interval on at least "
        f"{summary['holds'][worst]} of them (fewest: `{worst}`). What the twin leaves over is "
        f"{summary['worst_error_over_noise']:.3f} times the noise at worst.",
    ]


def roundtrip(found: dict[str, Any]) -> list[str]:
    """A product over gRPC beside one in process."""
    cases = ", ".join(f"batch {c['batch']}: {c['ratio']['median']:.2f}" for c in found["cases"])
    return [f"`{found['command']}`: time of a product over gRPC on loopback over that in process: {cases}."]


def spice(found: dict[str, Any]) -> list[str]:
    """Training with ngspice as the forward pass."""
    return [
        f"`{found['command']}`: a network {_sizes(found)} trained from start to end with ngspice as its forward pass, "
        f"wires of {found['wire_ohm']:g} ohm: {found['trained on ngspice']:.1f} % of {found['test_images']:,} images; "
        f"digital {found['digital']:.1f} %.",
    ]


def referee(found: dict[str, Any]) -> list[str]:
    """ngspice beside the wire solver and the thermal formula."""
    wires = max(row["worst_relative_difference"] for row in found["wires"])
    noise = max(row["worst_relative_difference_of_sigma"] for row in found["noise"])
    return [
        f"`{found['command']}` ({found['versions']['ngspice']}): the wire solver differs from the circuit by "
        f"{wires:.1e} at most, the sigma of thermal noise by {noise:.1e}.",
    ]


def silicon(found: dict[str, Any]) -> list[str]:
    """The cost model beside published figures."""
    lines = [
        f"`{found['command']}`",
        "",
        "Energy of what each line says, nJ. Parts of a chip have no aim of their own.",
        "",
        "| chip | what | published | model (low to high) | ratio | aim | why they differ |",
        "| --- | --- | ---: | ---: | ---: | --- | --- |",
    ]
    for row in found["rows"]:
        aim = "" if row["aim"] is None else f"a factor of {row['aim']:g}: {'met' if row['met'] == 'yes' else 'missed'}"
        model = f"{row['model_nJ']:.3g} ({row['low_nJ']:.3g} to {row['high_nJ']:.3g})"
        cells = (row["chip"], row["what"], f"{row['published_nJ']:.3g}", model, f"{row['ratio']:.2f}", aim, row["why"])
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def campaign(found: dict[str, Any]) -> list[str]:
    """Two hundred cells with kills."""
    kills, alone = found["kills"], found["alone"]
    return [
        f"`{found['command']}` (Ray {found['ray']}): of {kills['cells']} cells {kills['done']} ended, "
        f"{kills['distinct']} of them distinct, with a worker and the driver killed; "
        f"{kills['on_disk_at_the_kill_of_the_driver']} were on disk then and {kills['of_these_begun_again']} of these "
        f"were begun again. Overhead {alone['overhead_ms_a_cell']:.1f} ms a cell.",
    ]


def _sizes(found: dict[str, Any]) -> str:
    return "-".join(str(n) for n in found["network"])


SECTIONS: dict[str, tuple[Section, ...]] = {
    "Hardware in the loop": (
        ("lab-loop", loop),
        ("lab-faults", faults),
        ("lab-twin", twin),
        ("lab-roundtrip", roundtrip),
        ("lab-spice", spice),
        ("spice-referee", referee),
    ),
    "Energy beside silicon": (("energy-sanity", silicon),),
    "Campaigns": (("campaign-ray", campaign),),
}
