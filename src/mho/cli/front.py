"""``mho front``: accuracy against joules of finished runs, under other bits, tiles, read times and repeats."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from mho.cli.output import console, table
from mho.cli.runs import DataDir


def front(
    folders: Annotated[list[Path], typer.Argument(help="Folders of finished runs on one hardware.")],
    bits: Annotated[str, typer.Option("--bits", help="Bits of both converters.")] = "4,5,6,8",
    rows: Annotated[str, typer.Option("--rows", help="Rows of a tile; 0: one tile a layer.")] = "0,256",
    reads: Annotated[str, typer.Option("--reads", help="Read time over the described one.")] = "1,0.0625",
    repeats: Annotated[
        str, typer.Option("--repeats", help="Whole reads of each product, each converted, that are averaged.")
    ] = "1",
    chips: Annotated[int, typer.Option("--chips", min=1)] = 10,
    images: Annotated[int, typer.Option("--images", min=1, help="Test images, from the first.")] = 1000,
    slack: Annotated[float, typer.Option("--slack", help="Points within which accuracies count as equal.")] = 0.5,
    worst: Annotated[
        bool, typer.Option("--worst", help="Accuracy is the 5th percentile over chips, not their mean.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="The page; its numbers lie beside it.")] = Path("front.html"),
    data_dir: DataDir = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the table.")] = False,
) -> None:
    """Who wins at equal accuracy: analog over bits, tiles, read times and repeats, or the digital network at fp32,
    int8 or int4."""
    from mho.evaluation.atomic import write_atomically
    from mho.experiments.front import accuracy_front, rows_of
    from mho.reporting.api import report
    from mho.reporting.front import accuracy_front_figure
    from mho.reporting.sections import Table, Text

    notes = Console(stderr=True, highlight=False)
    found = accuracy_front(
        folders,
        bits=[int(b) for b in _numbers("--bits", bits, int)],
        rows=[int(r) or None for r in _numbers("--rows", rows, int)],
        reads=_numbers("--reads", reads, float),
        repeats=[int(r) for r in _numbers("--repeats", repeats, int)],
        chips=chips,
        images=images,
        slack=slack,
        worst=worst,
        data_dir=data_dir,
        say=None if quiet else lambda text: notes.print(text, markup=False),
    )
    lines = rows_of(found)
    title = f"Accuracy on {found.chips} chips of {found.hardware} against energy, {found.images:,} test images"
    head = tuple(lines[0])
    shown = table(title, *head, right=head[1:])
    for line in lines:
        shown.add_row(*line.values())
    console().print(shown)
    console().print(str(found.equal), soft_wrap=True)
    page = report(
        out,
        Text(title="Accuracy against energy", paragraphs=(str(found.equal),)),
        accuracy_front_figure(found.analog, found.digital, caption=title + ".", worst=worst),
        Table(title="The front", head=head, rows=tuple(tuple(line.values()) for line in lines)),
    )
    write_atomically(out.with_suffix(".json"), (json.dumps(found.to_dict(), indent=1) + "\n").encode())
    console().print(f"report: {page}", soft_wrap=True)


def _numbers(option: str, text: str, kind: type) -> list[float]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: numbers with commas between, e.g. 4,6,8.") from None
