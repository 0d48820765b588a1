"""The cheapest read times and converter bits whose noise costs the loss no more than a budget.

    minimise   sum_l  A_l f_l + C_l(b_l)                                     joules
    so that    sum_l  w_l / f_l + q_l 4^-(b_l - b0_l) + r_l  <=  H           nats

f: read time over today's; b: bits of the ADC; A, C: joules of the array today and of the converters; w, q, r: what
white noise, rounding and all that stays add to the loss today. With a price mu (J a nat) the layers part:

    f_l = sqrt(mu w_l / A_l),      b_l = argmin C_l(b) + mu q_l 4^-(b - b0_l)

(Lagrange; without converters the closed form s_l ~ (n_l / h_l)^(1/4) of ``mho.objectives.noise_budget``). The noise of
all layers falls as mu rises, so that mu is found by bisection; what whole bits leave over is given to the read times.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from mho.errors import InputError

_HALVINGS = 200
_LOG2_PRICES = (-120.0, 60.0)
"""Prices of a nat that are searched, log2 of joules: 1e-36 to 1e18."""


@final
@dataclass(frozen=True)
class Load:
    """One layer. ``white``, ``rounding``, ``rest``: nats today; ``bits``: of its ADC today, ``None`` without one;
    ``array_J``: joules an inference of its cells; ``adc_J``: of its converters by bits, with today's among them."""

    name: str
    white: float
    rounding: float
    rest: float
    bits: int | None
    array_J: float
    adc_J: Mapping[int, float]

    def __post_init__(self) -> None:
        for field in ("white", "rounding", "rest", "array_J"):
            value = getattr(self, field)
            if not 0 <= value < math.inf:
                raise InputError(f"allocation: {self.name}: {field} = {value!r}: must be finite and not negative.")
        if self.bits is not None and self.bits not in self.adc_J:
            raise InputError(f"allocation: {self.name}: adc_J has no price for today's {self.bits} bits.")


@final
@dataclass(frozen=True)
class Setting:
    """What one layer is given: ``read``: read time over today's; ``bits`` of its ADC (``None``: it has none)."""

    name: str
    read: float
    bits: int | None


def harm(loads: Sequence[Load], settings: Sequence[Setting]) -> float:
    """sum w / f + q 4^-(b - b0) + r, nats: what noise costs the loss in second order."""
    return math.fsum(_harm(load, s.read, s.bits) for load, s in zip(loads, settings, strict=True))


def spent_J(loads: Sequence[Load], settings: Sequence[Setting]) -> float:
    """sum A f + C(b), joules of arrays and converters for one inference."""
    return math.fsum(
        load.array_J * s.read + (0.0 if s.bits is None else load.adc_J[s.bits])
        for load, s in zip(loads, settings, strict=True)
    )


def today(loads: Sequence[Load]) -> tuple[Setting, ...]:
    """Read times and bits as they are."""
    return tuple(Setting(load.name, 1.0, load.bits) for load in loads)


def plan(
    loads: Sequence[Load],
    budget: float,
    *,
    reads: tuple[float, float] = (1 / 64, 8.0),
    uniform: bool = False,
) -> tuple[Setting, ...]:
    """The cheapest settings with harm of at most ``budget`` (nats). ``reads``: the shortest and longest read time.

    ``uniform``: one read time and one change of bits for all layers, to compare with. Raises :class:`InputError`
    where even the longest reads and the most bits cost the loss more than ``budget``.
    """
    low, high = reads
    if not loads or not 0 < low <= high < math.inf or not 0 < budget < math.inf:
        raise InputError(
            f"allocation: {len(loads)} layers, reads = {reads!r}, budget = {budget!r}: one layer or more, "
            "0 < shortest <= longest, a budget above 0."
        )
    if uniform:
        one = plan([_merged(loads)], budget, reads=reads)[0]
        step = 0 if one.bits is None else one.bits
        return tuple(Setting(load.name, one.read, None if load.bits is None else load.bits + step) for load in loads)

    best = tuple(Setting(load.name, high, max(load.adc_J) if load.bits is not None else None) for load in loads)
    least = harm(loads, best)
    if least > budget:
        raise InputError(
            f"allocation: noise costs the loss {least:.4g} nats at the longest reads and the most bits, more than the "
            f"budget of {budget:.4g}. Way out: a larger budget, or longer reads."
        )
    with_bits = _cheapest(lambda mu: tuple(_answer(load, mu, reads) for load in loads), loads, budget) or best
    fixed = tuple(s.bits for s in with_bits)
    refined = _cheapest(
        lambda mu: tuple(
            Setting(load.name, _read(load, mu, reads), bits) for load, bits in zip(loads, fixed, strict=True)
        ),
        loads,
        budget,
    )
    return with_bits if refined is None else min((with_bits, refined), key=lambda s: spent_J(loads, s))


def _cheapest(
    settings: Callable[[float], tuple[Setting, ...]], loads: Sequence[Load], budget: float
) -> tuple[Setting, ...] | None:
    """The settings at the lowest price whose harm fits, ``None`` where no price does."""
    low, high = _LOG2_PRICES
    if harm(loads, settings(2.0**high)) > budget:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if harm(loads, settings(2.0**middle)) <= budget:
            high = middle
        else:
            low = middle
    return settings(2.0**high)


def _answer(load: Load, mu: float, reads: tuple[float, float]) -> Setting:
    bits = None
    if load.bits is not None:
        bits = min(load.adc_J, key=lambda b: load.adc_J[b] + mu * _rounding(load, b))
    return Setting(load.name, _read(load, mu, reads), bits)


def _read(load: Load, mu: float, reads: tuple[float, float]) -> float:
    low, high = reads
    if load.array_J == 0:
        return high
    return min(high, max(low, math.sqrt(mu * load.white / load.array_J)))


def _rounding(load: Load, bits: int) -> float:
    assert load.bits is not None
    return load.rounding * 4.0 ** (load.bits - bits)


def _harm(load: Load, read: float, bits: int | None) -> float:
    return load.white / read + (0.0 if bits is None else _rounding(load, bits)) + load.rest


def _merged(loads: Sequence[Load]) -> Load:
    """All layers as one, whose ``bits`` are the change against today's (0: as today)."""
    with_adc = [load for load in loads if load.bits is not None]
    steps: set[int] = (
        set.intersection(*({b - (load.bits or 0) for b in load.adc_J} for load in with_adc)) if with_adc else set()
    )
    return Load(
        name="all layers",
        white=math.fsum(load.white for load in loads),
        rounding=math.fsum(load.rounding for load in with_adc),
        rest=math.fsum(load.rest for load in loads),
        bits=0 if with_adc else None,
        array_J=math.fsum(load.array_J for load in loads),
        adc_J={step: math.fsum(load.adc_J[(load.bits or 0) + step] for load in with_adc) for step in steps},
    )
