"""``mho inspect``: what would become of a network."""

import importlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mho.cli.output import console, table
from mho.errors import ConversionError, nearest


def inspect(
    network: Annotated[
        str, typer.Argument(help="A recipe, a network of mho ('lenet'), or PACKAGE.MODULE:FACTORY that makes one.")
    ],
    hardware: Annotated[str, typer.Option("--hardware", help="A preset's name or a TOML file.")] = "generic",
    digital: Annotated[
        list[str] | None, typer.Option("--digital", help="Pattern of modules that stay digital; may be repeated.")
    ] = None,
) -> None:
    """List every module with its decision (analog, digital, refused), the reason and the way out."""
    from mho.nn import inspect as inspect_network

    found = inspect_network(build_network(network), hardware, digital=digital or ())
    shown = table("", "module", "type", "decision", "parameters", "reason", right=("parameters",))
    for row in found.rows:
        reason = row.reason + (f". Way out: {row.way_out}" if row.way_out else "")
        shown.add_row(
            row.name or "(root)", row.kind, row.decision, f"{row.parameters:,}" if row.parameters else "", reason
        )
    console().print(shown)
    console().print(str(found).splitlines()[-1])
    if found.refused:
        raise typer.Exit(1)


def build_network(spelling: str) -> Any:
    """A network from a factory ``package.module:callable``, a name of mho.models, or a recipe."""
    from mho.models import MODELS, build

    if ":" in spelling:
        module, _, factory = spelling.partition(":")
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            return getattr(importlib.import_module(module), factory)()
        except (ImportError, AttributeError) as error:
            raise ConversionError(
                f"{spelling!r}: {error}. Way out: PACKAGE.MODULE:FACTORY, where FACTORY() returns the network."
            ) from error
    if spelling in MODELS:
        return build(spelling)
    from mho.train import load_recipe

    refuse_unknown(spelling)
    described = load_recipe(spelling).network
    return build(described.model, **described.args)


def refuse_unknown(spelling: str) -> None:
    """Raise :class:`ConversionError` for what is no network, recipe or file, with the nearest of them all."""
    from mho.models import MODELS
    from mho.train import builtin_recipes

    recipes = builtin_recipes()
    if ":" in spelling or spelling in MODELS or spelling in recipes or Path(spelling).is_file():
        return
    raise ConversionError(
        f"{spelling!r} is no network. {nearest(spelling, [*MODELS, *recipes])} Way out: a network of mho "
        f"({', '.join(sorted(MODELS))}), a recipe ({', '.join(recipes)}) or the path of its TOML file, or "
        "PACKAGE.MODULE:FACTORY of one's own."
    )
