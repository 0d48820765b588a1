"""Converters between the digital and the analog side: range, levels, ENOB, gain, offset, INL.

One notation for DAC and ADC. ``full_range`` r is half of the full scale (FS = 2 r); B bits have the
2 L + 1 symmetric codes -L ... L, L = 2**(B-1) - 1; one LSB is r / L. ``bits=None`` is a converter
without levels, which still clips at its range.
"""

import math

import torch
from torch import Tensor

from mho import ste
from mho.errors import HardwareError, InputError

BOW = 1.5 * math.sqrt(3.0)
NEWTON_STEPS = 30


def levels(bits: int) -> int:
    """L = 2**(bits - 1) - 1: the codes are -L ... L. 2 <= bits <= 24, else :class:`HardwareError`.

    24 bits is what float32 counts exactly.
    """
    if not 2 <= bits <= 24:
        raise HardwareError(f"converter bits = {bits!r}: a symmetric converter has 2 to 24 bits. Fix: change bits.")
    return int(2 ** (bits - 1) - 1)


def _range(x: Tensor, full_range: Tensor | float) -> Tensor:
    """The range as a tensor in the working dtype (float32, or float64 for float64 x)."""
    if not x.dtype.is_floating_point:
        raise InputError(f"quantize: x has dtype {x.dtype}. Cause: levels need real numbers. Fix: x.float().")
    work = torch.promote_types(x.dtype, torch.float32)
    if isinstance(full_range, Tensor):
        return full_range.to(work)
    if not full_range >= 0.0:
        raise InputError(f"quantize: full_range = {full_range!r} must be a number >= 0. Fix: calibrate the converter.")
    return torch.as_tensor(full_range, dtype=work, device=x.device)


def lsb(full_range: Tensor | float, bits: int) -> Tensor | float:
    """One least significant bit, r / L, in the unit of ``full_range``."""
    return full_range / levels(bits)


def quantize(x: Tensor, full_range: Tensor | float, bits: int | None) -> Tensor:
    """(r / L) round(clamp(x L / r, -L, L)), half to even; ``bits=None``: clamp(x, -r, r) only.

    x: any shape, floating dtype; r: number or tensor that broadcasts with x, same unit, r >= 0 (a
    negative number is an :class:`InputError`; a tensor is not looked at, its owner keeps it
    positive). Half-precision x is quantised in float32 and cast back.

    Gradient: straight-through. To x: 1 for |x| <= r, 0 outside. To r, when it is a tensor that requires
    a gradient: sign(x) outside, 0 inside (PACT, Choi et al. 2018, arXiv:1805.06085); the rounding
    error is taken as a constant.

    r = 0 (an uncalibrated converter, or a signal of zeros) gives zeros, the limit of a range that
    shrinks, never NaN; the gradient to r is still sign(x), so that a learned range can leave 0.
    NaN in x or r stays NaN; infinite x is clipped like any other.
    """
    r = _range(x, full_range)
    wide = x.to(r.dtype)
    clipped = ste.clamp(wide, -r, r)
    if bits is None:
        return clipped.to(x.dtype)
    top = levels(bits)
    # Below this range L / r overflows; the result is within one such r of 0 whatever the code is.
    usable = r.detach() >= torch.finfo(r.dtype).tiny * top
    per_lsb = top / torch.where(usable, r.detach(), 1.0)
    codes = torch.round((wide.detach() * per_lsb).clamp(-top, top))
    return ste.straight_through(codes * (r.detach() / top), clipped).to(x.dtype)


def enob_sigma(bits: int, enob: float) -> float:
    """Standard deviation of the noise that lowers ``bits`` to ``enob`` effective bits, in units of r.

    sigma^2 = FS^2 / 12 (4^-enob - 4^-bits) with FS = 2 r, to be added before rounding; the total error of
    a full-scale converter is then FS / (2^enob sqrt(12)). ENOB = (SNDR - 1.76 dB) / 6.02 dB (IEEE
    Std 1241). 0 < enob <= bits, else :class:`HardwareError`.
    """
    levels(bits)
    if not 0.0 < enob <= bits:
        raise HardwareError(f"adc.enob = {enob!r}: must be above 0 and at most bits = {bits}. Fix: change adc.enob.")
    return 2.0 * math.sqrt((4.0**-enob - 4.0**-bits) / 12.0)


def adc_static(y: Tensor, gain: Tensor | float | None = None, offset: Tensor | float | None = None) -> Tensor:
    """gain * y + offset: the static errors of a converter, one gain and offset a column (or row).

    ``gain`` is the whole factor (1 + gain_d2d xi), ``offset`` is in the unit of y (offset_lsb *
    :func:`lsb`); both broadcast with y. ``None``: ideal.
    """
    if gain is not None:
        y = y * gain
    return y if offset is None else y + offset


def bow(u: Tensor) -> Tensor:
    """(3 sqrt(3) / 2) u (1 - u^2) for u in [-1, 1]: 0 at 0 and both ends, 1 at u = 1 / sqrt(3)."""
    return BOW * u * (1.0 - u * u)


def bow_slope(u: Tensor) -> Tensor:
    """Derivative of :func:`bow`: (3 sqrt(3) / 2) (1 - 3 u^2)."""
    return BOW * (1.0 - 3.0 * u * u)


def inl_inverse(y: Tensor, peak_lsb: float, top: int) -> Tensor:
    """The u in [-1, 1] with u + (peak_lsb / top) bow(u) = y: the signal that a bent converter shows as y.

    y: any shape, in units of the range; ``top`` = :func:`levels`. Newton's method, float64 to rounding; for
    |peak_lsb| < top / (3 sqrt(3)), where the curve is monotone.
    """
    c = peak_lsb / top
    u = y.clone()
    for _ in range(NEWTON_STEPS if c else 0):
        u = (u - (u + c * bow(u) - y) / (1 + c * bow_slope(u))).clamp(-1, 1)
    return u


def inl(x: Tensor, full_range: Tensor | float, peak_lsb: Tensor | float, bits: int) -> Tensor:
    """x + peak_lsb (r / L) (3 sqrt(3) / 2) u (1 - u^2), u = clamp(x / r, -1, 1).

    Integral non-linearity as a smooth bow of each half of the transfer curve: the third-order
    distortion that a fully differential converter keeps (even orders cancel). The error is zero at 0
    and at both ends (an end-point fit) and reaches ``peak_lsb`` LSB at |u| = 1 / sqrt(3); its sign is
    that of ``peak_lsb`` for x > 0. Monotone for |peak_lsb| < L / (3 sqrt(3)). r > 0; r = 0 returns x.
    Tensors broadcast; the gradient is exact.
    """
    r = _range(x, full_range)
    u = ste.clamp(x.to(r.dtype) / torch.where(r > 0, r, 1.0), -1.0, 1.0)
    return (x + peak_lsb * (r / levels(bits)) * bow(u)).to(x.dtype)


def transfer(
    x: Tensor,
    full_range: Tensor | float,
    bits: int | None,
    *,
    gain: Tensor | float | None = None,
    offset_lsb: Tensor | float | None = None,
    inl_lsb: Tensor | float | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """A whole converter: quantize(inl(gain x + offset_lsb LSB + noise)), in the unit of x.

    ``gain``: factor (1 + gain_d2d xi); ``offset_lsb`` and ``inl_lsb``: LSB, need ``bits``; ``noise``: fresh
    noise in the unit of x (r * :func:`enob_sigma` * xi). All broadcast with x; ``None`` is ideal.
    A :class:`HardwareError` for LSB errors without ``bits``.
    """
    if bits is None and (offset_lsb is not None or inl_lsb is not None):
        raise HardwareError("converter offset_lsb / inl_lsb are measured in LSB and bits is None. Fix: set bits.")
    y = adc_static(x, gain)
    if bits is not None and offset_lsb is not None:
        y = adc_static(y, None, offset_lsb * lsb(full_range, bits))
    if noise is not None:
        y = y + noise
    if bits is not None and inl_lsb is not None:
        y = inl(y, full_range, inl_lsb, bits)
    return quantize(y, full_range, bits)
