"""A typical layer as a law instead of a sample: normal weights on a grid, through mapping and cell.

Expectations over weights and over a cell's standard normals are sums over grids. What comes out has no
sampling error, and goes through the same laws that program the virtual chips.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import InputError
from mho.hardware.spec import Hardware
from mho.physics import cells

_WEIGHT_POINTS = 1001
_DRAW_POINTS = 161
_DRAW_SIGMAS = 6.0


@final
@dataclass(frozen=True)
class Law:
    """A discrete law: ``points`` with ``mass`` (float64, sums to 1)."""

    points: Tensor
    mass: Tensor

    def mean(self, values: Tensor) -> float:
        """Expectation of ``values`` [..., points], summed over the leading dimensions."""
        return float((values * self.mass).sum())


def normal_law(rms: float, bound: float | None = None, count: int = _DRAW_POINTS) -> Law:
    """The normal law of ``rms`` on an even grid; with ``bound`` it saturates there, else it ends at 6 sigma."""
    edge = _DRAW_SIGMAS * rms if bound is None else bound
    points = torch.linspace(-edge, edge, count, dtype=torch.float64)
    mass = torch.exp(-0.5 * (points / rms).square())
    # Trapezoidal ends: half a step of density, and with a bound all that lies beyond it.
    mass[0] /= 2
    mass[-1] /= 2
    mass = mass / mass.sum()
    if bound is not None:
        tail = 0.5 * math.erfc(bound / (rms * math.sqrt(2.0)))
        mass = mass * (1.0 - 2.0 * tail)
        mass[0] += tail
        mass[-1] += tail
    return Law(points, mass)


@final
@dataclass(frozen=True)
class TypicalLayer:
    """``rows`` x ``cols`` normal weights of rms ``weight_rms`` (of full scale, saturating there), driven by
    normal inputs of rms ``input_rms`` (of the input range). Weights and inputs have mean zero and are
    independent, so an error e of each weight is an error of the output of variance rows E[x^2] E[e^2].
    """

    hw: Hardware
    rows: int
    cols: int
    input_rms: float
    weight_rms: float
    t_s: float

    def __post_init__(self) -> None:
        for name in ("rows", "cols"):
            if getattr(self, name) < 1:
                raise InputError(f"dominance: {name} = {getattr(self, name)!r}: no such layer. Fix: at least 1.")
        for name in ("input_rms", "weight_rms"):
            value = getattr(self, name)
            if not 0.0 < value <= 1.0:
                raise InputError(f"dominance: {name} = {value!r}: not a share of full scale. Fix: above 0, at most 1.")
        if not 0.0 <= self.t_s < math.inf:
            raise InputError(f"dominance: t_s = {self.t_s!r} s is not an age. Fix: a finite t_s >= 0.")

    @property
    def weights(self) -> Law:
        """The law of a weight over full scale."""
        return normal_law(self.weight_rms, 1.0, _WEIGHT_POINTS)

    @property
    def blocks(self) -> int:
        """Tiles on top of one another: separately converted partial sums of each bit slice."""
        return 1 if self.hw.tile.rows is None else -(-self.rows // self.hw.tile.rows)

    @property
    def signal(self) -> float:
        """Rms of the ideal output, in units of full-scale weight times input range."""
        law = self.weights
        return self.input_rms * math.sqrt(self.rows * law.mean(law.points.square()))

    def slices(self) -> list[tuple[float, Tensor]]:
        """(digital factor, weights of the slice over full scale) of each bit slice."""
        w, count, bits = self.weights.points, self.hw.mapping.slices, self.hw.mapping.bits_per_slice
        if bits is None:
            return [(1.0, w)]
        code = (w.abs() * (2 ** (count * bits) - 1)).round()
        found = []
        for k in range(count):
            place = 2 ** (bits * (count - 1 - k))
            digit = (code / place).floor()
            code = code - digit * place
            factor = (2**bits - 1) * place / (2 ** (count * bits) - 1)
            found.append((factor, w.sign() * digit / (2**bits - 1)))
        return found

    def targets(self, w: Tensor) -> Tensor:
        """Target conductances in uS, [polarities, points], before the cell's levels."""
        cell, span = self.hw.cell, self.span_uS
        if self.hw.mapping.scheme == "signed":
            return (w * span).unsqueeze(0)
        if self.hw.mapping.scheme == "offset":
            return (cell.g_min_uS + (w + 1.0) * (span / 2.0)).unsqueeze(0)
        return cell.g_min_uS + span * torch.stack((w.clamp_min(0.0), (-w).clamp_min(0.0)))

    def levels(self, w: Tensor) -> Tensor:
        """Target conductances on the cell's levels."""
        return cells.quantize_levels(self.hw.cell, self.targets(w), signed=self.hw.mapping.scheme == "signed")

    @property
    def span_uS(self) -> float:
        return self.hw.cell.g_max_uS - self.hw.cell.g_min_uS

    @property
    def per_span(self) -> float:
        """Weight (of full scale) that a conductance of one full span stands for."""
        return 2.0 if self.hw.mapping.scheme == "offset" else 1.0

    def variance(self, error2: Callable[[Tensor], Tensor]) -> float:
        """rows E[x^2] sum_k factor_k^2 E[e^2]: ``error2`` maps level conductances [polarities, points] of a
        slice to the squared error (uS^2) of the whole weight, [points]."""
        law = self.weights
        total = sum(f * f * law.mean(error2(self.levels(w))) for f, w in self.slices())
        return float(self.rows * self.input_rms**2 * total) * (self.per_span / self.span_uS) ** 2

    def moments(self, change: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """``error2`` for :meth:`variance` of a random change of each cell.

        ``change(g [polarities, points, 1], xi [draws])`` -> change in uS, one independent draw a cell; the
        difference of the polarities has the sum of their variances and the difference of their means.
        """
        draws = normal_law(1.0)

        def error2(g: Tensor) -> Tensor:
            shift = change(g.unsqueeze(-1), draws.points.expand(*g.shape, -1))
            mean = (shift * draws.mass).sum(-1)
            spread = (shift.square() * draws.mass).sum(-1) - mean.square()
            return spread.clamp_min(0.0).sum(0) + self.combined(mean).square()

        return error2

    def combined(self, g: Tensor) -> Tensor:
        """Change of a weight, in uS, that changes ``g`` [polarities, ...] of its cells mean."""
        return g[0] if g.shape[0] == 1 else g[0] - g[1]
