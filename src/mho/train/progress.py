"""The progress bar: on standard error, only where a person can see it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, wanted: bool) -> Iterator[Callable[[int, str], None]]:
    """Yield ``show(done, text)``; a bar with the time left, or nothing where stderr is no terminal."""
    if not wanted or not sys.stderr.isatty():
        yield lambda done, text: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=total)

        def show(done: int, text: str) -> None:
            bar.update(task, completed=done, description=text)

        yield show
