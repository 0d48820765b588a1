"""Variance of what a weight really is on a chip: programming error, the spread of ageing, stuck cells.

Each cell's variance is a function of its target alone (``mho.crossbar.variance`` integrates the laws that program
the virtual chips). It is tabulated once a description and then read off for every weight.
"""

from functools import lru_cache

from torch import Tensor

from mho.crossbar.array import simple_sigma
from mho.crossbar.variance import cell_moments
from mho.hardware.spec import Hardware
from mho.objectives.weights import AnalogWeight
from mho.physics import cells
from mho.physics.functions import interpolate

Points = tuple[tuple[float, float], ...]


def has_weight_noise(hw: Hardware) -> bool:
    """Whether two chips of ``hw`` hold different cells for the same targets (dead lines and wires apart)."""
    needed = cells.static_draws(hw.cell)
    stuck = hw.faults.stuck_on > 0 or hw.faults.stuck_off > 0
    return stuck or "programming" in needed or ("aging" in needed and hw.environment.t_s > 0)


@lru_cache(maxsize=32)
def cell_variance_uS2(hw: Hardware) -> Points:
    """(target in uS, variance in uS^2) of one cell of ``hw`` over its whole range, at the age of the description."""
    moments = cell_moments(hw, hw.environment.t_s)
    return tuple(zip(moments.targets.tolist(), moments.variance.tolist(), strict=True))


def weight_variance(weight: AnalogWeight) -> tuple[Tensor, ...]:
    """Variance of the effective weight over chips, a bit slice each: squared weight units.

    Broadcastable to the weight's shape; 0-d (or [out, 1, ...]) where it is the same for all weights. At the age
    of the description. Differentiable in the weight where it depends on the target; full scale detached.
    """
    hw = weight.hw
    sigma = simple_sigma(hw)
    if sigma is not None and hw.environment.t_s == 0:
        return ((sigma * weight.w_max).square(),)
    table = cell_variance_uS2(hw)
    per_uS = (2.0 if hw.mapping.scheme == "offset" else 1.0) * weight.w_max / (hw.cell.g_max_uS - hw.cell.g_min_uS)
    return tuple(interpolate(table, g).sum(0) * per_uS.square() for g in weight.targets_uS())


__all__ = ["cell_variance_uS2", "has_weight_noise", "weight_variance"]
