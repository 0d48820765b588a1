"""From a wanted step to what the cells of one parameter do: the three rules of :class:`AchievableUpdates`."""

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

from mho.physics.pulses import normals_needed, pulse_train, pulses_towards, round_stochastic, round_threshold
from mho.train.achievable_cells import Block

Rule = Literal["pulses", "threshold", "exact"]
Count = Literal["nominal", "state-aware"]
Rounding = Literal["stochastic", "nearest"]


@final
@dataclass
class Losses:
    """What could not be done: updates cut by the pulse limit, the pulses so lost, and targets out of reach."""

    capped: int = 0
    lost_pulses: int = 0
    out_of_reach: int = 0


@final
@dataclass(frozen=True)
class Writer:
    """How a step is written. Weights of a block hold the wanted values when it is called, and the real ones after."""

    rule: Rule
    count: Count
    rounding: Rounding

    @property
    def reads_state(self) -> bool:
        """Whether cells are read before they are written, so that a target out of reach is seen."""
        return self.rule == "pulses" and self.count == "state-aware"

    def write(self, block: Block, before: Tensor, generator: torch.Generator, losses: Losses) -> None:
        """Replace the wanted weights of ``block`` by what its cells reach from ``before``; counts the writes."""
        after = block.parameter
        if self.rule == "exact":
            low, high = block.limits()
            after.copy_(torch.where(after == before, before, after.clamp(low, high)))
            index = (after != before).reshape(-1).nonzero().squeeze(1)
            block.count(index, torch.zeros_like(index))
            return
        d = ((after - before) / block.scale()).reshape(-1)
        w = before.reshape(-1).clone()
        if self.rule == "threshold":
            index, moved, pulses = self._threshold(block, d, w, generator)
        else:
            index, moved, pulses = self._pulses(block, d, w, generator, losses)
        if block.device.write_noise > 0.0:
            moved = moved + block.device.write_noise * _normals(index.numel(), moved, generator)
        low, high = (block.flat(limit, index) for limit in block.limits())
        w[index] = (moved * block.flat(block.scale(), index)).clamp(low, high)
        block.count(index, pulses)
        after.copy_(w.view(after.shape))

    def _threshold(
        self, block: Block, d: Tensor, w: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(cells, where they are put in units of the device, pulses) of program-and-verify writes."""
        chosen = round_threshold(d, block.device.write_noise, _uniforms(d, generator))
        index = chosen.nonzero().squeeze(1)
        chosen = chosen[index]
        return (
            index,
            w[index] / block.flat(block.scale(), index) + chosen,
            (chosen.abs() / block.device.dw_min).ceil(),
        )

    def _pulses(
        self, block: Block, d: Tensor, w: Tensor, generator: torch.Generator, losses: Losses
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(cells, where their pulses bring them in units of the device, pulses)."""
        u = torch.full_like(d, 0.5) if self.rounding == "nearest" else _uniforms(d, generator)
        if self.count == "nominal":
            n = d.sign() * round_stochastic(d.abs() / block.device.dw_min, u)
        else:
            every = torch.arange(d.numel(), device=d.device)
            n, away = pulses_towards(d, w / block.flat(block.scale(), every), block.device, u)
            losses.out_of_reach += int(away.sum())
        limit = block.device.pulse_limit
        if limit is not None:
            excess = (n.abs() - limit).clamp(min=0.0)
            losses.capped += int((excess > 0.0).sum())
            losses.lost_pulses += int(excess.double().sum())
            n = n.clamp(-limit, limit)
        index = n.nonzero().squeeze(1)
        n, cells = n[index], block.cells.at(index)
        at = w[index] / block.flat(block.scale(), index)
        xi = _normals(normals_needed(at, n, block.device, cells), at, generator)
        return index, pulse_train(at, n, block.device, cells, xi), n.abs()


def _uniforms(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=torch.float32, device=like.device).to(like.dtype)


def _normals(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(count, generator=generator, dtype=torch.float32, device=like.device).to(like.dtype)
