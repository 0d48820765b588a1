"""Noise as a free regulariser, tested: accuracy and calibration of EP-trained networks against the noise of training.

    python benchmarks/ebm_regulariser.py --data-dir DIR --images 1000 5000 60000 --seeds 0 1 2

For each number of training images: networks trained without noise, with the hardware's noise at several scales (a new
chip and fresh reads each step), and with input dropout at matched strength: its share q is chosen so that the variance
which dropout adds to the drive of a hidden unit, q/(1-q) sum_i w_i^2 x_i^2, is on average that of the chip at scale 1.
All are judged on the same test images without noise (accuracy, expected calibration error, negative log-likelihood)
and on the same virtual chips. A softmax temperature is fitted on held-out training images for every network alike.
Writes benchmarks/results/ebm-regulariser.json after every network; ``--resume`` keeps what is there.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from command import command
from torch import Tensor

from mho.data import Dataset, load_dataset
from mho.ebm import (
    Dynamics,
    EqPropLoss,
    HopfieldNet,
    Relaxation,
    class_scores,
    dense_net,
    evaluate_on_chips,
    fit_eqprop,
)
from mho.evaluation.atomic import write_atomically
from mho.experiments.summary import versions
from mho.hardware import GenericCell, load_hardware
from mho.hardware.spec import Hardware
from mho.physics.scaling import scale_hardware_noise

RESULTS = Path(__file__).parent / "results" / "ebm-regulariser.json"
READS = Dynamics(bits=6, settle=12, reads=4)


def calibration_error(scores: Tensor, y: Tensor, bins: int = 15) -> float:
    """Expected calibration error in percent: mean |confidence - accuracy| over equally wide bins of confidence."""
    confidence, answer = scores.softmax(1).max(1)
    right = (answer == y).double()
    place = (confidence * bins).long().clamp_max(bins - 1)
    count = torch.bincount(place, minlength=bins).clamp_min(1)
    gap = torch.bincount(place, confidence.double() - right, minlength=bins) / count
    share = torch.bincount(place, minlength=bins) / len(y)
    return 100 * float((gap.abs() * share).sum())


def fitted_temperature(scores: Tensor, y: Tensor) -> float:
    """The softmax temperature of least cross entropy, on a grid of 200 values from 0.01 to 10."""
    grid = torch.logspace(-2, 1, 200)
    costs = torch.stack([F.cross_entropy(scores / t, y) for t in grid])
    return float(grid[costs.argmin()])


def matched_dropout(net: HopfieldNet, hw: Hardware, x: Tensor) -> float:
    """q / (1 - q) = programming variance / drive variance of an input that is dropped, mean over units and images."""
    assert isinstance(hw.cell, GenericCell)
    w = net.layers[0].weight.detach()
    bound = net.full_scales["layers.0.weight"]
    energy = x.flatten(1).square()
    chip = float((hw.cell.programming_noise * bound) ** 2 * energy.sum(1).mean())
    dropped = float((energy @ w.square().t()).mean())
    ratio = chip / dropped
    return ratio / (1 + ratio)


def trained(data: Dataset, images: int, seed: int, epochs: int, loss: EqPropLoss) -> HopfieldNet:
    """A network of 512 hidden units after ``epochs``."""
    net = dense_net(bound_sigma=3.0, seed=seed)
    batch = 100 if images >= 5000 else 20
    fit_eqprop(net, data.train_batches(batch, seed, subset=images, drop_last=True), loss, epochs=epochs, seed=seed)
    return net


def judged(net: HopfieldNet, data: Dataset, held: Dataset, hw: Hardware, chips: int) -> dict[str, float]:
    """Numbers of one network, in percent where they are shares."""
    val_scores, val_y = class_scores(net, held.test_batches(500))
    scores, y = class_scores(net, data.test_batches(500))
    t = fitted_temperature(val_scores, val_y)
    result = evaluate_on_chips(net, list(data.test_batches(500)), hw, chips=chips, dynamics=READS)
    return {
        "accuracy": 100 * float((scores.argmax(1) == y).float().mean()),
        "ece": calibration_error(scores / t, y),
        "nll": float(F.cross_entropy(scores / t, y)),
        "temperature": t,
        "on_chips": float(result.accuracy().mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 55000])
    parser.add_argument("--scales", type=float, nargs="+", default=[0.5, 1.0, 2.0, 3.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    whole = load_dataset(options.dataset, data_dir=options.data_dir)
    whole = replace(whole, mean=(0.0,), std=(1.0,))
    held = whole.split_validation(options.validation)
    data = replace(whole, train_x=held.train_x, train_y=held.train_y)
    hw = load_hardware("generic-channel")
    assert isinstance(hw.cell, GenericCell)
    hw = hw.replace(cell=replace(hw.cell, programming_noise=0.08, read_noise=0.01))
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"] if options.resume else []
    done = {(row["images"], row["seed"], row["training"]) for row in found}
    how = {"free": Relaxation(20, None), "nudged": Relaxation(10, None)}
    for images in options.images:
        count = min(images, len(data.train_y))
        epochs = options.epochs * (3 if count <= 1000 else 1)
        for seed in options.seeds:
            start = dense_net(bound_sigma=3.0, seed=seed)
            x = data.normalise(data.train_x[:500])
            share = matched_dropout(start, hw, x)
            kinds: dict[str, EqPropLoss] = {"no noise": EqPropLoss(**how)}  # type: ignore[arg-type]
            for scale in options.scales:
                kinds[f"noise x {scale:g}"] = EqPropLoss(
                    **how, hardware=scale_hardware_noise(hw, scale), dynamics=READS  # type: ignore[arg-type]
                )  # fmt: skip
            kinds["dropout, matched"] = EqPropLoss(**how, input_dropout=share)  # type: ignore[arg-type]
            for name, loss in kinds.items():
                if (count, seed, name) in done:
                    continue
                net = trained(data, count, seed, epochs, loss)
                row = {"images": count, "seed": seed, "training": name, "epochs": epochs, "dropout": share}
                found.append(row | judged(net, data, held, hw, options.chips))
                print(found[-1], flush=True)
                record = {"versions": versions(), "command": command(), "rows": found}
                RESULTS.parent.mkdir(exist_ok=True)
                write_atomically(RESULTS, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
