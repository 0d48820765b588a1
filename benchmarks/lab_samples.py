"""How many products each repair of a device needs: predicted on virtual chips, and measured on the chips in question.

    python benchmarks/lab_samples.py [--chips 5] [--margin 1]

A network (8 x 8 digits, 64-16-10 with a batch norm) is deployed on a device that then goes wrong in one of three ways;
one repair after the other is carried out with n samples, and the accuracy on 1,000 test images is looked at. What a
repair needs is the smallest n from which on the mean over chips is within ``--margin`` points of the device as it was
new. The prediction is :func:`mho.lab.samples_needed` on virtual chips of the description; measured is the same on other
chips, which deviate a quarter more than the description says, through a session that counts every vector that it sends.
Writes benchmarks/results/lab-samples.json.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from command import command
from torch import Tensor, nn
from torch.nn import functional as F

import mho
from mho.data import load_dataset
from mho.evaluation.atomic import write_atomically
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping
from mho.hardware.spec import Tile
from mho.lab import (
    Session,
    VirtualDevice,
    Watch,
    WatchPolicy,
    deploy,
    fit_affine,
    fit_low_rank,
    recalibrate_norms,
    samples_needed,
    wait,
)
from mho.lab.deploy import Deployed
from mho.train import TrainSettings

SHEET = Hardware(
    name="sheet",
    cell=GenericCell(programming_noise=0.02, read_noise=0.01),
    mapping=Mapping(scheme="signed"),
    tile=Tile(rows=64, cols=16),
    dac=Dac(bits=8),
    adc=Adc(bits=8),
)
WORSE = 1.25
"""The chips in question over the description."""
AGE_S = 1e4
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
PREDICTING = 1000
"""Seeds of the virtual chips of the prediction begin here."""

Repair = Callable[[Deployed, nn.Module, Tensor], object]


@dataclass(frozen=True)
class Trouble:
    """What goes wrong: a hardware, given how far it goes, and how fast its readout fades."""

    words: str
    hardware: Callable[[float], Hardware]
    fade_per_s: float
    repairs: tuple[str, ...]


def _fading(_: float) -> Hardware:
    return SHEET


def _columns(far: float) -> Hardware:
    return SHEET.replace(adc=Adc(bits=8, gain_d2d=0.25 * far, offset_d2d_lsb=12.0 * far))


def _drifting(far: float) -> Hardware:
    cell = GenericCell(programming_noise=0.02, read_noise=0.01, drift_nu=0.06 * far, drift_nu_d2d=0.06 * far)
    return SHEET.replace(cell=cell)


TROUBLES = {
    "fading": Trouble("the readout's gain has fallen to a third", _fading, 1.1e-4, ("compensated", "calibrated")),
    "columns": Trouble(
        "columns of gains and offsets that nobody has measured",
        _columns,
        0.0,
        ("refitted", "affine", "low rank", "norms"),
    ),
    "drift": Trouble(
        "cells have drifted, each by an exponent of its own",
        _drifting,
        0.0,
        ("compensated", "refitted", "affine", "low rank", "reprogrammed"),
    ),
}


def _watch(kind: str) -> Repair:
    return lambda d, _, x: Watch(d.substrate, WatchPolicy(vectors=len(x), repeats=1)).repair(kind)


REPAIRS: dict[str, Repair] = {
    "compensated": _watch("compensated"),
    "refitted": _watch("refitted"),
    "calibrated": _watch("calibrated"),
    "reprogrammed": _watch("reprogrammed"),
    "affine": fit_affine,
    "low rank": lambda d, reference, x: (fit_affine(d, reference, x), fit_low_rank(d, reference, x, rank=4)),
    "norms": lambda d, _, x: recalibrate_norms(d, [x], count=1),
}
FREE = ("calibrated", "reprogrammed")
"""Repairs that need no products: a call of the device, and one writing a tile."""


def digits(images: Tensor) -> Tensor:
    """[n, 64] in 0 to 1 of uint8 [n, 1, 28, 28]."""
    return F.avg_pool2d(images[:, :, 2:26, 2:26].float() / 255, 3).flatten(1)


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """The network, trained for the description without its troubles."""
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 10))
    analog = mho.convert(start, SHEET)
    batches = list(zip(x.split(50), y.split(50), strict=True))
    mho.fit(analog, batches, recipe=TrainSettings(epochs=8, lr=0.1, label_smoothing=0.0))
    return analog.eval()


class Bench:
    """One chip with one trouble: deployed anew as often as wanted, with every vector counted."""

    def __init__(self, analog: nn.Module, trouble: Trouble, far: float, seed: int, test: tuple[Tensor, Tensor]) -> None:
        self.analog, self.trouble, self.far, self.seed, self.test = analog, trouble, far, seed, test
        self.session: Session | None = None

    def new(self) -> Deployed:
        """On a chip of the description that nothing has happened to."""
        return self._deployed(SHEET, 0.0)

    def again(self) -> Deployed:
        """In trouble, not repaired."""
        deployed = self._deployed(self.trouble.hardware(self.far), self.trouble.fade_per_s * self.far)
        assert self.session is not None
        wait(self.session, AGE_S)
        return deployed

    def _deployed(self, hardware: Hardware, fade_per_s: float) -> Deployed:
        device = VirtualDevice(hardware, self.seed, tiles=2, rows=64, cols=16, fade_per_second=fade_per_s)
        self.session = Session(device)
        return deploy(self.analog, self.session)

    def accuracy(self, deployed: Deployed) -> float:
        """Percent of the test images, by reads of their own."""
        x, y = self.test
        return 100.0 * float((deployed.again("judged")(x).argmax(1) == y).float().mean())

    def curve(self, repair: Repair, x: Tensor, counts: tuple[int, ...]) -> tuple[dict[int, float], dict[int, int]]:
        """Accuracy and vectors sent by the repair, by the number of samples."""
        sent: dict[int, int] = {}

        def counted(deployed: Deployed, some: Tensor) -> None:
            assert self.session is not None
            before = self.session.budget.vectors
            repair(deployed, self.analog, some)
            sent[len(some)] = self.session.budget.vectors - before

        return samples_needed(self.again, counted, self.accuracy, x, counts), sent


def needed(curve: dict[int, float], goal: float) -> int | None:
    """The smallest n from which on the goal is reached; ``None``: not with the largest either."""
    found = None
    for n in sorted(curve, reverse=True):
        if curve[n] < goal:
            break
        found = n
    return found


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def group(
    name: str, analog: nn.Module, far: float, seeds: range, x: Tensor, test: tuple[Tensor, Tensor]
) -> dict[str, Any]:
    """Curves of every repair of one trouble, over chips."""
    trouble = TROUBLES[name]
    benches = [Bench(analog, trouble, far, seed, test) for seed in seeds]
    found: dict[str, Any] = {
        "new": mean([b.accuracy(b.new()) for b in benches]),
        "broken": mean([b.accuracy(b.again()) for b in benches]),
        "repairs": {},
    }
    for kind in trouble.repairs:
        counts = (1,) if kind in FREE else COUNTS[kind == "norms" :]  # one sample has no variance
        runs = [b.curve(REPAIRS[kind], x, counts) for b in benches]
        found["repairs"][kind] = {
            "accuracy": {n: mean([c[n] for c, _ in runs]) for n in counts},
            "chips": {n: [c[n] for c, _ in runs] for n in counts},
            "vectors": {n: runs[0][1][n] for n in counts},
        }
    return found


def table(predicted: dict[str, Any], measured: dict[str, Any], margin: float) -> list[dict[str, Any]]:
    """One row a trouble and repair."""
    rows = []
    for name, there in measured.items():
        for kind, curve in there["repairs"].items():
            row = {"trouble": name, "repair": kind, "new": there["new"], "broken": there["broken"]}
            for label, side in (("predicted", predicted[name]), ("measured", there)):
                n = needed(side["repairs"][kind]["accuracy"], side["new"] - margin)
                row[label] = 0 if n is not None and kind in FREE else n
            last = max(curve["accuracy"])
            row["best"] = curve["accuracy"][last]
            row["vectors"] = None if row["measured"] is None else curve["vectors"][row["measured"] or last]
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--margin", type=float, default=1.0)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "lab-samples.json")
    given = parser.parse_args()
    began = time.process_time()
    data = load_dataset("mnist-mini")
    x, y = digits(data.train_x[:2000]), data.train_y[:2000]
    test = digits(data.test_x[: given.test]), data.test_y[: given.test]
    analog = trained(x, y)
    hidden = range(given.chips)
    other = range(PREDICTING, PREDICTING + given.chips)
    predicted = {name: group(name, analog, 1.0, other, x, test) for name in TROUBLES}
    measured = {name: group(name, analog, WORSE, hidden, x, test) for name in TROUBLES}
    rows = table(predicted, measured, given.margin)
    found = {
        "command": command(),
        "network": [64, 16, 10],
        "chips": given.chips,
        "test_images": given.test,
        "margin_points": given.margin,
        "counts": COUNTS,
        "troubles": {name: t.words for name, t in TROUBLES.items()},
        "rows": rows,
        "predicted": predicted,
        "measured": measured,
        "cpu_s": round(time.process_time() - began, 1),
    }
    write_atomically(given.out, (json.dumps(found, indent=1) + "\n").encode())
    for r in rows:
        print(
            f"{r['trouble']:8} {r['repair']:12} new {r['new']:.2f} broken {r['broken']:.2f} best {r['best']:.2f}: "
            f"predicted {r['predicted']}, measured {r['measured']}, vectors sent {r['vectors']}"
        )
    print(f"{found['cpu_s']} s of one core")


if __name__ == "__main__":
    main()
