"""How well the weights fill the conductance range: noise is a share of the range, so a full one is heard better.

For generic inputs the signal-to-noise ratio of a layer is (rho/eta)^2 with rho = rms(w)/w_max and eta the
noise over full scale, whatever the number of rows. Gaussian weights of 1e4 to 1e5 cells have rho near 0.25, clipped
at 2 sigma 0.5, at 1.5 sigma 0.67.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from mho.objectives.weights import AnalogWeight
from mho.physics.functions import root


def fill_factor(weight: AnalogWeight) -> Tensor:
    """rho = rms(w)/w_max, 0-d, or [out] with a scale a column. All-zero weights: 0.

    The full scale is the fixed bound, else max|w| **with** its gradient: the largest weight comes down as
    the others go up (detached, all would grow and nothing be filled).
    """
    w = weight.weight
    per_column = weight.hw.mapping.per_column
    if weight.bound is None:
        magnitude = w.abs().flatten(1) if per_column else w.abs().flatten()
        top = magnitude.amax(-1)
    else:
        top = weight.bound.to(w.dtype)
        limit = top.reshape(-1, *([1] * (w.dim() - 1))) if top.dim() else top
        clipped = torch.clamp(w, -limit, limit).abs()
        magnitude = clipped.flatten(1) if per_column else clipped.flatten()
    rms = root(magnitude.square().mean(-1))
    return rms / torch.where(top > 0, top, torch.ones_like(top))


def unfilled(weights: Iterable[AnalogWeight], target: float) -> Tensor:
    """Mean over the weight matrices (and columns) of max(0, target - rho)^2; no unit."""
    return torch.stack([(target - fill_factor(w)).clamp_min(0.0).square().mean() for w in weights]).mean()


__all__ = ["fill_factor", "unfilled"]
