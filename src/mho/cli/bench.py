"""``mho bench``: what mho costs against plain torch, on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mho.cli.output import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Benchmarks print ratios to plain torch, medians with quartiles."""


@app.command("speed")
def speed(
    case: Annotated[list[str] | None, typer.Option("--case", help="Only this case; may be repeated.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Seconds instead of minutes; noisier.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results to this file too.")] = None,
) -> None:
    """Time a training step and an inference against the same digital torch model, interleaved."""
    from mho.bench.speed import run_speed, speed_document
    from mho.bench.table import speed_table
    from mho.evaluation.atomic import write_atomically

    notes = Console(stderr=True, highlight=False)
    results = run_speed(case or None, quick, lambda text: notes.print(text, markup=False))
    console().print(speed_table(results))
    if json_file is not None:
        write_atomically(json_file, (json.dumps(speed_document(results, quick), indent=2) + "\n").encode())
