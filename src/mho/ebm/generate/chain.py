"""Generation: from fair coins back to an image, one Boltzmann machine after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from mho.ebm.generate.model import DenoisingModel
from mho.ebm.generate.sampler import Step, VirtualSampler, gibbs, on_chip
from mho.ebm.spins import BlockGibbs
from mho.errors import InputError
from mho.rng import stream

Readout = Literal["last", "majority"]
CHAINS = 256
"""Images that are sampled side by side. An image depends on the seed and its number, not on how many there are."""


@final
@dataclass(frozen=True)
class Schedule:
    """``sweeps`` of block Gibbs at each step. ``readout``: what is read as the image.

    ``last``: the pixels' last values. ``majority``: the sign of each pixel's sum over the second half of the last
    step's sweeps: a low-pass filter on each output, which takes away the flicker of single pixels. The pixels are then
    read after each of these sweeps.
    """

    sweeps: int = 30
    readout: Readout = "majority"

    def __post_init__(self) -> None:
        if self.sweeps < 2 or self.readout not in ("last", "majority"):
            raise InputError(
                f"Schedule: sweeps = {self.sweeps}, readout = {self.readout!r}. Fix: 2 sweeps or more; 'last' or "
                "'majority'."
            )

    @property
    def last_reads(self) -> int:
        """How often the last step's pixels are read: once, or in each sweep of the majority (odd: no ties)."""
        if self.readout == "last":
            return 1
        late = self.sweeps // 2
        return late - 1 + late % 2


def chip_steps(model: DenoisingModel, sampler: VirtualSampler, chip_seed: int) -> tuple[Step, ...]:
    """All steps of ``model`` on one chip, t = 1 first."""
    return tuple(on_chip(model, t, sampler, chip_seed) for t in range(1, model.steps + 1))


def generate(
    model: DenoisingModel,
    count: int,
    *,
    sampler: VirtualSampler,
    schedule: Schedule,
    chip_seed: int = 0,
    seed: int = 0,
) -> Tensor:
    """``count`` images [count, P] of -1 and +1, made on one chip.

    Raises :class:`InputError` for a count below 1.
    """
    if count < 1:
        raise InputError(f"generate: count = {count}. Fix: 1 or more.")
    steps, machine, made = chip_steps(model, sampler, chip_seed), gibbs(model, sampler, chip_seed), []
    for block in range(-(-count // CHAINS)):
        *_, last = denoised(model, machine, steps, schedule, CHAINS, stream(seed, "images", block))
        made.append(last)
    return torch.cat(made)[:count]


@torch.no_grad()
def denoised(
    model: DenoisingModel,
    machine: BlockGibbs,
    steps: Sequence[Step],
    schedule: Schedule,
    chains: int,
    generator: torch.Generator,
) -> Iterator[Tensor]:
    """The images x_T, x_{T-1} ... x_0 of ``chains`` chains [chains, P], one after the other.

    Each step's pixels begin at x_t and its latent nodes as fair coins.
    """
    placement = model.placement
    x = torch.randint(0, 2, (chains, len(placement.visible)), generator=generator).mul_(2).sub_(1).float()
    yield x
    for t in range(model.steps, 0, -1):
        step = steps[t - 1]
        fields = step.fields(x, placement.visible)
        spins = placement.states(x, generator)
        if t > 1 or schedule.readout == "last":
            spins = machine.run(spins, step.couplings, fields, sweeps=schedule.sweeps, generator=generator)
            x = placement.images(spins)
        else:
            x = _majority(machine, spins, step, fields, schedule, placement.visible, generator)
        yield x


def _majority(
    machine: BlockGibbs,
    spins: Tensor,
    step: Step,
    fields: Tensor,
    schedule: Schedule,
    visible: Tensor,
    generator: torch.Generator,
) -> Tensor:
    late = schedule.last_reads
    spins = machine.run(spins, step.couplings, fields, sweeps=schedule.sweeps - late, generator=generator)
    total = torch.zeros(len(spins), len(visible))
    for _ in range(late):
        spins = machine.run(spins, step.couplings, fields, sweeps=1, generator=generator)
        total += spins[:, visible]
    return torch.sign(total)
