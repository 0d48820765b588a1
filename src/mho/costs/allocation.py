"""Where noise may be, so that joules are not: the read time of each layer, at the loss of today (closed form).

    loss     sum_l 1/2 h_l s_l^2 / f_l          noise of variance s_l^2 is averaged f_l times as long
    energy   sum_l E_l f_l
    best     f_l = c sqrt(h_l s_l^2 / E_l),  c = sum sqrt(h s^2 E) / sum h s^2       (Lagrange; Cauchy and Schwarz)

With s^2 ~ 1 / f and E ~ n it is s_l ~ (n_l / h_l)^(1/4), the closed form of ``mho.objectives.noise_budget``, at a fixed
loss instead of a fixed price of loss. h_l: what the loss rises by for noise of unit variance on the outputs of a layer,
twice (the trace of its Hessian). Only what averages out may enter s_l: programming error and rounding do not.
With converter bits, and within a budget that chips have confirmed: ``mho.allocation``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from mho.errors import InputError


@final
@dataclass(frozen=True)
class ReadTimes:
    """``factors``: read time, or repeats, of each layer over those of today; ``saved``: energy today over then."""

    factors: tuple[float, ...]
    saved: float


def read_times(energy_J: Sequence[float], curvature: Sequence[float], variance: Sequence[float]) -> ReadTimes:
    """The factors of the read times that cost least at the loss of today.

    ``energy_J``: what each layer spends on reading, in proportion to its time; ``curvature``: h; ``variance``: s^2 of
    today. All above 0, one a layer, else :class:`InputError`.
    """
    _check(energy_J=energy_J, curvature=curvature, variance=variance)
    weights = [h * s2 for h, s2 in zip(curvature, variance, strict=True)]
    roots = math.fsum(math.sqrt(w * e) for w, e in zip(weights, energy_J, strict=True))
    scale = roots / math.fsum(weights)
    factors = tuple(scale * math.sqrt(w / e) for w, e in zip(weights, energy_J, strict=True))
    return ReadTimes(factors, math.fsum(energy_J) * math.fsum(weights) / roots**2)


def _check(**columns: Sequence[float]) -> None:
    lengths = {len(values) for values in columns.values()}
    if len(lengths) != 1 or 0 in lengths:
        told = ", ".join(f"{name}: {len(values)}" for name, values in columns.items())
        raise InputError(f"allocation: {told}. Way out: one number a layer, one layer or more.")
    for name, values in columns.items():
        for layer, value in enumerate(values):
            if not 0 < value < math.inf:
                raise InputError(
                    f"allocation: {name}[{layer}] = {value!r}: must be finite and above 0. Way out: leave out a layer "
                    "that costs nothing or that the loss does not see."
                )
