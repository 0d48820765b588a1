"""Charge-domain SRAM: mismatch of unit capacitors (static) and kT/C noise (fresh).

A product charges one unit capacitor a row; the column shares the charge. What "g" means here: the
stored weight relative to g_max, as a share of the supply on its capacitor.
"""

import math
from dataclasses import replace

from torch import Tensor

from mho.hardware.cells import SramCell
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
    uniform_read_sigma,
)
from mho.units import BOLTZMANN_J_PER_K

FARAD_PER_FF = 1e-15


@program.register
def program_sram(cell: SramCell, g_target_uS: Tensor, xi: Tensor | None, *, signed: bool = False) -> Tensor:
    """g = g_T (1 + sigma xi), sigma = mismatch_sqrt_fF / sqrt(unit_fF): the capacitor is off, the bit is not."""
    if xi is None or cell.mismatch_sqrt_fF == 0:
        return g_target_uS if signed else g_target_uS.clamp_min(0)
    sigma = cell.mismatch_sqrt_fF / math.sqrt(cell.unit_fF)
    g = g_target_uS * (1 + sigma * xi.to(g_target_uS))
    return g if signed else g.clamp_min(0)


@age.register
def age_sram(cell: SramCell, g_prog_uS: Tensor, g_target_uS: Tensor, t_s: float, xi: Tensor | None) -> Tensor:
    """Capacitors do not age: g_prog."""
    check_time(cell, t_s)
    return g_prog_uS


def ktc_share(cell: SramCell, temperature_K: float) -> float:
    """kT/C noise of one unit capacitor as a fraction of the supply: sqrt(kT/C_u)/V, V of ``supply_V``.

    Each of R capacitors keeps sqrt(kT/C_u) when its switch opens. The shared node averages them:
    sqrt(kT/(R C_u)), the kT/C noise of the whole node. Seen as an error of each weight it is this value
    for inputs at full scale (binary and bit-serial inputs are), and less than the truth for smaller
    analog ones by the ratio of their root mean square to full scale.
    """
    if not cell.thermal:
        return 0.0
    volts = math.sqrt(BOLTZMANN_J_PER_K * temperature_K / (cell.unit_fF * FARAD_PER_FF))
    return cell.thermal_factor * volts / cell.supply_V


@read_sigma_uS.register
def read_sigma_sram(
    cell: SramCell, g_uS: Tensor, g_target_uS: Tensor, t_s: float, *, temperature_K: float = ROOM_TEMPERATURE_K
) -> Tensor:
    """sigma = g_max sqrt(kT/C_u)/V, 0-d: see :func:`ktc_share` for what it stands for."""
    check_time(cell, t_s)
    return g_uS.new_tensor(cell.g_max_uS * ktc_share(cell, temperature_K))


@static_draws.register
def static_draws_sram(cell: SramCell) -> frozenset[str]:
    return frozenset({"programming"} if cell.mismatch_sqrt_fF > 0 else ())


@has_read_noise.register
def has_read_noise_sram(cell: SramCell) -> bool:
    return cell.thermal and cell.thermal_factor > 0


@scale_noise.register
def scale_noise_sram(cell: SramCell, factor: float) -> SramCell:
    check_factor(factor)
    return replace(cell, mismatch_sqrt_fF=cell.mismatch_sqrt_fF * factor, thermal_factor=cell.thermal_factor * factor)


@uniform_read_sigma.register
def uniform_read_sigma_sram(cell: SramCell, *, temperature_K: float = ROOM_TEMPERATURE_K) -> float | None:
    return ktc_share(cell, temperature_K) * cell.g_max_uS / (cell.g_max_uS - cell.g_min_uS)
