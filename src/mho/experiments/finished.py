"""A finished run, read back: its hardware, its data and its networks by name. Nothing is trained."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor, nn

from mho.data import Dataset, load_dataset
from mho.errors import CheckpointError, RecipeError, nearest
from mho.evaluation.result import Result
from mho.evaluation.run import evaluate
from mho.experiments.networks import Trainer
from mho.experiments.run_kinds import refuse_energy_based
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.nn.conversion import calibrate, convert
from mho.train import Recipe, load_recipe
from mho.train.checkpoint import load_checkpoint

CALIBRATION_IMAGES = 512
CHOICES = ("hardware_aware", "digital", "quantized", "noise_injection")


def check_finished(folder: Path) -> None:
    """Raise :class:`CheckpointError` where ``folder`` holds no finished run, or one of an energy-based model."""
    refuse_energy_based(folder)
    if not (folder / "recipe.toml").is_file() or not (folder / "summary.json").is_file():
        raise CheckpointError(
            f"{folder}: no finished run is in it. Way out: 'mho run' first, then its folder under runs/."
        )


@dataclass(frozen=True)
class FinishedRun:
    """A run of a recipe whose checkpoints are there; networks are read when they are asked for."""

    folder: Path
    recipe: Recipe
    hw: Hardware
    data: Dataset

    @classmethod
    def read(cls, folder: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> "FinishedRun":
        """The run in ``folder``, on its own ``hardware.toml``.

        Raises :class:`CheckpointError` where no finished run of a recipe is in it, or its checkpoints are gone.
        """
        place = Path(folder)
        check_finished(place)
        recipe, hw = load_recipe(place / "recipe.toml"), load_hardware(place / "hardware.toml")
        for name in ("digital", "hardware_aware"):
            check_kept(place, recipe.seeds[0], name)
        return cls(place, recipe, hw, load_dataset(recipe.data.dataset, data_dir=data_dir))

    @property
    def name(self) -> str:
        return self.recipe.name

    @cached_property
    def hardware_aware(self) -> nn.Module:
        """That of the first seed; one and the same at every call."""
        return self.network("hardware_aware", self.recipe.seeds[0])

    @cached_property
    def digital(self) -> nn.Module:
        """That of the first seed; one and the same at every call."""
        return self.network("digital", self.recipe.seeds[0])

    @property
    def calibration(self) -> list[Tensor]:
        """The first training images, for ranges of converters."""
        return calibration_images(self.data)

    def batches(self, images: int | None) -> list[tuple[Tensor, Tensor]]:
        """The first ``images`` test images (``None``: all) and their labels."""
        return image_batches(self.data, images)

    def network(self, name: str, seed: int) -> nn.Module:
        """The network ``name`` (:data:`CHOICES`) of one training seed, read from its checkpoint.

        Raises :class:`CheckpointError` where the recipe has no such network, or its checkpoint is gone.
        """
        trained = [other for other in CHOICES if other in ("hardware_aware", "digital", *self.recipe.baselines)]
        if name not in trained:
            raise CheckpointError(
                f"network {name!r} was not trained in this run. Fix: one of {', '.join(trained)}, or a recipe with "
                f'baselines = ["{name}"].'
            )
        for needed in (*(("start",) if self.recipe.train.warm_start else ()), name):
            check_kept(self.folder, seed, needed)
        trainer = self._trainer
        start = trainer.start(seed)
        if name == "hardware_aware":
            return trainer.hardware_aware(start, seed, self.network("digital", seed)).network
        plain = {"digital": trainer.digital, "quantized": trainer.quantized, "noise_injection": trainer.noise_injection}
        return plain[name](start, seed).network

    def for_chips(self, name: str, seed: int) -> nn.Module:
        """The network ``name`` as a run puts it on chips: the digital one is converted."""
        network = self.network(name, seed)
        if name != "digital":
            return network
        return calibrate(convert(network, self.hw), self._trainer.calibration_batches())

    @property
    def _trainer(self) -> Trainer:
        return Trainer(self.recipe, self.data, self.hw, self.folder, resume=True, progress=False, say=lambda text: None)


def check_kept(folder: Path, seed: int, name: str) -> None:
    """Raise :class:`CheckpointError` where the run in ``folder`` has no checkpoint of its network ``name``."""
    kept = folder / f"seed-{seed}" / name
    if load_checkpoint(kept) is None:
        raise CheckpointError(
            f"{kept}: no checkpoint is in it. Way out: 'mho run' again, then its folder; of runs that were joined, the "
            "folder of one of them."
        )


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

    Raises :class:`CheckpointError` where ``folder`` holds no finished run, or one of an energy-based model, or not the
    network's checkpoints.
    """
    if network not in CHOICES:
        raise RecipeError(f"network {network!r} is none of a run's. {nearest(network, CHOICES)}")
    run = FinishedRun.read(folder, data_dir)
    seeds = run.recipe.seeds
    return evaluate(
        [run.for_chips(network, s) for s in seeds],
        run.data.test_batches(run.recipe.evaluate.batch_size),
        chips=chips,
        ages=ages,
        noise_scales=noise_scales,
        bits=bits,
        seed=seed,
        seeds=seeds,
        hardware=run.hw if hardware is None else load_hardware(hardware),
        compensate=compensate,
        progress=progress,
        command=f"mho evaluate {run.folder} --network {network}",
    )


def calibration_images(data: Dataset) -> list[Tensor]:
    """One batch of training images: ranges never see test data."""
    return [data.normalise(data.train_x[:CALIBRATION_IMAGES])]


def image_batches(data: Dataset, images: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """The first ``images`` test images (``None``: all), normalised, and their labels."""
    x, y = data.test_x[:images], data.test_y[:images]
    return [(data.normalise(a), b) for a, b in zip(x.split(250), y.split(250), strict=True)]
