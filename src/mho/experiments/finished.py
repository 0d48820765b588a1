"""A finished run, read back: its hardware, its data and the two networks that are compared. Nothing is trained."""

import os
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from mho.data import Dataset, load_dataset
from mho.errors import CheckpointError
from mho.experiments.networks import Trainer
from mho.experiments.run_kinds import refuse_energy_based
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.train import load_recipe
from mho.train.checkpoint import load_checkpoint

CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class FinishedRun:
    """Networks of the first seed of a run. ``calibration``: the first training images, for ranges of converters."""

    name: str
    hw: Hardware
    data: Dataset
    hardware_aware: nn.Module
    digital: nn.Module
    calibration: list[Tensor]

    @classmethod
    def read(cls, folder: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None = None) -> "FinishedRun":
        """The run in ``folder``, on its own ``hardware.toml``.

        Raises :class:`CheckpointError` where no finished run of a recipe is in it, or its checkpoints are gone.
        """
        place = Path(folder)
        refuse_energy_based(place)
        if not (place / "recipe.toml").is_file() or not (place / "summary.json").is_file():
            raise CheckpointError(f"{place}: no finished run is in it. Way out: 'mho run' first, then its folder.")
        recipe, hw = load_recipe(place / "recipe.toml"), load_hardware(place / "hardware.toml")
        seed = recipe.seeds[0]
        for kept in (place / f"seed-{seed}" / name for name in ("digital", "hardware_aware")):
            if load_checkpoint(kept) is None:
                raise CheckpointError(f"{kept}: no checkpoint is in it. Way out: 'mho run' again, then its folder.")
        data = load_dataset(recipe.data.dataset, data_dir=data_dir)
        trainer = Trainer(recipe, data, hw, place, resume=True, progress=False, say=lambda text: None)
        start = trainer.start(seed)
        digital = trainer.digital(start, seed).network
        aware = trainer.hardware_aware(start, seed, digital).network
        return cls(recipe.name, hw, data, aware, digital, calibration_images(data))

    def batches(self, images: int | None) -> list[tuple[Tensor, Tensor]]:
        """The first ``images`` test images (``None``: all) and their labels."""
        return image_batches(self.data, images)


def calibration_images(data: Dataset) -> list[Tensor]:
    """One batch of training images: ranges never see test data."""
    return [data.normalise(data.train_x[:CALIBRATION_IMAGES])]


def image_batches(data: Dataset, images: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """The first ``images`` test images (``None``: all), normalised, and their labels."""
    x, y = data.test_x[:images], data.test_y[:images]
    return [(data.normalise(a), b) for a, b in zip(x.split(250), y.split(250), strict=True)]
