"""Memory cells, one frozen description a technology. The laws are in ``mho.physics``.

Conductances in uS, times in s since programming, ghat = g_target / g_max in [0, 1]. Polynomials are
written lowest order first. An empty polynomial or a negative sigma is refused.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mho.hardware.fields import CellBits, NonNegative, Positive, check_fields, contradiction

Polynomial = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A statistic of a cell against ghat: clip(log_slope ln(ghat) + log_offset, low, high) below
    ``split``, the polynomial in ghat above it. ``split = 1`` and no polynomial: the clipped
    logarithm everywhere.
    """

    log_slope: float
    log_offset: float
    low: float
    high: float
    split: Positive = 1.0
    polynomial: Polynomial = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.low > self.high:
            raise contradiction(self, "low", self.low, f"above high = {self.high}", "exchange low and high")
        if self.split < 1.0 and not self.polynomial:
            raise contradiction(self, "split", self.split, "nothing is given above it", "give a polynomial")


def _check_range(
    cell: "GenericCell | PcmCell | ReramCell | CmoReramCell | FlashCell | SramCell | PhotonicCell",
) -> None:
    check_fields(cell)
    if cell.g_min_uS >= cell.g_max_uS:
        raise contradiction(
            cell, "g_min_uS", cell.g_min_uS, f"not below g_max_uS = {cell.g_max_uS}", "exchange or lower g_min_uS"
        )


def _check_sigma(cell: object, key: str, polynomial: Polynomial, low: float, high: float, step_unit: str) -> None:
    """Refuse a standard deviation that is empty or negative somewhere on [low, high]."""
    if not polynomial:
        raise contradiction(cell, key, polynomial, "an empty polynomial", "write [0.0] for no error")
    for k in range(101):
        x = low + (high - low) * k / 100
        sigma = math.fsum(c * x**power for power, c in enumerate(polynomial))
        if sigma < 0:
            raise contradiction(
                cell,
                key,
                polynomial,
                f"a standard deviation of {sigma:.4g} at {step_unit} = {x:.4g}",
                "check the signs and the order (lowest power first)",
            )


def _check_sigma_curve(cell: object, key: str, curve: Curve) -> None:
    if curve.low < 0:
        raise contradiction(cell, f"{key}.low", curve.low, "a negative standard deviation", "give low >= 0")
    if curve.polynomial:
        _check_sigma(cell, f"{key}.polynomial", curve.polynomial, min(curve.split, 1.0), 1.0, "ghat")


def _check_times(cell: "ReramCell | FlashCell", laws: tuple[tuple[float, ...], ...]) -> None:
    times = cell.times_s
    if len(times) != len(laws) or not times:
        raise contradiction(
            cell, "times_s", times, f"{len(times)} times for {len(laws)} laws of sigma", "give one law a time"
        )
    if any(b <= a for a, b in pairwise(times)):
        raise contradiction(cell, "times_s", times, "times must rise", "sort them")


@dataclass(frozen=True, kw_only=True)
class GenericCell:
    """Gaussian cell whose levels are dials, as fractions of the conductance range.

    Programming: sigma = programming_noise * (g_max - g_min) + programming_noise_rel * g, or the
    table ``sigma_table`` of (g_uS, sigma_uS) points from g_min to g_max, interpolated linearly, or log-normal:
    g = g_target exp(programming_lognormal xi), whose median is the target. Read:
    the same with ``read_noise``, ``read_noise_rel``. Drift: g(t) = g ((t + t0_s)/t0_s)^-nu, nu ~
    N(drift_nu, drift_nu_d2d).
    """

    technology: Literal["generic"] = "generic"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 25.0
    bits: CellBits | None = None
    programming_noise: NonNegative = 0.0
    programming_noise_rel: NonNegative = 0.0
    programming_lognormal: NonNegative = 0.0
    sigma_table: tuple[tuple[float, float], ...] = ()
    read_noise: NonNegative = 0.0
    read_noise_rel: NonNegative = 0.0
    drift_nu: NonNegative = 0.0
    drift_nu_d2d: NonNegative = 0.0
    t0_s: Positive = 1.0

    def __post_init__(self) -> None:
        _check_range(self)
        table = self.sigma_table
        if self.programming_lognormal and (table or self.programming_noise or self.programming_noise_rel):
            raise contradiction(
                self,
                "programming_lognormal",
                self.programming_lognormal,
                "programming noise is given twice",
                "remove it, or sigma_table and programming_noise*",
            )
        if not table:
            return
        if len(table) < 2 or any(b[0] <= a[0] for a, b in pairwise(table)):
            raise contradiction(
                self, "sigma_table", table, "needs two or more points of rising conductance", "sort the points"
            )
        if any(sigma < 0 for _, sigma in table):
            raise contradiction(self, "sigma_table", table, "a negative sigma", "give sigma_uS >= 0")
        if table[0][0] > self.g_min_uS or table[-1][0] < self.g_max_uS:
            raise contradiction(
                self,
                "sigma_table",
                table,
                f"does not reach from g_min_uS = {self.g_min_uS} to g_max_uS = {self.g_max_uS}",
                "add points at both ends, or narrow g_min_uS .. g_max_uS",
            )
        if self.programming_noise or self.programming_noise_rel:
            raise contradiction(
                self, "sigma_table", table, "programming noise is given twice", "remove programming_noise*"
            )


@dataclass(frozen=True, kw_only=True)
class PcmCell:
    """Phase-change memory: state-dependent programming error, drift and 1/f read noise.

    Programming: sigma = polynomial(ghat) * g_max / programming_g_ref_uS in uS. Drift: g(t) = g
    ((t + t0_s)/t0_s)^-nu, nu = |N(drift_mean(ghat), drift_std(ghat))|. Read: Q g(t) sqrt(ln((t +
    t_read_s)/(2 t_read_s))), Q = read_q(ghat), or with ``read_q_power`` = (a, p, top): Q = min(a ghat^-p,
    top).
    """

    technology: Literal["pcm"] = "pcm"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 25.0
    bits: CellBits | None = None
    programming: Polynomial
    programming_g_ref_uS: Positive
    drift_mean: Curve
    drift_std: Curve
    t0_s: Positive
    read_q: Curve | None = None
    read_q_power: tuple[float, float, float] | None = None
    t_read_s: Positive

    def __post_init__(self) -> None:
        _check_range(self)
        if self.read_q is None and self.read_q_power is None:
            raise contradiction(self, "read_q", None, "no read noise is given", "add read_q or read_q_power")
        if self.read_q is not None and self.read_q_power is not None:
            raise contradiction(
                self, "read_q_power", self.read_q_power, "read noise is given twice", "remove read_q or read_q_power"
            )
        _check_sigma(self, "programming", self.programming, 0.0, 1.0, "ghat")
        _check_sigma_curve(self, "drift_std", self.drift_std)
        if self.read_q is not None:
            _check_sigma_curve(self, "read_q", self.read_q)
        if self.read_q_power is not None and min(self.read_q_power) < 0:
            raise contradiction(
                self, "read_q_power", self.read_q_power, "a negative scale, power or top", "give values >= 0"
            )


@dataclass(frozen=True, kw_only=True)
class ReramCell:
    """Filamentary ReRAM: total sigma(g) measured at some times after programming.

    ``sigma_uS[i]`` is, for ``times_s[i]``, a polynomial in g / g_ref_uS, where g_ref is the full scale
    of the fit (not of this cell: an error belongs to a conductance); between the times sigma is linear in
    ln t. ``read_noise``: fraction of g.
    """

    technology: Literal["reram"] = "reram"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 40.0
    bits: CellBits | None = None
    g_ref_uS: Positive
    times_s: tuple[float, ...]
    sigma_uS: tuple[Polynomial, ...]
    read_noise: NonNegative = 0.0

    def __post_init__(self) -> None:
        _check_range(self)
        _check_times(self, self.sigma_uS)
        if self.times_s[0] <= 0:
            raise contradiction(self, "times_s", self.times_s, "ln t needs t > 0", "give the time of the first read")
        if self.g_max_uS > self.g_ref_uS:
            raise contradiction(
                self,
                "g_max_uS",
                self.g_max_uS,
                f"above g_ref_uS = {self.g_ref_uS}, where nothing was measured",
                "lower g_max_uS",
            )
        low, high = self.g_min_uS / self.g_ref_uS, self.g_max_uS / self.g_ref_uS
        for polynomial in self.sigma_uS:
            _check_sigma(self, "sigma_uS", polynomial, low, high, "g/g_ref")


@dataclass(frozen=True, kw_only=True)
class CmoReramCell:
    """Conductive-metal-oxide/HfOx ReRAM: programming to an acceptance window, then relaxation.

    sigma_prog = polynomial ``programming`` in g/uS (uS); relaxation: mean = relax_mean ln(t) and sigma
    = polynomial ``relax_std`` in ln(t) (uS, t in s, t >= 1 s); read sigma = read_log10 log10(g)
    sqrt(ln((t + t_read_s)/(2 t_read_s))).
    """

    technology: Literal["reram-cmo"] = "reram-cmo"
    g_min_uS: NonNegative = 9.0
    g_max_uS: Positive = 88.2
    bits: CellBits | None = None
    programming: Polynomial
    relax_mean: float
    relax_std: Polynomial
    read_log10: NonNegative = 0.0
    t_read_s: Positive = 1e-6

    def __post_init__(self) -> None:
        _check_range(self)
        _check_sigma(self, "programming", self.programming, self.g_min_uS, self.g_max_uS, "g_uS")
        _check_sigma(self, "relax_std", self.relax_std, 0.0, math.log(1e9), "ln(t)")


@dataclass(frozen=True, kw_only=True)
class FlashCell:
    """SONOS flash read as a current: sigma_I = A (1 - exp(-I/B)) nA with (A, B) = ``sigma_nA[i]`` at
    ``times_s[i]`` after programming, linear in t between them; ``read_nA``: (A, B) of one read;
    ``current_max_nA`` is the current at g_max.
    """

    technology: Literal["flash"] = "flash"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 16.0
    bits: CellBits | None = None
    current_max_nA: Positive
    times_s: tuple[float, ...]
    sigma_nA: tuple[tuple[float, float], ...]
    read_nA: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        _check_range(self)
        _check_times(self, self.sigma_nA)
        if self.times_s[0] < 0:
            raise contradiction(self, "times_s", self.times_s, "a time before programming", "start at 0 or later")
        laws = self.sigma_nA if self.read_nA is None else (*self.sigma_nA, self.read_nA)
        for height, scale in laws:
            if height < 0 or scale <= 0:
                raise contradiction(
                    self, "sigma_nA", (height, scale), "A (1 - exp(-I/B)) is negative or undefined", "A >= 0 and B > 0"
                )


@dataclass(frozen=True, kw_only=True)
class SramCell:
    """Charge-domain SRAM: a bit times a unit capacitor.

    Static mismatch sigma(dC/C) = mismatch_sqrt_fF / sqrt(unit_fF); fresh kT/C noise of the shared
    node of ``unit_fF`` * rows, its sigma times ``thermal_factor`` (1 is physics; other values are for
    sweeps). Conductances stand for capacitances relative to g_max.
    """

    technology: Literal["sram"] = "sram"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 1.0
    bits: CellBits | None = None
    unit_fF: Positive = 1.0
    mismatch_sqrt_fF: NonNegative = 0.01
    supply_V: Positive = 0.8
    thermal: bool = True
    thermal_factor: NonNegative = 1.0

    def __post_init__(self) -> None:
        _check_range(self)


@dataclass(frozen=True, kw_only=True)
class PhotonicCell:
    """Mach-Zehnder weight: the cosine of a phase with static errors, read with noisy light.

    Amplitude w = cos(phi); static ``phase_noise_rad`` (truncated at 2 sigma), relative
    ``gamma_d2d`` of the phase shifter (truncated at 3 sigma), fresh relative intensity noise
    ``rin`` of each read. Conductance stands for amplitude relative to g_max.
    """

    technology: Literal["photonic"] = "photonic"
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive = 1.0
    bits: CellBits | None = None
    phase_noise_rad: NonNegative = 0.0
    gamma_d2d: NonNegative = 0.0
    rin: NonNegative = 0.0

    def __post_init__(self) -> None:
        _check_range(self)


Cell = GenericCell | PcmCell | ReramCell | CmoReramCell | FlashCell | SramCell | PhotonicCell

SIGNED_TECHNOLOGIES = ("generic", "sram", "photonic")
"""Cells that can hold a weight of either sign (``mapping.scheme = "signed"``)."""
