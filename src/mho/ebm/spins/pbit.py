"""What a p-bit does wrong: its temperature, its offset, and noise that remembers."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho import rng
from mho.errors import InputError


@dataclass(frozen=True)
class PBit:
    """The imperfections of the probabilistic bits of a chip; the default has none.

    ``temperature_error``: relative, of the whole chip: T becomes T (1 + error), beta beta / (1 + error); > -1.
    ``temperature_std``: relative, of each p-bit's own: T_i = T (1 + error) exp(std z_i). >= 0.
    ``offset_std``: added to the bias of each p-bit, in units of the biases. >= 0.
    ``correlation``: of the noise of a p-bit at one update with that at its last one, rho = exp(-dt / tau) for noise of
    correlation time tau read every dt. 0 <= rho < 1. The noise is the normal AR(1) process
    g' = rho g + sqrt(1 - rho^2) n, and the uniform that the p-bit compares with is Phi(g).

    z_i are fixed by the chip's seed. Raises :class:`InputError` for numbers outside these ranges.
    """

    temperature_error: float = 0.0
    temperature_std: float = 0.0
    offset_std: float = 0.0
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not -1 < self.temperature_error < math.inf:
            raise InputError(
                f"mho.ebm.spins.PBit: temperature_error = {self.temperature_error} makes the temperature zero, "
                "negative or infinite. Fix: a finite number above -1."
            )
        for name in ("temperature_std", "offset_std"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"mho.ebm.spins.PBit: {name} = {getattr(self, name)} must be finite and not negative.")
        if not 0 <= self.correlation < 1:
            raise InputError(
                f"mho.ebm.spins.PBit: correlation = {self.correlation} must be 0 <= rho < 1; at 1 the noise "
                "never changes."
            )

    def gains(self, nodes: int, beta: float, chip_seed: int) -> Tensor:
        """2 beta_i, what the field of each p-bit is multiplied with [nodes] (float32)."""
        gain = torch.full((nodes,), 2 * beta / (1 + self.temperature_error))
        if self.temperature_std > 0:
            gain = gain * torch.exp(-self.temperature_std * rng.normals((nodes,), chip_seed, "p-bits", "temperature"))
        return gain

    def offsets(self, nodes: int, chip_seed: int) -> Tensor | None:
        """What is added to the bias of each p-bit [nodes] (float32), or None for nothing."""
        if self.offset_std == 0:
            return None
        return self.offset_std * rng.normals((nodes,), chip_seed, "p-bits", "offset")
