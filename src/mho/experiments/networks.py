"""The three networks that every run compares, trained with one budget from one start.

digital: what a user would ship otherwise. quantized: quantisation-aware, the same converter bits and
no noise. hardware_aware: the noise of the hardware in every forward pass.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from mho.data import Dataset
from mho.hardware.spec import Hardware
from mho.models import build
from mho.nn.conversion import calibrate, convert
from mho.physics.scaling import scale_hardware_noise
from mho.rng import derive_seed
from mho.train import EpochRecord, History, Recipe, TrainSettings, fit

Say = Callable[[str], None]


@dataclass(frozen=True)
class Trained:
    """One network of one seed with what its training recorded."""

    network: nn.Module
    history: History


@dataclass(frozen=True)
class Networks:
    """The networks of one training seed. All but ``digital`` are converted."""

    seed: int
    digital: Trained
    quantized: Trained
    hardware_aware: Trained
    digital_on_hardware: nn.Module


@dataclass(frozen=True)
class Trainer:
    """What training a network of a recipe needs besides the network."""

    recipe: Recipe
    data: Dataset
    hw: Hardware
    folder: Path
    resume: bool
    progress: bool
    say: Say

    def networks(self, seed: int) -> Networks:
        """Train all networks of one seed; finished ones are read from their checkpoints with ``resume``."""
        settings = self.recipe.train
        start = self._initial(seed)
        if settings.warm_start == "digital":
            self.say(f"seed {seed}: the common start, {settings.epochs} epochs")
            start = self._fit(start, "start", seed, settings.for_pretraining()).network
        self.say(f"seed {seed}: digital network")
        digital = self._fit(copy.deepcopy(start), "digital", seed, settings.for_digital())
        self.say(f"seed {seed}: quantisation-aware network, the same bits without noise")
        silent = scale_hardware_noise(self.hw, 0.0)
        quantized = self._fit(convert(start, silent), "quantized", seed, settings.for_digital())
        self.say(f"seed {seed}: hardware-aware network on {self.hw.name}")
        aware_start = convert(start, self.hw, clip_sigma=settings.clip_sigma)
        aware = self._fit(aware_start, "hardware_aware", seed, settings.for_hardware(), teacher=digital.network)
        on_hardware = calibrate(convert(digital.network, self.hw), self.calibration_batches())
        return Networks(seed, digital, quantized, aware, on_hardware)

    def _initial(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "init"))
            return build(self.recipe.network.model, **self.recipe.network.args)

    def _fit(
        self, network: nn.Module, name: str, seed: int, settings: TrainSettings, teacher: nn.Module | None = None
    ) -> Trained:
        wanted = self.recipe.data
        batches = self.data.train_batches(
            wanted.batch_size, seed=seed, augment=list(wanted.augment) or None, subset=wanted.subset
        )

        def on_epoch(record: EpochRecord) -> None:
            self.say(f"  {name} epoch {record.epoch + 1}/{settings.epochs}: loss {record.loss:.4f}")

        history = fit(
            network,
            batches,
            recipe=settings,
            seed=seed,
            teacher=teacher if settings.distill else None,
            checkpoint=self.folder / f"seed-{seed}" / name,
            resume=self.resume,
            on_epoch=on_epoch,
            progress=self.progress,
        )
        return Trained(network.eval(), history)

    def calibration_batches(self) -> Iterable:
        """Training images without augmentation: ranges and statistics never see test data."""
        return self.data.train_batches(self.recipe.data.batch_size, seed=0)
