"""The forecast of accuracy beside simulated chips: network x static noise, hardware-aware and plain training.

python benchmarks/forecast.py [--networks mlp lenet resnet20] [--chips 100] [--images 1000] [--levels 0 2 5 8 10 15]
    [--epochs 4] [--seed 0] [--out benchmarks/results/forecast.json]

Networks are trained on mnist-mini at 10 % static noise (weights clipped at 2 sigma a column), or digitally, and
judged at each level with 1 % read noise and 6-bit converters. Rows are written as they come; rows of other
networks that are in the file already stay.
"""

import argparse
import json
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mho
from mho.data import Dataset
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping
from mho.models import build
from mho.moments import forecast

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {"sizes": (784, 128, 64, 10)},
    "lenet": {"width": 8},
    "resnet20": {"width": 8, "in_channels": 1},
}
TRAINED_AT = 0.10


def hardware(static: float) -> Hardware:
    """Generic cells: ``static`` and 1 % read noise as fractions of full scale, one scale a column, 6-bit converters."""
    return Hardware(
        name=f"static {100 * static:g} %",
        cell=GenericCell(programming_noise=static, read_noise=0.01),
        mapping=Mapping(scheme="signed", per_column=True),
        dac=Dac(bits=6),
        adc=Adc(bits=6),
    )


def trained(name: str, aware: bool, data: Dataset, epochs: int, seed: int) -> nn.Module:
    """A converted network in eval mode, trained on analog hardware or digitally."""
    torch.manual_seed(seed)
    net = build(name, **NETWORKS[name])
    if aware:
        net = mho.convert(net, hardware(TRAINED_AT), clip_sigma=2.0)
    mho.fit(net, data.train_batches(128, seed=seed), epochs=epochs, seed=seed)
    if not aware:
        net = mho.convert(net, hardware(TRAINED_AT))
        mho.calibrate(net, data.train_batches(200, seed=seed), count=10)
    return net.eval()


def row(model: nn.Module, data: Dataset, level: float, options: argparse.Namespace) -> dict[str, float]:
    """Simulated and foretold accuracy in percent, and seconds of each."""
    batches, hw = data.test_batches(500, subset=options.images), hardware(level / 100)
    start = time.perf_counter()
    result = mho.evaluate(model, batches, chips=options.chips, seed=options.seed + 1, hardware=hw)
    middle = time.perf_counter()
    found = forecast(model, batches, hw)
    end = time.perf_counter()
    accuracy = 100 * np.asarray(result.data["correct"]).reshape(options.chips, -1).mean(1)
    mean, p5 = float(accuracy.mean()), float(np.quantile(accuracy, 0.05))
    return {
        "static_percent": level,
        "simulated_mean": mean,
        "simulated_std": float(accuracy.std(ddof=1)),
        "simulated_p5": p5,
        "forecast_mean": found.mean,
        "forecast_std": found.std,
        "forecast_p5": found.p5,
        "mean_difference": found.mean - mean,
        "p5_difference": found.p5 - p5,
        "simulation_s": middle - start,
        "forecast_s": end - middle,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--levels", nargs="+", type=float, default=[0, 2, 5, 8, 10, 15])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/forecast.json"))
    options = parser.parse_args()
    data = mho.load_dataset("mnist-mini")
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "chips": options.chips,
        "images": options.images,
        "epochs": options.epochs,
        "training_seed": options.seed,
        "chips_seed": options.seed + 1,
        "versions": {"mho": mho.__version__, "torch": torch.__version__, "python": platform.python_version()},
    }
    report = json.loads(options.out.read_text()) if options.out.exists() else {"networks": {}}
    print(f"{'network':20} {'static':>6}  {'simulated mean, p5':>18}  {'forecast mean, p5':>18}  {'differences':>13}")
    for name in options.networks:
        for aware in (True, False):
            label = f"{name}, {'hardware-aware' if aware else 'plain'}"
            model = trained(name, aware, data, options.epochs, options.seed)
            rows: list[dict[str, float]] = []
            for level in options.levels:
                found = row(model, data, level, options)
                rows.append(found)
                print(
                    f"{label:20} {level:5g}%  {found['simulated_mean']:9.2f} {found['simulated_p5']:8.2f}  "
                    f"{found['forecast_mean']:9.2f} {found['forecast_p5']:8.2f}  "
                    f"{found['mean_difference']:+6.2f} {found['p5_difference']:+6.2f}",
                    flush=True,
                )
                report["networks"][label] = {**about, "rows": rows}
                options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
