"""A teacher beside the labels: knowledge distillation (Hinton, Vinyals and Dean, arXiv:1503.02531)."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mho.errors import RecipeError


def divergence(outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """T^2 KL(softmax(wanted / T) || softmax(outputs / T)) of logits [N, C], mean over N; nat."""
    seen = F.log_softmax(outputs / temperature, dim=-1)
    aim = F.log_softmax(wanted / temperature, dim=-1)
    return temperature**2 * F.kl_div(seen, aim, reduction="batchmean", log_target=True)


@final
@dataclass(frozen=True, eq=False)
class Teacher:
    """(1 - share) task + share T^2 KL(softmax(z_teacher / T) || softmax(z / T)).

    ``network`` is put into eval mode and gets no gradient. ``share`` in [0, 1], ``temperature`` T above 0; raises
    :class:`RecipeError` for others.
    """

    network: nn.Module
    share: float = 0.5
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or not 0.0 < self.temperature < math.inf:
            raise RecipeError(
                f"Teacher: share = {self.share!r}, temperature = {self.temperature!r}. Fix: a share of 0 to 1, and a "
                "positive temperature."
            )
        self.network.eval()

    def mixed(self, task: Tensor, outputs: Tensor, x: Tensor) -> Tensor:
        """The task's loss of ``outputs`` on the inputs ``x``, and the teacher's share."""
        with torch.no_grad():
            wanted = self.network(x)
        return (1 - self.share) * task + self.share * divergence(outputs, wanted, self.temperature)


__all__ = ["Teacher", "divergence"]
