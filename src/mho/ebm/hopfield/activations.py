"""Activations as potentials: a unit of rest is s = phi(pre), the minimum of G(s) - s pre with G' = phi^-1."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import InputError


@final
@dataclass(frozen=True)
class Clip:
    """phi(z) = min(max(z, low), high), G(s) = s^2 / 2 inside [low, high]: the hard sigmoid, or a clipped ReLU.

    Not analytic: no complex states.
    """

    low: float = 0.0
    high: float = 1.0

    analytic = False
    quadratic = True

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"Clip: low = {self.low}, high = {self.high}. Fix: low below high.")

    def apply(self, pre: Tensor) -> Tensor:
        """phi(pre); may overwrite ``pre``."""
        return pre.clamp_(self.low, self.high) if not pre.requires_grad else pre.clamp(self.low, self.high)

    def potential(self, s: Tensor) -> Tensor:
        """G(s), element by element."""
        return s.square() / 2

    def free(self, s: Tensor) -> Tensor:
        """Which elements are inside their bounds and so move with what drives them."""
        return (s > self.low) & (s < self.high)


@final
@dataclass(frozen=True)
class Identity:
    """phi(z) = z, G(s) = s^2 / 2 without bounds; analytic. Two neighbouring layers of it may have no state of rest."""

    analytic = True
    quadratic = True

    def apply(self, pre: Tensor) -> Tensor:
        """phi(pre)."""
        return pre

    def potential(self, s: Tensor) -> Tensor:
        """G(s), element by element."""
        return s.square() / 2

    def free(self, s: Tensor) -> Tensor:
        """All elements."""
        return torch.ones_like(s, dtype=torch.bool)


@final
@dataclass(frozen=True)
class Sigmoid:
    """phi(z) = 1 / (1 + exp(-gain (z - centre))): the smooth and analytic counterpart of Clip(0, 1).

    G(s) = centre s + (s ln s + (1 - s) ln(1 - s)) / gain on (0, 1). ``gain`` > 0; at 4 its slope in the middle is
    that of Clip. Its poles lie pi / gain off the real axis: complex nudges must stay well below.
    """

    gain: float = 4.0
    centre: float = 0.5

    analytic = True
    quadratic = False

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise InputError(f"Sigmoid: gain = {self.gain}. Fix: positive.")

    def apply(self, pre: Tensor) -> Tensor:
        """phi(pre)."""
        return torch.sigmoid((pre - self.centre) * self.gain)

    def potential(self, s: Tensor) -> Tensor:
        """G(s), element by element."""
        return self.centre * s + (torch.special.xlogy(s, s) + torch.special.xlogy(1 - s, 1 - s)) / self.gain

    def free(self, s: Tensor) -> Tensor:
        """All elements."""
        return torch.ones_like(s, dtype=torch.bool)


Activation = Clip | Identity | Sigmoid
