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


@dataclass(frozen=True)
class Measured:
    """Results by network name: ``final`` (one point, all test images), sweeps over ``noise`` and ``age`` with some
    images, ``unseen`` (by the name of the hardware, then of the network) likewise."""

    digital_accuracy: tuple[float, ...]
    final: dict[str, Result]
    noise: dict[str, Result]
    age: dict[str, Result]
    age_hardware: str
    unseen: dict[str, dict[str, Result]]


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
        by_seed = [n.on_chips() for n in networks]
        on_chips = {name: [nets[name] for nets in by_seed] for name in by_seed[0]}
        final: dict[str, Result] = {}
        noise: dict[str, Result] = {}
        age: dict[str, Result] = {}
        unseen: dict[str, dict[str, Result]] = {u.name: {} for u in settings.unseen}
        age_hw = load_hardware(settings.ages_hardware) if settings.ages_hardware else self.hw
        unseen_hw = {u.name: load_hardware(u.hardware) for u in settings.unseen}
        for name, nets in on_chips.items():
            shown = name.replace("_", " ")
            self.say(f"{settings.chips} chips: {shown}")
            final[name] = self._evaluate(nets, images, networks, hardware=self.hw)
            if settings.noise_scales:
                self.say(f"noise levels: {shown}")
                noise[name] = self._evaluate(
                    nets, some, networks, hardware=self.hw, noise_scales=settings.noise_scales, bits=settings.bits
                )
            if settings.ages:
                self.say(f"ages on {age_hw.name}: {shown}")
                age[name] = self._evaluate(nets, some, networks, hardware=age_hw, ages=settings.ages, compensate=True)
            for other in settings.unseen:
                self.say(f"never trained on, {other.name}: {shown}")
                ages = () if other.age is None else (other.age,)
                unseen[other.name][name] = self._evaluate(
                    nets, some, networks, hardware=unseen_hw[other.name], ages=ages, compensate=other.compensate
                )
        accuracy = tuple(100.0 * float(clean_outcomes(n.digital.network, images).mean()) for n in networks)
        return Measured(accuracy, final, noise, age, age_hw.name, unseen)

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
