"""Networks of ``mho run ebm-resistive`` on virtual chips, beside the digital network of the same shape."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mho.data import Batches, Dataset
from mho.ebm.resistive import ResistiveNetwork, evaluate_on_chips
from mho.evaluation.result import Result
from mho.experiments.ebm.digital import digital_accuracy
from mho.experiments.ebm.kept import kept_number, kept_result
from mho.experiments.networks import Say
from mho.hardware import dump_hardware
from mho.hardware.spec import Hardware
from mho.rng import derive_seed
from mho.train.progress import progress_bar

if TYPE_CHECKING:
    from mho.experiments.ebm.resistive import Settings


def training_images(settings: "Settings", data: Dataset, seed: int) -> Batches:
    """The training images in the order of a seed."""
    order = derive_seed(seed, "order") % 2**31
    return _batches(data.train_x, data.train_y, settings.batch_size, settings.subset, order)


def _batches(x: torch.Tensor, y: torch.Tensor, size: int, subset: int | None, order: int | None) -> Batches:
    """Images as shares of white, 0 to 1: black pixels then draw no current from their sources."""
    count = len(x) if subset is None else min(subset, len(x))
    plain = [0.0] * x.shape[1], [1.0] * x.shape[1]
    return Batches(x[:count], y[:count], size, mean=plain[0], std=plain[1], shuffle=order is not None, seed=order or 0)


def test_images(settings: "Settings", data: Dataset) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The test images of the settings in their order."""
    return list(_batches(data.test_x, data.test_y, 1000, settings.test_subset, None))


def digital(settings: "Settings", data: Dataset, seed: int, folder: Path, resume: bool, tell: Say) -> float:
    """Accuracy of the digital network of the same shape, percent."""
    sizes = (data.train_x[0].numel(), *settings.hidden, len(data.classes))

    def measure() -> float:
        tell(f"seed {seed}: the digital network of the same shape")
        order, test = training_images(settings, data, seed), test_images(settings, data)
        return digital_accuracy(sizes, order, test, epochs=settings.epochs, seed=seed)

    told = settings.model_dump(include={"dataset", "subset", "test_subset", "batch_size", "epochs"})
    return kept_number(folder / f"seed{seed}", "digital", {**told, "sizes": sizes, "seed": seed}, resume, measure)


@dataclass(frozen=True, eq=False)
class Judge:
    """Puts the networks of all seeds on chips; with ``resume`` what was measured before is read from ``folder``."""

    settings: "Settings"
    data: Dataset
    hw: Hardware
    folder: Path
    resume: bool
    progress: bool

    def measure(self, what: str, models: list[ResistiveNetwork], **points: Any) -> Result:
        """Every test image on every chip at ``points``: noise_scales or ages."""
        pairs = zip(models, self.settings.seeds, strict=True)
        return Result.joined([self._of_seed(what, model, seed, points) for model, seed in pairs])

    def _of_seed(self, what: str, model: ResistiveNetwork, seed: int, points: dict[str, Any]) -> Result:
        settings = self.settings
        chips: dict[str, Any] = {"chips": settings.chips, "seed": settings.chip_seed}
        network_keys = {"dataset", "test_subset", "hidden", "voltage_gain", "current_gain", "input_V", "temperature_V"}
        told = {
            **settings.model_dump(include=network_keys),
            **chips,
            **points,
            "hardware": dump_hardware(self.hw),
        }

        def measure() -> Result:
            total = settings.chips * max(len(points.get("noise_scales", ())), len(points.get("ages", ())))
            with progress_bar(total, self.progress) as show:
                return evaluate_on_chips(
                    model,
                    test_images(settings, self.data),
                    **chips,
                    seeds=(seed,),
                    attrs={"command": "mho run ebm-resistive", "dataset": settings.dataset},
                    tell=lambda done, of: show(done, f"chip {done}/{of}"),
                    **points,
                )

        return kept_result(self.folder / f"seed{seed}", what, model, told, self.resume, measure)


__all__ = ["Judge", "digital", "test_images", "training_images"]
