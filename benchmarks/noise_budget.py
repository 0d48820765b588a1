"""Read time and converter bits a layer against the same for all layers, on the network of a run.

    mho run benchmarks/recipes/cifar10-levels.toml --seeds 0  # the run of most recorded figures; any other will do
    mho run benchmarks/recipes/cifar10-budget.toml --seeds 0  # that of runs/cifar10-budget
    python benchmarks/noise_budget.py runs/cifar10 --data-dir DIR              # for the weights as they are
    python benchmarks/noise_budget.py runs/cifar10 --data-dir DIR --retrain 2  # and trained on for the new settings
    python benchmarks/noise_budget.py runs/cifar10 --data-dir DIR --retrain 2 --same  # with one setting for all, too
    python benchmarks/noise_budget.py runs/cifar10 --per-channel --dac --repeats 4 --name=-options    # all that there
    is

Without --retrain, allocations are found on training images and on chips of a lot of their own (they may lose --points
there). With it, the plan at --harm times the harm of today is trained for so many epochs, and the network as it was for
as many more, under today's settings; with --same also for the plan that is the same for all layers, at the same harm
(another training). All are checked on the test images and on 25 other chips, paired image by image. Writes
benchmarks/results/noise-budget-NAME.json; with --retrain noise-budget-NAME-retrained.json, with what --adc-sigma,
--harm and --same were in its name. Energies are typical ones; ratios
are those of one hardware, in which constants that multiply both sides drop out.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from command import command
from torch import Tensor, nn

import mho
from mho.allocation import Allocation, allocate, applied, harm, loads, plan, sensitivities, today
from mho.data import Dataset
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.experiments.networks import Trainer
from mho.experiments.record import difference
from mho.experiments.summary import versions
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.nn.site import analog_layers
from mho.train import load_recipe

HARM = 4.5
"""Second-order harm over today's that networks are trained on for, where nothing else is said."""
READS = (1 / 16, 8.0)
"""Shortest and longest read time of a plan that is trained for, over today's."""


def parts(report: mho.costs.EnergyReport) -> dict[str, float]:
    """Typical joules of an inference by part, and in all."""
    total = report.total_J
    assert total is not None
    return {name: value.typical for name, value in report.parts_J.items()} | {"total": total.typical}


def read_s(network: nn.Module, report: mho.costs.EnergyReport) -> float:
    """Seconds that the arrays of one inference are read: vectors one after the other, layers too."""
    readouts = {s.name: s.hw.readout for _, layer in analog_layers(network) for s in layer.sites.values()}
    seconds = {name: readout.t_read_s * readout.repeats for name, readout in readouts.items()}
    return sum(layer.counts.vectors / report.inferences * seconds[layer.name] for layer in report.layers)


def entry(network: nn.Module, result: Result, before: Result | None, example: Tensor) -> dict[str, Any]:
    """One row: accuracy over chips, joules, and the paired difference from the network as it was."""
    numbers = {k: round(float(v), 3) for k, v in result.numbers().items() if isinstance(v, (int, float))}
    report = mho.energy(network, example)
    found: dict[str, Any] = numbers | {"energy_J": parts(report), "read_s": read_s(network, report)}
    if before is not None:
        found["difference"] = difference(result, before)
    return found


def described(found: Allocation) -> dict[str, Any]:
    """What an allocation chose, and how it was found."""
    return {
        "settings": [asdict(s) for s in found.settings],
        "harm": found.harm,
        "steps": [asdict(s) for s in found.steps],
        "validation": [found.accuracy_before, found.accuracy_after],
    }


def on(network: nn.Module, hw: Hardware) -> nn.Module:
    """The network under another description."""
    for _, layer in analog_layers(network):
        layer.sites = {k: replace(s, hw=hw) for k, s in layer.sites.items()}
    return network


def _batches(data: Dataset, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(data.normalise(a), b) for a, b in zip(x.split(250), y.split(250), strict=True)]


def trained_on(network: nn.Module, trainer: Trainer, seed: int, epochs: int, lr: float) -> nn.Module:
    """The network after ``epochs`` more of the recipe's own training, at a lower rate."""
    recipe = trainer.recipe
    batches = trainer.data.train_batches(
        recipe.data.batch_size, seed=seed + 1000, augment=list(recipe.data.augment) or None, subset=recipe.data.subset
    )
    settings = recipe.train.for_hardware().model_copy(update={"epochs": epochs, "lr": lr})
    mho.fit(
        network, batches, recipe=settings, seed=seed + 1000,
        on_epoch=lambda record: print(f"  epoch {record.epoch + 1}/{epochs}: loss {record.loss:.4f}", flush=True),
    )  # fmt: skip
    return network.eval()


def retrained(
    network: nn.Module, trainer: Trainer, given: argparse.Namespace, test: list[tuple[Tensor, Tensor]]
) -> dict[str, Any]:
    """The network trained on under today's settings, and under the plan."""
    data, seed, example = trainer.data, trainer.recipe.seeds[0], test[0][0][:64]
    images = _batches(data, data.train_x[:1000], data.train_y[:1000])
    known = loads(network, images[0][0][:64], sensitivities(network, images))
    budget = given.harm * harm(known, today(known))
    kinds = {"as it was": today(known)}
    if given.same:
        kinds["the same for all layers"] = plan(known, budget, reads=READS, uniform=True)
    kinds["a layer"] = plan(known, budget, reads=READS)
    table: dict[str, Any] = {}
    before = None
    for name, chosen in kinds.items():
        print(name, flush=True)
        twin = trained_on(applied(network, chosen).train(), trainer, seed, given.retrain, given.lr)
        result = mho.evaluate(twin, test, chips=given.chips)
        table[name] = entry(twin, result, before, example) | {"settings": [asdict(s) for s in chosen]}
        before = result if before is None else before
        print({k: table[name].get(k) for k in ("mean", "p5", "difference", "energy_J")}, flush=True)
    return table


def record_name(recipe: str, given: argparse.Namespace) -> str:
    """File of the record: what another run would otherwise write over is in its name."""
    name = f"noise-budget-{recipe}"
    if given.retrain:
        name += "-retrained"
        name += "" if given.adc_sigma is None else f"-sigma{given.adc_sigma:g}"
        name += "" if given.harm == HARM else f"-harm{given.harm:g}"
        name += "-same" if given.same else ""
    return f"{name}{given.name}.json"


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("folder", type=Path)
    told.add_argument("--data-dir")
    told.add_argument("--points", type=float, default=0.3, help="lost at most, on training images and validation chips")
    told.add_argument("--search-images", type=int, default=1000)
    told.add_argument("--search-chips", type=int, default=8)
    told.add_argument("--images", type=int, default=2000, help="test images")
    told.add_argument("--chips", type=int, default=25)
    told.add_argument("--read-noise", type=float, nargs="+", default=[0.01, 0.1])
    told.add_argument("--retrain", type=int, default=0, help="epochs; 0: weights as they are")
    told.add_argument("--harm", type=float, default=HARM, help="with --retrain: second-order harm over today's")
    told.add_argument("--same", action="store_true", help="with --retrain: also the same for all layers, trained alike")
    told.add_argument(
        "--adc-sigma",
        type=float,
        help="with --retrain: range of every ADC in root mean squares of its outputs, for both",
    )
    told.add_argument("--lr", type=float, default=0.02, help="with --retrain")
    told.add_argument("--per-channel", action="store_true", help="also a read time for each output channel, on a "
                      "readout that is described as able to: readout.columns = 'timed'")  # fmt: skip
    told.add_argument("--repeats", type=int, default=1, help="most whole reads that are averaged")
    told.add_argument("--dac", action="store_true", help="bits of the DACs too; a driver's energy goes with 2^bits")
    told.add_argument("--name", default="", help="of the record, after that of the recipe")
    told.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return told


def main() -> None:
    given = parser().parse_args()
    recipe = load_recipe(given.folder / "recipe.toml")
    base = load_hardware(given.folder / "hardware.toml")
    data = mho.load_dataset(recipe.data.dataset, data_dir=given.data_dir)
    trainer = Trainer(recipe, data, base, given.folder, resume=True, progress=False, say=print)
    seed = recipe.seeds[0]
    start = trainer.start(seed)
    teacher = trainer.digital(start, seed).network if recipe.train.distill else start
    trained = trainer.hardware_aware(start, seed, teacher).network
    search = _batches(data, data.train_x[: given.search_images], data.train_y[: given.search_images])
    test = _batches(data, data.test_x[: given.images], data.test_y[: given.images])
    example = test[0][0][:64]
    rows = {}
    if given.retrain:
        if given.adc_sigma is not None:
            base = replace(base, adc=replace(base.adc, range_sigma=given.adc_sigma))
        rows[f"{base.cell.read_noise:g}"] = retrained(on(trained, base), trainer, given, test)
    for noise in given.read_noise if not given.retrain else ():
        hw = replace(base, cell=replace(base.cell, read_noise=noise))
        if given.per_channel:
            hw = replace(hw, readout=replace(hw.readout, columns="timed"))
        if given.dac and hw.cost is not None and hw.dac is not None:
            # As many bits as now: today's price stays, and fewer bits cost less.
            hw = replace(hw, cost=replace(hw.cost, drive=replace(hw.cost.drive, bits=hw.dac.bits)))
        network = on(trained, hw)
        print(f"read noise {noise:g}")
        before = mho.evaluate(network, test, chips=given.chips)
        table: dict[str, Any] = {"as it was": entry(network, before, None, example)}
        kinds: dict[str, dict[str, Any]] = {"the same for all layers": {"uniform": True}, "a layer": {}}
        if given.per_channel:
            kinds["a channel"] = {"per": "channel"}
        for name, kind in kinds.items():
            print(name)
            found = allocate(
                network, search, points=given.points, chips=given.search_chips, repeats=given.repeats, dac=given.dac,
                say=print, **kind,
            )  # fmt: skip
            cheap = found.apply(network)
            after = mho.evaluate(cheap, test, chips=given.chips)
            table[name] = entry(cheap, after, before, example) | described(found)
            print({k: table[name][k] for k in ("mean", "p5", "difference", "energy_J")})
        rows[f"{noise:g}"] = table
    record = {
        "command": command([sys.argv[0], f"runs/{given.folder.name}", *sys.argv[2:]]),
        "recipe": recipe.name,
        "seeds": [seed],
        "chips": given.chips,
        "images": given.images,
        "hardware": base.name,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "read_noise": rows,
    }
    path = given.out / record_name(recipe.name, given)
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    print(path.name)


if __name__ == "__main__":
    main()
