"""Accuracy against joules: networks under all combinations of bits, tile, read time and repeats, beside digital ones.

The networks are as they were trained. Each combination is calibrated anew (converter ranges from training images) and
put on the same chips; its joules come from the very description that set its noise. The digital network is rounded to
int8 and int4 (weights of each output channel and inputs of each layer, symmetric, after training) and counted alike.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn

from mho.costs import EnergyReport, energy
from mho.costs.front import EqualAccuracy, Point, at_equal_accuracy, front
from mho.data import Dataset, load_dataset
from mho.errors import CheckpointError, HardwareError, InputError
from mho.evaluation.run import clean_outcomes, evaluate
from mho.experiments.networks import Trainer
from mho.hardware import load_hardware
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Dac, Hardware
from mho.hardware.spec import Mapping as CellMapping
from mho.nn.conversion import calibrate, convert
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.scaling import with_bits
from mho.train import load_recipe

EXAMPLES = 32
FORMATS = {"int8": 8, "int4": 4}


@final
@dataclass(frozen=True)
class Variation:
    """One way to build the hardware. ``bits`` of both converters, ``rows`` of a tile (``None``: no limit), ``read``:
    read time over the described one, ``repeats``: whole reads, each converted, averaged digitally."""

    bits: int
    rows: int | None
    read: float
    repeats: int = 1

    def of(self, hw: Hardware) -> Hardware:
        """``hw`` built this way."""
        found = repeated_read(longer_read(with_bits(hw, self.bits), self.read), self.repeats)
        return replace(found, tile=replace(found.tile, rows=self.rows))

    def __str__(self) -> str:
        rows = "one tile a layer" if self.rows is None else f"tiles of {self.rows} rows"
        repeats = "" if self.repeats == 1 else f", mean of {self.repeats} reads"
        return f"{self.bits} bit, {rows}, read time x {self.read:g}{repeats}"


@final
@dataclass(frozen=True)
class Fronts:
    """``analog``: every combination; ``digital``: int8 and int4 of every network; ``equal``: the cheapest analog
    network as good as the best int8 one."""

    hardware: str
    images: int
    chips: int
    analog: tuple[Point, ...]
    digital: tuple[Point, ...]
    equal: EqualAccuracy

    @property
    def best(self) -> tuple[Point, ...]:
        """The analog points that no other analog point beats in energy and mean accuracy both."""
        return front(self.analog)

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        best = {p.label for p in self.best}

        def row(point: Point) -> dict[str, Any]:
            e = point.energy_J
            return {
                "label": point.label,
                "energy_J": [e.low, e.typical, e.high],
                "mean": round(point.accuracy, 4),
                "p5": round(point.p5, 4),
                "on_the_front": point.label in best,
            }

        return {
            "hardware": self.hardware,
            "images": self.images,
            "chips": self.chips,
            "analog": [row(p) for p in self.analog],
            "digital": [row(p) for p in self.digital],
            "sentence": str(self.equal),
        }


def accuracy_front(
    folders: Sequence[str | os.PathLike[str]],
    *,
    bits: Sequence[int] = (4, 5, 6, 8),
    rows: Sequence[int | None] = (None, 256),
    reads: Sequence[float] = (1.0, 1 / 16),
    repeats: Sequence[int] = (1,),
    chips: int = 10,
    images: int | None = 1000,
    slack: float = 0.5,
    data_dir: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Fronts:
    """The front over the hardware-aware networks of finished runs (several runs: several widths), all on one hardware.

    ``repeats``: numbers of whole reads that are averaged; ``images``: the first so many test images (``None``: all);
    ``slack``: points within which accuracies are equal.
    Raises :class:`CheckpointError` where a folder holds no finished run, :class:`InputError` for no choice at all,
    :class:`HardwareError` for runs on different hardware, or one without prices.
    """
    if not folders or not bits or not rows or not reads or not repeats:
        raise InputError(
            "front: nothing to compare. Fix: at least one run, number of bits, tile, read time and number of reads."
        )
    tell = say or (lambda text: None)
    analog: list[Point] = []
    digital: list[Point] = []
    hardware: Hardware | None = None
    shown = 0
    for folder in map(Path, folders):
        run = _Run.read(folder, data_dir)
        if hardware is not None and run.hw != hardware:
            raise HardwareError(
                f"{folder}: on {run.hw.name}, another run on {hardware.name}. Fix: runs on one hardware."
            )
        hardware = run.hw
        batches = run.batches(images)
        shown = sum(len(y) for _, y in batches)
        example = batches[0][0][:EXAMPLES]
        for variation in (Variation(*v) for v in product(bits, rows, reads, repeats)):
            point = _analog(run, variation, batches, example, chips)
            tell(f"{point.label}: {point.accuracy:.2f} %, {point.energy_J.typical:.3g} J")
            analog.append(point)
        digital += _digital(run, batches, example)
    assert hardware is not None
    best = max((p for p in digital if p.label.startswith("int8")), key=lambda p: p.accuracy)
    equal = at_equal_accuracy(analog, best, slack=slack)
    return Fronts(hardware.name, shown, chips, tuple(analog), tuple(digital), equal)


@dataclass(frozen=True)
class _Run:
    name: str
    hw: Hardware
    data: Dataset
    hardware_aware: nn.Module
    digital: nn.Module
    calibration: list[Tensor]

    @classmethod
    def read(cls, folder: Path, data_dir: str | os.PathLike[str] | None) -> "_Run":
        if not (folder / "summary.json").is_file():
            raise CheckpointError(f"{folder}: no finished run is in it. Way out: 'mho run' first, then its folder.")
        recipe, hw = load_recipe(folder / "recipe.toml"), load_hardware(folder / "hardware.toml")
        data = load_dataset(recipe.data.dataset, data_dir=data_dir)
        trainer = Trainer(recipe, data, hw, folder, resume=True, progress=False, say=lambda text: None)
        found = trainer.networks(recipe.seeds[0])
        calibration = [data.normalise(data.train_x[:512])]
        return cls(recipe.name, hw, data, found.hardware_aware.network, found.digital.network, calibration)

    def batches(self, images: int | None) -> list[tuple[Tensor, Tensor]]:
        x, y = self.data.test_x[:images], self.data.test_y[:images]
        return [(self.data.normalise(a), b) for a, b in zip(x.split(250), y.split(250), strict=True)]


def _analog(
    run: _Run, variation: Variation, batches: Iterable[tuple[Tensor, Tensor]], example: Tensor, chips: int
) -> Point:
    twin = copy.deepcopy(run.hardware_aware)
    for _, layer in analog_layers(twin):
        layer.sites = {key: replace(site, hw=variation.of(run.hw)) for key, site in layer.sites.items()}
    calibrate(twin, run.calibration)
    numbers = evaluate(twin, batches, chips=chips).numbers()
    label = f"{run.name}, {variation}"
    return Point(label, _joules(energy(twin, example), run.hw), float(numbers["mean"]), float(numbers["p5"]))


def _digital(run: _Run, batches: list[tuple[Tensor, Tensor]], example: Tensor) -> list[Point]:
    report = energy(run.hardware_aware, example)
    priced = {d.format: d.total_J for d in report.digital}
    found = []
    for name, bits in FORMATS.items():
        rounded = calibrate(convert(run.digital, _rounding(bits)), run.calibration)
        accuracy = 100 * float(clean_outcomes(rounded, batches).mean())
        found.append(Point(f"{name} {run.name}", priced[name], accuracy, accuracy))
    return found


def _rounding(bits: int) -> Hardware:
    """Digital logic of so many bits: weights of each output channel and inputs rounded, sums exact."""
    return Hardware(
        name=f"int{bits}",
        cell=GenericCell(bits=bits),
        mapping=CellMapping(scheme="signed", per_column=True),
        dac=Dac(bits=bits),
    )


def _joules(report: EnergyReport, hw: Hardware) -> Any:
    if report.total_J is None or not report.complete:
        raise HardwareError(f"front: hardware {hw.name!r} has no prices. Way out: a [cost] table in its description.")
    return report.total_J


def rows_of(found: Fronts) -> list[Mapping[str, str]]:
    """The front and the digital points as a table's rows, cheapest first."""
    points = sorted((*found.best, *found.digital), key=lambda p: p.energy_J.typical)
    return [
        {
            "network": p.label,
            "J an inference": f"{p.energy_J.typical:.3g} ({p.energy_J.low:.2g} to {p.energy_J.high:.2g})",
            "mean": f"{p.accuracy:.2f}",
            "p5": f"{p.p5:.2f}",
        }
        for p in points
    ]
