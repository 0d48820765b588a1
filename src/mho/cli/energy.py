"""``mho energy``: what one inference of a network or of a finished run costs on a hardware."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mho.cli.inspection import build_network
from mho.cli.output import console
from mho.cli.runs import DataDir
from mho.errors import InputError

IMAGES = 16
HARDWARE = "pcm-hermes"
"""Of a network that no run names one for."""


def energy(
    network: Annotated[
        str,
        typer.Argument(
            help="The folder of a finished run (runs/mnist-mini), a recipe, a network of mho ('lenet'), or "
            "PACKAGE.MODULE:FACTORY that makes one."
        ),
    ],
    hardware: Annotated[
        str | None,
        typer.Option(
            "--hardware", help=f"A preset's name or a TOML file. Default: the run's own; without a run {HARDWARE}."
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", metavar="1,28,28", help="Shape of one input of random numbers, where no data set is."),
    ] = None,
    uses: Annotated[
        float | None, typer.Option("--uses", min=1.0, help="Inferences over which programming is paid off.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run the digital network under NVML or RAPL too.")] = False,
    constants: Annotated[bool, typer.Option("--constants", help="List every constant with its source.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write a page with the table and the stacked plot.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything to this file too.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Joules, seconds and area of one inference, by layer and part, beside floors and the digital network."""
    from mho.costs import energy as energy_of
    from mho.costs.text import constant_text
    from mho.evaluation.atomic import write_atomically

    asked = _run_of(network, hardware, shape, data_dir) or _network_of(network, hardware, shape, data_dir)
    report = energy_of(asked.model, asked.example, asked.hardware, uses=uses, measured=measure)
    shown = console()
    shown.print(str(report), soft_wrap=True)
    shown.print(f"note: {asked.note}", soft_wrap=True)
    if constants:
        for constant in report.constants:
            shown.print(constant_text(constant), soft_wrap=True)
    if json_file is not None:
        write_atomically(json_file, (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    if out is not None:
        shown.print(f"report: {_page(out, asked, report)}", soft_wrap=True)


@dataclass(frozen=True)
class _Asked:
    """What is counted. ``hardware``: ``None`` for the one that the model was converted for; ``note``: whose weights
    and inputs these are."""

    title: str
    model: Any
    example: Any
    hardware: str | None
    note: str


def _run_of(spelling: str, hardware: str | None, shape: str | None, data_dir: Path | None) -> _Asked | None:
    """The hardware-aware network of a run with images of its data set; ``None`` where ``spelling`` is no folder."""
    from dataclasses import replace

    from mho.experiments.finished import FinishedRun
    from mho.hardware import load_hardware
    from mho.nn.conversion import calibrate
    from mho.nn.site import analog_layers

    if not _is_folder(spelling):
        return None
    if shape is not None:
        raise InputError(f"mho energy {spelling}: --shape is for networks without data. Fix: leave it out for a run.")
    other = None if hardware is None else load_hardware(hardware)
    run = FinishedRun.read(spelling, data_dir)
    ranges = "ranges of converters are the run's"
    if other is not None:
        for _, layer in analog_layers(run.hardware_aware):
            layer.sites = {key: replace(site, hw=other) for key, site in layer.sites.items()}
        calibrate(run.hardware_aware, run.calibration)
        ranges = f"ranges of converters are calibrated on its training images for {other.name}"
    name = (run.hw if other is None else other).name
    note = f"weights are trained ({spelling}), inputs are {IMAGES} test images of {run.data.name}; {ranges}."
    example = run.data.normalise(run.data.test_x[:IMAGES])
    return _Asked(f"Energy of {run.name} on {name}", run.hardware_aware, example, None, note)


def _is_folder(spelling: str) -> bool:
    """A folder, or a path that could only be one; names of networks and recipes, files and factories are not."""
    from mho.models import MODELS
    from mho.train import builtin_recipes

    if spelling in MODELS or spelling in builtin_recipes():
        return False
    path = Path(spelling)
    could = os.sep in spelling and ":" not in spelling and path.suffix != ".toml" and not path.exists()
    return path.is_dir() or could


def _network_of(spelling: str, hardware: str | None, shape: str | None, data_dir: Path | None) -> _Asked:
    """A network without training, with images of the recipe's data set, else random numbers."""
    import torch

    from mho.data import load_dataset
    from mho.models import MODELS
    from mho.train import load_recipe

    torch.manual_seed(0)
    model, name = build_network(spelling), hardware or HARDWARE
    if shape is not None:
        example, of_what = torch.rand(IMAGES, *_shape(shape)), "random numbers"
    elif ":" in spelling or spelling in MODELS:
        raise InputError(
            f"mho energy {spelling}: which input does it take? Way out: --shape with the shape of one input, e.g. "
            "--shape 1,28,28, or a recipe, which has a data set."
        )
    else:
        data = load_dataset(load_recipe(spelling).data.dataset, data_dir=data_dir)
        example, of_what = data.normalise(data.test_x[:IMAGES]), f"{IMAGES} test images of {data.name}"
    note = f"weights are untrained, inputs are {of_what}: the energy of cells follows both."
    return _Asked(f"Energy of {spelling} on {name}", model, example, name, note)


def _page(out: Path, asked: _Asked, report: Any) -> Path:
    from mho.reporting.api import report as write_page
    from mho.reporting.sections import Hero

    return write_page(out, Hero(title=asked.title, lead=asked.note[0].upper() + asked.note[1:]), report)


def _shape(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise typer.BadParameter(f"--shape {text!r}: whole numbers of at least 1 with commas between, e.g. 1,28,28.")
    return found
