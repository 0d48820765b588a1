"""What a run leaves behind."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss over accepted steps (NaN if none), last learning rate, refused steps."""

    epoch: int
    loss: float
    lr: float
    refused: int
    seconds: float


@dataclass(frozen=True)
class History:
    """The epochs of a run; ``steps`` counts all batches seen, ``refused`` those that changed nothing."""

    epochs: tuple[EpochRecord, ...]
    steps: int
    refused: int
    resumed_at: int | None = None

    @property
    def loss(self) -> float:
        """Mean loss of the last epoch."""
        return self.epochs[-1].loss if self.epochs else math.nan

    @property
    def seconds(self) -> float:
        """Time spent in training, over all resumed parts."""
        return sum(record.seconds for record in self.epochs)

    def as_dict(self) -> dict[str, Any]:
        """For JSON and TOML (``resumed_at`` is left out where it is None)."""
        return {key: value for key, value in asdict(self).items() if value is not None}
