"""``mho evaluate``: the networks of a finished run under other conditions."""

from pathlib import Path
from typing import Annotated

import typer

from mho.cli.options import Ages
from mho.cli.output import console
from mho.cli.runs import DataDir


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of a finished run, e.g. runs/mnist-mini.")],
    network: Annotated[str, typer.Option(help="hardware_aware, digital or quantized.")] = "hardware_aware",
    hardware: Annotated[str | None, typer.Option(help="Other hardware than that of training.")] = None,
    chips: Annotated[int, typer.Option(min=1)] = 25,
    age: Ages = None,
    noise: Annotated[list[float] | None, typer.Option("--noise", min=0, help="Noise level; repeatable.")] = None,
    bits: Annotated[list[int] | None, typer.Option("--bits", help="Converter bits; repeatable.")] = None,
    compensate: Annotated[bool, typer.Option("--compensate", help="Global drift compensation.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the chips.")] = 0,
    data_dir: DataDir = None,
    out: Annotated[Path | None, typer.Option("--out", help="Save all outcomes to this .npz file.")] = None,
) -> None:
    """Put a trained network on virtual chips of another hardware, age, noise level or bit depth."""
    from mho.experiments.finished import evaluate_stored

    result = evaluate_stored(
        folder,
        network,
        hardware=hardware,
        chips=chips,
        ages=age or (),
        noise_scales=noise or (),
        bits=bits or (),
        compensate=compensate,
        seed=seed,
        data_dir=data_dir,
        progress=console().is_terminal,
    )
    console().print(result.table())
    if out is not None:
        console().print(f"outcomes: {result.save(out)}", soft_wrap=True)
