"""What a run measures on its networks: the final point with all images, sweeps with some."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mho.data import Dataset
from mho.evaluation.result import Result
from mho.evaluation.run import clean_outcomes, evaluate
from mho.experiments.networks import Networks, Say
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.train import Recipe

SWEPT = ("digital_on_chips", "hardware_aware")


@dataclass(frozen=True)
class Measured:
    """Results by network name: ``final`` (one point, all test images), ``noise`` and ``age`` sweeps."""

    digital_accuracy: tuple[float, ...]
    final: dict[str, Result]
    noise: dict[str, Result]
    age: dict[str, Result]
    age_hardware: str


@dataclass(frozen=True)
class Judge:
    """Runs the networks of all seeds on the chips of a recipe."""

    recipe: Recipe
    data: Dataset
    hw: Hardware
    progress: bool
    say: Say
    command: str

    def measure(self, networks: Sequence[Networks]) -> Measured:
        """All figures of a run; test images are only ever classified."""
        settings = self.recipe.evaluate
        images = self.data.test_batches(settings.batch_size)
        some = self.data.test_batches(settings.batch_size, subset=settings.sweep_images)
        on_chips = {
            "digital_on_chips": [n.digital_on_hardware for n in networks],
            "digital_quantized": [n.quantized.network for n in networks],
            "hardware_aware": [n.hardware_aware.network for n in networks],
        }
        final, noise, age = {}, {}, {}
        age_hw = load_hardware(settings.ages_hardware) if settings.ages_hardware else self.hw
        for name, nets in on_chips.items():
            self.say(f"{settings.chips} chips: {name.replace('_', ' ')}")
            final[name] = self._evaluate(nets, images, networks, hardware=self.hw)
        for name in SWEPT:
            if settings.noise_scales:
                self.say(f"noise levels: {name.replace('_', ' ')}")
                noise[name] = self._evaluate(
                    on_chips[name],
                    some,
                    networks,
                    hardware=self.hw,
                    noise_scales=settings.noise_scales,
                    bits=settings.bits,
                )
            if settings.ages:
                self.say(f"ages on {age_hw.name}: {name.replace('_', ' ')}")
                age[name] = self._evaluate(
                    on_chips[name], some, networks, hardware=age_hw, ages=settings.ages, compensate=True
                )
        accuracy = tuple(100.0 * float(clean_outcomes(n.digital.network, images).mean()) for n in networks)
        return Measured(accuracy, final, noise, age, age_hw.name)

    def _evaluate(self, nets: list[nn.Module], images: Iterable, networks: Sequence[Networks], **points: Any) -> Result:
        settings = self.recipe.evaluate
        with torch.random.fork_rng(devices=[]):
            return evaluate(
                nets,
                images,
                chips=settings.chips,
                seed=settings.seed,
                seeds=[n.seed for n in networks],
                progress=self.progress,
                command=self.command,
                **points,
            )
