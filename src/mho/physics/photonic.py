"""Mach-Zehnder weights: static errors of the phase, fresh relative intensity noise.

Phase noise cut at 2 sigma and phase-shifter variation cut at 3 sigma, as in TorchONN's model of MZI
meshes (Feng et al.; facts only). "g" stands for the amplitude relative to g_max.
"""

from dataclasses import replace

import torch
from torch import Tensor

from mho.hardware.cells import PhotonicCell
from mho.physics.functions import root, truncated_normal, truncated_std
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
)

PHASE_CUT = 2.0
GAMMA_CUT = 3.0


@program.register
def program_photonic(cell: PhotonicCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = g_max cos(phi + e), phi = arccos(g_T/g_max), e of variance s_2^2 p^2 + s_3^2 (gamma phi)^2; uS.

    p = ``phase_noise_rad``, gamma = ``gamma_d2d``, s_L^2 the variance of a standard normal cut at L. A
    cell has one draw: the variance is that of the two independent errors, the shape that of one cut
    at 2 sigma (at 3 sigma without phase noise). The gradient holds the spread e fixed; where the sine
    of phi is below 1e-3 (full scale, where arccos has no slope) it is cos(e).
    """
    ghat = (g_target_uS / cell.g_max_uS).clamp(-1.0, 1.0)
    if xi is None or not static_draws(cell):
        return g_target_uS if signed else g_target_uS.clamp_min(0)
    phase = torch.arccos(ghat.detach())
    variance = (cell.phase_noise_rad * truncated_std(PHASE_CUT)) ** 2 + (
        cell.gamma_d2d * truncated_std(GAMMA_CUT) * phase
    ) ** 2
    cut = PHASE_CUT if cell.phase_noise_rad > 0 else GAMMA_CUT
    error = root(variance) * truncated_normal(xi, cut).to(g_target_uS)
    sine_squared = (1 - ghat.square()).clamp_min(0)
    sine = torch.where(sine_squared > 1e-6, root(sine_squared), root(sine_squared.detach()))
    g = cell.g_max_uS * (ghat * error.cos() - sine * error.sin())
    return g if signed else g.clamp_min(0)


@age.register
def age_photonic(cell: PhotonicCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """A locked interferometer does not age: g_prog."""
    check_time(cell, t_s)
    return g_prog_uS


@read_sigma_uS.register
def read_sigma_photonic(
    cell: PhotonicCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = rin |g|: intensity noise of the light of one read, independent a weight; uS."""
    check_time(cell, t_s)
    return cell.rin * g_uS.abs() if cell.rin else g_uS.new_zeros(())


@static_draws.register
def static_draws_photonic(cell: PhotonicCell) -> frozenset[str]:
    return frozenset({"programming"} if cell.phase_noise_rad > 0 or cell.gamma_d2d > 0 else ())


@has_read_noise.register
def has_read_noise_photonic(cell: PhotonicCell) -> bool:
    return cell.rin > 0


@scale_noise.register
def scale_noise_photonic(cell: PhotonicCell, factor: float) -> PhotonicCell:
    check_factor(factor)
    return replace(
        cell,
        phase_noise_rad=cell.phase_noise_rad * factor,
        gamma_d2d=cell.gamma_d2d * factor,
        rin=cell.rin * factor,
    )
