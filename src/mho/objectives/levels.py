"""Distance of the weights to the conductance levels that the bit depth allows."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from mho.crossbar.array import to_conductances
from mho.errors import HardwareError
from mho.hardware.spec import Hardware
from mho.objectives.weights import AnalogWeight

Schedule = Callable[[float], float]
"""Share of training done, in [0, 1] -> factor on the weight of the term, >= 0."""

SCHEDULES: Mapping[str, Schedule] = MappingProxyType(
    {
        "constant": lambda share: 1.0,
        "linear": lambda share: share,
        "late": lambda share: max(0.0, 2.0 * share - 1.0),
    }
)
"""From the start; rising to the end; only in the second half, rising. Weights must be free to move first."""


def positions(w_hat: Tensor, hw: Hardware) -> Tensor | None:
    """Where each cell sits in units of its level step, levels at whole numbers; ``None`` without levels.

    ``cell.bits``: target conductances over (g_max - g_min)/(2^bits - 1), [polarities, *w.shape]. With
    ``mapping.bits_per_slice`` = B and S slices: the magnitude over 1/(2^(S B) - 1), the step of the whole
    code. ``w_hat``: weights over full scale, in [-1, 1].
    """
    mapping, cell = hw.mapping, hw.cell
    if mapping.bits_per_slice is not None:
        top = 2 ** (mapping.slices * mapping.bits_per_slice) - 1
        return w_hat.abs() * float(top)
    if cell.bits is None:
        return None
    origin = 0.0 if mapping.scheme == "signed" else cell.g_min_uS
    step_uS = (cell.g_max_uS - cell.g_min_uS) / float(2**cell.bits - 1)
    return (to_conductances(w_hat, hw) - origin) / step_uS


def distance2(position: Tensor) -> Tensor:
    """(p - nearest whole number)^2, in squared level steps: 0 exactly on a level, 1/4 half-way.

    Weights that know nothing of the levels have 1/12 in the mean. Gradient 2 (p - nearest); half-way it is
    the one of the even level.
    """
    return (position - torch.round(position.detach())).square()


def level_distance(weights: Iterable[AnalogWeight]) -> Tensor:
    """Mean of :func:`distance2` over the cells that have levels; unit: squared level step.

    Raises :class:`HardwareError` where no weight has levels.
    """
    names, parts = [], []
    for weight in weights:
        names.append(f"{weight.site.name} ({weight.hw.name})")
        position = positions(weight.normalised(), weight.hw)
        if position is not None:
            parts.append(distance2(position))
    if not parts:
        raise HardwareError(
            f"levels: no bit depth in the hardware of {', '.join(names)}. Fix: set cell.bits or "
            "mapping.bits_per_slice, or levels = 0."
        )
    return torch.stack([p.sum() for p in parts]).sum() / sum(p.numel() for p in parts)


__all__ = ["SCHEDULES", "Schedule", "distance2", "level_distance", "positions"]
