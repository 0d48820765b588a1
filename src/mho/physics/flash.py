"""SONOS flash (Agrawal et al., IEDM 2022): errors of the read current, a day after programming and later."""

from dataclasses import replace

import torch
from torch import Tensor

from mho.hardware.cells import FlashCell
from mho.physics.functions import between, root
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


def flash_sigma_uS(cell: FlashCell, g_target_uS: Tensor, t_s: float) -> Tensor:
    """sigma_I = A (1 - exp(-I/B)) nA as a conductance; linear in t between the measured days; uS.

    I = current_max g/g_max. Held before the first time and after the last.
    """
    i, j, weight = between(cell.times_s, t_s, logarithmic=False)
    first = _saturating(cell, cell.sigma_nA[i], g_target_uS)
    return first if i == j else (1 - weight) * first + weight * _saturating(cell, cell.sigma_nA[j], g_target_uS)


def _saturating(cell: FlashCell, law_nA: tuple[float, float], g_uS: Tensor) -> Tensor:
    height, scale = law_nA
    current_nA = g_uS * (cell.current_max_nA / cell.g_max_uS)
    return -torch.expm1(-current_nA / scale) * (height * cell.g_max_uS / cell.current_max_nA)


@program.register
def program_flash(cell: FlashCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = max(0, g_T + sigma(g_T, day 0) xi); uS."""
    check_unsigned(cell, signed)
    if xi is None:
        return g_target_uS.clamp_min(0)
    return (g_target_uS + flash_sigma_uS(cell, g_target_uS, cell.times_s[0]) * xi.to(g_target_uS)).clamp_min(0)


@age.register
def age_flash(cell: FlashCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """g(t) = max(0, g_P + sqrt(sigma(t)^2 - sigma(t_1)^2) xi); uS. The mean does not move."""
    check_time(cell, t_s)
    if t_s <= cell.times_s[0] or xi is None:
        return g_prog_uS
    start = flash_sigma_uS(cell, g_target_uS, cell.times_s[0])
    now = flash_sigma_uS(cell, g_target_uS, t_s)
    return (g_prog_uS + root((now - start) * (now + start)) * xi.to(g_prog_uS)).clamp_min(0)


@read_sigma_uS.register
def read_sigma_flash(
    cell: FlashCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma_I = A (1 - exp(-I/B)) nA of the current that flows now, as a conductance; uS."""
    check_time(cell, t_s)
    return g_uS.new_zeros(()) if cell.read_nA is None else _saturating(cell, cell.read_nA, g_uS)


@static_draws.register
def static_draws_flash(cell: FlashCell) -> frozenset[str]:
    programming = {"programming"} if cell.sigma_nA[0][0] > 0 else set()
    relaxes = any(height > 0 and (height, scale) != cell.sigma_nA[0] for height, scale in cell.sigma_nA)
    return frozenset(programming | {"aging"} if relaxes else programming)


@has_read_noise.register
def has_read_noise_flash(cell: FlashCell) -> bool:
    return cell.read_nA is not None and cell.read_nA[0] > 0


@measured_until_s.register
def measured_until_flash(cell: FlashCell) -> float:
    return cell.times_s[-1]


@scale_noise.register
def scale_noise_flash(cell: FlashCell, factor: float) -> FlashCell:
    check_factor(factor)
    read = cell.read_nA
    return replace(
        cell,
        sigma_nA=tuple((height * factor, scale) for height, scale in cell.sigma_nA),
        read_nA=None if read is None else (read[0] * factor, read[1]),
    )
