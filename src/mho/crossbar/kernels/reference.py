"""The meaning of every kernel, in numpy and torch: documentation, parity tests, and what runs without a compiler.

All functions are pure, over float32 tensors in the order of memory, and give the bits of the C code (the double sums
agree to rounding).
"""

from typing import NamedTuple

import numpy as np
import torch

# numpy.typing would cost an import of its own
_Words = np.ndarray[tuple[int, ...], np.dtype[np.uint32]]
_Keys = np.ndarray[tuple[int, ...], np.dtype[np.uint64]]
_Reals = np.ndarray[tuple[int, ...], np.dtype[np.float32]]

BLOCK = 1024
LANES = 16
_SLAB = 1024  # blocks at a time, so that the temporaries stay small
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_LOG = (0.2021377831697464, -0.3244516849517822, 0.3450166583061218, -0.39800330996513367, 0.4993981719017029)
_LOG_END = (-0.6667011976242065, 1.0000072717666626, -2.0)
_SINE = (-3.595450834836811e-05, 0.002490007085725665, -0.08074543625116348, 0.7853981852531433)
_COSINE = (-0.0003188805130776018, 0.015849914401769638, -0.3084242641925812, 1.0)
_TWO_LOG_2 = np.float32(1.3862943649291992)
_ROOT_HALF_BITS = np.int32(0x3F3504F3)


class Readout(NamedTuple):
    """Statistics of noisy values before a converter: max |v|, the sum of v^2, how many lie beyond the range."""

    absmax: float
    sumsq: float
    clipped: int


def _mix(x: _Keys) -> _Keys:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _rotate(x: _Words, by: int) -> _Words:
    return (x << np.uint32(by)) | (x >> np.uint32(32 - by))


def _horner(x: _Reals, coefficients: tuple[float, ...]) -> _Reals:
    value = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + np.float32(coefficient)
    return value


def block_bits(seed: int, blocks: _Keys) -> _Words:
    """64 words of 16 xoshiro128++ lanes for each block: [blocks, 1024]."""
    seeds = np.full_like(blocks, seed)
    low = _mix(_mix(seeds + _GOLDEN) + blocks * _GOLDEN)[:, None]
    high = _mix(_mix(blocks + np.uint64(0xD1B54A32D192ED03)) + seeds * _GOLDEN)[:, None]
    steps = (np.arange(LANES, dtype=np.uint64) + np.uint64(1)) * _GOLDEN
    first, second = _mix(low + steps), _mix(high + steps)
    a, b, c, d = (word.astype(np.uint32) for word in (first, first >> np.uint64(32), second, second >> np.uint64(32)))
    words = np.empty((len(blocks), BLOCK // LANES, LANES), dtype=np.uint32)
    for step in range(BLOCK // LANES):
        words[:, step] = _rotate(a + d, 7) + a
        shifted = b << np.uint32(9)
        c = c ^ a
        d = d ^ b
        b = b ^ c
        a = a ^ d
        c = c ^ shifted
        d = _rotate(d, 11)
    return words.reshape(len(blocks), BLOCK)


def box_muller(words: _Words) -> _Reals:
    """Normals of the same shape [blocks, 1024]: radii from the first half of the words, angles from the second.

    ``r = sqrt(-2 log u)``, u of 31 bits; an angle of 30 bits in a quadrant and 2 bits for the quadrant.
    """
    radius, angle = words[:, : BLOCK // 2], words[:, BLOCK // 2 :]
    w = (radius >> np.uint32(1)).astype(np.int32).astype(np.float32) + np.float32(0.5)
    shifted = w.view(np.int32) - _ROOT_HALF_BITS
    x = ((shifted & np.int32(0x007FFFFF)) + _ROOT_HALF_BITS).view(np.float32) - np.float32(1)
    octaves = (np.int32(31) - (shifted >> np.int32(23))).astype(np.float32)
    r = np.sqrt(octaves * _TWO_LOG_2 + _horner(x, _LOG + _LOG_END) * x)
    t = (angle << np.uint32(2)).view(np.int32).astype(np.float32) * np.float32(2.0**-31)
    sine = (r * (_horner(t * t, _SINE) * t)).view(np.uint32)
    cosine = (r * _horner(t * t, _COSINE)).view(np.uint32) ^ (angle << np.uint32(31))
    swap = (angle & np.uint32(2)) != 0
    halves = (np.where(swap, sine, cosine), np.where(swap, cosine, sine))
    return np.concatenate(halves, axis=1).view(np.float32)


def normals(n: int, seed: int) -> torch.Tensor:
    """The first ``n`` standard normals of ``seed``."""
    slabs = []
    for start in range(0, -(-n // BLOCK), _SLAB):
        blocks = np.arange(start, min(start + _SLAB, -(-n // BLOCK)), dtype=np.uint64)
        slabs.append(box_muller(block_bits(seed, blocks)).reshape(-1))
    return torch.from_numpy(np.concatenate(slabs)[:n]) if slabs else torch.empty(0)


def add_normal(base: torch.Tensor, sigma: float, seed: int, lo: float, hi: float) -> torch.Tensor:
    """``clamp(base, lo, hi) + sigma z``."""
    return base.clamp(lo, hi) + normals(base.numel(), seed) * sigma


def absmax_sumsq(x: torch.Tensor) -> tuple[float, float]:
    """``(max |x|, sum of x^2 in double)``; NaN is kept."""
    if x.numel() == 0:
        return 0.0, 0.0
    return x.abs().max().item(), x.double().square().sum().item()


def quantize(x: torch.Tensor, r: float, levels: float) -> torch.Tensor:
    """``(r / levels) round(clamp(x levels / r, -levels, levels))``; levels = 0: a clamp; r = inf: ``x``."""
    if r == float("inf"):
        return x
    if levels == 0:
        return x.clamp(-r, r)
    return torch.round((x * (levels / r)).clamp(-levels, levels)) * (r / levels)


def deviations(
    shape: torch.Size, sigma: float, sigma_map: torch.Tensor, columns: torch.Tensor | None = None
) -> torch.Tensor:
    """``sqrt(sigma^2 + (sigma_map columns)^2)`` for a ``shape`` [A, O, P], sigma_map [A, P], columns [O]."""
    deviation = sigma_map.detach().numpy().reshape(shape[0], 1, shape[2])
    if columns is not None:
        deviation = deviation * columns.detach().numpy().reshape(1, -1, 1)
    # torch.sqrt is not always correctly rounded
    return torch.from_numpy(np.sqrt(np.square(deviation) + np.square(np.float32(sigma))))


def noise_slope(
    g: torch.Tensor, sigma: float, seed: int, sigma_map: torch.Tensor | None, columns: torch.Tensor | None = None
) -> tuple[torch.Tensor, float]:
    """``(g z / s, its sum in double)`` for g [A, O, P] with the deviation s of :func:`adc`; 0 where s is 0."""
    s = torch.full((1, 1, 1), sigma) if sigma_map is None else deviations(g.shape, sigma, sigma_map, columns)
    slope = g * normals(g.numel(), seed).view(g.shape) / torch.where(s > 0, s, 1.0)
    slope = torch.where(s > 0, slope, 0.0)
    return slope, slope.double().sum().item()


def adc(
    y: torch.Tensor,
    sigma: float,
    seed: int,
    r: float,
    sigma_map: torch.Tensor | None = None,
    columns: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Readout]:
    """``v = y + s z`` for y [A, O, P], before the converter; its statistics.

    s: :func:`deviations` where there is a map, else ``sigma``.
    """
    if sigma_map is not None:
        v = y + deviations(y.shape, sigma, sigma_map, columns) * normals(y.numel(), seed).view(y.shape)
    elif sigma > 0:
        v = y + normals(y.numel(), seed).view(y.shape) * sigma
    else:
        v = y.clone()
    outside = ~(v.abs() <= float(np.float32(r)))
    return v, Readout(*absmax_sumsq(v), int(outside.sum().item()))


def rails(v: torch.Tensor, r: float) -> torch.Tensor:
    """int8: 0 where |v| <= r, the sign of v beyond, 2 for NaN."""
    beyond = torch.where(v.abs() > r, v.sign(), 0.0)
    return torch.where(v.isnan(), 2.0, beyond).to(torch.int8)


def unclipped(g: torch.Tensor, rails: torch.Tensor) -> tuple[torch.Tensor, float]:
    """``(g where the rail is 0 else 0, the sum of g rail over rails of -1 and 1 in double)``."""
    slope = torch.where(rails.abs() == 1, g.double() * rails, 0.0).sum().item()
    return torch.where(rails == 0, g, 0.0), slope


def pass_inside(g: torch.Tensor, x: torch.Tensor, r: float) -> tuple[torch.Tensor, float]:
    """``(g where |x| <= r else 0, the sum of g sign(x) over |x| > r in double)``."""
    limit = float(np.float32(r))
    clipped = x.abs() > limit
    slope = torch.where(clipped, g.double() * x.double().sign(), 0.0).sum().item()
    return torch.where(x.abs() <= limit, g, 0.0), slope
