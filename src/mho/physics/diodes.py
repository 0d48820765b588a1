"""Shockley's law of a junction (Shockley, Bell Syst. Tech. J. 28, 435, 1949)."""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import InputError
from mho.units import BOLTZMANN_J_PER_K, ELEMENTARY_CHARGE_C


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
