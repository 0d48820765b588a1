"""Where a run stands, and how :func:`mho.train.fit` saves and finds that again, bit for bit."""

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol, final

import torch
from torch import nn

from mho.errors import CheckpointError
from mho.train.checkpoint import load_checkpoint, save_checkpoint
from mho.train.history import EpochRecord, History
from mho.train.step import Average

Rng = dict[str, torch.Tensor]


class Carried(Protocol):
    """What changes while training beside model and optimizer, and must be found again: tensors by name."""

    def state_dict(self) -> dict[str, torch.Tensor]: ...

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None: ...


def rng_state(device: torch.device) -> Rng:
    """torch's global generators: the CPU's and that of ``device``."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_rng_state(state: Rng, device: torch.device) -> None:
    """The inverse of :func:`rng_state`."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


@dataclass
class Position:
    """Where a run stands. ``epoch`` and ``batch`` are those to come; sums are over the current epoch."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    updates: int = 0
    refused_in_a_row: int = 0
    refused_before: int = 0
    refused: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    records: list[EpochRecord] = field(default_factory=list)

    def accept(self, loss: float) -> None:
        """Count a step that was taken."""
        self.updates += 1
        self.refused_in_a_row = 0
        self.loss_sum += loss

    def close_epoch(self, lr: float) -> EpochRecord:
        """Move to the next epoch; returns the record of the one that ends."""
        accepted = self.batch - self.refused
        loss = self.loss_sum / accepted if accepted else float("nan")
        record = EpochRecord(self.epoch, loss, lr, self.refused, self.seconds)
        self.records.append(record)
        self.refused_before += self.refused
        self.epoch, self.batch, self.refused, self.loss_sum, self.seconds = self.epoch + 1, 0, 0, 0.0, 0.0
        return record

    def history(self, resumed_at: int | None) -> History:
        """What the run leaves behind."""
        return History(tuple(self.records), self.step, self.refused_before + self.refused, resumed_at)

    def as_table(self) -> dict[str, Any]:
        """For TOML."""
        return asdict(self)

    @staticmethod
    def from_table(table: Mapping[str, Any]) -> "Position":
        """The inverse of :meth:`as_table`."""
        records = [EpochRecord(**record) for record in table["records"]]
        return Position(**{**table, "records": records})


def _versions() -> dict[str, str]:
    try:
        own = version("mho")
    except PackageNotFoundError:
        own = "not installed"
    return {"mho": own, "torch": torch.__version__, "python": platform.python_version()}


@final
@dataclass
class Saver:
    """Saves and restores one run in ``folder``. ``run`` are the settings that a resumed run must share, ``carry`` what
    else changes while training, by name.
    """

    folder: str | os.PathLike[str]
    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: Average | None
    device: torch.device
    run: dict[str, Any]
    carry: Mapping[str, Carried] = field(default_factory=dict)
    keep: int = 1
    last: tuple[int, int] | None = None

    def save(self, position: Position, epoch_rng: Rng) -> None:
        """Write a checkpoint unless this very position is written already.

        The first save keeps nothing from before: what lies in the folder is then another run's.
        """
        place = (position.epoch, position.batch)
        if place == self.last:
            return
        extra = {f"rng.{name}": value for name, value in rng_state(self.device).items()}
        extra |= {f"epoch_rng.{name}": value for name, value in epoch_rng.items()}
        extra |= {f"average.{name}": value for name, value in (self.average.values if self.average else {}).items()}
        for name, carried in self.carry.items():
            extra |= {f"carry.{name}.{key}": value for key, value in carried.state_dict().items()}
        state = {"versions": _versions(), "run": self.run, "position": position.as_table()}
        save_checkpoint(self.folder, self.model, self.optimizer, state, extra=extra, keep=self.keep)
        self.last, self.keep = place, 2

    def resume(self) -> tuple[Position, Rng] | None:
        """Restore all but the epoch's start from the newest checkpoint; None where there is none."""
        found = load_checkpoint(self.folder)
        if found is None:
            return None
        self._same_run(found.state.get("run", {}), str(found.path))
        found.restore(self.model, self.optimizer)
        parts: dict[str, Rng] = {"rng": {}, "epoch_rng": {}, "average": {}, "carry": {}}
        for name, value in found.extra.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = value
        if self.average is not None:
            self.average.values = {name: value.to(self.device) for name, value in parts["average"].items()}
        for name, carried in self.carry.items():
            own = {key.removeprefix(f"{name}."): v for key, v in parts["carry"].items() if key.startswith(f"{name}.")}
            carried.load_state_dict(own)
        set_rng_state(parts["rng"], self.device)
        position = Position.from_table(found.state["position"])
        self.last, self.keep = (position.epoch, position.batch), 2
        return position, parts["epoch_rng"]

    def _same_run(self, stored: Mapping[str, Any], where: str) -> None:
        different = [key for key in sorted({*stored, *self.run}) if stored.get(key) != self.run.get(key)]
        if different:
            told = ", ".join(f"{key} was {stored.get(key)!r} and is {self.run.get(key)!r}" for key in different)
            raise CheckpointError(
                f"{where}: belongs to another run: {told}. "
                "Fix: resume with the settings of the checkpoint, or train afresh in another folder."
            )
