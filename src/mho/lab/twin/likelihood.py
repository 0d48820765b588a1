"""The likelihood of a converter's codes: Gaussian in front of it, an interval behind it.

    eta = gain m + offset,   q = gain sqrt(var),   ln P(code) = ln [Phi((T_hi - eta) / q) - Phi((T_lo - eta) / q)]

``m``, ``eta``, ``offset``, thresholds T: in units of the full scale r. A code k of L levels says that the signal lay
between the thresholds of k - 1/2 and k + 1/2; the outermost codes are open outwards, so that a clipped reading counts
for what it says and no more. Thresholds of a bent converter (:func:`mho.physics.converters.inl`): T = F^-1((k + 1/2) /
L), F(u) = u + (inl / L) (3 sqrt(3) / 2) u (1 - u^2). Sources: ordered-response likelihood, McCullagh, J. R. Stat. Soc.
B 42 (1980) 109; information by outer products of scores, Berndt, Hall, Hall and Hausman, 1974.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.physics.converters import BOW, bow, bow_slope, inl_inverse

HALF_LN_2PI = 0.5 * math.log(2.0 * math.pi)
SMALLEST_VAR = 1e-14
"""Variances below this share of r^2 are rounding."""
SHARED = ("inl_lsb", "read_const", "read_rel", "output_var")
"""Names of the parameters that all columns share, in the order of :attr:`Parameters.shared`."""


class Parameters(NamedTuple):
    """``gain``, ``offset`` [cols] (offset in units of r); ``shared`` [4] in the order of :data:`SHARED`.

    ``read_const``, ``read_rel``: sigma of a read of a cell, read_const + read_rel |g|, in units of g_max;
    ``output_var``: variance of the fresh noise of the readout in units of r^2, which may come out below 0.
    """

    gain: Tensor
    offset: Tensor
    shared: Tensor


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes and what is known of the signals in front of the converter, float64, all [n, cols].

    ``mean``: signal over r. Variance over r^2: read_const^2 ``s0`` + 2 read_const read_rel ``s1`` + read_rel^2 ``s2`` +
    ``known`` + output_var. ``code``: -levels ... levels (long). ``weight``: 1, or 0 where nothing valid came.
    """

    mean: Tensor
    s0: Tensor
    s1: Tensor
    s2: Tensor
    known: Tensor
    code: Tensor
    weight: Tensor
    levels: int


class Scores(NamedTuple):
    """Log-likelihood and its slopes, a datum each: [n, cols] and [n, cols, 2] (gain, offset), [n, cols, 4] (shared)."""

    value: Tensor
    own: Tensor
    shared: Tensor


def thresholds(levels: int, inl_lsb: float) -> tuple[Tensor, Tensor]:
    """(T, dT/d inl) [2 levels] in units of r; T_k belongs to (k + 1/2) / levels, k = -levels ... levels - 1.

    :class:`TwinError` where the bent converter is not monotone: |inl| >= levels / (3 sqrt(3)).
    """
    if not abs(inl_lsb) < levels / (2 * BOW):
        raise TwinError(
            f"inl_lsb = {inl_lsb:.3g}: a converter of {levels} levels is not monotone. Cause: the data are not those "
            "of a converter with a small bow. Fix: look at one column's codes against its input."
        )
    u = inl_inverse((torch.arange(-levels, levels, dtype=torch.float64) + 0.5) / levels, inl_lsb, levels)
    return u, -bow(u) / (levels + inl_lsb * bow_slope(u))


def variance(data: Codes, shared: Tensor) -> Tensor:
    """Variance in front of the converter's gain, units of r^2; kept above a rounding error of r."""
    _, a, b, w = shared
    total: Tensor = a * a * data.s0 + 2 * a * b * data.s1 + b * b * data.s2 + data.known + w
    return total.clamp_min(SMALLEST_VAR)


def _log_interval(lo: Tensor, hi: Tensor) -> Tensor:
    """ln [Phi(hi) - Phi(lo)] for lo < hi, without cancellation in either tail."""
    flip = lo > 0
    lo, hi = torch.where(flip, -hi, lo), torch.where(flip, -lo, hi)
    top: Tensor = torch.special.log_ndtr(hi)
    bottom: Tensor = torch.special.log_ndtr(lo)
    # Two edges that rounding has made equal: the smallest probability there is, instead of none.
    return top + torch.log(-torch.expm1((bottom - top).clamp_max(-1e-300)))


def log_likelihood(data: Codes, p: Parameters) -> Tensor:
    """ln P of each code [n, cols], 0 where the weight is 0."""
    return _evaluate(data, p)[0]


def _evaluate(data: Codes, p: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(ln P, phi_lo / P, phi_hi / P, z_lo, z_hi, q, var); z is 0 where the interval is open: its phi is 0 too."""
    levels = data.levels
    t, _ = thresholds(levels, float(p.shared[0]))
    inf = torch.tensor([torch.inf], dtype=torch.float64)
    edges = torch.cat([-inf, t, inf])
    var = variance(data, p.shared)
    q = p.gain.abs() * var.sqrt()
    eta = p.gain * data.mean + p.offset
    lo = (edges[data.code + levels] - eta) / q
    hi = (edges[data.code + levels + 1] - eta) / q
    ln_p = _log_interval(lo, hi)
    f_lo = torch.exp(-0.5 * lo * lo - HALF_LN_2PI - ln_p) * data.weight
    f_hi = torch.exp(-0.5 * hi * hi - HALF_LN_2PI - ln_p) * data.weight
    lo, hi = (torch.where(torch.isfinite(z), z, torch.zeros_like(z)) for z in (lo, hi))
    return torch.where(data.weight > 0, ln_p, torch.zeros_like(ln_p)), f_lo, f_hi, lo, hi, q, var


def scores(data: Codes, p: Parameters) -> Scores:
    """Log-likelihood of each datum and its slopes with respect to all parameters."""
    levels = data.levels
    value, f_lo, f_hi, z_lo, z_hi, q, var = _evaluate(data, p)
    _, slope = thresholds(levels, float(p.shared[0]))
    none = torch.zeros(1, dtype=torch.float64)
    bend = torch.cat([none, slope, none])
    of_eta = (f_lo - f_hi) / q
    of_ln_q = z_lo * f_lo - z_hi * f_hi
    of_inl = (f_hi * bend[data.code + levels + 1] - f_lo * bend[data.code + levels]) / q
    _, a, b, _ = p.shared
    of_var = of_ln_q / (2 * var)
    own = torch.stack([of_eta * data.mean + of_ln_q / p.gain, of_eta], -1)
    shared = torch.stack(
        [of_inl, of_var * (2 * a * data.s0 + 2 * b * data.s1), of_var * (2 * a * data.s1 + 2 * b * data.s2), of_var], -1
    )
    return Scores(value, own, shared)


def expected_code(data: Codes, p: Parameters, fine: int = 4096) -> Tensor:
    """Mean of code / levels under the law [n, cols]: sum over thresholds of Phi((eta - T) / q).

    From ``fine`` levels on, the clipped mean signal itself.
    """
    eta = p.gain * data.mean + p.offset
    if data.levels >= fine:
        return eta.clamp(-1, 1)
    q = p.gain.abs() * variance(data, p.shared).sqrt()
    total = torch.full_like(eta, -float(data.levels))
    for edge in thresholds(data.levels, float(p.shared[0]))[0].tolist():
        total += torch.special.ndtr((eta - edge) / q)
    return total / data.levels
