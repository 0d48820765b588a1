"""``mho run``, ``mho join`` and ``mho report``."""

import json
import os
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from mho.cli.output import console, table
from mho.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from mho.experiments import RunSummary

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", envvar="MHO_DATA", help="Folder of data sets; else they are downloaded.")
]


def run(
    recipe: Annotated[
        str, typer.Argument(help="A built-in recipe (mnist-mini, mnist, cifar10, ebm-eqprop, ...) or a TOML file.")
    ] = "mnist-mini",
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("runs"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the checkpoints of an earlier run.")] = False,
    seed: Annotated[list[int] | None, typer.Option("--seed", min=0, help="Training seed; may be repeated.")] = None,
    seeds: Annotated[str | None, typer.Option("--seeds", help="Several training seeds at once: 0,1,2 or 0-2.")] = None,
    device: Annotated[str, typer.Option("--device", help="Where to compute: cpu; cuda or cuda:1, in TF32.")] = "cpu",
    record: Annotated[Path | None, typer.Option("--record", help="Write the record of the run here too.")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser, if there is a display.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the table.")] = False,
) -> None:
    """Train a digital network and its hardware-robust twin (or an energy-based model), put it on chips, and report."""
    from mho.experiments.kinds import run_any

    if device.startswith("cuda"):
        import torch

        # What GPUs are bought for: TF32 products (10 bits of mantissa), and the fastest convolution of each shape.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    notes = Console(stderr=True, highlight=False)
    found = run_any(
        recipe,
        data_dir=data_dir,
        out=out,
        resume=resume,
        seeds=chosen_seeds(seed, seeds),
        device=device,
        progress=not quiet and notes.is_terminal,
        say=None if quiet else lambda text: notes.print(text, markup=False),
    )
    print_run(found, record)
    if show:
        open_in_browser(found.report)


def join(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs of one recipe, other seeds in each.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the joined run.")] = Path("runs-joined"),
    record: Annotated[Path | None, typer.Option("--record", help="Write the record of the run here too.")] = None,
) -> None:
    """Make one run of finished runs with different training seeds; checkpoints are not needed, nothing is trained."""
    from mho.experiments.join import join_runs

    notes = Console(stderr=True, highlight=False)
    print_run(join_runs(folders, out=out, say=lambda text: notes.print(text, markup=False, soft_wrap=True)), record)


def print_run(found: "RunSummary", record: Path | None) -> None:
    """The table and the sentence of a run, and where its report is; a copy of its record in ``record``."""
    from mho.evaluation.atomic import write_atomically

    if record is not None:
        write_atomically(record, found.record.read_bytes())
    print_numbers(found.summary)
    console().print(f"report: {found.report}", soft_wrap=True)


def print_numbers(summary: dict[str, Any]) -> None:
    """The table of a run, accuracy and joules of both networks where they were counted, and its sentence."""
    from mho.reporting.energy import COMPARED_HEAD, compared_rows

    shown = console()
    shown.print(summary_table(summary))
    rows = compared_rows(summary)
    if rows:
        joules = table("accuracy and energy", *COMPARED_HEAD, right=COMPARED_HEAD[1:])
        for row in rows:
            joules.add_row(*row)
        shown.print(joules)
    sentence = summary["sentence"] if "sentence" in summary else summary.get("energy", {}).get("sentence", "")
    if sentence:
        shown.print(sentence, soft_wrap=True)


def chosen_seeds(one_by_one: list[int] | None, text: str | None) -> tuple[int, ...] | None:
    """The training seeds of --seed and --seeds; None where neither is given (the recipe's own)."""
    found = list(one_by_one or ())
    for part in (text or "").split(",") if text is not None else ():
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or (dash and int(last) < int(first)):
            raise RecipeError(f"--seeds {text}: {part!r} is no seed or range of seeds. Fix: e.g. --seeds 0,1,2 or 0-2.")
        found += range(int(first), int(last if dash else first) + 1)
    return tuple(dict.fromkeys(found)) or None


def summary_table(summary: dict[str, Any]) -> Any:
    """The table that a run prints: its own, or the networks, their accuracy over chips, the distance to digital."""
    if "table" in summary:
        return own_table(summary["table"])
    digital = float(summary["digital"]["accuracy"])
    chips = summary["hardware_aware"]["chips"]
    shown = table(
        f"{summary['name']}: {summary['images']:,} test images on {chips} virtual chips of {summary['hardware']}",
        "network", "clean", "mean", "std", "p5", "worst", "95 % interval", "mean - digital",
        right=("clean", "mean", "std", "p5", "worst", "95 % interval", "mean - digital"),
    )  # fmt: skip
    shown.add_row("digital, without noise", f"{digital:.2f}", "", "", "", "", "", "")
    for key, name in (
        ("digital_on_chips", "digital, on the chips"),
        ("digital_quantized", "quantised digital, on the chips"),
        ("noise_injection", "noise injection, on the chips"),
        ("hardware_aware", "hardware-aware, on the chips"),
    ):
        if key not in summary:
            continue
        entry = summary[key]
        numbers = [entry[k] for k in ("clean", "mean", "std", "p5", "worst")]
        low, high = entry["ci95"]
        shown.add_row(
            name,
            *("" if n is None else f"{n:.2f}" for n in numbers),
            f"{low:.2f} to {high:.2f}",
            f"{entry['mean'] - digital:+.2f}",
        )
    return shown


def own_table(described: dict[str, Any]) -> Any:
    """The table of an experiment that brings its own: title, columns, rows of text (the first column on the left)."""
    columns = tuple(described["columns"])
    shown = table(described["title"], *columns, right=columns[1:])
    for row in described["rows"]:
        shown.add_row(*row)
    return shown


def open_in_browser(page: Path) -> bool:
    """Open ``page`` where a person could see it; quietly not otherwise."""
    display = sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    return display and webbrowser.open(page.resolve().as_uri())


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run (runs/mnist-mini), or a result file (.npz).")],
    out: Annotated[Path | None, typer.Option("--out", help="Path of the page; default: beside the results.")] = None,
) -> None:
    """Write a page of saved results, and print the numbers of a run again."""
    from mho.evaluation.result import Result
    from mho.reporting.api import report as write_report

    if folder.suffix == ".npz":
        page = write_report(out or folder.with_suffix(".html"), Result.load(folder))
        console().print(f"report: {page}", soft_wrap=True)
        return
    results = sorted((folder / "results").glob("*.npz"))
    summary = folder / "summary.json"
    told = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    own_page = "table" in told and not results  # as of ebm-generate, whose outcomes are images
    if not results and not own_page:
        raise CheckpointError(
            f"{folder}: no results/*.npz in it. Way out: the folder of a finished run, or 'mho run' first."
        )
    if own_page and out is not None:
        raise CheckpointError(
            f"{folder}: no results/*.npz in it, of which a page could be made. Way out: {folder / 'report.html'}, the "
            "run's own page."
        )
    if told:
        print_numbers(told)
    if own_page:
        console().print(f"report: {folder / 'report.html'}", soft_wrap=True)
        return
    page = write_report(out or folder / "results.html", *(Result.load(path) for path in results))
    console().print(f"report: {page}", soft_wrap=True)
