"""Networks of a finished run, read back and evaluated again."""

import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from mho.data import load_dataset
from mho.errors import CheckpointError, RecipeError, nearest
from mho.evaluation.result import Result
from mho.evaluation.run import evaluate
from mho.experiments.networks import Networks, Trainer
from mho.experiments.run_kinds import refuse_energy_based
from mho.hardware import load_hardware
from mho.train import load_recipe

CHOICES = ("hardware_aware", "digital", "quantized", "noise_injection")


def evaluate_stored(
    folder: str | os.PathLike[str],
    network: str = "hardware_aware",
    *,
    hardware: str | None = None,
    chips: int = 25,
    ages: Sequence[str] = (),
    noise_scales: Sequence[float] = (),
    bits: Sequence[int] = (),
    compensate: bool = False,
    seed: int = 0,
    data_dir: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Result:
    """Evaluate a network of the run in ``folder`` on its test images under other conditions.

    Raises :class:`CheckpointError` where ``folder`` holds no finished run, or one of an energy-based model.
    """
    if network not in CHOICES:
        raise RecipeError(f"network {network!r} is none of a run's. {nearest(network, CHOICES)}")
    place = Path(folder)
    refuse_energy_based(place)
    if not (place / "recipe.toml").is_file() or not (place / "summary.json").is_file():
        raise CheckpointError(
            f"{place}: no finished run is in it. Way out: 'mho run' first, then its folder under runs/."
        )
    recipe = load_recipe(place / "recipe.toml")
    hw = load_hardware(place / "hardware.toml")
    data = load_dataset(recipe.data.dataset, data_dir=data_dir)
    trainer = Trainer(recipe, data, hw, place, resume=True, progress=False, say=lambda text: None)
    trained = [trainer.networks(s) for s in recipe.seeds]
    return evaluate(
        [_chosen(n, network) for n in trained],
        data.test_batches(recipe.evaluate.batch_size),
        chips=chips,
        ages=ages,
        noise_scales=noise_scales,
        bits=bits,
        seed=seed,
        seeds=recipe.seeds,
        hardware=hw if hardware is None else load_hardware(hardware),
        compensate=compensate,
        progress=progress,
        command=f"mho evaluate {place} --network {network}",
    )


def _chosen(networks: Networks, name: str) -> nn.Module:
    if name == "digital":
        return networks.digital_on_hardware
    trained = networks.trained()
    if name not in trained:
        raise CheckpointError(
            f"network {name!r} was not trained in this run. Fix: one of {', '.join(trained)}, or a recipe with "
            f'baselines = ["{name}"].'
        )
    return trained[name].network
