"""``mho bench``: what mho costs against plain torch, on this machine."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mho.cli.output import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Benchmarks print ratios to plain torch, medians with quartiles."""


Cases = Annotated[list[str] | None, typer.Option("--case", help="Only this case; may be repeated.")]
Quick = Annotated[bool, typer.Option("--quick", help="Seconds instead of minutes; noisier.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the results to this file too.")]


@app.command("speed")
def speed(case: Cases = None, quick: Quick = False, json_file: Json = None) -> None:
    """Time a training step and an inference against the same digital torch model, interleaved.

    With --json also the roofline: what each case counts, and the floor under it on this machine.
    """
    from mho.bench.roofline import measure_peaks
    from mho.bench.speed import run_speed, speed_document, speed_settings
    from mho.bench.table import speed_table

    results = run_speed(case or None, quick, _say)
    console().print(speed_table(results))
    if json_file is not None:
        _write(json_file, speed_document(results, quick, measure_peaks(speed_settings(quick).threads)))


@app.command("chips")
def chips(quick: Quick = False, json_file: Json = None) -> None:
    """Time 25 virtual chips in one call against 25 digital passes."""
    from mho.bench.cases import CASES
    from mho.bench.speed import run_speed, speed_document
    from mho.bench.table import speed_table

    results = run_speed([name for name in CASES if name.startswith("chips")], quick, _say)
    console().print(speed_table(results))
    _write(json_file, speed_document(results, quick))


@app.command("memory")
def memory(case: Cases = None, json_file: Json = None) -> None:
    """Peak memory of each side, in a process of its own."""
    from mho.bench.speed import run_memory, speed_document
    from mho.bench.table import memory_table

    results = run_memory(case or None, _say)
    console().print(memory_table(results))
    _write(json_file, speed_document(results, kind="memory"))


@app.command("scaling")
def scaling(case: Cases = None, quick: Quick = False, json_file: Json = None) -> None:
    """The ratio on 1, 2, 4, ... threads, for training steps or the cases given."""
    from mho.bench.speed import run_scaling, speed_document
    from mho.bench.table import scaling_table

    results = run_scaling(case or None, quick, _say)
    console().print(scaling_table(results))
    _write(json_file, speed_document(results, quick, kind="scaling"))


def _say(text: str) -> None:
    Console(stderr=True, highlight=False).print(text, markup=False)


def _write(path: Path | None, document: dict[str, Any]) -> None:
    from mho.evaluation.atomic import write_atomically

    if path is not None:
        write_atomically(path, (json.dumps(document, indent=2) + "\n").encode())
