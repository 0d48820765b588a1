"""Noise from first principles, in SI units: thermal, shot, kT/C, telegraph, 1/f, jitter, photons.

Every function takes numbers, and a tensor where its first argument may differ from column to column.
One sigma, not a variance, unless the name says so. Bandwidth B is the noise bandwidth in Hz.
"""

import math
from typing import TypeVar

import torch
from torch import Tensor

from mho.errors import InputError
from mho.units import BOLTZMANN_J_PER_K, ELEMENTARY_CHARGE_C, PLANCK_J_S

Real = TypeVar("Real", float, Tensor)


def _check(name: str, value: float, *, zero: bool = False) -> float:
    """``value`` if it is finite and positive (``zero``: or 0), else :class:`InputError`."""
    if not (0.0 <= value < math.inf) or (value == 0.0 and not zero):
        bound = "at least 0" if zero else "above 0"
        raise InputError(f"thermal: {name} = {value!r} must be finite and {bound}. Fix: check its value and unit.")
    return value


def _root(x: Real) -> Real:
    """Square root whose gradient at 0 is 0 instead of infinite; a negative number is an error or NaN."""
    if isinstance(x, Tensor):
        return torch.where(x == 0, 0.0, torch.sqrt(torch.where(x == 0, 1.0, x)))
    return math.sqrt(_check("quantity", x, zero=True))


def boxcar_bandwidth_Hz(t_s: float) -> float:
    """B = 1 / (2 t): noise bandwidth of an integrator with a window of t seconds."""
    return 0.5 / _check("t_s", t_s)


def johnson_sigma_A(g_sum_S: Real, bandwidth_Hz: float, temperature_K: float) -> Real:
    """sigma_I = sqrt(4 k T sum(G) B), A: thermal noise of a column (Johnson; Nyquist, Phys. Rev. 32, 1928).

    ``g_sum_S``: sum of all conductances on the line in S, of the cells that are off too.
    1.28 mS, 128 ns boxcar, 300 K: 9.1 nA.
    """
    scale = 4.0 * BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) * _check("bandwidth_Hz", bandwidth_Hz)
    return math.sqrt(scale) * _root(g_sum_S)


def shot_sigma_A(current_A: Real, bandwidth_Hz: float, fano: float = 1.0) -> Real:
    """sigma_I = sqrt(2 q F |I| B), A (Schottky, Ann. Phys. 362, 1918).

    Only for currents over a barrier and photocurrents; Fano factor F in [0, 1], 0 for an ohmic
    resistor. 100 uA at the bandwidth of 128 ns: 11 nA.
    """
    if not 0.0 <= fano <= 1.0:
        raise InputError(f"thermal: fano = {fano!r} must lie in [0, 1]. Fix: 0 for ohmic cells, 1 for full shot noise.")
    scale = 2.0 * ELEMENTARY_CHARGE_C * fano * _check("bandwidth_Hz", bandwidth_Hz)
    return math.sqrt(scale) * _root(abs(current_A))


def ktc_sigma_V(capacitance_F: float, temperature_K: float) -> float:
    """sigma_V = sqrt(k T / C), V: noise frozen on a sampled capacitor. 300 K: 2.03 mV on 1 fF."""
    return math.sqrt(
        BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) / _check("capacitance_F", capacitance_F)
    )


def rtn_occupancy(tau_capture_s: float, tau_emission_s: float) -> tuple[float, float]:
    """(p, tau_0): probability that a trap is full, and its relaxation time, of random telegraph noise.

    tau_capture: mean time for which it stays empty, tau_emission: full. p = tau_e / (tau_c + tau_e),
    1 / tau_0 = 1 / tau_c + 1 / tau_e (Machlup, J. Appl. Phys. 25, 1954).
    """
    capture, emission = _check("tau_capture_s", tau_capture_s), _check("tau_emission_s", tau_emission_s)
    return emission / (capture + emission), capture * emission / (capture + emission)


def rtn_variance(step: Real, p: float) -> Real:
    """step^2 p (1 - p): variance of one trap of amplitude ``step`` (any unit), p in [0, 1]."""
    return step * step * (_probability(p) * (1.0 - p))


def rtn_spectrum(f_Hz: Real, step: float, p: float, tau_0_s: float) -> Real:
    """One-sided Lorentzian S(f) = 4 step^2 p (1 - p) tau_0 / (1 + (2 pi f tau_0)^2), unit^2 / Hz.

    Its integral over f > 0 is :func:`rtn_variance`; log-uniform tau_0 of many traps add up to 1/f.
    """
    x = 2.0 * math.pi * _check("tau_0_s", tau_0_s) * f_Hz
    return (4.0 * tau_0_s * rtn_variance(step, p)) / (1.0 + x * x)


def rtn_step(state: Tensor, u: Tensor, dt_s: float, tau_0_s: float, p: float) -> Tensor:
    """The trap dt_s later, exactly: full with probability p + (s - p) exp(-dt / tau_0).

    ``state``: bool, any shape; ``u``: uniforms on [0, 1) of that shape. No step is too long: dt -> infinity gives
    the stationary law, and two steps have the law of one of their sum.
    """
    _probability(p)
    kept = math.exp(-_check("dt_s", dt_s, zero=True) / _check("tau_0_s", tau_0_s))
    return u < p + (state.to(u.dtype) - p) * kept


def one_over_f_sigma(q: float, g: Real, f_high_Hz: float, f_low_Hz: float) -> Real:
    """sigma = Q |g| sqrt(ln(f_high / f_low)), unit of g: S(f) = Q^2 g^2 / f between two frequencies.

    Hooge-type noise; Q = 0.01 over 6 decades: 3.7 % of g.
    """
    if not 0.0 < f_low_Hz <= f_high_Hz < math.inf:
        raise InputError(f"thermal: f_low_Hz = {f_low_Hz!r}, f_high_Hz = {f_high_Hz!r}. Fix: 0 < f_low <= f_high.")
    return _check("q", q, zero=True) * math.sqrt(math.log(f_high_Hz / f_low_Hz)) * abs(g)


def jitter_snr_dB(f_Hz: float, jitter_s: float) -> float:
    """SNR = -20 log10(2 pi f sigma_t), dB: a full-scale sine sampled with aperture jitter sigma_t."""
    return -20.0 * math.log10(2.0 * math.pi * _check("f_Hz", f_Hz) * _check("jitter_s", jitter_s))


def photon_count(power_W: float, t_s: float, frequency_Hz: float, efficiency: float = 1.0) -> float:
    """N = P t eta / (h nu): photoelectrons in a window of t seconds; the shot limit of the SNR is sqrt(N)."""
    energy = _check("power_W", power_W, zero=True) * _check("t_s", t_s) * _probability(efficiency)
    return energy / (PLANCK_J_S * _check("frequency_Hz", frequency_Hz))


def photodetector_sigma_A(
    current_A: Real, bandwidth_Hz: float, load_ohm: float, temperature_K: float, rin_per_Hz: float = 0.0
) -> Real:
    """sigma_I = sqrt((2 q |I| + 4 k T / R_load + RIN I^2) B), A: shot, load, and laser intensity noise.

    RIN in 1/Hz (linear: -150 dBc/Hz is 1e-15).
    """
    thermal = 4.0 * BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) / _check("load_ohm", load_ohm)
    rin = _check("rin_per_Hz", rin_per_Hz, zero=True)
    # The bandwidth goes in first: 2 q I alone is near the end of float32.
    bandwidth = _check("bandwidth_Hz", bandwidth_Hz)
    shot = 2.0 * ELEMENTARY_CHARGE_C * bandwidth * abs(current_A)
    return _root(shot + thermal * bandwidth + rin * bandwidth * (current_A * current_A))


def landauer_J(temperature_K: float) -> float:
    """k T ln 2, J: the least energy that erases one bit (Landauer 1961). 300 K: 2.87e-21 J."""
    return BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) * math.log(2.0)


def column_read_J(levels: int, temperature_K: float, fill: float = 1.0) -> float:
    """Energy of the cells of one column in one read at full drive, J, at least: V^2 g t >= 8 k T (L / fill)^2.

    Noise of a column of conductance G read for t (boxcar, B = 1 / 2t): sqrt(4 k T G B), at most half of its least
    significant bit: fill V G / (2 L), with L ``levels`` a side and an ADC range of ``fill`` times the largest current.
    G drops out. 8 bits (L = 127), 300 K, fill 1: 0.53 fJ.
    """
    return 8.0 * BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) * (levels / _check("fill", fill)) ** 2


def charge_read_J(levels: int, temperature_K: float, fill: float = 1.0) -> float:
    """Energy of one column that shares charge, all capacitors charged once, at least: C V^2 >= 4 k T (L / fill)^2.

    Noise of the shared node of capacitance C: sqrt(k T / C) (:func:`ktc_sigma_V`), at most half of its least
    significant bit: fill V / (2 L), as for :func:`column_read_J`. C drops out. 8 bits (L = 127), 300 K: 0.27 fJ.
    """
    return 4.0 * BOLTZMANN_J_PER_K * _check("temperature_K", temperature_K) * (levels / _check("fill", fill)) ** 2


def _probability(p: float) -> float:
    if not 0.0 <= p <= 1.0:
        raise InputError(f"thermal: probability {p!r} must lie in [0, 1]. Fix: give a share, not a percentage.")
    return p
