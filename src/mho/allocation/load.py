"""What one layer costs and harms, and what it may be given instead.

    joules   sum_c m_c (A_c f_c + C_c(b, d)) + M (P(d) + T F) + O(d)             F, M: the largest f_c and m_c
    nats     sum_c w_c / (f_c m_c) + s_c / m_c + q_c k_b (rho_c + (1 - rho_c) / m_c)  +  u k_d  +  r

c: output channels that are set one by one, one of them where all are set alike. f: read time over today's, m: reads
that are averaged, b and d: bits of ADC and DAC. A, C, P: joules of cells, converters and the rest of one read; T: of
what runs while the cells are read (static power); O: of what is done once. w, s, q, u, r: nats today of white noise,
noise that is sampled anew in each read, rounding of ADC and DAC, and all that stays. k = (levels today / levels
then)^2; rho: the share of rounding that all repeats have in common (``averaging.persisting_rounding``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray

from mho.errors import InputError
from mho.physics.averaging import persisting_rounding
from mho.physics.converters import levels

Numbers = NDArray[np.float64]
Columns = Literal["together", "masked", "timed"]
"""What a readout can do for one output channel alone; see ``hardware.Readout``."""


@final
@dataclass(frozen=True)
class Price:
    """Joules an inference at today's read time and one read. ``adc_J``: of the converters by their bits (empty: there
    are none); ``read_J``: of drivers, lines and tiles; ``time_J``: static power over the read time; ``once_J``: of
    buffers and links, whatever is repeated."""

    array_J: float
    adc_J: Mapping[int, float]
    read_J: float = 0.0
    time_J: float = 0.0
    once_J: float = 0.0


@final
@dataclass(frozen=True)
class Shares:
    """How a layer's totals are shared out over its output channels, each summing to 1; ``columns``: what its readout
    can do for one of them alone."""

    columns: Columns
    array: tuple[float, ...]
    white: tuple[float, ...]
    sampled: tuple[float, ...]
    rounding: tuple[float, ...]

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in ("array", "white", "sampled", "rounding")}
        for name, values in parts.items():
            if len(values) != len(self.array) or not values or min(values) < 0 or abs(math.fsum(values) - 1) > 1e-6:
                raise InputError(
                    f"allocation: shares of {name}: {len(values)} numbers that add up to {math.fsum(values):.6g}. Way "
                    f"out: {len(self.array)} numbers of at least 0 that add up to 1."
                )


@final
@dataclass(frozen=True)
class Load:
    """One layer. ``white``, ``rounding``, ``rest``, ``sampled``, ``dac``: nats today; ``bits``, ``dac_bits``: of its
    converters today, ``None`` without one; ``array_J``, ``adc_J``, ``read_J``, ``time_J``, ``once_J``: its
    :class:`Price` at today's DAC, whose ``adc_J`` holds today's bits among others; ``by_dac``: at other bits of the
    DAC, where they may change; ``shares``: over output channels, where those are set one by one."""

    name: str
    white: float
    rounding: float
    rest: float
    bits: int | None
    array_J: float
    adc_J: Mapping[int, float]
    sampled: float = 0.0
    dac: float = 0.0
    dac_bits: int | None = None
    read_J: float = 0.0
    time_J: float = 0.0
    once_J: float = 0.0
    by_dac: Mapping[int, Price] = field(default_factory=dict)
    shares: Shares | None = None

    def __post_init__(self) -> None:
        for name in ("white", "rounding", "rest", "sampled", "dac", "array_J", "read_J", "time_J", "once_J"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InputError(f"allocation: {self.name}: {name} = {value!r}: must be finite and not negative.")
        if self.bits is not None and self.bits not in self.adc_J:
            raise InputError(f"allocation: {self.name}: adc_J has no price for today's {self.bits} bits.")
        for dac, price in self.by_dac.items():
            if self.dac_bits is None or price.adc_J.keys() != self.adc_J.keys():
                raise InputError(
                    f"allocation: {self.name}: by_dac[{dac}] prices ADCs of {sorted(price.adc_J)} bits, today's prices "
                    f"are of {sorted(self.adc_J)}; dac_bits = {self.dac_bits}. Way out: the same bits in all, and the "
                    "DAC's own."
                )

    @property
    def prices(self) -> dict[int | None, Price]:
        """Prices by the bits of the DAC, today's first."""
        now = Price(self.array_J, self.adc_J, self.read_J, self.time_J, self.once_J)
        return {self.dac_bits: now} | {d: p for d, p in self.by_dac.items() if d != self.dac_bits}

    @property
    def columns(self) -> Columns:
        return "together" if self.shares is None else self.shares.columns


@final
@dataclass(frozen=True)
class Setting:
    """What one layer is given. ``read``: read time over today's; ``bits``, ``dac_bits``: of its converters (``None``:
    it has none, or they stay); ``repeats``: reads that are averaged. ``column_windows``: share of the read time for
    which each output channel is integrated; ``column_repeats``: reads of each; empty: all alike."""

    name: str
    read: float
    bits: int | None
    dac_bits: int | None = None
    repeats: int = 1
    column_windows: tuple[float, ...] = ()
    column_repeats: tuple[int, ...] = ()


class Nats(NamedTuple):
    """Nats of a load today by channel, float64 [channels]; ``fixed``: those that no channel's setting changes."""

    white: Numbers
    sampled: Numbers
    rounding: Numbers
    fixed: float


def nats(load: Load) -> Nats:
    """The load's harm today, over the channels that are set one by one."""

    def over(total: float, name: str) -> Numbers:
        return total * np.array((1.0,) if load.shares is None else getattr(load.shares, name))

    return Nats(over(load.white, "white"), over(load.sampled, "sampled"), over(load.rounding, "rounding"), load.rest)


def coarser(now: int | None, then: int | None) -> float:
    """k: squared step of a converter of ``then`` bits over that of ``now``; 1 without one."""
    return 1.0 if now is None or then is None else (levels(now) / levels(then)) ** 2


def noise_nats(today: Nats, f: Numbers, m: Numbers, coarse: Numbers | float) -> Numbers:
    """sum_c w / (f m) + s / m + q k (rho + (1 - rho) / m), summed over the last dimension. All broadcast."""
    own, rounding = today.white / f + today.sampled, today.rounding * coarse
    if m.max() == 1:
        return np.asarray((own + rounding).sum(-1))
    stays = persisting(own, rounding)
    return np.asarray((own / m + rounding * (stays + (1 - stays) / m)).sum(-1))


def persisting(own: Numbers, rounding: Numbers) -> Numbers:
    """rho, from the nats of the noise of one read and of rounding: their ratio is 12 (sigma / Delta)^2."""
    ratio = own / (12 * np.where(rounding > 0, rounding, 1.0))
    return np.asarray(persisting_rounding(torch.from_numpy(np.sqrt(ratio))).numpy())


def harm(loads: Sequence[Load], settings: Sequence[Setting]) -> float:
    """What noise costs the loss in second order, nats, over all layers."""
    return math.fsum(_harm(load, s) for load, s in zip(loads, settings, strict=True))


def _harm(load: Load, setting: Setting) -> float:
    today, (f, m) = nats(load), _columns(load, setting)
    fresh = float(noise_nats(today, f, m, coarser(load.bits, setting.bits)))
    return fresh + load.dac * coarser(load.dac_bits, setting.dac_bits) + today.fixed


def spent_J(loads: Sequence[Load], settings: Sequence[Setting]) -> float:
    """Joules of one inference that depend on the settings, over all layers."""
    return math.fsum(_spent(load, s) for load, s in zip(loads, settings, strict=True))


def _spent(load: Load, setting: Setting) -> float:
    dac = load.dac_bits if setting.dac_bits is None else setting.dac_bits
    price, (f, m) = load.prices[dac], _columns(load, setting)
    share = np.array((1.0,) if load.shares is None else load.shares.array)
    converters = 0.0 if setting.bits is None else price.adc_J[setting.bits] * float(m.mean())
    whole = setting.repeats * (price.read_J + price.time_J * setting.read)
    return price.array_J * float((share * f * m).sum()) + converters + whole + price.once_J


def _columns(load: Load, setting: Setting) -> tuple[Numbers, Numbers]:
    """Read time over today's and reads of each channel."""
    count = 1 if load.shares is None else len(load.shares.array)
    f = np.array(setting.column_windows or (1.0,) * count) * setting.read
    m = np.array(setting.column_repeats or (setting.repeats,) * count, dtype=np.float64)
    return f, m


def today(loads: Sequence[Load]) -> tuple[Setting, ...]:
    """Read times and bits as they are, one read."""
    return tuple(Setting(load.name, 1.0, load.bits) for load in loads)


def quietest(load: Load, longest: float, repeats: int) -> Setting:
    """The setting of least harm: the most bits that are priced, the longest and the most reads."""
    bits = None if load.bits is None else max(load.adc_J)
    dac = None if not load.by_dac else max(d for d in load.prices if d is not None)
    return Setting(load.name, longest, bits, dac, repeats)
