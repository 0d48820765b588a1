"""In how many phases an input is applied, and what one phase drives.

    planes     P = ceil(B / b)        B bits of magnitude (polar) or of two's complement, b a phase, highest first
    drive      u = sum_p (V_p / V_read)^2 t_p / t_read        of one input: what multiplies V_read^2 g t_read

Amplitude: u = sum_p (digit_p / (2^b - 1))^2. Pulse width: u = |code| / L, at full voltage for a share of the time.
"""

import math

import torch
from torch import Tensor

from mho.hardware.cost import DriveCost
from mho.hardware.spec import Hardware
from mho.physics import converters


def driven(hw: Hardware) -> DriveCost:
    """How inputs are driven; without prices: all bits at once, as a voltage."""
    return DriveCost() if hw.cost is None else hw.cost.drive


def input_bits(hw: Hardware) -> int | None:
    """Bits of the DAC; ``None`` for an ideal one."""
    return None if hw.dac is None else hw.dac.bits


def planes(hw: Hardware) -> int:
    """Phases of one product."""
    bits, drive = input_bits(hw), driven(hw)
    if bits is None or drive.bits_per_phase is None:
        return 1
    return max(1, math.ceil((bits - 1 if drive.polar else bits) / drive.bits_per_phase))


def groups_of_planes(hw: Hardware) -> tuple[int, ...]:
    """Planes that go into each conversion of one product, in even groups of at most ``planes_per_conversion``.

    5 planes, 3 a conversion: (3, 2).
    """
    count = planes(hw)
    limit = 1 if hw.cost is None else hw.cost.adc.planes_per_conversion
    groups = math.ceil(count / limit)
    return tuple(count // groups + (k < count % groups) for k in range(groups))


def drive_share(x: Tensor, full_range: Tensor, hw: Hardware) -> Tensor:
    """u of each input, float64, of the shape of ``x``: between 0 and the number of phases."""
    bits, drive = input_bits(hw), driven(hw)
    r = full_range.double()
    wide = x.double()
    share = torch.where(r > 0, wide / torch.where(r > 0, r, 1.0), torch.zeros_like(wide)).clamp(-1, 1)
    if bits is None:
        return share.abs() if drive.shape == "pulse-width" else share.square()
    top = converters.levels(bits)
    codes = torch.round(share * top)
    if drive.shape == "pulse-width":
        return codes.abs() / top
    if drive.bits_per_phase is None:
        return (codes / top).square()
    left = (codes.abs() if drive.polar else torch.remainder(codes, 2**bits)).long()
    base = 2**drive.bits_per_phase
    total = torch.zeros_like(wide)
    for _ in range(planes(hw)):
        total += ((left % base).double() / (base - 1)).square()
        left = left // base
    return total
