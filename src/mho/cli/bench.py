"""``mho bench``: what mho costs against plain torch, on this machine."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mho.cli.output import console, table

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
    from mho.bench.speed import run_speed
    from mho.evaluation.atomic import write_atomically

    notes = Console(stderr=True, highlight=False)
    found = run_speed(case, quick=quick, say=lambda text: notes.print(text, markup=False))
    shown = table(
        "", "case", "digital ms", "mho ms", "ratio", "quartiles", "digital MB", "mho MB", "aim",
        right=("digital ms", "mho ms", "ratio", "quartiles", "digital MB", "mho MB", "aim"),
    )  # fmt: skip
    for row in found["results"]:
        low, high = row["ratio_quartiles"]
        aim = "" if row["aim"] is None else f"<= {row['aim']:g}"
        shown.add_row(
            row["case"], f"{row['digital_ms']:.2f}", f"{row['mho_ms']:.2f}", f"{row['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}", f"{row['digital_peak_mb']:.0f}", f"{row['peak_mb']:.0f}", aim,
        )  # fmt: skip
    console().print(shown)
    if json_file is not None:
        write_atomically(json_file, (json.dumps(found, indent=2) + "\n").encode())
