"""The networks that a run compares, trained with one budget from one start.

digital: what a user would ship otherwise. quantized: quantisation-aware, the same converter bits and
no noise. noise_injection: the field's common practice, the hardware's noise in every forward pass and nothing more.
hardware_aware: the recipe's own (hybrid) training.
"""

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from mho.data import Dataset
from mho.errors import RecipeError
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
    """The networks of one training seed. All but ``digital`` are converted; a baseline not asked for is None."""

    seed: int
    digital: Trained
    quantized: Trained | None
    noise_injection: Trained | None
    hardware_aware: Trained
    digital_on_hardware: nn.Module

    def trained(self) -> dict[str, Trained]:
        """Every trained network by the name of its field."""
        named = {
            "digital": self.digital,
            "quantized": self.quantized,
            "noise_injection": self.noise_injection,
            "hardware_aware": self.hardware_aware,
        }
        return {name: network for name, network in named.items() if network is not None}

    def to(self, device: torch.device | str) -> "Networks":
        """Itself, with every network moved to ``device``."""
        for network in (self.digital_on_hardware, *(t.network for t in self.trained().values())):
            network.to(device)
        return self

    def on_chips(self) -> dict[str, nn.Module]:
        """Every network that is put on chips, by the name that ``summary.json`` has for it."""
        others = {"quantized": "digital_quantized"}
        converted = {others.get(k, k): t.network for k, t in self.trained().items() if k != "digital"}
        return {"digital_on_chips": self.digital_on_hardware, **converted}


def training_hardware(hw: Hardware, settings: TrainSettings) -> Hardware:
    """``hw`` with the converter errors that training chips have besides (chip randomisation).

    Raises :class:`RecipeError` where there is no ADC to have them.
    """
    if settings.chip_gain == 0 and settings.chip_offset_lsb == 0:
        return hw
    if hw.adc is None or hw.adc.bits is None:
        raise RecipeError(
            f"train.chip_gain, train.chip_offset_lsb: hardware {hw.name!r} has no ADC with bits to have gain and "
            "offset errors. Fix: leave them at 0, or describe an [adc]."
        )
    gain = math.hypot(hw.adc.gain_d2d, settings.chip_gain)
    offset = math.hypot(hw.adc.offset_d2d_lsb, settings.chip_offset_lsb)
    return hw.replace(adc=replace(hw.adc, gain_d2d=gain, offset_d2d_lsb=offset))


@dataclass(frozen=True)
class Trainer:
    """What training a network of a recipe needs besides the network. ``device``: where networks and ``data`` are."""

    recipe: Recipe
    data: Dataset
    hw: Hardware
    folder: Path
    resume: bool
    progress: bool
    say: Say
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def networks(self, seed: int) -> Networks:
        """Train all networks of one seed; finished ones are read from their checkpoints with ``resume``."""
        start, wanted = self.start(seed), self.recipe.baselines
        digital = self.digital(start, seed)
        return Networks(
            seed=seed,
            digital=digital,
            quantized=self.quantized(start, seed) if "quantized" in wanted else None,
            noise_injection=self.noise_injection(start, seed) if "noise_injection" in wanted else None,
            hardware_aware=self.hardware_aware(start, seed, digital.network),
            digital_on_hardware=calibrate(convert(digital.network, self.hw), self.calibration_batches()),
        )

    def start(self, seed: int) -> nn.Module:
        """What all networks of a seed start from: fresh weights, or a trained digital network (``warm_start``)."""
        start, settings = self._initial(seed), self.recipe.train
        if settings.warm_start == "digital":
            self.say(f"seed {seed}: the common start, {settings.epochs} epochs")
            start = self._fit(start, "start", seed, settings.for_pretraining()).network
        return start

    def digital(self, start: nn.Module, seed: int) -> Trained:
        """The network that a user would ship otherwise, and the teacher of a distilled one."""
        self.say(f"seed {seed}: digital network")
        return self._fit(copy.deepcopy(start), "digital", seed, self.recipe.train.for_digital())

    def quantized(self, start: nn.Module, seed: int) -> Trained:
        """The digital network that knows the converters' bits and no noise."""
        self.say(f"seed {seed}: quantisation-aware network, the same bits without noise")
        silent = scale_hardware_noise(self.hw, 0.0)
        return self._fit(convert(start, silent), "quantized", seed, self.recipe.train.for_digital())

    def noise_injection(self, start: nn.Module, seed: int) -> Trained:
        """The hardware's noise in every step and none of the recipe's other elements."""
        self.say(f"seed {seed}: plain noise injection on {self.hw.name}")
        return self._fit(convert(start, self.hw), "noise_injection", seed, self.recipe.train.for_digital())

    def hardware_aware(self, start: nn.Module, seed: int, teacher: nn.Module, name: str = "hardware_aware") -> Trained:
        """The recipe's own network; ``name``: of its folder of checkpoints."""
        self.say(f"seed {seed}: hardware-aware network on {self.hw.name}")
        settings = self.recipe.train
        network = convert(
            start, training_hardware(self.hw, settings), clip_sigma=settings.clip_sigma, ranges=settings.ranges
        )
        return self._fit(network, name, seed, settings.for_hardware(), teacher=teacher)

    def _initial(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "init"))
            network = build(self.recipe.network.model, **self.recipe.network.args)
        # Channels last is the faster layout of every 2-d convolution here, digital or analog.
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

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
