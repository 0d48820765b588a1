"""What goes to the terminal: plain text where it is read by a program."""

from rich.console import Console
from rich.table import Table

PIPE_WIDTH = 400
"""Columns where nobody looks: wide enough that nothing wraps."""


def console() -> Console:
    """Standard output: coloured and fitted on a terminal, plain and unwrapped in a pipe or file."""
    # No markup: names and reasons of a user's modules may hold brackets.
    here = Console(highlight=False, markup=False)
    return here if here.is_terminal else Console(highlight=False, markup=False, width=PIPE_WIDTH, no_color=True)


def table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    """A table in the style of all commands; columns named in ``right`` hold numbers."""
    made = Table(title=title or None, box=None, pad_edge=False, title_justify="left", header_style="bold")
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return made
