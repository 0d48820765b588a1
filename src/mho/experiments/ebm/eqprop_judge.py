"""Networks of ``mho run ebm-eqprop`` on virtual chips: all test images, noise levels, ages."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mho.data import Batches, Dataset
from mho.ebm import HopfieldNet, evaluate_on_chips
from mho.evaluation.result import Result
from mho.experiments.ebm.digital import digital_accuracy
from mho.experiments.ebm.eqprop_settings import Settings
from mho.experiments.ebm.kept import kept_number, kept_result
from mho.experiments.networks import Say
from mho.hardware import dump_hardware
from mho.hardware.spec import Hardware
from mho.train.progress import progress_bar


@dataclass(frozen=True, eq=False)
class Judge:
    """Puts networks on the chips of the settings; with ``resume`` what was measured before is read from ``folder``."""

    settings: Settings
    data: Dataset
    hw: Hardware
    folder: Path
    resume: bool
    progress: bool
    say: Say

    def final(self, name: str, nets: Sequence[HopfieldNet]) -> Result:
        """Every test image on every chip."""
        table = self.settings.evaluate
        self.say(f"{table.chips} chips: {_shown(name)}")
        return self._of_seeds(f"final_{name}", nets, self._images(), chips=table.chips)

    def noise(self, name: str, nets: Sequence[HopfieldNet]) -> Result | None:
        """Some images and chips at each noise level; ``None`` where the settings name none."""
        return self._sweep("noise", "noise levels", name, nets, "noise_scales")

    def ages(self, name: str, nets: Sequence[HopfieldNet]) -> Result | None:
        """Some images and chips at each age; ``None`` where the settings name none."""
        return self._sweep("age", "ages", name, nets, "ages")

    def digital(self) -> float | None:
        """Mean over seeds of the digital network of the same shape; ``None`` for other networks than dense ones."""
        if self.settings.network.kind != "dense":
            return None
        found = [self._digital(seed) for seed in self.settings.seeds]
        return sum(found) / len(found)

    def _digital(self, seed: int) -> float:
        settings, data = self.settings, self.data
        sizes = (data.train_x[0].numel(), *settings.network.units, len(data.classes))
        epochs = settings.train.epochs

        def measure() -> float:
            self.say(f"seed {seed}: the digital network of the same shape")
            test = data.test_batches(settings.evaluate.batch_size)
            return digital_accuracy(sizes, settings.batches(data, seed), test, epochs=epochs, seed=seed)

        told = {"sizes": sizes, "epochs": epochs, "seed": seed, "data": settings.data.model_dump()}
        return kept_number(self.folder / f"seed{seed}", "digital", told, self.resume, measure)

    def _images(self, some: int | None = None) -> Batches:
        subset = None if some is None else min(some, len(self.data.test_y))
        return self.data.test_batches(self.settings.evaluate.batch_size, subset=subset)

    def _sweep(self, what: str, shown: str, name: str, nets: Sequence[HopfieldNet], axis: str) -> Result | None:
        table = self.settings.evaluate
        points = getattr(table, axis)
        if not points:
            return None
        self.say(f"{shown}: {_shown(name)}")
        images = self._images(table.sweep_images)
        return self._of_seeds(f"{what}_{name}", nets, images, chips=table.sweep_chips, **{axis: points})

    def _of_seeds(self, what: str, nets: Sequence[HopfieldNet], images: Batches, **points: Any) -> Result:
        seeds = self.settings.seeds
        return Result.joined([self._of(what, net, s, images, points) for net, s in zip(nets, seeds, strict=True)])

    def _of(self, what: str, net: HopfieldNet, seed: int, images: Batches, points: dict[str, Any]) -> Result:
        settings, dynamics = self.settings, self.settings.judging(self.hw, self.data)
        lot = settings.evaluate.seed
        told = {
            **points,
            "lot": lot,
            "hardware": dump_hardware(self.hw),
            "dynamics": asdict(dynamics),
            "network": settings.network.model_dump(),
            "data": settings.data.model_dump(),
            "images": images.images,
            "batch_size": images.batch_size,
        }

        def measure() -> Result:
            total = points["chips"] * max(1, len(points.get("ages", ()))) * len(points.get("noise_scales", (1.0,)))
            with progress_bar(total, self.progress) as show:
                return evaluate_on_chips(
                    net,
                    list(images),
                    self.hw,
                    seed=lot,
                    seeds=(seed,),
                    dynamics=dynamics,
                    tell=lambda done, of: show(done, f"chip {done}/{of}"),
                    **points,
                )

        return kept_result(self.folder / f"seed{seed}", what, net, told, self.resume, measure)


def _shown(name: str) -> str:
    return name.replace("_", " ")


__all__ = ["Judge"]
