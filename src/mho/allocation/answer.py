"""The cheapest setting of one layer at a price of a nat, and what whole numbers there are to choose from.

With a price mu (joules a nat) and given bits and reads, the read time is in closed form:

    together   f = sqrt(mu sum w / (sum A + T)) / m                             one for all channels
    timed      f_c = min(F, sqrt(mu w_c / A_c) / m),  sum_{f_c = F} (mu w_c / (m F)^2 - A_c) = T
    masked     m_c (m_c + 1) >= mu v_c / (A_c f + C_c),  the least such, at most M;  v: what repeats average out

so that s ~ (n / h)^(1/4): energy goes with n, and w = h s^2 / 2. What repeats dither is left out of the derivative in
f, and counted in the nats. Bits, reads and (masked) read times are enumerated.
"""

from dataclasses import dataclass
from typing import NamedTuple, final

import numpy as np

from mho.allocation.load import Load, Numbers, Setting, coarser, nats, noise_nats, persisting

_TIMES = 13
"""Read times that are tried where columns are left out of reads."""


class Options(NamedTuple):
    """Whole choices of a layer [DAC bits, ADC bits, reads]: their joules and nats; and [..., channels] how they are
    made: read times over today's and numbers of reads."""

    joules: Numbers
    nats: Numbers
    f: Numbers
    m: Numbers


@final
@dataclass(frozen=True)
class Limits:
    """The shortest and longest read time over today's, and the most reads that are averaged."""

    shortest: float
    longest: float
    repeats: int


_ALL = slice(None)


@final
class Layer:
    """One load as arrays [DAC bits, ADC bits, reads, channels]."""

    def __init__(self, load: Load, limits: Limits) -> None:
        self.load, self.limits, self.today = load, limits, nats(load)
        prices = load.prices
        self.dacs = tuple(prices)
        self.adcs: tuple[int | None, ...] = tuple(sorted(load.adc_J)) if load.bits is not None else (None,)
        share = np.array((1.0,) if load.shares is None else load.shares.array)

        def column(values: list[float]) -> Numbers:
            return np.array(values).reshape(-1, 1, 1, 1)

        self.array = column([p.array_J for p in prices.values()]) * share
        self.read, self.time = column([p.read_J for p in prices.values()]), column([p.time_J for p in prices.values()])
        self.once = column([p.once_J for p in prices.values()])
        adc = [[0.0 if b is None else p.adc_J[b] for b in self.adcs] for p in prices.values()]
        self.adc = np.array(adc)[:, :, None, None] / len(share)
        self.coarse = np.array([coarser(load.bits, b) for b in self.adcs]).reshape(1, -1, 1, 1)
        self.fixed = column([load.dac * coarser(load.dac_bits, d) for d in self.dacs])[..., 0] + self.today.fixed
        self.reads = np.arange(1.0, limits.repeats + 1).reshape(1, 1, -1, 1)

    def options(self, mu: float) -> Options:
        """Every whole choice with the read times that are best at the price ``mu``."""
        if self.load.columns != "masked":
            return self._counted(self._times(mu, self.reads), self.reads)
        times = np.geomspace(self.limits.shortest, self.limits.longest, _TIMES)
        found = [self._counted(f, self._repeats(mu, f)) for f in times.reshape(-1, 1, 1, 1, 1)]
        return Options(*(np.concatenate([getattr(o, k) for o in found], 2) for k in Options._fields))

    def again(self, mu: float, options: Options, choice: int) -> Options:
        """One choice alone, its read time solved for ``mu``."""
        d, b, k = np.unravel_index(choice, options.joules.shape)
        dac, adc = slice(d, d + 1), slice(b, b + 1)
        m = options.m[d, b, k].reshape(1, 1, 1, -1)
        return self._counted(self._times(mu, m, dac), m, dac, adc)

    def setting(self, one: Options, choice: int, of: Options) -> Setting:
        """A choice of ``of`` in words. ``one``: ``of`` itself, or that choice alone."""
        d, b, k = np.unravel_index(choice, of.joules.shape)
        place = (d, b, k) if one is of else (0, 0, 0)
        f, m = one.f[place], one.m[place]
        read, repeats = float(f.max()), int(m.max())
        windows = tuple((f / read).tolist()) if (f < read).any() else ()
        counts = tuple(int(c) for c in m) if (m < repeats).any() else ()
        dac = self.dacs[d] if self.load.by_dac else None
        return Setting(self.load.name, read, self.adcs[b], dac, repeats, windows, counts)

    def _counted(self, f: Numbers, m: Numbers, dac: slice = _ALL, adc: slice = _ALL) -> Options:
        """Joules and nats of read times ``f`` and reads ``m``, both broadcasting to [DAC, ADC, reads, channels]."""
        array, read, time, once = (t[dac] for t in (self.array, self.read, self.time, self.once))
        most, longest = m.max(-1, keepdims=True), f.max(-1, keepdims=True)
        cells = (m * (array * f + self.adc[dac, adc])).sum(-1)
        joules = cells + (most * (read + time * longest) + once)[..., 0]
        harm = noise_nats(self.today, f, m, self.coarse[:, adc]) + self.fixed[dac]
        shape = np.broadcast_shapes(joules.shape, harm.shape)
        whole = (*shape, self.array.shape[-1])
        joules, harm = np.broadcast_to(joules, shape), np.broadcast_to(harm, shape)
        return Options(joules, harm, np.broadcast_to(f, whole), np.broadcast_to(m, whole))

    def _times(self, mu: float, m: Numbers, dac: slice = _ALL) -> Numbers:
        low, high = self.limits.shortest, self.limits.longest
        array, time, white = self.array[dac], self.time[dac], self.today.white
        if self.load.columns != "timed":
            price = (array * m).sum(-1, keepdims=True) + time * m.max(-1, keepdims=True)
            return np.clip(_root(mu * (white / m).sum(-1, keepdims=True), price), low, high)
        best = _root(mu * white / m**2, array)
        return np.clip(self._capped(mu, best, m, dac) if time.any() else best, low, high)

    def _capped(self, mu: float, best: Numbers, m: Numbers, dac: slice) -> Numbers:
        """No column longer than F, where the static power that a longer read costs balances what it gains."""
        order = np.argsort(-best, -1)

        def summed(values: Numbers) -> Numbers:
            return np.take_along_axis(np.broadcast_to(values, best.shape), order, -1).cumsum(-1)

        # F if the one, two, ... longest columns were at it; the first number of them that agrees with itself is it.
        cap = _root(mu * summed(self.today.white / m**2), summed(self.array[dac]) + self.time[dac])
        ordered = np.take_along_axis(best, order, -1)
        after = np.concatenate([ordered[..., 1:], np.zeros_like(ordered[..., :1])], -1)
        first = (cap >= after).argmax(-1)[..., None]
        return np.minimum(best, np.take_along_axis(cap, first, -1))

    def _repeats(self, mu: float, f: Numbers) -> Numbers:
        """Reads of each channel for the read time ``f``, at most 1, 2, ... of them."""
        today = self.today
        own, rounding = today.white / f + today.sampled, today.rounding * self.coarse
        gained = own + rounding * (1 - persisting(own, rounding))
        worth = mu * gained / np.maximum(self.array * f + self.adc, np.finfo(np.float64).tiny)
        return np.asarray(np.minimum(np.maximum(np.ceil(np.sqrt(worth + 0.25) - 0.5), 1.0), self.reads))


def _root(gain: Numbers, price: Numbers) -> Numbers:
    """sqrt(gain / price); without a price: for ever where anything is gained, else as today."""
    free = np.where(gain > 0, np.inf, 1.0)
    return np.where(price > 0, np.sqrt(gain / np.where(price > 0, price, 1.0)), free)


__all__ = ["Layer", "Limits", "Options"]
