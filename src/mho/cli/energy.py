"""``mho energy``: what one inference of a network costs on a hardware."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mho.cli.inspection import build_network
from mho.cli.output import console
from mho.cli.runs import DataDir
from mho.errors import InputError

IMAGES = 16


def energy(
    network: Annotated[
        str, typer.Argument(help="A recipe, a network of mho ('lenet'), or PACKAGE.MODULE:FACTORY that makes one.")
    ],
    hardware: Annotated[str, typer.Option("--hardware", help="A preset's name or a TOML file.")] = "pcm-hermes",
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="1,28,28", help="Shape of one input of random numbers, where no data set is."),
    ] = None,
    uses: Annotated[
        float | None, typer.Option("--uses", min=1.0, help="Inferences over which programming is paid off.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run the digital network under NVML or RAPL too.")] = False,
    constants: Annotated[bool, typer.Option("--constants", help="List every constant with its source.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Joules, seconds and area of one inference, by layer and part, beside floors and the digital network."""
    from mho.costs import energy as energy_of
    from mho.evaluation.atomic import write_atomically

    model, example, of_what = _network_and_example(network, shape, data_dir)
    report = energy_of(model, example, hardware, uses=uses, measured=measure)
    out = console()
    out.print(str(report), soft_wrap=True)
    out.print(f"note: weights are untrained, inputs are {of_what}: the energy of cells follows both.", soft_wrap=True)
    if constants:
        for c in report.constants:
            value = f"{c.value.typical:g} ({c.value.low:g} to {c.value.high:g}) {c.unit}"
            where = "" if c.node_nm is None else f", {c.node_nm:g} nm"
            out.print(f"{c.name}: {value}; {c.status}{where}; {c.source}" + (f" ({c.note})" if c.note else ""))
    if json_file is not None:
        write_atomically(json_file, (json.dumps(report.to_dict(), indent=2) + "\n").encode())


def _network_and_example(spelling: str, shape: str | None, data_dir: Path | None) -> tuple[Any, Any, str]:
    """The network, an example input, and what that is: images of the recipe's data set, else random numbers."""
    import torch

    from mho.data import load_dataset
    from mho.models import MODELS
    from mho.train import load_recipe

    torch.manual_seed(0)
    model = build_network(spelling)
    if shape is not None:
        return model, torch.rand(IMAGES, *_shape(shape)), "random numbers"
    if ":" in spelling or spelling in MODELS:
        raise InputError(
            f"mho energy {spelling}: which input does it take? Way out: --shape with the shape of one input, e.g. "
            "--shape 1,28,28, or a recipe, which has a data set."
        )
    data = load_dataset(load_recipe(spelling).data.dataset, data_dir=data_dir)
    return model, data.normalise(data.test_x[:IMAGES]), f"{IMAGES} test images of {data.name}"


def _shape(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--shape {text!r}: whole numbers of at least 1 with commas between, e.g. 1,28,28.")
    return found
