"""What the networks of a run cost: joules of both at equal accuracy, and a sentence that says who wins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mho.costs import EnergyReport, energy
from mho.costs.front import EqualAccuracy, Point, at_equal_accuracy
from mho.costs.spread import Spread
from mho.data import Dataset
from mho.evaluation.result import Result
from mho.experiments.digital import FORMATS, digital_accuracies
from mho.experiments.finished import calibration_images, image_batches
from mho.experiments.measure import Measured
from mho.experiments.networks import Networks
from mho.hardware.spec import Hardware

EXAMPLES = 64
"""Test images whose values the cells are read with."""


@dataclass(frozen=True)
class Joules:
    """J an inference of the first seed's hardware-aware network and of digital ones by format, as plain data.

    ``analog``: None where nothing has a price. ``complete``: whether all has one, above 0, so that it may be compared.
    ``remark``: a sentence that no accuracy changes: which part costs most, or why there is no verdict.
    """

    process: str
    analog: Spread | None
    digital: Mapping[str, Spread]
    complete: bool
    remark: str = ""

    @classmethod
    def of(cls, report: EnergyReport) -> "Joules":
        """Those of ``report``."""
        complete = report.against("int8") is not None
        part, share = report.largest if complete else ("", 0.0)
        decides = f"In {report.process}, {100 * share:.0f} % of the analog energy is {part}."
        remark = decides if complete else report.verdict("int8")
        return cls(report.process, report.total_J, {d.format: d.total_J for d in report.digital}, complete, remark)

    @classmethod
    def read(cls, energy: Mapping[str, Any]) -> "Joules":
        """Those of a finished run, from ``energy`` of its ``summary.json``, without the remark (:func:`remark_of`)."""
        spreads = {name: energy[f"{name}_J"] for name in ("analog", *FORMATS) if f"{name}_J" in energy}
        found = {name: None if three is None else Spread(*three) for name, three in spreads.items()}
        digital = {name: spread for name, spread in found.items() if name != "analog" and spread is not None}
        return cls(energy["process"], found["analog"], digital, energy["compared_with"] is not None)


@dataclass(frozen=True)
class RunCosts:
    """Joules, and their comparison at equal accuracy; ``equal`` is None where not all has a price.

    ``digital``: accuracy (mean over seeds, all test images) and joules of the digital network at fp32, int8 and int4.
    """

    joules: Joules
    equal: EqualAccuracy | None
    digital: Mapping[str, Point] = field(default_factory=dict)

    @property
    def winner(self) -> str:
        """Who wins at equal accuracy; empty where nothing is compared."""
        return "" if self.equal is None else str(self.equal)

    @property
    def rounded(self) -> str:
        """How accurate the digital network is at each format."""
        shown = ", ".join(f"{point.accuracy:.2f} % at {name}" for name, point in self.digital.items())
        return f"The digital network, rounded after training: {shown}." if shown else ""

    @property
    def sentence(self) -> str:
        """Who wins, what decides it, and how accurate the digital network is."""
        return " ".join(part for part in (self.winner, self.joules.remark, self.rounded) if part)

    def numbers(self) -> dict[str, Any]:
        """For ``summary.json``: J an inference, low, typical and high; percent of the digital network at each format;
        ``compared_with``: the cheapest digital network that is as accurate as the best."""
        spreads = {"analog": self.joules.analog, **self.joules.digital}
        return {
            "process": self.joules.process,
            **{f"{k}_J": None if v is None else [v.low, v.typical, v.high] for k, v in spreads.items()},
            **{f"{name}_accuracy": round(point.accuracy, 4) for name, point in self.digital.items()},
            "compared_with": None if self.equal is None else self.equal.digital.label,
            "sentence": self.sentence,
        }


def compared(joules: Joules, hardware: str, aware: Result, percent: Mapping[str, float]) -> RunCosts:
    """Costs beside accuracies: ``aware``, the hardware-aware network on chips of ``hardware``; ``percent`` of the
    digital network by format."""
    digital = {
        name: Point(f"digital {name}", spread, percent[name], percent[name]) for name, spread in joules.digital.items()
    }
    if joules.analog is None or not joules.complete:
        return RunCosts(joules, None, digital)
    found = aware.numbers()
    analog = Point(f"analog on {hardware}", joules.analog, float(found["mean"]), float(found["p5"]))
    return RunCosts(joules, at_equal_accuracy([analog], digital.values()), digital)


def remark_of(sentence: str, costs: RunCosts) -> str:
    """What the ``sentence`` of a finished run says besides what ``costs``, made of its numbers, say of accuracies.

    Empty where it says that in other words, as an older version may.
    """
    before, after = costs.winner, costs.rounded
    whole = sentence.startswith(before) and sentence.endswith(after)
    return sentence.removeprefix(before).removesuffix(after).strip() if whole else ""


def energy_of(networks: list[Networks], data: Dataset, hw: Hardware) -> EnergyReport:
    """What the first seed's hardware-aware network costs on ``hw``."""
    with torch.random.fork_rng(devices=[]):
        return energy(networks[0].hardware_aware.network, data.normalise(data.test_x[:EXAMPLES]), hw)


def costs_of(
    report: EnergyReport, networks: list[Networks], measured: Measured, data: Dataset, hw: Hardware
) -> RunCosts:
    """Costs on ``hw``, and the accuracy of the digital networks rounded to int8 and int4: one pass each over the test
    images."""
    exact = sum(measured.digital_accuracy) / len(measured.digital_accuracy)
    with torch.random.fork_rng(devices=[]):
        percent = digital_accuracies(
            [n.digital.network for n in networks], calibration_images(data), image_batches(data), {"fp32": exact}
        )
    return compared(Joules.of(report), hw.name, measured.final["hardware_aware"], percent)
