"""The rows of the table of ``mho run ebm-generate``: one model on good and on wrong samplers, beside its baselines."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mho.ebm.generate import (
    DIGITAL,
    Denoiser,
    DenoisingModel,
    DiffusionTraining,
    PersistentTraining,
    Reference,
    RestrictedMachine,
    Score,
    VirtualSampler,
    cosine_flips,
    generate,
    hidden_for,
    sample_diffusion,
    sample_rbm,
    train_diffusion,
    train_rbm,
    width_for,
)
from mho.errors import CheckpointError
from mho.experiments.ebm.generate_settings import Settings
from mho.experiments.networks import Say
from mho.rng import derive_seed

DIGITAL_ROW, CHIP_ROW = "noise-free digital sampler", "chip as meant"
RBM_ROW, DIFFUSION_ROW, REAL_ROW = "restricted machine, persistent CD", "digital diffusion", "real training images"


@dataclass(frozen=True, eq=False)
class Row:
    """``score`` of ``name``; ``parameters`` that were trained; ``examples``: its first images [16, P]."""

    name: str
    score: Score
    parameters: int
    examples: Tensor

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.score.numbers(), "parameters": self.parameters}


def samplers(settings: Settings) -> dict[str, VirtualSampler]:
    """The samplers that one model is judged on: digital, as meant, and each error alone and together."""
    hot, wrong = settings.test_temperature_error, settings.test_coupling_error
    percent, share = f"{100 * hot:g} %", f"{100 * wrong:g} %"
    return {
        DIGITAL_ROW: DIGITAL,
        CHIP_ROW: settings.sampler(),
        f"temperature +{percent}": settings.sampler(0.0, hot),
        f"temperature -{percent}": settings.sampler(0.0, -hot),
        f"couplings {share}": settings.sampler(wrong, 0.0),
        f"couplings {share}, temperature +{percent}": settings.sampler(wrong, hot),
        f"couplings {share}, temperature -{percent}": settings.sampler(wrong, -hot),
    }


def images_on_chips(model: DenoisingModel, settings: Settings, sampler: VirtualSampler, seed: int) -> Tensor:
    """``settings.images`` images, shared out among ``settings.chips`` chips."""
    share = -(-settings.images // settings.chips)
    made = [
        generate(
            model,
            share,
            sampler=sampler,
            schedule=settings.schedule(),
            chip_seed=derive_seed(seed, "sampler", chip),
            seed=derive_seed(seed, "generation", chip),
        )
        for chip in range(settings.chips)
    ]
    return torch.cat(made)[: settings.images]


def rows_of(model: DenoisingModel, settings: Settings, reference: Reference, seed: int, tell: Say) -> list[Row]:
    """The model on every sampler."""
    found = []
    for name, sampler in samplers(settings).items():
        tell(f"{settings.images} images: {name}")
        found.append(_row(name, images_on_chips(model, settings, sampler, seed), reference, model.size))
    return found


def baselines(
    settings: Settings,
    size: int,
    images: Tensor,
    reference: Reference,
    seed: int,
    folder: Path,
    progress: bool,
    tell: Say,
) -> tuple[list[Row], Denoiser]:
    """The restricted machine and the digital diffusion of about ``size`` parameters, trained or from ``folder``."""
    pixels = images.shape[1]
    machine = RestrictedMachine(pixels, hidden_for(size, pixels))
    path = folder / "rbm.safetensors"
    if not _stored(machine, path):
        tell(f"restricted machine: {settings.rbm_updates} updates")
        train_rbm(machine, images, PersistentTraining(updates=settings.rbm_updates, seed=seed), progress=progress)
        save_file({k: v.contiguous() for k, v in machine.state_dict().items()}, path)
    flips = cosine_flips(settings.diffusion_steps)
    network = Denoiser(width_for(size, flips.steps), flips.steps)
    path = folder / "diffusion.safetensors"
    if not _stored(network, path):
        tell(f"digital diffusion: {settings.diffusion_updates} updates")
        plan = DiffusionTraining(updates=settings.diffusion_updates, seed=seed)
        network = train_diffusion(images, flips, width_for(size, flips.steps), plan, progress=progress)
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)
    majority = settings.readout == "majority"
    tell("images of the baselines")
    made = {
        RBM_ROW: (
            sample_rbm(machine, settings.images, sweeps=settings.rbm_sweeps, majority=majority, seed=seed),
            machine.size,
        ),
        DIFFUSION_ROW: (
            sample_diffusion(network, flips, settings.images, majority=majority, seed=seed),
            sum(p.numel() for p in network.parameters()),
        ),
    }
    return [_row(name, found, reference, count) for name, (found, count) in made.items()], network


def real_row(settings: Settings, images: Tensor, reference: Reference, held_out: Tensor) -> Row:
    """Real training images in the place of generated ones; their nearest neighbours are those of held-out images."""
    count = min(settings.images, len(images))
    row = _row(REAL_ROW, images[:count], reference, 0)
    nearest = Reference(reference.judge, reference.features, reference.training).score(held_out[:count]).nearest
    score = Score(row.score.frechet, row.score.precision, row.score.recall, nearest, count)
    return Row(REAL_ROW, score, 0, row.examples)


def _row(name: str, images: Tensor, reference: Reference, parameters: int) -> Row:
    return Row(name, reference.score(images), parameters, images[:16])


def _stored(network: nn.Module, path: Path) -> bool:
    """Load the weights of a baseline that an earlier start of this run finished.

    Raises :class:`CheckpointError` for a file that is damaged or of another network.
    """
    if not path.is_file():
        return False
    try:
        network.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: no weights of this baseline: {error}. Fix: remove the file, and --resume trains it again."
        ) from error
    return True


def verdict(rows: dict[str, Score]) -> dict[str, Any]:
    """Ratios of Frechet distances: the chip to the digital sampler, and each error to the chip as meant."""
    chip, digital = rows[CHIP_ROW].frechet, rows[DIGITAL_ROW].frechet
    errors = {
        name: score.frechet / chip for name, score in rows.items() if name.startswith(("temperature", "couplings"))
    }
    return {"chip_over_digital": chip / digital, "error_over_chip": errors}
