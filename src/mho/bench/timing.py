"""Two pieces of work timed in turn, and the statistics of their ratio."""

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from mho.errors import InputError

WARM_UP_SHARE = 0.1


@dataclass(frozen=True)
class Timings:
    """Seconds of the n digital and the n mho runs, in the order A B A B: pair i is (digital_s[i], mho_s[i])."""

    digital_s: tuple[float, ...]
    mho_s: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.digital_s) != len(self.mho_s) or len(self.digital_s) < 2:
            raise InputError(
                f"Timings: {len(self.digital_s)} digital and {len(self.mho_s)} mho runs. Pairs are compared, and "
                "quartiles need two of them. Way out: give the same number of both, at least 2."
            )
        if min(*self.digital_s, *self.mho_s) <= 0:
            raise InputError(
                "Timings: a run took no time. Way out: a clock that resolves one run (time.perf_counter does)."
            )

    @property
    def ratios(self) -> tuple[float, ...]:
        """mho over digital, pair by pair: what slows the machine down for a while slows both of a pair."""
        return tuple(b / a for a, b in zip(self.digital_s, self.mho_s, strict=True))

    def summary(self) -> dict[str, Any]:
        """``ratio`` (median of the ratios of pairs), ``ratio_quartiles``, medians in ms, and ``pairs``."""
        return {
            "ratio": median(self.ratios),
            "ratio_quartiles": quartiles(self.ratios),
            "digital_ms": 1e3 * median(self.digital_s),
            "mho_ms": 1e3 * median(self.mho_s),
            "pairs": len(self.ratios),
        }


def quartiles(values: tuple[float, ...]) -> list[float]:
    """First and third quartile of two or more values, linear between neighbours.

    >>> quartiles((1.0, 2.0, 3.0, 4.0, 5.0))
    [2.0, 4.0]
    """
    low, _, high = quantiles(values, n=4, method="inclusive")
    return [low, high]


def interleave(
    digital: Callable[[], object],
    mho: Callable[[], object],
    *,
    budget_s: float,
    minimum_pairs: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Run ``digital`` and ``mho`` in turn (A B A B ...) and time each run.

    At least one untimed pair, and as many as a tenth of ``budget_s`` (seconds) allows, comes first: the first
    calls fill caches. Then pairs are timed until ``budget_s`` has passed and there are ``minimum_pairs``.
    The garbage collector is off meanwhile, so that it does not strike one of the two by chance.

    Raises :class:`InputError` for a budget that is not positive or fewer than two pairs.
    """
    if not 0 < budget_s < float("inf") or minimum_pairs < 2:
        raise InputError(
            f"interleave: budget_s = {budget_s!r}, minimum_pairs = {minimum_pairs!r}. Way out: a positive number "
            "of seconds and at least 2 pairs."
        )
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        _pairs(digital, mho, WARM_UP_SHARE * budget_s, 1, clock)
        times = _pairs(digital, mho, budget_s, minimum_pairs, clock)
    finally:
        if collected:
            gc.enable()
    return Timings(tuple(a for a, _ in times), tuple(b for _, b in times))


def _pairs(
    digital: Callable[[], object], mho: Callable[[], object], budget_s: float, minimum: int, clock: Callable[[], float]
) -> list[tuple[float, float]]:
    times: list[tuple[float, float]] = []
    start = clock()
    while len(times) < minimum or clock() - start < budget_s:
        a = clock()
        digital()
        b = clock()
        mho()
        times.append((b - a, clock() - b))
    return times
