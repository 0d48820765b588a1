"""What the networks of a run cost: joules of both at equal accuracy, and a sentence that says who wins."""

from dataclasses import dataclass
from typing import Any

import torch

from mho.costs import EnergyReport, energy
from mho.costs.front import EqualAccuracy, Point, at_equal_accuracy
from mho.data import Dataset
from mho.experiments.measure import Measured
from mho.experiments.networks import Networks
from mho.hardware.spec import Hardware

EXAMPLES = 64
"""Test images whose values the cells are read with."""


@dataclass(frozen=True)
class RunCosts:
    """The energy of the first seed's hardware-aware network, and its comparison with int8."""

    report: EnergyReport
    equal: EqualAccuracy | None

    @property
    def sentence(self) -> str:
        """Who wins at equal accuracy, and what decides it."""
        if self.equal is None:
            return self.report.verdict("int8")
        part, share = self.report.largest
        return f"{self.equal} In {self.report.process}, {100 * share:.0f} % of the analog energy is {part}."

    def numbers(self) -> dict[str, Any]:
        """For ``summary.json``: J an inference, low, typical and high."""
        total = self.report.total_J
        digital = {d.format: d.total_J for d in self.report.digital}
        spreads = {"analog": total, **digital}
        return {
            "process": self.report.process,
            **{f"{k}_J": None if v is None else [v.low, v.typical, v.high] for k, v in spreads.items()},
            "sentence": self.sentence,
        }


def costs_of(networks: list[Networks], measured: Measured, data: Dataset, hw: Hardware) -> RunCosts:
    """Costs on ``hw``. The int8 network is taken to be as accurate as the digital one in float (it rounds finer)."""
    example = data.normalise(data.test_x[:EXAMPLES])
    with torch.random.fork_rng(devices=[]):
        report = energy(networks[0].hardware_aware.network, example, hw)
    total = report.total_J
    if total is None or not report.complete:
        return RunCosts(report, None)
    found = measured.final["hardware_aware"].numbers()
    digital = sum(measured.digital_accuracy) / len(measured.digital_accuracy)
    int8 = next(d.total_J for d in report.digital if d.format == "int8")
    analog = Point(f"analog on {hw.name}", total, float(found["mean"]), float(found["p5"]))
    return RunCosts(report, at_equal_accuracy([analog], Point("digital int8", int8, digital, digital)))
