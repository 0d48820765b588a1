"""Power that the cells draw: what a full range costs."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mho.objectives.weights import AnalogWeight


def array_power_uW(weights: Iterable[AnalogWeight]) -> Tensor:
    """Mean of |g| v_read_V^2 over the cells that hold the weights: uW a cell with its row at v_read_V.

    uS V^2 = uW. Target conductances with their levels; the signed scheme counts |g|. What a chip draws at
    its usual inputs is less, by the mean of (x / input range)^2.
    """
    parts = [g.abs() * w.hw.readout.v_read_V**2 for w in weights for g in w.targets_uS()]
    return torch.stack([p.sum() for p in parts]).sum() / sum(p.numel() for p in parts)


__all__ = ["array_power_uW"]
