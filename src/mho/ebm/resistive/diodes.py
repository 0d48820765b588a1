"""Diodes: Shockley's law, and the voltage of one node that has a resistor and a diode."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.ebm.relax import RelaxationError
from mho.errors import InputError
from mho.units import BOLTZMANN_J_PER_K, ELEMENTARY_CHARGE_C

_MOST_STEPS = 60


@final
@dataclass(frozen=True, kw_only=True)
class Shockley:
    """i = saturation_A (exp(v / (ideality k T / q)) - 1), v from anode to cathode, no series resistance.

    ``bias_V``: on a node of a layered network the other end of the diode stands at +-bias_V instead of the ground; a
    bias of about the forward voltage moves the knee to zero. Raises :class:`InputError` for values out of range.
    """

    saturation_A: float = 1e-9
    ideality: float = 1.0
    temperature_K: float = 300.0
    bias_V: float = 0.0

    def __post_init__(self) -> None:
        for name in ("saturation_A", "ideality", "temperature_K"):
            value = getattr(self, name)
            if not 0.0 < value < math.inf:
                raise InputError(f"Shockley: {name} = {value!r} must be above 0 and finite.")
        if not math.isfinite(self.bias_V):
            raise InputError(f"Shockley: bias_V = {self.bias_V!r} must be finite.")

    @property
    def unit_V(self) -> float:
        """n k T / q: the voltage that multiplies the current by e."""
        return self.ideality * BOLTZMANN_J_PER_K * self.temperature_K / ELEMENTARY_CHARGE_C

    @property
    def saturation_uA(self) -> float:
        return self.saturation_A * 1e6

    def current_uA(self, v: Tensor) -> Tensor:
        """Current from anode to cathode at ``v`` volts."""
        return self.saturation_uA * torch.expm1(v / self.unit_V)

    def slope_uS(self, v: Tensor) -> Tensor:
        """di/dv."""
        return (self.saturation_uA / self.unit_V) * torch.exp(v / self.unit_V)

    def content_uW(self, v: Tensor) -> Tensor:
        """Integral of the current from 0 V to ``v``: its part of the co-content."""
        return self.saturation_uA * (self.unit_V * torch.expm1(v / self.unit_V) - v)


def into_node_uA(diode: Shockley, v: Tensor, signs: Tensor) -> Tensor:
    """Current that the diode of a node brings into it: signs * i(bias - signs * v). Falls with v for both signs."""
    return signs * diode.current_uA(diode.bias_V - signs * v)


def node_voltage(v_linear: Tensor, total_uS: Tensor, signs: Tensor, diode: Shockley) -> Tensor:
    """The voltage at which G (v_linear - v) + into_node(v) = 0, elementwise.

    ``v_linear``: where the node would be without its diode, ``total_uS``: the sum G of its conductances. In y = signs v
    the left side is convex and falling, so Newton's method from a point left of the root climbs to it without
    overshooting; the start is the better of two lower bounds. Raises :class:`RelaxationError` with the largest
    remaining step where it does not come to rest (numbers that are not finite).
    """
    unit, leak = diode.unit_V, diode.saturation_uA
    target = signs * v_linear
    # y >= target - leak / G always. If the diode conducts (y < bias), exp((bias - y) / unit) <= demand / leak besides.
    demand = (total_uS * (diode.bias_V - target) + leak).clamp_min(leak)
    knee = diode.bias_V - unit * torch.log(demand / leak)
    y = torch.maximum(target - leak / total_uS, torch.minimum(knee, torch.full_like(knee, diode.bias_V)))
    # What rounding leaves of a step: that of the voltages which are subtracted from one another.
    near = 4.0 * torch.finfo(y.dtype).eps * (target.abs() + abs(diode.bias_V) + unit)
    step = y
    for _ in range(_MOST_STEPS):
        forward = diode.bias_V - y
        step = (total_uS * (target - y) + diode.current_uA(forward)) / (total_uS + diode.slope_uS(forward))
        y = y + step
        if bool((step.abs() <= near).all()):
            return signs * y
    worst = float(step.abs().max())
    raise RelaxationError(
        f"Shockley node: Newton's last step is {worst:.3g} V after {_MOST_STEPS} steps (driving voltages up to "
        f"{float(v_linear.abs().max()):.3g} V). Fix: finite conductances and inputs; float64 for a "
        "diode of very small n k T / q."
    )


__all__ = ["Shockley", "into_node_uA", "node_voltage"]
