"""``mho hardware list | show``."""

import tomllib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mho.cli.options import Age
from mho.cli.output import console, table

if TYPE_CHECKING:
    from mho.hardware import Hardware

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_presets() -> None:
    """The descriptions that come with mho: name, technology, what it is."""
    from mho.hardware import load_hardware, preset_names

    rows = table("", "name", "technology", "summary")
    for name in preset_names():
        hw = load_hardware(name)
        rows.add_row(hw.name, hw.cell.technology, hw.summary)
    console().print(rows)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="A preset's name, or the path of a TOML file.")],
    toml: Annotated[
        bool, typer.Option("--toml", help="The description as TOML: the start of one of your own.")
    ] = False,
    noise: Annotated[bool, typer.Option("--noise", help="Which source of error dominates, in dB.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Inputs of the layer for --noise.")] = 256,
    cols: Annotated[int, typer.Option(min=1, help="Outputs of the layer for --noise.")] = 256,
    age: Age = None,
) -> None:
    """One description: every constant with its source (or --toml); with --noise, which source of error dominates."""
    from mho.hardware import dump_hardware, load_hardware

    if toml and noise:
        raise typer.BadParameter("--toml and --noise are two answers; ask for one of them.")
    hw = load_hardware(name)
    if toml:
        typer.echo(dump_hardware(hw), nl=False)
    elif noise:
        _print_noise(hw, rows, cols, age)
    else:
        _print_description(hw, tomllib.loads(dump_hardware(hw)))


def _print_description(hw: "Hardware", document: dict[str, Any]) -> None:
    shown = table(f"{hw.name}: {hw.summary}", "key", "value", "status", "source")
    for key, value in _flat({k: v for k, v in document.items() if k not in ("name", "summary", "schema", "sources")}):
        # The source with the longest key that holds this one is the nearest.
        about = [s for s in hw.sources if key == s.key or key.startswith(s.key + ".")]
        source = max(about, key=lambda s: len(s.key), default=None)
        shown.add_row(key, str(value), source.status if source else "", source.cite if source else "")
    console().print(shown)
    for source in hw.sources:
        if source.note:
            console().print(f"{source.key}: {source.note}")


def _flat(part: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in part.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _print_noise(hw: "Hardware", rows: int, cols: int, age: str | None) -> None:
    from mho.physics.dominance import dominance
    from mho.units import seconds

    found = dominance(hw, rows, cols, t_s=None if age is None else seconds(age))
    if not found:
        console().print(f"{hw.name}: no source of error, equal to the digital network.")
        return
    shown = table("", "source", "kind", "sigma", "dB", "note", right=("sigma", "dB"))
    for row in found:
        shown.add_row(row.source, row.kind, f"{100 * row.sigma:.3g} %", f"{row.level_dB:.1f}", row.note)
    console().print(
        f"{hw.name}: a layer of {rows} inputs and {cols} outputs, against full scale (4 sigma of its output)"
    )
    console().print(shown)
