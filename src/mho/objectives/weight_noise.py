"""Variance of what a weight really is on a chip: programming error, the spread of ageing, stuck cells.

Each cell's variance is a function of its target alone (``mho.crossbar.variance`` integrates the laws that program
the virtual chips). It is tabulated once a description and then read off for every weight.
"""

from functools import lru_cache

from torch import Tensor

from mho.crossbar.variance import CellMoments, cell_moments, is_uniform, slice_moments
from mho.hardware.spec import Hardware
from mho.objectives.weights import AnalogWeight
from mho.physics import cells


def has_weight_noise(hw: Hardware) -> bool:
    """Whether two chips of ``hw`` hold different cells for the same targets (dead lines and wires apart)."""
    needed = cells.static_draws(hw.cell)
    stuck = hw.faults.stuck_on > 0 or hw.faults.stuck_off > 0
    return stuck or "programming" in needed or ("aging" in needed and hw.environment.t_s > 0)


@lru_cache(maxsize=32)
def _table(hw: Hardware, t_s: float) -> CellMoments:
    """Tabulated once a description and age, read off at every step."""
    return cell_moments(hw, t_s)


def weight_variance(weight: AnalogWeight) -> tuple[Tensor, ...]:
    """Variance of the effective weight over chips, a bit slice each: squared weight units.

    Broadcastable to the weight's shape; 0-d (or [out, 1, ...]) where it is the same for all weights. At the age
    of the description. Differentiable in the weight where it depends on the target; full scale detached.
    """
    hw, t_s = weight.hw.replace(wires=None), weight.hw.environment.t_s
    cell = None if is_uniform(hw, t_s) else _table(hw, t_s)
    return tuple(p.variance for p in slice_moments(weight.weight, hw, bound=weight.bound, t_s=t_s, cell=cell))


__all__ = ["has_weight_noise", "weight_variance"]
