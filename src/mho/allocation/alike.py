"""One read time, one number of reads and one change of bits for all layers: what an allocation is held against."""

from collections.abc import Sequence
from itertools import product

from mho.allocation.load import Load, Setting, harm, spent_J

_HALVINGS = 40


def alike(loads: Sequence[Load], budget: float, *, reads: tuple[float, float], repeats: int) -> tuple[Setting, ...]:
    """The cheapest settings with harm of at most ``budget`` (nats) that differ between layers in nothing.

    Changes of bits against today's are tried that every layer has a price for; the read time is the shortest that keeps
    the budget. Where none does: the longest reads, most reads and most bits.
    """
    adc = _common([{b - (load.bits or 0) for b in load.adc_J} for load in loads if load.bits is not None])
    dac = _common([{d - (load.dac_bits or 0) for d in load.prices if d is not None} for load in loads if load.by_dac])
    best: tuple[Setting, ...] | None = None
    for b, d, m in product(adc, dac, range(1, repeats + 1)):
        found = _shortest(loads, budget, reads, b, d, m)
        if found is not None and (best is None or spent_J(loads, found) < spent_J(loads, best)):
            best = found
    return best or _settings(loads, reads[1], max(adc), max(dac), repeats)


def _common(steps: list[set[int]]) -> list[int]:
    return sorted(set.intersection(*steps)) if steps else [0]


def _settings(loads: Sequence[Load], read: float, adc: int, dac: int, repeats: int) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            load.name,
            read,
            None if load.bits is None else load.bits + adc,
            load.dac_bits + dac if load.by_dac and load.dac_bits is not None else None,
            repeats,
        )
        for load in loads
    )


def _shortest(
    loads: Sequence[Load], budget: float, reads: tuple[float, float], adc: int, dac: int, repeats: int
) -> tuple[Setting, ...] | None:
    low, high = reads
    if harm(loads, _settings(loads, high, adc, dac, repeats)) > budget:
        return None
    if harm(loads, _settings(loads, low, adc, dac, repeats)) <= budget:
        return _settings(loads, low, adc, dac, repeats)
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if harm(loads, _settings(loads, middle, adc, dac, repeats)) <= budget:
            high = middle
        else:
            low = middle
    return _settings(loads, high, adc, dac, repeats)
