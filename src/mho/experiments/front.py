"""Accuracy against joules: networks under all combinations of bits, tile, read time and repeats, beside digital ones.

The networks are as they were trained. Each combination is calibrated anew (converter ranges from training images) and
put on the same chips; its joules come from the very description that set its noise. The digital network is measured at
fp32 and rounded to int8 and int4 after training (:mod:`mho.experiments.digital`), and counted alike.
"""

import copy
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, final

from torch import Tensor

from mho.costs import EnergyReport, energy
from mho.costs.front import EqualAccuracy, Point, at_equal_accuracy, front
from mho.costs.spread import Spread
from mho.errors import HardwareError, InputError
from mho.evaluation.run import evaluate
from mho.experiments.digital import Batches, digital_accuracies
from mho.experiments.finished import FinishedRun
from mho.hardware.spec import Hardware
from mho.nn.conversion import calibrate
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.scaling import with_bits

EXAMPLES = 32


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
    """``analog``: every combination; ``digital``: fp32, int8 and int4 of every network; ``equal``: the cheapest analog
    network and the cheapest digital one as good as the best digital one. ``worst``: an analog network counts by the
    5th percentile of its chips, not by their mean."""

    hardware: str
    images: int
    chips: int
    analog: tuple[Point, ...]
    digital: tuple[Point, ...]
    equal: EqualAccuracy
    worst: bool = False

    @property
    def best(self) -> tuple[Point, ...]:
        """The analog points that no other analog point beats in energy and accuracy both."""
        return front(self.analog, worst=self.worst)

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
            "by": "p5" if self.worst else "mean",
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
    worst: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    say: Callable[[str], None] | None = None,
) -> Fronts:
    """The front over the hardware-aware networks of finished runs (several runs: several widths), all on one hardware.

    ``repeats``: numbers of whole reads that are averaged; ``images``: the first so many test images (``None``: all);
    ``slack``: points within which accuracies are equal; ``worst``: accuracy is the 5th percentile over chips.
    Raises :class:`CheckpointError` where a folder holds no finished run, :class:`InputError` for no choice at all,
    :class:`HardwareError` for runs on different hardware, or where joules are not known
    (no prices, a layer that the test images do not use).
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
        run = FinishedRun.read(folder, data_dir)
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
    equal = at_equal_accuracy(analog, digital, slack=slack, worst=worst)
    return Fronts(hardware.name, shown, chips, tuple(analog), tuple(digital), equal, worst)


def _analog(
    run: FinishedRun, variation: Variation, batches: Iterable[tuple[Tensor, Tensor]], example: Tensor, chips: int
) -> Point:
    twin = copy.deepcopy(run.hardware_aware)
    for _, layer in analog_layers(twin):
        layer.sites = {key: replace(site, hw=variation.of(run.hw)) for key, site in layer.sites.items()}
    calibrate(twin, run.calibration)
    numbers = evaluate(twin, batches, chips=chips).numbers()
    label = f"{run.name}, {variation}"
    return Point(label, _joules(energy(twin, example), label), float(numbers["mean"]), float(numbers["p5"]))


def _digital(run: FinishedRun, batches: Batches, example: Tensor) -> list[Point]:
    percent = digital_accuracies([run.digital], run.calibration, batches)
    costs = energy(run.hardware_aware, example).digital
    return [Point(f"{d.format} {run.name}", d.total_J, percent[d.format], percent[d.format]) for d in costs]


def _joules(report: EnergyReport, label: str) -> Spread:
    if report.total_J is None or report.against("fp32") is None:
        raise HardwareError(f"front: the joules of {label} are not known: {report.no_verdict}.")
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
