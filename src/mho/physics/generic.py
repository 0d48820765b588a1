"""Generic cell: Gaussian errors whose levels are dials. No paper behind it: an abstraction."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from mho.hardware.cells import GenericCell
from mho.physics.functions import interpolate
from mho.physics.laws import (
    ROOM_TEMPERATURE_K,
    age,
    check_factor,
    check_time,
    has_read_noise,
    program,
    read_sigma_uS,
    scale_noise,
    static_draws,
    uniform_programming_sigma,
    uniform_read_sigma,
)


def _programs_exactly(cell: GenericCell) -> bool:
    table_is_zero = all(sigma == 0 for _, sigma in cell.sigma_table)
    dials = cell.programming_noise, cell.programming_noise_rel, cell.programming_lognormal
    return not any(dials) and table_is_zero


@program.register
def program_generic(cell: GenericCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = g_T + sigma(|g_T|) xi; sigma = a (g_max - g_min) + b |g|, or from ``sigma_table``; or g_T exp(c xi); uS."""
    if xi is None or _programs_exactly(cell):
        # The very tensor: ideal hardware has to equal the digital layer to the last bit.
        return g_target_uS if signed else g_target_uS.clamp_min(0)
    xi = xi.to(g_target_uS)
    if cell.programming_lognormal:
        g = g_target_uS * torch.exp(cell.programming_lognormal * xi)
    elif cell.sigma_table:
        g = g_target_uS + interpolate(cell.sigma_table, g_target_uS.abs()) * xi
    else:
        g = g_target_uS + xi * (cell.programming_noise * (cell.g_max_uS - cell.g_min_uS))
        if cell.programming_noise_rel:
            g = g + cell.programming_noise_rel * g_target_uS.abs() * xi
    return g if signed else g.clamp_min(0)


@age.register
def age_generic(cell: GenericCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """g(t) = g_prog ((t + t0)/t0)^-nu, nu = drift_nu + drift_nu_d2d xi; keeps the sign of g_prog; uS."""
    check_time(cell, t_s)
    if t_s == 0 or (cell.drift_nu == 0 and cell.drift_nu_d2d == 0):
        return g_prog_uS
    ratio = (t_s + cell.t0_s) / cell.t0_s
    if xi is None or cell.drift_nu_d2d == 0:
        return g_prog_uS * math.pow(ratio, -cell.drift_nu)
    nu = cell.drift_nu + cell.drift_nu_d2d * xi.to(g_prog_uS)
    return g_prog_uS * torch.pow(ratio, -nu)


@read_sigma_uS.register
def read_sigma_generic(
    cell: GenericCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = read_noise (g_max - g_min) + read_noise_rel |g|; 0-d without the second term; uS."""
    check_time(cell, t_s)
    floor = cell.read_noise * (cell.g_max_uS - cell.g_min_uS)
    if cell.read_noise_rel == 0:
        return g_uS.new_tensor(floor)
    return floor + cell.read_noise_rel * g_uS.abs()


@static_draws.register
def static_draws_generic(cell: GenericCell) -> frozenset[str]:
    aging = {"aging"} if cell.drift_nu_d2d > 0 else set()
    return frozenset(aging if _programs_exactly(cell) else aging | {"programming"})


@has_read_noise.register
def has_read_noise_generic(cell: GenericCell) -> bool:
    return cell.read_noise > 0 or cell.read_noise_rel > 0


@scale_noise.register
def scale_noise_generic(cell: GenericCell, factor: float) -> GenericCell:
    check_factor(factor)
    return replace(
        cell,
        programming_noise=cell.programming_noise * factor,
        programming_noise_rel=cell.programming_noise_rel * factor,
        programming_lognormal=cell.programming_lognormal * factor,
        sigma_table=tuple((g, sigma * factor) for g, sigma in cell.sigma_table),
        read_noise=cell.read_noise * factor,
        read_noise_rel=cell.read_noise_rel * factor,
        drift_nu_d2d=cell.drift_nu_d2d * factor,
    )


@uniform_programming_sigma.register
def uniform_programming_sigma_generic(cell: GenericCell) -> float | None:
    uniform = not (cell.sigma_table or cell.programming_noise_rel or cell.programming_lognormal)
    return cell.programming_noise if uniform else None


@uniform_read_sigma.register
def uniform_read_sigma_generic(cell: GenericCell, *, temperature_K: float = ROOM_TEMPERATURE_K) -> float | None:
    return None if cell.read_noise_rel else cell.read_noise
