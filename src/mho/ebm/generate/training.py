"""Training of a denoising model with the sampler's errors in the loop; every gradient step meets another chip."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from mho.ebm.generate.autocorrelation import AdaptivePenalty, autocorrelation
from mho.ebm.generate.gradient import denoising_gradient
from mho.ebm.generate.model import DenoisingModel
from mho.ebm.generate.sampler import VirtualSampler, gibbs, on_chip
from mho.ebm.spins import PBit
from mho.errors import CheckpointError, TrainingError
from mho.rng import derive_seed, stream
from mho.train import load_checkpoint, save_checkpoint
from mho.train.interrupt import deferred_interrupt
from mho.train.progress import progress_bar


@final
@dataclass(frozen=True)
class Training:
    """How to train. ``updates``: gradient steps over all T machines together, which take turns.

    ``sampler``: bits in the loop. ``coupling_error``, ``temperature_range``: each update has a new chip whose coupling
    error is one of eight levels from 0 to coupling_error and whose inverse temperature is log-uniform on
    [1 / (1 + temperature_range), 1 + temperature_range]; 0 trains for exact ones. ``sweeps``: of the free phase, those
    of generation. The rate falls linearly to a thirtieth over the second half. ``check_every`` updates the
    autocorrelation is measured, the penalty moves and the run is saved.
    """

    updates: int = 20_000
    batch: int = 64
    sweeps: int = 30
    positive_sweeps: int = 8
    lr: float = 3e-3
    sampler: VirtualSampler = field(default_factory=VirtualSampler)
    coupling_error: float = 0.05
    temperature_range: float = 0.25
    target_autocorrelation: float = 0.03
    check_every: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"updates": 1, "batch": 2, "sweeps": 2, "positive_sweeps": 1, "check_every": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise TrainingError(f"Training: {name} = {getattr(self, name)}. Fix: {low} or more.")
        for name in ("lr", "coupling_error", "temperature_range"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"Training: {name} = {getattr(self, name)}. Fix: finite and not negative.")
        if self.sampler.pbit != PBit():
            raise TrainingError(
                f"Training: sampler.pbit = {self.sampler.pbit}: the gradient's conditional means know one temperature "
                "and no offsets. Fix: leave it out, and generate with it."
            )


@final
@dataclass(frozen=True)
class Check:
    """What was measured after ``update`` updates, one number a step of the chain (t = 1 first)."""

    update: int
    autocorrelation: tuple[float, ...]
    penalty: tuple[float, ...]
    gradient: tuple[float, ...]
    seconds: float


@dataclass
class _State:
    update: int = 0
    seconds: float = 0.0
    penalties: list[AdaptivePenalty] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    gradient: list[float] = field(default_factory=list)

    def as_table(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "seconds": self.seconds,
            "penalties": [asdict(p) for p in self.penalties],
            "checks": [{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(c).items()} for c in self.checks],
            "gradient": self.gradient,
        }


def train(
    model: DenoisingModel,
    images: Tensor,
    settings: Training,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = False,
    on_check: Callable[[Check], None] | None = None,
) -> tuple[Check, ...]:
    """Train ``model`` in place on ``images`` [N, P] of -1 and +1; a function of the settings alone.

    ``checkpoint``: folder saved to at every check. ``resume``: go on from the newest save there. Ctrl-C stops after the
    running update, saves, and raises ``KeyboardInterrupt``; a resumed run reaches the same bits.

    Raises :class:`TrainingError` for no images or a gradient that is not finite, and :class:`CheckpointError` for a
    save of another run.
    """
    if images.ndim != 2 or len(images) == 0 or images.shape[1] != len(model.placement.visible):
        raise TrainingError(
            f"train: images {list(images.shape)} for {len(model.placement.visible)} visible nodes. Fix: [N, pixels]."
        )
    optimizer = torch.optim.Adam(model.parameters(), settings.lr, betas=(0.5, 0.999))
    facts = {**asdict(settings), "images": len(images), "T": model.steps, "levels": list(model.flips.levels)}
    facts["sampler"] = repr(settings.sampler)
    state = _begin(model, images, settings)
    if resume and checkpoint is not None:
        state = _resumed(checkpoint, model, optimizer, facts) or state
    began = time.monotonic() - state.seconds

    def save() -> None:
        if checkpoint is not None:
            state.seconds = time.monotonic() - began
            save_checkpoint(checkpoint, model, optimizer, {"run": facts, "state": state.as_table()})

    with progress_bar(settings.updates, progress) as show, deferred_interrupt() as interrupted:
        while state.update < settings.updates:
            _update(model, images, settings, optimizer, state)
            state.update += 1
            show(state.update, "denoising model")
            if state.update % settings.check_every == 0 or state.update == settings.updates:
                check = _check(model, images, settings, state, time.monotonic() - began)
                state.checks.append(check)
                save()
                if on_check is not None:
                    on_check(check)
            elif interrupted():
                save()
            if interrupted():
                raise KeyboardInterrupt
    return tuple(state.checks)


def _begin(model: DenoisingModel, images: Tensor, settings: Training) -> _State:
    model.start(images, stream(settings.seed, "denoising", "start"))
    penalty = AdaptivePenalty(target=settings.target_autocorrelation)
    return _State(penalties=[penalty] * model.steps, gradient=[0.0] * model.steps)


def chip_of_update(settings: Training, update: int) -> VirtualSampler:
    """The virtual sampler of one update: fixed by the seed and the number of the update."""
    draw = torch.rand(2, generator=stream(settings.seed, "denoising", "chip", update)).tolist()
    spread = math.log1p(settings.temperature_range)
    return VirtualSampler(
        settings.sampler.coupling_bits,
        settings.sampler.bias_bits,
        int(8 * draw[0]) / 7 * settings.coupling_error,
        math.exp((2.0 * draw[1] - 1.0) * spread) - 1.0,
    )


def _update(
    model: DenoisingModel, images: Tensor, settings: Training, optimizer: torch.optim.Optimizer, state: _State
) -> None:
    t = state.update % model.steps + 1
    generator = stream(settings.seed, "denoising", "update", state.update)
    chosen = images[torch.randint(0, len(images), (settings.batch,), generator=generator)]
    before, after = model.flips.pair(chosen, t, generator)
    sampler = chip_of_update(settings, state.update)
    step = on_chip(model, t, sampler, derive_seed(settings.seed, "denoising", "cells", state.update), fast=True)
    found = denoising_gradient(
        model,
        gibbs(model, sampler),
        step,
        before,
        after,
        1.0 / (1.0 + sampler.temperature_error),
        sweeps=settings.sweeps,
        positive_sweeps=settings.positive_sweeps,
        penalty=state.penalties[t - 1].strength,
        generator=generator,
    )
    size = float(found.couplings.square().mean().sqrt())
    if not math.isfinite(size):
        raise TrainingError(f"train: the gradient of step {t} at update {state.update} is {size}. Fix: a lower lr.")
    state.gradient[t - 1] = 0.99 * state.gradient[t - 1] + 0.01 * size
    share = state.update / settings.updates
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * max(1.0 / 30.0, min(1.0, 2.0 * (1.0 - share)))
    optimizer.zero_grad(set_to_none=True)  # the machines of the other steps stay as they are, moments included
    model.couplings[t - 1].grad, model.biases[t - 1].grad = -found.couplings, -found.biases
    optimizer.step()
    model.confine()


def _check(model: DenoisingModel, images: Tensor, settings: Training, state: _State, seconds: float) -> Check:
    generator = stream(settings.seed, "denoising", "check", state.update)
    chosen = images[torch.randint(0, len(images), (8,), generator=generator)]
    measured = []
    for t in range(1, model.steps + 1):
        _, after = model.flips.pair(chosen, t, generator)
        step = on_chip(model, t, settings.sampler, 0)
        machine = gibbs(model, settings.sampler)
        measured += autocorrelation(model, machine, step, after, settings.sweeps, generator)
        state.penalties[t - 1] = state.penalties[t - 1].after(measured[-1])
    strengths = tuple(p.strength for p in state.penalties)
    return Check(state.update, tuple(measured), strengths, tuple(state.gradient), seconds)


def _resumed(
    folder: str | os.PathLike[str], model: DenoisingModel, optimizer: torch.optim.Optimizer, facts: dict[str, Any]
) -> _State | None:
    found = load_checkpoint(folder)
    if found is None:
        return None
    stored = found.state.get("run", {})
    different = [key for key in sorted({*stored, *facts}) if stored.get(key) != facts.get(key)]
    if different:
        told = ", ".join(f"{key} was {stored.get(key)!r} and is {facts.get(key)!r}" for key in different)
        raise CheckpointError(
            f"{found.path}: belongs to another run: {told}. Fix: the same settings, or another folder."
        )
    found.restore(model, optimizer)
    table = found.state["state"]
    checks = [Check(**{k: tuple(v) if isinstance(v, list) else v for k, v in c.items()}) for c in table["checks"]]
    penalties = [AdaptivePenalty(**p) for p in table["penalties"]]
    return _State(table["update"], table["seconds"], penalties, checks, table["gradient"])
