"""What each element of the hybrid recipe is worth: the recipe with one element removed, or one added, in turn.

    python benchmarks/ablation.py cifar10 --data-dir DIR --epochs 8 --seeds 0 1

Settings are compared on held-out training images (--validation) and on chips of their own (--chip-seed): the test
images and the chips of the results are not seen. A stopped run goes on where it was. Writes
benchmarks/results/ablation-NAME.json, from which make_results.py makes the table.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from mho.data import load_dataset
from mho.errors import TrainingError
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.evaluation.run import evaluate
from mho.experiments.facts import filling
from mho.experiments.networks import Trainer
from mho.experiments.record import difference
from mho.experiments.summary import versions
from mho.hardware import load_hardware
from mho.train import LossSettings, Recipe, load_recipe

REMOVED: dict[str, dict[str, Any]] = {
    "without bounds": {"clip_sigma": None, "weight_decay_bounded": None},
    "with bounds at 2.5 sigma": {"clip_sigma": 2.5},
    "with weight decay on bounded weights": {"weight_decay_bounded": None},
    "without the ramp": {"ramp_fraction": 0.0},
    "at the noise of the hardware": {"noise_scale": 1.0},
    "without the teacher": {"distill": 0.0},
    "with observed converter ranges": {"ranges": "calibrated"},
    "with one noise level": {"noise_levels": "fixed"},
    "without averaged weights": {"ema_decay": None},
}
ADDED: dict[str, dict[str, Any]] = {
    "with 1.2 times the noise": {"noise_scale": 1.2},
    "without weight decay on bounded weights": {"weight_decay_bounded": 0.0},
    "with a teacher": {"distill": 0.5, "distill_T": 3.0},
    "with learned converter ranges": {"ranges": "learned"},
    "with noise levels drawn on 0 to 1.5": {"noise_levels": "uniform"},
    "with half-normal noise levels": {"noise_levels": "half-normal"},
    "with censored noise at 1.5 sigma": {"censor": 1.5},
    "with chips of random gain and offset": {"chip_gain": 0.05, "chip_offset_lsb": 1.0},
    "with margin noise in the loss": {"loss": LossSettings(margin_noise=0.03)},
    "with range filling in the loss": {"loss": LossSettings(range_filling=1.0)},
    "with input sensitivity in the loss": {"loss": LossSettings(jacobian=1e-3)},
    "with bounds at 1 sigma": {"clip_sigma": 1.0},
    "with bounds at 2 sigma": {"clip_sigma": 2.0},
}


def variants(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe, and every variant that differs from it."""
    found = {"the recipe": recipe}
    for name, change in (REMOVED | ADDED).items():
        other = recipe.model_copy(update={"train": recipe.train.model_copy(update=change)})
        if other != recipe:
            found[name] = other
    return found


def run_variant(
    trainer: Trainer, variant: Recipe, name: str, given: argparse.Namespace
) -> tuple[list[nn.Module], Result]:
    """The networks of one variant and what they are worth; all variants share the recipe's digital teacher."""
    networks = []
    for seed in given.seeds:
        start = trainer.start(seed)
        teacher = trainer.digital(start, seed).network
        own = replace(trainer, recipe=variant)
        networks.append(own.hardware_aware(start, seed, teacher, name.replace(" ", "-")).network)
    images = trainer.data.test_batches(500)
    result = evaluate(networks, images, chips=given.chips, seed=given.chip_seed, seeds=given.seeds, hardware=trainer.hw)
    return networks, result


def entry_of(name: str, networks: list[nn.Module], result: Result, reference: Result | None) -> dict[str, Any]:
    """One line of the table."""
    numbers = result.numbers()
    kept = {key: round(numbers[key], 4) for key in ("mean", "std", "p5", "worst", "clean")}
    rho = sum(filling(n)["rho"] for n in networks) / len(networks)
    against = None if reference is None else difference(result, reference)
    return {
        "name": name,
        **kept,
        "rho": round(rho, 4),
        "chips": result.accuracy().values.squeeze().tolist(),
        "against": against,
    }


def command_of(given: argparse.Namespace, recipe: Recipe) -> str:
    """The command that repeats the table."""
    words = [
        f"python benchmarks/ablation.py {given.recipe} --epochs {recipe.train.epochs}",
        f"--seeds {' '.join(map(str, given.seeds))} --chips {given.chips} --validation {given.validation}",
    ]
    words += [f"--subset {given.subset}"] if given.subset else []
    words += [f"--hardware {given.hardware}"] if given.hardware else []
    return " ".join(words)


def main() -> None:
    """Train what is missing, evaluate, write the table's data after every variant."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("recipe")
    options.add_argument("--data-dir", type=Path, default=None)
    options.add_argument("--epochs", type=int, default=None)
    options.add_argument("--subset", type=int, default=None, help="training images")
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--validation", type=int, default=5000)
    options.add_argument("--chips", type=int, default=10)
    options.add_argument("--chip-seed", type=int, default=99)
    options.add_argument("--hardware", default=None)
    options.add_argument("--only", nargs="+", default=None, help="names of variants")
    options.add_argument("--out", type=Path, default=Path("runs/ablation"))
    options.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    given = options.parse_args()
    recipe = load_recipe(given.recipe)
    changes: dict[str, Any] = {} if given.epochs is None else {"epochs": given.epochs}
    recipe = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=changes),
            "data": recipe.data.model_copy(update={"subset": given.subset}),
            "hardware": given.hardware or recipe.hardware,
        }
    )
    data = load_dataset(recipe.data.dataset, data_dir=given.data_dir).split_validation(given.validation)
    hw = load_hardware(recipe.hardware)
    trainer = Trainer(recipe, data, hw, given.out / recipe.name, True, False, lambda text: print(text, flush=True))
    entries: list[dict[str, Any]] = []
    reference: Result | None = None
    for name, variant in variants(recipe).items():
        if given.only is not None and name not in given.only and name != "the recipe":
            continue
        try:
            networks, result = run_variant(trainer, variant, name, given)
            entries.append(entry_of(name, networks, result, reference))
            reference = result if reference is None else reference
        except TrainingError as error:  # a finding too: without this element it diverges
            entries.append({"name": name, "failed": str(error)})
        print({key: value for key, value in entries[-1].items() if key != "chips"}, flush=True)
        document = {
            "name": recipe.name,
            "caption": f"{len(given.seeds)} training seed(s), {given.chips} chips of seed {given.chip_seed}, "
            f"{given.validation:,} held-out training images, {recipe.train.epochs} epochs, hardware "
            f"`{recipe.hardware}`; differences paired by seed, chip and image, with 95 % intervals.",
            "command": command_of(given, recipe),
            "versions": versions(),
            "ablation": entries,
        }
        place = given.results / f"ablation-{recipe.name}.json"
        write_atomically(place, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
