"""Filamentary ReRAM (Wan et al., Nature 608, 504, 2022) and CMO/HfOx ReRAM (Falcone et al., IBM Zurich)."""

import math
from dataclasses import replace

from torch import Tensor

from mho.hardware.cells import CmoReramCell, ReramCell
from mho.physics.functions import between, one_over_f, polynomial, root
from mho.physics.laws import (
    ROOM_TEMPERATURE_K,
    age,
    check_factor,
    check_time,
    check_unsigned,
    has_read_noise,
    measured_until_s,
    program,
    read_sigma_uS,
    scale_noise,
    static_draws,
)


def reram_sigma_uS(cell: ReramCell, g_target_uS: Tensor, t_s: float) -> Tensor:
    """Total sigma at ``t_s``: polynomials in g/g_ref, linear in ln t between the measured times; uS.

    The argument is the conductance itself over the full scale of the *fit*: a cell that is used up to
    25 uS has at 12.5 uS the error that was measured at 12.5 uS. Held before the first time and after
    the last.
    """
    x = g_target_uS / cell.g_ref_uS
    i, j, weight = between(cell.times_s, t_s, logarithmic=True)
    first = polynomial(cell.sigma_uS[i], x)
    return first if i == j else (1 - weight) * first + weight * polynomial(cell.sigma_uS[j], x)


@program.register
def program_reram(cell: ReramCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = max(0, g_T + sigma(g_T, t_1) xi), t_1 the first measured time; uS."""
    check_unsigned(cell, signed)
    if xi is None:
        return g_target_uS.clamp_min(0)
    return (g_target_uS + reram_sigma_uS(cell, g_target_uS, cell.times_s[0]) * xi.to(g_target_uS)).clamp_min(0)


@age.register
def age_reram(cell: ReramCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """g(t) = max(0, g_P + sqrt(sigma(t)^2 - sigma(t_1)^2) xi): relaxation adds what the total lacks; uS.

    Up to the clip at 0 the total error at t is then exactly N(0, sigma(t)^2). Where the fit shrinks
    below its first time nothing is added (an error cannot be taken back by an independent one).
    """
    check_time(cell, t_s)
    if t_s <= cell.times_s[0] or xi is None:
        return g_prog_uS
    start = reram_sigma_uS(cell, g_target_uS, cell.times_s[0])
    now = reram_sigma_uS(cell, g_target_uS, t_s)
    return (g_prog_uS + root((now - start) * (now + start)) * xi.to(g_prog_uS)).clamp_min(0)


@read_sigma_uS.register
def read_sigma_reram(
    cell: ReramCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = read_noise g; uS. 0-d where it is zero."""
    check_time(cell, t_s)
    return cell.read_noise * g_uS if cell.read_noise else g_uS.new_zeros(())


@static_draws.register
def static_draws_reram(cell: ReramCell) -> frozenset[str]:
    programming = {"programming"} if any(cell.sigma_uS[0]) else set()
    return frozenset(programming | {"aging"} if any(s != cell.sigma_uS[0] for s in cell.sigma_uS) else programming)


@has_read_noise.register
def has_read_noise_reram(cell: ReramCell) -> bool:
    return cell.read_noise > 0


@measured_until_s.register
def measured_until_reram(cell: ReramCell) -> float:
    return cell.times_s[-1]


@scale_noise.register
def scale_noise_reram(cell: ReramCell, factor: float) -> ReramCell:
    check_factor(factor)
    sigma = tuple(tuple(c * factor for c in p) for p in cell.sigma_uS)
    return replace(cell, sigma_uS=sigma, read_noise=cell.read_noise * factor)


@program.register
def program_cmo(cell: CmoReramCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = max(0, g_T + (c0 + c1 g_T) xi): the window of the program-and-verify loop; uS."""
    check_unsigned(cell, signed)
    if xi is None:
        return g_target_uS.clamp_min(0)
    return (g_target_uS + polynomial(cell.programming, g_target_uS) * xi.to(g_target_uS)).clamp_min(0)


@age.register
def age_cmo(cell: CmoReramCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """g(t) = max(0, g_P + m ln t + (s0 + s1 ln t) xi), t >= 1 s; the same for all conductances; uS.

    The fit starts at 1 s: 0 < t < 1 s is taken as 1 s; t = 0 is g_P itself.
    """
    check_time(cell, t_s)
    if t_s == 0:
        return g_prog_uS
    log_t = math.log(max(t_s, 1.0))
    g = g_prog_uS + cell.relax_mean * log_t
    if xi is not None:
        sigma = sum(c * log_t**k for k, c in enumerate(cell.relax_std))
        g = g + sigma * xi.to(g_prog_uS)
    return g.clamp_min(0)


@read_sigma_uS.register
def read_sigma_cmo(
    cell: CmoReramCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = c log10(g/uS) sqrt(ln((t + t_r)/(2 t_r))); 0 below 1 uS, where the fit has no sense; uS."""
    check_time(cell, t_s)
    if cell.read_log10 == 0:
        return g_uS.new_zeros(())
    return g_uS.clamp_min(1.0).log10() * (cell.read_log10 * one_over_f(t_s, cell.t_read_s))


@static_draws.register
def static_draws_cmo(cell: CmoReramCell) -> frozenset[str]:
    programming = {"programming"} if any(cell.programming) else set()
    return frozenset(programming | {"aging"} if any(cell.relax_std) else programming)


@has_read_noise.register
def has_read_noise_cmo(cell: CmoReramCell) -> bool:
    return cell.read_log10 > 0


@scale_noise.register
def scale_noise_cmo(cell: CmoReramCell, factor: float) -> CmoReramCell:
    check_factor(factor)
    return replace(
        cell,
        programming=tuple(c * factor for c in cell.programming),
        relax_std=tuple(c * factor for c in cell.relax_std),
        read_log10=cell.read_log10 * factor,
    )
