"""A network trained from start to end with ngspice as its forward pass, beside the digital one.

    python benchmarks/lab_spice.py

8 x 8 digits (MNIST of the package, cropped to 24 x 24 and averaged over 3 x 3), 64-16-10, tanh. Every product of
training and of the final judgement is a circuit that ngspice solves: signed cells as two arrays, 1 ohm a wire
segment. The gradient runs through a twin with the wires in first order. Writes benchmarks/results/lab-spice.json.
"""

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mho
from mho.data import load_dataset
from mho.evaluation.atomic import write_atomically
from mho.hardware import GenericCell, Hardware, Mapping, Wires
from mho.lab import EventLog, Session, deploy, fit_in_the_loop
from mho.lab.spice import SpiceDevice
from mho.train import TrainSettings

WIRE_OHM = 1.0
HARDWARE = Hardware(
    name="ngspice", cell=GenericCell(g_max_uS=25.0), mapping=Mapping(scheme="signed"), wires=Wires(wire_ohm=WIRE_OHM)
)


def digits(images: Tensor) -> Tensor:
    """[n, 64] in 0 to 1 of uint8 [n, 1, 28, 28]."""
    return F.avg_pool2d(images[:, :, 2:26, 2:26].float() / 255, 3).flatten(1)


def batches(x: Tensor, y: Tensor, size: int) -> list[tuple[Tensor, Tensor]]:
    return list(zip(x.split(size), y.split(size), strict=True))


def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        return 100.0 * float((network(x).argmax(1) == y).float().mean())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--test", type=int, default=1000)
    options.add_argument("--epochs", type=int, default=12)
    options.add_argument("--batch", type=int, default=50)
    options.add_argument("--out", type=Path, default=Path("runs/lab-spice"))
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = options.parse_args()
    data = load_dataset("mnist-mini")
    x, y = digits(data.train_x[: given.images]), data.train_y[: given.images]
    test_x, test_y = digits(data.test_x[: given.test]), data.test_y[: given.test]
    settings = TrainSettings(epochs=given.epochs, lr=0.1, label_smoothing=0.0)
    torch.manual_seed(0)
    start = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 10))
    digital = copy.deepcopy(start)
    mho.fit(digital, batches(x, y, given.batch), recipe=settings)
    analog = mho.convert(start, HARDWARE)
    device = SpiceDevice(
        64, 16, g_max_uS=25.0, v_max_V=0.2, signed=True, tiles=2, wire_ohm=WIRE_OHM, noise=False, solve="each"
    )
    began = time.monotonic()
    with Session(device, log=EventLog()) as session:
        result = fit_in_the_loop(
            analog,
            session,
            batches(x, y, given.batch),
            recipe=settings,
            checkpoint=given.out / "checkpoint",
            checkpoint_every=20,
            resume=True,
            say=lambda text: print(text, flush=True),
        )
        trained_s = time.monotonic() - began
        on_device = accuracy(deploy(analog, session), test_x, test_y)
    found: dict[str, Any] = {
        "command": f"python benchmarks/lab_spice.py --images {given.images} --epochs {given.epochs}",
        "network": [64, 16, 10],
        "images": given.images,
        "test_images": given.test,
        "steps": result.history.steps,
        "wire_ohm": WIRE_OHM,
        "digital": accuracy(digital, test_x, test_y),
        "digital network on ngspice": None,
        "trained on ngspice": on_device,
        "wall_s": round(trained_s, 1),
        "calls": dict(result.budget),
        "events": dict(result.events),
    }
    with Session(SpiceDevice(64, 16, g_max_uS=25.0, v_max_V=0.2, signed=True, tiles=2, wire_ohm=WIRE_OHM)) as session:
        found["digital network on ngspice"] = accuracy(deploy(mho.convert(digital, HARDWARE), session), test_x, test_y)
    print(found)
    write_atomically(given.results / "lab-spice.json", (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
