"""Noise as a free regulariser, tested on sampled models: Boltzmann machines that answer by sampling their label.

    python benchmarks/ebm_regulariser_sampled.py --data-dir DIR --images 1000 5000 55000 --seeds 0 1 2

A restricted machine on the pixels of digits (-1 and +1), ten label spins and latent spins is trained by persistent
contrastive divergence for as many updates whatever the number of images: without noise, on p-bits whose couplings and
temperature are wrong (a new chip each update; scale 1: 5 % of full scale, up to 20 % of T), and with dropout of the
pixels at matched strength: its share q is chosen so that the variance which dropout adds to the field of a latent spin,
q / (1 - q) sum_i w_i^2, is on average that of the wrong couplings at scale 1, for the weights that training without
noise ends with. All are judged on the same test images by the exact law of the label given the pixels (accuracy,
expected calibration error, negative log-likelihood, after one temperature fitted on held-out training images), and by
sampling: on the same virtual chips of 4-bit couplings with the errors of scale 1, the answer is the label spin that was
up most often. Writes benchmarks/results/ebm-regulariser-sampled.json after every machine; ``--resume`` keeps what is
there.
"""

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from command import command
from ebm_regulariser import calibration_error, fitted_temperature
from torch import Tensor

from mho.data import Dataset, load_dataset
from mho.ebm import programmed
from mho.ebm.generate import RestrictedMachine, VirtualSampler
from mho.ebm.generate.rbm import spins_of
from mho.evaluation.atomic import write_atomically
from mho.experiments.summary import versions
from mho.rng import derive_seed, stream, uniforms

RESULTS = Path(__file__).parent / "results" / "ebm-regulariser-sampled.json"
CLASSES, FULL_SCALE = 10, 0.3
COUPLING_ERROR, TEMPERATURE_ERROR = 0.05, 0.2


@dataclass(frozen=True)
class Regulariser:
    """What disturbs training: errors of the chips at ``scale``, and the share of pixels that ``dropout`` silences."""

    scale: float = 0.0
    dropout: float = 0.0


def spins(data: Dataset, images: Tensor) -> Tensor:
    """Pixels as -1 and +1, [N, P]."""
    return torch.where(data.normalise(images).flatten(1) > 0.5, 1.0, -1.0)


def label_spins(y: Tensor) -> Tensor:
    """+1 at the class, -1 elsewhere, [N, 10]."""
    return F.one_hot(y, CLASSES).float() * 2 - 1


def on_chip(machine: RestrictedMachine, bits: int | None, scale: float, seed: int, fast: bool) -> RestrictedMachine:
    """The machine as the chip ``seed`` holds it: couplings of ``bits`` with their error, all fields over its kT."""
    held = machine.weight.detach()
    if scale or bits is not None:
        sampler = VirtualSampler(coupling_bits=bits, coupling_error=COUPLING_ERROR * scale)
        bound = {"weight": FULL_SCALE}
        held = programmed({"weight": held}, sampler.hardware(bits), chip_seed=seed, bounds=bound, counter=fast)[
            "weight"
        ]
    turn = 2 * float(uniforms((1,), seed, "temperature")[0]) - 1
    kt = 1 + scale * TEMPERATURE_ERROR * turn
    twin = RestrictedMachine(*machine.weight.shape)
    twin.load_state_dict({name: value / kt for name, value in (machine.state_dict() | {"weight": held}).items()})
    return twin


@torch.no_grad()
def trained(
    x: Tensor, y: Tensor, how: Regulariser, hidden: int, updates: int, seed: int, batch: int = 128, sweeps: int = 2
) -> RestrictedMachine:
    """Persistent contrastive divergence with Adam, the rate falling over the second half; couplings within bounds."""
    generator, pixels = stream(seed, "machine"), x.shape[1]
    machine = RestrictedMachine(pixels + CLASSES, hidden)
    machine.weight.normal_(0.0, 0.01, generator=generator)
    whole = torch.cat([x, label_spins(y)], 1)
    machine.visible_bias.copy_(torch.atanh(whole.mean(0).clamp(-0.98, 0.98)))
    optimizer = torch.optim.Adam(machine.parameters(), 1e-3, betas=(0.5, 0.999))
    v = spins_of(torch.zeros(batch, whole.shape[1]), generator)
    for update in range(updates):
        chip = on_chip(machine, None, how.scale, derive_seed(seed, "chip", update), True) if how.scale else machine
        data = whole[torch.randint(0, len(whole), (batch,), generator=generator)]
        seen = data
        if how.dropout:
            kept = (torch.rand(batch, pixels, generator=generator) >= how.dropout) / (1 - how.dropout)
            seen = torch.cat([data[:, :pixels] * kept, data[:, pixels:]], 1)
        mean = chip.hidden_mean(seen)
        for _ in range(sweeps):
            v = spins_of(chip.visible_mean(spins_of(chip.hidden_mean(v), generator)), generator)
        free = chip.hidden_mean(v)
        machine.weight.grad = v.t() @ free / batch - seen.t() @ mean / batch
        machine.visible_bias.grad = v.mean(0) - data.mean(0)
        machine.hidden_bias.grad = free.mean(0) - mean.mean(0)
        optimizer.param_groups[0]["lr"] = 1e-3 * max(1.0 / 30.0, min(1.0, 2.0 * (1.0 - update / updates)))
        optimizer.step()
        machine.weight.clamp_(-FULL_SCALE, FULL_SCALE)
    return machine


@torch.no_grad()
def scores(machine: RestrictedMachine, x: Tensor) -> Tensor:
    """log p(label = c | pixels) up to a constant, [N, 10]: latent spins summed out exactly."""
    pixels = x.shape[1]
    labels = label_spins(torch.arange(CLASSES))
    fields = x @ machine.weight[:pixels] + machine.hidden_bias
    by_class = labels @ machine.weight[pixels:]
    bias = labels @ machine.visible_bias[pixels:]
    found = [
        bias[c] + F.softplus(2 * (fields + by_class[c])).sum(1) - (fields + by_class[c]).sum(1)  # log 2 cosh
        for c in range(CLASSES)
    ]
    return torch.stack(found, 1)


@torch.no_grad()
def sampled_answers(machine: RestrictedMachine, x: Tensor, seed: int, settle: int = 20, reads: int = 50) -> Tensor:
    """The label spin that was up most often in ``reads`` sweeps under the clamped pixels, [N]."""
    generator, pixels = stream(seed, "answers"), x.shape[1]
    drive = x @ machine.weight[:pixels] + machine.hidden_bias
    labels, bias = machine.weight[pixels:], machine.visible_bias[pixels:]
    state, total = spins_of(torch.zeros(len(x), CLASSES), generator), torch.zeros(len(x), CLASSES)
    for sweep in range(settle + reads):
        h = spins_of(torch.tanh(drive + state @ labels), generator)
        state = spins_of(torch.tanh(h @ labels.t() + bias), generator)
        if sweep >= settle:
            total += state
    return total.argmax(1)


def matched_dropout(machine: RestrictedMachine, pixels: int) -> float:
    """q / (1 - q) = variance of wrong couplings at scale 1 / mean of w^2 over the pixels' couplings."""
    ratio = (COUPLING_ERROR * FULL_SCALE) ** 2 / float(machine.weight.detach()[:pixels].square().mean())
    return ratio / (1 + ratio)


def judged(
    machine: RestrictedMachine, x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor, chips: int
) -> dict[str, float]:
    """Numbers of one machine, in percent where they are shares."""
    found = scores(machine, x)
    t = fitted_temperature(scores(machine, held_x), held_y)
    answers = [
        sampled_answers(on_chip(machine, 4, 1.0, derive_seed(0, "test chip", chip), False), x, chip)
        for chip in range(chips)
    ]
    ideal = sampled_answers(machine, x, 0)
    return {
        "accuracy": 100 * float((found.argmax(1) == y).float().mean()),
        "ece": calibration_error(found / t, y),
        "nll": float(F.cross_entropy(found / t, y)),
        "temperature": t,
        "sampled": 100 * float((ideal == y).float().mean()),
        "on_chips": 100 * float(torch.stack([(a == y).float().mean() for a in answers]).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 55000])
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--chips", type=int, default=5)
    parser.add_argument("--validation", type=int, default=5000)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    whole = replace(load_dataset(options.dataset, data_dir=options.data_dir), mean=(0.0,), std=(1.0,))
    held = whole.split_validation(options.validation)
    train_x, train_y = spins(whole, held.train_x), held.train_y.long()
    tested = (spins(whole, whole.test_x), whole.test_y.long(), spins(whole, held.test_x), held.test_y.long())
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"] if options.resume else []
    done = {(row["images"], row["seed"], row["training"]) for row in found}
    for images in options.images:
        count = min(images, len(train_y))
        x, y = train_x[:count], train_y[:count]
        for seed in options.seeds:
            names = ["no noise", *(f"noise x {scale:g}" for scale in options.scales), "dropout, matched"]
            if all((count, seed, name) in done for name in names):
                continue
            plain = trained(x, y, Regulariser(), options.hidden, options.updates, seed)
            share = matched_dropout(plain, x.shape[1])
            kinds = dict(zip(names, (None, *options.scales, Regulariser(dropout=share)), strict=True))
            for name, kind in kinds.items():
                if (count, seed, name) in done:
                    continue
                how = kind if isinstance(kind, Regulariser) else Regulariser(scale=kind or 0.0)
                machine = plain if kind is None else trained(x, y, how, options.hidden, options.updates, seed)
                row = {"images": count, "seed": seed, "training": name, "updates": options.updates, "dropout": share}
                found.append(row | judged(machine, *tested, options.chips))
                print(found[-1], flush=True)
                record = {"versions": versions(), "command": command(), "hidden": options.hidden, "rows": found}
                RESULTS.parent.mkdir(exist_ok=True)
                write_atomically(RESULTS, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
