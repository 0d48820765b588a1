"""What a run measures on its networks: the final point with all images, sweeps with some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mho.data import Batches, Dataset
from mho.evaluation.result import Result
from mho.evaluation.run import clean_outcomes, evaluate
from mho.experiments.kept import fingerprint, keep, kept_at
from mho.experiments.networks import Networks, Say
from mho.hardware import dump_hardware, load_hardware
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
    """Runs the networks of all seeds on the chips of a recipe; with ``resume`` what was measured before is read.

    ``folder``: of the run; each seed's measurements are kept below it.
    """

    recipe: Recipe
    data: Dataset
    hw: Hardware
    folder: Path
    resume: bool
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
            final[name] = self._evaluate(f"final_{name}", nets, images, networks, hardware=self.hw)
            if settings.noise_scales:
                self.say(f"noise levels: {shown}")
                levels = {"noise_scales": settings.noise_scales, "bits": settings.bits}
                noise[name] = self._evaluate(f"noise_{name}", nets, some, networks, hardware=self.hw, **levels)
            if settings.ages:
                self.say(f"ages on {age_hw.name}: {shown}")
                ages = {"ages": settings.ages, "compensate": True}
                age[name] = self._evaluate(f"age_{name}", nets, some, networks, hardware=age_hw, **ages)
            for number, other in enumerate(settings.unseen):
                self.say(f"never trained on, {other.name}: {shown}")
                at = {"ages": () if other.age is None else (other.age,), "compensate": other.compensate}
                unseen[other.name][name] = self._evaluate(
                    f"unseen{number}_{name}", nets, some, networks, hardware=unseen_hw[other.name], **at
                )
        accuracy = tuple(100.0 * float(clean_outcomes(n.digital.network, images).mean()) for n in networks)
        return Measured(accuracy, final, noise, age, age_hw.name, unseen)

    def _evaluate(
        self, what: str, nets: list[nn.Module], images: Batches, networks: Sequence[Networks], **points: Any
    ) -> Result:
        pairs = zip(nets, (n.seed for n in networks), strict=True)
        found = Result.joined([self._of_seed(what, net, seed, images, points) for net, seed in pairs])
        return Result(found.data.assign_attrs(command=self.command))

    def _of_seed(self, what: str, net: nn.Module, seed: int, images: Batches, points: dict[str, Any]) -> Result:
        settings = self.recipe.evaluate
        chips = {"chips": settings.chips, "seed": settings.seed}
        told = points | {"hardware": dump_hardware(points["hardware"])}
        key = fingerprint(net, {**told, **chips, "data": self.data.name, "images": images.images})
        path = kept_at(self.folder, seed, what, key)
        if self.resume and path.is_file():
            return Result.load(path)
        with torch.random.fork_rng(devices=[]):
            result = evaluate(
                net, images, **chips, seeds=[seed], progress=self.progress, command=self.command, **points
            )
        return keep(path, result)
