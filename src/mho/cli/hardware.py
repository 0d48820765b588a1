"""``mho hardware list | show``."""

from typing import Annotated

import typer

from mho.cli.output import console, table

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
    noise: Annotated[bool, typer.Option("--noise", help="Which source of error dominates, in dB.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Inputs of the layer for --noise.")] = 256,
    cols: Annotated[int, typer.Option(min=1, help="Outputs of the layer for --noise.")] = 256,
    age: Annotated[str | None, typer.Option(help="Age for --noise, e.g. '1 day'; default: as described.")] = None,
) -> None:
    """One description as TOML, every constant with its source; or with --noise its dominance table."""
    from mho.hardware import dump_hardware, load_hardware

    hw = load_hardware(name)
    if not noise:
        typer.echo(dump_hardware(hw), nl=False)
        return
    from mho.crossbar.dominance import dominance
    from mho.units import seconds

    found = dominance(hw, rows, cols, t_s=None if age is None else seconds(age))
    shown = table(
        f"{hw.name}: a layer of {rows} inputs and {cols} outputs, against full scale", "source", "kind", "sigma", "dB",
        "note", right=("sigma", "dB"),
    )  # fmt: skip
    for row in found:
        shown.add_row(row.source, row.kind, f"{100 * row.sigma:.3g} %", f"{row.level_dB:.1f}", row.note)
    console().print(shown)
