"""``mho sweep``: a campaign over hardware, recipes, seeds, noise and ages."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from mho.cli.output import console
from mho.cli.runs import DataDir, open_in_browser

if TYPE_CHECKING:
    from mho.campaign.progress import Progress

FAILED = 1
MOST_SHOWN = 10


def sweep(
    campaign: Annotated[Path, typer.Argument(help="The campaign, a TOML file.")],
    data_dir: DataDir = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("campaigns"),
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Worker processes; default: one for each core.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Work on the Ray cluster there ('local': one on this machine)."),
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Cells that failed or were given up run again.")] = False,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser, if there is a display.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only how it ended.")] = False,
) -> None:
    """Run every cell of a campaign that has no result yet: hardware x recipe x seed x noise x age."""
    from mho.campaign.run import run_campaign

    with _told(quiet) as tell:
        found = run_campaign(
            campaign, data_dir=data_dir, out=out, workers=workers, ray=ray, retry=retry, on_progress=tell
        )
    ended = found.progress
    console().print(f"{ended.done} of {ended.total} cells done", soft_wrap=True)
    for count, words in ((ended.failed, "failed"), (ended.given_up, "given up"), (found.blocked, "wait for a run")):
        if count:
            console().print(f"{count} {words}", soft_wrap=True)
    for cell, message in found.problems[:MOST_SHOWN]:
        console().print(f"  {cell}: {message}", soft_wrap=True)
    if len(found.problems) > MOST_SHOWN:
        console().print(f"  and {len(found.problems) - MOST_SHOWN} more, in the report", soft_wrap=True)
    console().print(f"results: {found.results}", soft_wrap=True)
    console().print(f"report: {found.report}", soft_wrap=True)
    if show:
        open_in_browser(found.report)
    if found.problems:
        raise typer.Exit(FAILED)


@contextmanager
def _told(quiet: bool) -> Iterator[Callable[["Progress"], None] | None]:
    """A bar on a terminal; elsewhere one line a cell, which a log can hold."""
    notes = Console(stderr=True, highlight=False)
    if quiet:
        yield None
    elif not notes.is_terminal:
        yield lambda p: notes.print(f"{p.ended}/{p.total} {p.last}{_left(p)}", markup=False, soft_wrap=True)
    else:
        columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        with Bar(*columns, console=notes, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda p: bar.update(task, total=p.total, completed=p.ended, description=_bad(p) + _left(p))


def _left(progress: "Progress") -> str:
    from mho.units import duration_text

    left = progress.seconds_left
    return "" if left is None or progress.ended == progress.total else f" ({duration_text(left)} left)"


def _bad(progress: "Progress") -> str:
    bad = progress.failed + progress.given_up
    return f"{bad} failed" if bad else ""
