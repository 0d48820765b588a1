"""The moving part of training: epochs, steps, and what happens between them."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, final, runtime_checkable

import torch
from torch import nn

from mho import nn as analog
from mho.errors import CheckpointError, TrainingError
from mho.train.history import EpochRecord
from mho.train.saving import Position, Rng, Saver, rng_state, set_rng_state
from mho.train.schedule import level_factor, lr_factor, noise_factor
from mho.train.settings import TrainSettings
from mho.train.step import Average, BufferGuard, StepLoss, attempt

OnBatch = Callable[[int, float | None], object]
OnEpoch = Callable[[EpochRecord], object]


class Loader(Protocol):
    """Batches ``(x, y)`` and how many there are (a torch DataLoader is one)."""

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


@runtime_checkable
class _Ordered(Protocol):
    def set_epoch(self, epoch: int) -> None: ...


@runtime_checkable
class Progressive(Protocol):
    """A loss whose terms follow a schedule: it is told the share of the run that is done, 0 to 1, before each step."""

    def set_progress(self, share: float) -> None: ...


@dataclass(frozen=True)
class Hooks:
    """What is told to the outside: callbacks, the progress bar; and whether Ctrl-C was pressed."""

    on_batch: OnBatch | None
    on_epoch: OnEpoch | None
    show: Callable[[int, str], None]
    interrupted: Callable[[], bool]


def _pair(batch: object, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as two tensors on ``device``."""
    if isinstance(batch, tuple | list) and len(batch) == 2:
        x, y = batch
        if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
            return x.to(device, non_blocking=True), y.to(device, non_blocking=True)
    raise TrainingError(f"fit: the loader gave a {type(batch).__name__}. Fix: yield pairs of tensors (x, y).")


@final
@dataclass
class Run:
    """One run over ``epochs * batches`` steps. ``base_lrs`` None: the learning rate is the caller's."""

    model: nn.Module
    loader: Loader
    batches: int
    settings: TrainSettings
    optimizer: torch.optim.Optimizer
    base_lrs: list[float] | None
    loss: StepLoss
    loss_object: object
    device: torch.device
    average: Average | None
    saver: Saver | None
    save_every: int | None
    refuse_limit: int
    hooks: Hooks
    guard: BufferGuard
    position: Position = field(default_factory=Position)
    epoch_rng: Rng = field(default_factory=dict)

    def resume(self) -> int | None:
        """Go to the newest checkpoint, if there is one; returns its step."""
        found = self.saver.resume() if self.saver is not None else None
        if found is None:
            return None
        self.position, self.epoch_rng = found
        return self.position.step

    def epoch(self) -> None:
        """One epoch, or the rest of one."""
        place = self.position
        batches = self._batches()
        self.model.train()
        started = time.perf_counter() - place.seconds
        for batch in batches:
            self._step(batch)
            place.seconds = time.perf_counter() - started
            if self.save_every is not None and place.step % self.save_every == 0:
                self._save()
            self._stop_if_asked()
        if place.batch == 0:
            raise TrainingError(f"fit: the loader gave no batch in epoch {place.epoch}. Fix: check its data.")
        record = place.close_epoch(self.optimizer.param_groups[0]["lr"])
        if self.hooks.on_epoch is not None:
            self._tell(self.hooks.on_epoch, record)
        self._save()
        self._stop_if_asked()

    def _batches(self) -> Iterator[Any]:
        """The batches to come. Those before a checkpoint within the epoch are drawn again and passed over."""
        place = self.position
        for part in (self.loader, getattr(self.loader, "sampler", None)):
            if isinstance(part, _Ordered):
                part.set_epoch(place.epoch)
        if place.batch == 0:
            self.epoch_rng = rng_state(self.device)
            return iter(self.loader)
        now = rng_state(self.device)
        set_rng_state(self.epoch_rng, self.device)
        batches = iter(self.loader)
        for _ in islice(batches, place.batch):
            pass
        set_rng_state(now, self.device)
        return batches

    def _step(self, batch: object) -> None:
        place, settings = self.position, self.settings
        total = settings.epochs * self.batches
        if self.base_lrs is not None:
            factor = lr_factor(place.step, total, settings.schedule)
            for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
                group["lr"] = lr * factor
        if settings.moves_noise:
            level = noise_factor(place.step, total, settings.ramp_fraction)
            if settings.noise_levels != "fixed":
                level *= level_factor(float(torch.rand(())), settings.noise_levels)
            analog.set_noise_scale(self.model, settings.noise_scale * level)
        if isinstance(self.loss_object, Progressive):
            self.loss_object.set_progress(place.step / max(total - 1, 1))
        x, y = _pair(batch, self.device)
        value = attempt(self.model, self.optimizer, self.loss, x, y, self.guard)
        place.batch += 1
        place.step += 1
        if value is None:
            self._refuse()
        else:
            if self.average is not None:
                self.average.update(self.model, place.updates)
            place.accept(value)
            self.hooks.show(place.step, f"epoch {place.epoch + 1}/{settings.epochs}  loss {value:.3f}")
        if self.hooks.on_batch is not None:
            self._tell(self.hooks.on_batch, place.step, value)

    def _refuse(self) -> None:
        place = self.position
        place.refused += 1
        place.refused_in_a_row += 1
        if place.refused_in_a_row >= self.refuse_limit:
            raise TrainingError(
                f"fit: {place.refused_in_a_row} steps in a row refused "
                f"(to epoch {place.epoch}, batch {place.batch - 1}): "
                "loss or gradients are NaN or infinite. The weights are those of the last good step. "
                "Fix: look for NaN in the data, lower lr, or lower the noise."
            )

    def _tell(self, callback: Callable[..., object], *news: object) -> None:
        """Call back; whatever it draws or switches to eval, training goes on as without it."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            callback(*news)
        if not self.model.training:
            self.model.train()

    def _save(self) -> None:
        if self.saver is not None:
            self.saver.save(self.position, self.epoch_rng)

    def _stop_if_asked(self) -> None:
        if self.hooks.interrupted():
            try:
                self._save()
            except CheckpointError as error:
                warnings.warn(str(error), stacklevel=2)
            raise KeyboardInterrupt
