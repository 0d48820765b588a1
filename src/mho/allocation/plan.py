"""The cheapest settings whose noise costs the loss no more than a budget.

    minimise   sum_l J_l(f, m, b, d)      joules (``mho.allocation.load``)
    so that    sum_l H_l(f, m, b, d)  <=  H      nats

With a price mu (J a nat) the layers part (``mho.allocation.answer``); without converters it is the closed form
s_l ~ (n_l / h_l)^(1/4) of ``mho.objectives.noise_budget`` (Lagrange). The noise of all layers falls as mu rises, so
that mu is found by bisection. Whole bits and reads leave something over: those of the prices around are tried, with the
read times that fill the budget, and changes of single layers that save most.
"""

import math
from collections.abc import Sequence

import numpy as np

from mho.allocation.alike import alike
from mho.allocation.answer import Layer, Limits, Options
from mho.allocation.load import Load, Setting, harm, quietest, spent_J
from mho.errors import InputError

_HALVINGS = 40
_LOG2_PRICES = (-120.0, 60.0)
"""Prices of a nat that are searched, log2 of joules: 1e-36 to 1e18."""
_NEAR = 20.0
_SCANNED = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
"""log2 of prices over the one found, at which whole numbers are chosen too: with read times of another price."""
_CHANGES = 8
"""Changes of one layer's whole numbers, a layer, after the price is found."""


def plan(
    loads: Sequence[Load],
    budget: float,
    *,
    reads: tuple[float, float] = (1 / 64, 8.0),
    repeats: int = 1,
    uniform: bool = False,
) -> tuple[Setting, ...]:
    """The cheapest settings with harm of at most ``budget`` (nats).

    ``reads``: the shortest and longest read time over today's; ``repeats``: the most reads that are averaged. Bits of
    the ADC (and of the DAC) are those that a load prices; single output channels are set where it shares them out
    (``Load.shares``). ``uniform``: one read time, one number of reads and one change of bits for all layers, to compare
    with. Raises :class:`InputError` where even the longest and most reads and the most bits cost the loss more than
    ``budget``.
    """
    low, high = reads
    if not loads or not 0 < low <= high < math.inf or not 0 < budget < math.inf or not repeats >= 1:
        raise InputError(
            f"allocation: {len(loads)} layers, reads = {reads!r}, repeats = {repeats!r}, budget = {budget!r}: one "
            "layer or more, 0 < shortest <= longest, one read or more, a budget above 0."
        )
    least = harm(loads, [quietest(load, high, repeats) for load in loads])
    if least > budget:
        raise InputError(
            f"allocation: noise costs the loss {least:.4g} nats at the longest and most reads and the most bits, more "
            f"than the budget of {budget:.4g}. Way out: a larger budget, longer reads or more of them."
        )
    if uniform:
        return alike(loads, budget, reads=reads, repeats=repeats)
    return _Search([Layer(load, Limits(low, high, repeats)) for load in loads], budget).run()


class _Search:
    """A price for all layers, then what whole numbers leave over."""

    def __init__(self, layers: Sequence[Layer], budget: float) -> None:
        self.layers, self.budget = layers, budget
        self.loads = [layer.load for layer in layers]

    def run(self) -> tuple[Setting, ...]:
        low, high = _LOG2_PRICES
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            if self._nats(*self._chosen(2.0**middle)) <= self.budget:
                high = middle
            else:
                low = middle
        found, seen = [], set()
        for step in _SCANNED:  # whole numbers of the prices around, each with read times for the budget
            options, choices = self._chosen(2.0 ** (high + step))
            for chosen in (choices, self._filled(options, choices)) if step == 0 else (choices,):
                settings = self._settings(options, chosen)
                whole = tuple((s.bits, s.dac_bits, s.repeats, s.column_repeats) for s in settings)
                found.append(settings)
                if whole not in seen:
                    found.append(self._timed(options, chosen, high))
                    seen.add(whole)
        able = [s for s in found if harm(self.loads, s) <= self.budget * (1 + 1e-9)]
        if not able:  # the last resort, which was looked at before
            limits = self.layers[0].limits
            able = [tuple(quietest(load, limits.longest, limits.repeats) for load in self.loads)]
        return min(able, key=lambda s: spent_J(self.loads, s))

    def _chosen(self, mu: float) -> tuple[list[Options], list[int]]:
        options = [layer.options(mu) for layer in self.layers]
        return options, [int((o.joules + mu * o.nats).argmin()) for o in options]

    def _filled(self, options: list[Options], choices: list[int]) -> list[int]:
        """Changes of one layer each that save most and keep the budget, or that first reach it."""
        now = list(choices)
        for _ in range(_CHANGES * len(now)):
            total, best = self._nats(options, now), None
            for i, (o, c) in enumerate(zip(options, now, strict=True)):
                joules, nats = o.joules.ravel(), o.nats.ravel()
                saved = np.where(total - nats[c] + nats <= self.budget, joules[c] - joules, -math.inf)
                k = int(saved.argmax())
                if saved[k] > 0 and (best is None or saved[k] > best[0]):
                    best = (float(saved[k]), i, k)
            if best is None:
                break
            now[best[1]] = best[2]
        return now

    def _timed(self, options: list[Options], choices: list[int], price: float) -> tuple[Setting, ...]:
        """Whole numbers as they are, the read times for the budget; log2 of their price is near ``price``."""

        def at(mu: float) -> list[Options]:
            return [layer.again(mu, o, c) for layer, o, c in zip(self.layers, options, choices, strict=True)]

        low, high = price - _NEAR, price + _NEAR
        for _ in range(_HALVINGS if self.layers[0].limits.shortest < self.layers[0].limits.longest else 0):
            middle = (low + high) / 2
            if math.fsum(o.nats.item() for o in at(2.0**middle)) <= self.budget:
                high = middle
            else:
                low = middle
        found = zip(self.layers, at(2.0**high), choices, options, strict=True)
        return tuple(layer.setting(one, c, whole) for layer, one, c, whole in found)

    def _nats(self, options: Sequence[Options], choices: Sequence[int]) -> float:
        return math.fsum(float(o.nats.ravel()[c]) for o, c in zip(options, choices, strict=True))

    def _settings(self, options: Sequence[Options], choices: Sequence[int]) -> tuple[Setting, ...]:
        found = zip(self.layers, options, choices, strict=True)
        return tuple(layer.setting(o, c, o) for layer, o, c in found)
