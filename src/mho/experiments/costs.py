"""What the networks of a run cost: joules of both at equal accuracy, and a sentence that says who wins."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from mho.costs import EnergyReport, energy
from mho.costs.front import EqualAccuracy, Point, at_equal_accuracy
from mho.data import Dataset
from mho.experiments.digital import digital_accuracies
from mho.experiments.finished import calibration_images, image_batches
from mho.experiments.measure import Measured
from mho.experiments.networks import Networks
from mho.hardware.spec import Hardware

EXAMPLES = 64
"""Test images whose values the cells are read with."""


@dataclass(frozen=True)
class RunCosts:
    """The energy of the first seed's hardware-aware network, and its comparison with the digital ones.

    ``digital``: accuracy (mean over seeds, all test images) and joules of the digital network at fp32, int8 and int4.
    """

    report: EnergyReport
    equal: EqualAccuracy | None
    digital: Mapping[str, Point] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """Who wins at equal accuracy, what decides it, and how accurate the digital network is at each format."""
        shown = ", ".join(f"{point.accuracy:.2f} % at {name}" for name, point in self.digital.items())
        rounded = f" The digital network, rounded after training: {shown}." if shown else ""
        if self.equal is None:
            return self.report.verdict("int8") + rounded
        part, share = self.report.largest
        return f"{self.equal} In {self.report.process}, {100 * share:.0f} % of the analog energy is {part}.{rounded}"

    def numbers(self) -> dict[str, Any]:
        """For ``summary.json``: J an inference, low, typical and high; percent of the digital network at each format;
        ``compared_with``: the cheapest digital network that is as accurate as the best."""
        total = self.report.total_J
        digital = {d.format: d.total_J for d in self.report.digital}
        spreads = {"analog": total, **digital}
        return {
            "process": self.report.process,
            **{f"{k}_J": None if v is None else [v.low, v.typical, v.high] for k, v in spreads.items()},
            **{f"{name}_accuracy": round(point.accuracy, 4) for name, point in self.digital.items()},
            "compared_with": None if self.equal is None else self.equal.digital.label,
            "sentence": self.sentence,
        }


def costs_of(networks: list[Networks], measured: Measured, data: Dataset, hw: Hardware) -> RunCosts:
    """Costs on ``hw``, and the accuracy of the digital networks rounded to int8 and int4: one pass each over the test
    images."""
    example = data.normalise(data.test_x[:EXAMPLES])
    with torch.random.fork_rng(devices=[]):
        report = energy(networks[0].hardware_aware.network, example, hw)
        exact = sum(measured.digital_accuracy) / len(measured.digital_accuracy)
        percent = digital_accuracies(
            [n.digital.network for n in networks], calibration_images(data), image_batches(data), {"fp32": exact}
        )
    digital = {
        d.format: Point(f"digital {d.format}", d.total_J, percent[d.format], percent[d.format]) for d in report.digital
    }
    total = report.total_J
    if total is None or not report.complete:
        return RunCosts(report, None, digital)
    found = measured.final["hardware_aware"].numbers()
    analog = Point(f"analog on {hw.name}", total, float(found["mean"]), float(found["p5"]))
    return RunCosts(report, at_equal_accuracy([analog], digital.values()), digital)
