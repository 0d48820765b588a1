"""One network for all noise levels, beside the envelope: a network trained for each level and judged there.

    python benchmarks/envelope.py cifar10-wide --data-dir DIR --scales 0 0.5 1 1.5 2
    python benchmarks/envelope.py mnist --data-dir DIR --epochs 4

Scales multiply every random source of the recipe's hardware. The one network is the recipe with its noise level drawn
anew at each step (--one fixed: the recipe as it is); a network of the envelope is the recipe on hardware of that scale.
All start from one digital network of the recipe, and all are judged on the same chips and test images. A stopped run
goes on where it was. Writes benchmarks/results/envelope-NAME.json, from which make_results.py makes table and areas.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from command import command
from torch import nn

from mho.data import Batches, load_dataset
from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.evaluation.run import clean_outcomes, evaluate
from mho.experiments.networks import Trainer
from mho.experiments.record import areas, level_percent
from mho.experiments.summary import versions
from mho.hardware import load_hardware
from mho.physics.scaling import scale_hardware_noise
from mho.train import Recipe, load_recipe


def shaped(recipe: Recipe, given: argparse.Namespace) -> Recipe:
    """The recipe without what each network here sets for itself."""
    changes: dict[str, Any] = {"noise_levels": "fixed", "ramp_fraction": 0.0}
    changes |= {} if given.epochs is None else {"epochs": given.epochs}
    data = recipe.data.model_copy(update={"subset": given.subset or recipe.data.subset})
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=changes), "data": data})


def one_for_all(trainer: Trainer, levels: str, start: nn.Module, seed: int, teacher: nn.Module) -> nn.Module:
    """The network that is judged at every level."""
    train = trainer.recipe.train.model_copy(update={"noise_levels": levels})
    own = replace(trainer, recipe=trainer.recipe.model_copy(update={"train": train}))
    return own.hardware_aware(start, seed, teacher, f"one-{levels}").network


def for_level(trainer: Trainer, scale: float, start: nn.Module, seed: int, teacher: nn.Module) -> nn.Module:
    """The network of one level: trained on hardware whose every random source is ``scale`` times as large."""
    own = replace(trainer, hw=scale_hardware_noise(trainer.hw, scale))
    return own.hardware_aware(start, seed, teacher, f"level-{scale:g}").network


def curve(networks: list[nn.Module], images: Batches, trainer: Trainer, given: argparse.Namespace) -> Result:
    """One network a seed at every scale."""
    return evaluate(
        networks, images, chips=given.chips, seeds=given.seeds, noise_scales=given.scales, hardware=trainer.hw
    )


def points(result: Result) -> list[list[list[float]]]:
    """Accuracy [scale][seed][chip]."""
    accuracy = result.accuracy().isel(age_s=0, bits=0).transpose("noise_scale", "seed", "chip").to_numpy()
    found: list[list[list[float]]] = np.round(accuracy, 4).tolist()
    return found


def envelope(
    starts: list[tuple[int, nn.Module, nn.Module]], images: Batches, trainer: Trainer, given: argparse.Namespace
) -> list[list[list[float]]]:
    """Accuracy [scale][seed][chip] of the networks that were trained for the scale at which they are judged."""
    found = []
    for scale in given.scales:
        networks = [for_level(trainer, scale, start, seed, digital) for seed, start, digital in starts]
        result = evaluate(
            networks, images, chips=given.chips, seeds=given.seeds, noise_scales=[scale], hardware=trainer.hw
        )
        found += points(result)
        print(f"trained for {scale:g}: {float(np.mean(found[-1])):.2f} %", flush=True)
    return found


def main() -> None:
    """Train what is missing, judge, write the record."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("recipe")
    options.add_argument("--data-dir", type=Path, default=None)
    options.add_argument("--scales", type=float, nargs="+", default=[0.0, 0.5, 1.0, 1.5, 2.0])
    options.add_argument("--one", choices=["uniform", "half-normal", "fixed"], default="uniform")
    options.add_argument("--epochs", type=int, default=None)
    options.add_argument("--subset", type=int, default=None, help="training images")
    options.add_argument("--seeds", type=int, nargs="+", default=[0])
    options.add_argument("--chips", type=int, default=25)
    options.add_argument("--images", type=int, default=None, help="test images (all)")
    options.add_argument("--runs", type=Path, default=Path("runs/envelope"))
    options.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = options.parse_args()
    recipe = shaped(load_recipe(given.recipe), given)
    data, hw = load_dataset(recipe.data.dataset, data_dir=given.data_dir), load_hardware(recipe.hardware)
    trainer = Trainer(recipe, data, hw, given.runs / recipe.name, True, False, lambda text: print(text, flush=True))
    images = data.test_batches(recipe.evaluate.batch_size, subset=given.images)
    starts = [(seed, start, trainer.digital(start, seed).network) for seed in given.seeds
              for start in [trainer.start(seed)]]  # fmt: skip
    one = curve([one_for_all(trainer, given.one, start, seed, digital) for seed, start, digital in starts],
                images, trainer, given)  # fmt: skip
    print("one network:", [round(float(np.mean(p)), 2) for p in points(one)], flush=True)
    reference = [100.0 * float(clean_outcomes(digital, images).mean()) for _, _, digital in starts]
    curves = {"one network": points(one), "trained for each level": envelope(starts, images, trainer, given)}
    level = level_percent(hw)
    by_level = [scale * (1.0 if level is None else level) for scale in given.scales]
    spread = {"reference": float(np.mean(reference)), "chance": 100.0 / len(data.classes), "level": level}
    record = {
        "name": recipe.name,
        "command": command(),
        "hardware": hw.name,
        "one": given.one,
        "seeds": given.seeds,
        "chips": given.chips,
        "images": images.images,
        "versions": versions(),
        "digital": [round(value, 4) for value in reference],
        "levels": by_level,
        "unit": "multiple of the described noise" if level is None else "percent of the range",
        "envelope": {
            name: {"accuracy": found, **areas(by_level, [float(np.mean(p)) for p in found], **spread)}
            for name, found in curves.items()
        },
    }
    path = given.out / f"envelope-{recipe.name}.json"
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())
    print(path.name)


if __name__ == "__main__":
    main()
