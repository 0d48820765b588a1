"""Option types that several commands share."""

from typing import Annotated

import typer

from mho.units import seconds


def age_text(text: str) -> str:
    """``text`` if it is a duration ("25 s", "1 day"); a usage error that says what is wrong with it otherwise."""
    try:
        seconds(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    return text


Age = Annotated[
    str | None,
    typer.Option(
        "--age", parser=age_text, metavar="AGE", help="Time since programming, e.g. '1 day'; default: as described."
    ),
]
Ages = Annotated[
    list[str] | None,
    typer.Option("--age", parser=age_text, metavar="AGE", help="Age of the chips, e.g. '1 day'; may be repeated."),
]
