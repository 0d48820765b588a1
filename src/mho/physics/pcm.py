"""Phase-change memory: programming error, drift of each device, 1/f read noise.

Nandakumar et al., ICECS 2019; Joshi et al., Nat. Commun. 11, 2473 (2020); Le Gallo et al., Nat.
Electron. 2023 (HERMES). ghat = g_target / g_max.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mho.hardware.cells import PcmCell
from mho.physics.functions import SMALLEST_GHAT, curve, one_over_f, polynomial, scaled_curve
from mho.physics.laws import (
    ROOM_TEMPERATURE_K,
    age,
    check_factor,
    check_time,
    check_unsigned,
    has_read_noise,
    program,
    read_sigma_uS,
    scale_noise,
    static_draws,
)


@program.register
def program_pcm(cell: PcmCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g_P = max(0, g_T + sigma_P xi), sigma_P = (g_max/g_ref) poly(ghat); uS."""
    check_unsigned(cell, signed)
    if xi is None:
        return g_target_uS.clamp_min(0)
    sigma = polynomial(cell.programming, g_target_uS / cell.g_max_uS) * (cell.g_max_uS / cell.programming_g_ref_uS)
    return (g_target_uS + sigma * xi.to(g_target_uS)).clamp_min(0)


@age.register
def age_pcm(cell: PcmCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """g(t) = g_P ((t + t0)/t0)^-nu with the device's own nu = |mu(ghat) + sigma(ghat) xi|; uS."""
    check_time(cell, t_s)
    if t_s == 0:
        return g_prog_uS
    ghat = g_target_uS / cell.g_max_uS
    nu = curve(cell.drift_mean, ghat)
    if xi is not None:
        nu = (nu + curve(cell.drift_std, ghat) * xi.to(g_target_uS)).abs()
    return g_prog_uS * torch.pow((t_s + cell.t0_s) / cell.t0_s, -nu)


@read_sigma_uS.register
def read_sigma_pcm(
    cell: PcmCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = g(t) Q(ghat) sqrt(ln((t + t_r)/(2 t_r))), with the drifted g(t), not g_P; uS.

    t counts from the last programming pulse. For t <= t_r the band of the 1/f noise is empty: 0.
    """
    check_time(cell, t_s)
    ghat = g_target_uS / cell.g_max_uS
    return g_uS * _q(cell, ghat) * one_over_f(t_s, cell.t_read_s)


def _q(cell: PcmCell, ghat: Tensor) -> Tensor:
    """Strength Q of the spectrum S(f) = Q^2 g^2 / f."""
    if cell.read_q is not None:
        return curve(cell.read_q, ghat)
    assert cell.read_q_power is not None  # the cell holds one of the two
    scale, power, top = cell.read_q_power
    return (scale * ghat.clamp_min(SMALLEST_GHAT) ** -power).clamp_max(top)


@static_draws.register
def static_draws_pcm(cell: PcmCell) -> frozenset[str]:
    programming = {"programming"} if any(cell.programming) else set()
    std = cell.drift_std
    return frozenset(programming | {"aging"} if std.high > 0 or any(std.polynomial) else programming)


@has_read_noise.register
def has_read_noise_pcm(cell: PcmCell) -> bool:
    if cell.read_q is not None:
        return cell.read_q.high > 0 or any(cell.read_q.polynomial)
    assert cell.read_q_power is not None
    return cell.read_q_power[0] > 0 and cell.read_q_power[2] > 0


@scale_noise.register
def scale_noise_pcm(cell: PcmCell, factor: float) -> PcmCell:
    check_factor(factor)
    power = cell.read_q_power
    return replace(
        cell,
        programming=tuple(c * factor for c in cell.programming),
        drift_std=scaled_curve(cell.drift_std, factor),
        read_q=None if cell.read_q is None else scaled_curve(cell.read_q, factor),
        read_q_power=None if power is None else (power[0] * factor, power[1], power[2] * factor),
    )
