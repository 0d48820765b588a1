"""Steps of the converters: of the output from the comb of its codes, of the input from the staircase of a sweep."""

from dataclasses import dataclass

import torch
from torch import Tensor

from mho.lab.twin.likelihood import Codes, Parameters, log_likelihood
from mho.physics.converters import levels, quantize

OUTPUT_BITS = range(2, 15)
INPUT_BITS = range(2, 13)
FLOAT_STEPS = 8.0
"""Rounding of float32 arithmetic on the way, in units of its epsilon."""
OFF_COMB = 0.02
"""A value this share of a step from every code is on no comb of these codes."""
FEWEST_CODES = 5
PSEUDO_LEVELS = 2**15 - 1
"""Codes of a converter without steps: so many that their rounding is nothing."""
CLEAR_NATS = 3.0
"""Evidence below which two widths of a converter cannot be told apart."""
SLACK = 2e-3
"""Error of the mean response in a sweep, as a share of the full scale: that of gain and offset, with a margin."""


def output_bits(shares: list[Tensor]) -> int | None:
    """The fewest bits on whose codes all values current / full scale lie; ``None``: no comb is seen.

    The comb is that of codes k / L, L = 2^(bits - 1) - 1. Fewer than :data:`FEWEST_CODES` different values tell
    nothing.
    """
    values = torch.unique(torch.cat([s.flatten() for s in shares]).double())
    values = values[torch.isfinite(values)]
    if len(values) < FEWEST_CODES:
        return None
    for bits in OUTPUT_BITS:
        top = levels(bits)
        code = values * top
        tolerance = max(OFF_COMB, FLOAT_STEPS * torch.finfo(torch.float32).eps * top)
        if tolerance < 0.25 and float((code - code.round()).abs().max()) < tolerance:
            return bits
    return None


@dataclass(frozen=True, eq=False)
class Sweep:
    """Amplitudes [n, 1] in units of v_max, signal of a unit of amplitude [cols] over r, and the codes [n, cols]."""

    amplitude: Tensor
    slope: Tensor
    s0: Tensor
    s1: Tensor
    s2: Tensor
    code: Tensor
    weight: Tensor
    levels: int


def input_bits(sweep: Sweep, p: Parameters) -> tuple[int | None, float]:
    """(bits, nats by which they beat the next best width); ``None``: no steps, or steps too fine to be seen."""
    found = {bits: _nats(sweep, p, bits) for bits in (*INPUT_BITS, None)}
    best = max(found, key=lambda b: found[b])
    second = max(value for bits, value in found.items() if bits != best)
    return best, found[best] - second


def _nats(sweep: Sweep, p: Parameters, bits: int | None) -> float:
    x = sweep.amplitude if bits is None else quantize(sweep.amplitude, 1.0, bits)
    x2 = x * x
    known = torch.full_like(x * sweep.slope, SLACK**2)
    data = Codes(
        x * sweep.slope, x2 * sweep.s0, x2 * sweep.s1, x2 * sweep.s2, known, sweep.code, sweep.weight, sweep.levels
    )
    return float(log_likelihood(data, p).sum())
