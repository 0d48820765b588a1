"""Trains of pulses on many cells, each with its own step and bounds: rounding to pulses, and what they do.

Weights, bounds and ``dw_min`` are in units of the device. Cells are flat: ``w`` and signed whole ``pulses`` of
shape [n]. Nothing is drawn here. Laws: Rasch et al. 2021 (arXiv:2104.02184); threshold rounding: EaPU, Liu et
al. 2025; stochastic rounding: Gupta et al. 2015 (arXiv:1502.02551).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mho.errors import HardwareError, InputError
from mho.hardware.update import PulsedDevice
from mho.physics.update import factors, slopes

PULSE_BY_PULSE = 16
"""With cycle-to-cycle spread up to so many pulses act one by one; more in closed form, where there is one."""
LONGEST_TRAIN = 10_000
"""Most pulses that are taken one by one: beyond it the device or the step is not what was meant."""
LEAST_BOUND = 0.01
"""A cell's bound is never nearer to 0 than this share of the nominal one."""
NEARLY_STILL = 0.01
"""A target is out of reach where a pulse moves less than this share of the first one."""


class Cells(NamedTuple):
    """What differs from cell to cell: gains of an up and a down pulse, bounds; each [n], or 0-d where all are alike."""

    gain_up: Tensor
    gain_down: Tensor
    w_min: Tensor
    w_max: Tensor

    def at(self, index: Tensor) -> "Cells":
        """The cells at flat positions ``index``."""
        return Cells(*(part if part.dim() == 0 else part.reshape(-1)[index] for part in self))


def nominal_cells(device: PulsedDevice, like: Tensor) -> Cells:
    """Cells that are all as the description says."""
    one = torch.ones((), dtype=like.dtype, device=like.device)
    return Cells(one, one, one * device.w_min, one * device.w_max)


def spread_cells(device: PulsedDevice, xi: Tensor) -> Cells:
    """Cells with device-to-device spread; ``xi``: four standard normals a cell, [4, ...].

    gain = 1 + d2d xi_0 +- d2d_asymmetry xi_1 (+ up, - down), never below 0: such a cell is stuck;
    bounds times 1 + d2d_bounds xi_2 (w_max) and xi_3 (w_min), kept at :data:`LEAST_BOUND` of themselves or more.
    """
    gain, tilt = 1.0 + device.d2d * xi[0], device.d2d_asymmetry * xi[1]
    high = (1.0 + device.d2d_bounds * xi[2]).clamp(min=LEAST_BOUND)
    low = (1.0 + device.d2d_bounds * xi[3]).clamp(min=LEAST_BOUND)
    return Cells((gain + tilt).clamp(min=0.0), (gain - tilt).clamp(min=0.0), low * device.w_min, high * device.w_max)


def round_stochastic(x: Tensor, u: Tensor) -> Tensor:
    """floor(x), or one more with probability x - floor(x): E = x. ``u``: uniforms on [0, 1) like x."""
    low = x.floor()
    return low + (u < x - low)


def round_threshold(d: Tensor, threshold: float, u: Tensor) -> Tensor:
    """|d| < T: T sign(d) with probability |d| / T, else 0; a larger d stays. E = d. ``u``: uniforms like d."""
    small = d.abs() < threshold
    return torch.where(small, threshold * d.sign() * (u * threshold < d.abs()), d)


def pulse_size(w: Tensor, up: Tensor, device: PulsedDevice, cells: Cells) -> Tensor:
    """How far the next pulse moves each cell, >= 0; ``up``: its direction, a boolean a cell."""
    f_up, f_down = factors(device.response, w, cells.w_min, cells.w_max)
    return device.dw_min * torch.where(up, cells.gain_up * f_up, cells.gain_down * f_down).clamp(min=0.0)


def pulse_growth(w: Tensor, up: Tensor, device: PulsedDevice, cells: Cells) -> Tensor | None:
    """beta of straight curves: each pulse is (1 + beta) times the one before. ``None``: curves are not straight."""
    pair = slopes(device.response, w, cells.w_min, cells.w_max)
    if pair is None:
        return None
    return device.dw_min * torch.where(up, cells.gain_up * pair[0], -cells.gain_down * pair[1])


def distance(size: Tensor, beta: Tensor, n: Tensor) -> Tensor:
    """Sum of n pulses, the first of ``size``: size ((1 + beta)^n - 1) / beta, or n size; needs beta > -1."""
    flat = beta == 0.0
    return size * torch.where(flat, n, torch.expm1(n * torch.log1p(beta)) / torch.where(flat, 1.0, beta))


def distance_std(size: Tensor, beta: Tensor, n: Tensor, c2c: float) -> Tensor:
    """Exact std of :func:`distance` when each pulse is multiplied by 1 + c2c xi, n >= 1.

    With r = 1 + beta: size^2 / beta^2 ((r^2 + beta^2 c2c^2)^n - r^(2n)), which tends to n (size c2c)^2 for beta -> 0.
    """
    r = 1.0 + beta
    q = (beta * c2c / r) ** 2
    flat = q == 0.0
    terms = torch.where(flat, n, torch.expm1(n * torch.log1p(q)) / torch.where(flat, 1.0, q))
    return size * c2c * r ** (n - 1.0) * terms.sqrt()


def _closed(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells) -> Tensor:
    """Cells whose train is taken in closed form. A pulse that overshoots (beta <= -1) never is.

    Without cycle-to-cycle spread the closed form is exact for any number of pulses.
    """
    many = pulses.abs() > (PULSE_BY_PULSE if device.c2c > 0.0 else 0)
    beta = pulse_growth(w, pulses > 0, device, cells)
    return torch.zeros_like(many) if beta is None else many & (beta > -1.0)


def normals_needed(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells) -> int:
    """How many normals :func:`pulse_train` takes: one a pulse, or one a train in closed form; 0 without c2c."""
    if device.c2c == 0.0:
        return 0
    closed = _closed(w, pulses, device, cells)
    return int(torch.where(closed, 1, pulses.abs().long()).sum())


def pulse_train(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells, xi: Tensor | None = None) -> Tensor:
    """w [n] after signed ``pulses`` [n], one after the other, each at the w that the last one left, in bounds.

    Where the response is curved, pulses act one by one. On straight curves a train is taken at once: exactly
    without cycle-to-cycle spread; with it, beyond :data:`PULSE_BY_PULSE` pulses, with exact mean and variance, the
    law taken as Gaussian, and the bounds cutting once, at the end. ``xi``: standard normals
    [:func:`normals_needed`] for the spread. :class:`InputError` for too few normals; :class:`HardwareError` where
    a train to be taken one by one is longer than :data:`LONGEST_TRAIN`.
    """
    closed = _closed(w, pulses, device, cells)
    need = normals_needed(w, pulses, device, cells)
    have = 0 if xi is None else xi.numel()
    if have < need:
        raise InputError(f"pulse_train: {have} normals for {need}. Fix: draw as many as normals_needed says.")
    noise = xi.to(w.dtype) if xi is not None and need else None
    if bool(closed.all()):
        return _at_once(w, pulses, device, cells, None if noise is None else noise[:need])
    out = w.clone()
    one, many = (~closed).nonzero().squeeze(1), closed.nonzero().squeeze(1)
    if one.numel():
        out[one] = _one_by_one(w[one], pulses[one], device, cells.at(one), noise)
    if many.numel():
        last = None if noise is None else noise[need - many.numel() : need]
        out[many] = _at_once(w[many], pulses[many], device, cells.at(many), last)
    return out


def _one_by_one(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells, xi: Tensor | None) -> Tensor:
    counts = pulses.abs().long()
    longest = int(counts.max())
    if longest > LONGEST_TRAIN:
        raise HardwareError(
            f"pulse_train: {longest} pulses on one cell, at most {LONGEST_TRAIN} are taken one by one. "
            "Fix: lower the learning rate, raise dw_min, or set pulse_limit."
        )
    # Longest trains first: those that still move are then a prefix, and the work is the number of pulses.
    order = counts.argsort(descending=True, stable=True)
    moving = (counts.numel() - counts.bincount(minlength=1).cumsum(0)).tolist()
    w, up, cells = w[order], pulses[order] > 0, cells.at(order)
    start = 0
    for alive in moving[:longest]:
        part = slice(0, alive)
        here = Cells(*(c if c.dim() == 0 else c[part] for c in cells))
        jump = pulse_size(w[part], up[part], device, here)
        if xi is not None:
            jump = jump * (1.0 + device.c2c * xi[start : start + alive])
        start += alive
        w[part] = torch.clamp(w[part] + torch.where(up[part], jump, -jump), here.w_min, here.w_max)
    return torch.empty_like(w).index_copy_(0, order, w)


def _at_once(w: Tensor, pulses: Tensor, device: PulsedDevice, cells: Cells, xi: Tensor | None) -> Tensor:
    up, n = pulses > 0, pulses.abs().to(w.dtype)
    size, beta = pulse_size(w, up, device, cells), pulse_growth(w, up, device, cells)
    assert beta is not None
    jump = distance(size, beta, n)
    if xi is not None:
        jump = jump + distance_std(size, beta, n, device.c2c) * xi
    return torch.clamp(w + torch.where(up, jump, -jump), cells.w_min, cells.w_max)


def pulses_towards(d: Tensor, w: Tensor, device: PulsedDevice, u: Tensor) -> tuple[Tensor, Tensor]:
    """(signed pulses, out of reach) [n] whose mean effect on nominal cells at ``w`` is exactly ``d``.

    Noiseless trains of k and k + 1 pulses enclose d; the longer one is taken with the probability that makes the
    mean d (``u``: uniforms [n]). A target beyond a bound, or where pulses have become smaller than
    :data:`NEARLY_STILL` of the first, is approached as far as that and marked out of reach.
    """
    cells = nominal_cells(device, w)
    up, wanted = d > 0, d.abs()
    room = torch.where(up, cells.w_max - w, w - cells.w_min).clamp(min=0.0)
    size, beta = pulse_size(w, up, device, cells), pulse_growth(w, up, device, cells)
    if beta is None or bool((beta <= -1.0).any()):
        count, away = _search(torch.minimum(wanted, room), w, up, device, cells, u)
    else:
        reach = torch.where(beta < 0.0, (1.0 - NEARLY_STILL) * size / -torch.where(beta < 0.0, beta, -1.0), torch.inf)
        target = torch.minimum(wanted, torch.minimum(room, torch.where(size > 0.0, reach, 0.0)))
        away = wanted > target
        x = target / torch.where(size > 0.0, size, 1.0)
        flat = beta == 0.0
        k = torch.where(flat, x, torch.log1p(beta * x) / torch.log1p(torch.where(flat, 1.0, beta))).floor()
        low, high = distance(size, beta, k), torch.minimum(distance(size, beta, k + 1.0), room)
        share = (target - low) / torch.where(high > low, high - low, 1.0)
        count = k + (u < share)
    return torch.where(up, count, -count), (away | (wanted > room)) & (wanted > 0.0)


def _search(
    target: Tensor, w: Tensor, up: Tensor, device: PulsedDevice, cells: Cells, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Unsigned pulse counts towards ``target`` >= 0, found pulse by pulse; and which targets are out of reach."""
    count, away = torch.zeros_like(w), torch.zeros_like(up)
    first = pulse_size(w, up, device, cells)
    index = (target > 0.0).nonzero().squeeze(1)
    left, at = target[index], w[index]
    for _ in range(LONGEST_TRAIN):
        if index.numel() == 0:
            return count, away
        size = pulse_size(at, up[index], device, cells)
        still = (size <= NEARLY_STILL * first[index]) & (size < left)
        away[index[still]] = True
        size = torch.minimum(size, torch.where(up[index], cells.w_max - at, at - cells.w_min))
        whole = (left >= size) & (size > 0.0) & ~still
        part = ~whole & ~still
        count[index[whole]] += 1.0
        count[index[part]] += (u[index[part]] * size[part] < left[part]).to(count.dtype)
        left, at = (left - size)[whole], (at + torch.where(up[index], size, -size))[whole]
        index = index[whole]
    raise HardwareError(
        f"pulses_towards: a change of {float(target.max()):.4g} takes more than {LONGEST_TRAIN} pulses. "
        "Fix: lower the learning rate, raise dw_min, or take count='nominal' with a pulse_limit."
    )


def symmetry_points(device: PulsedDevice, cells: Cells) -> Tensor:
    """w* of each cell, where its up and down pulses cancel, in float64; NaN where the curves do not cross once."""
    wide = Cells(*torch.broadcast_tensors(*(part.double() for part in cells)))
    yes = torch.ones(wide.w_min.shape, dtype=torch.bool, device=wide.w_min.device)

    def gap(w: Tensor) -> Tensor:
        return pulse_size(w, yes, device, wide) - pulse_size(w, ~yes, device, wide)

    low, high = wide.w_min.clone(), wide.w_max.clone()
    at_low, at_high = gap(low), gap(high)
    crosses = (at_low * at_high < 0.0) | ((at_low == 0.0) ^ (at_high == 0.0))
    side = torch.where(at_low != 0.0, at_low, -at_high) > 0.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        right = (gap(middle) > 0.0) == side
        low, high = torch.where(right, middle, low), torch.where(right, high, middle)
    return torch.where(crosses, 0.5 * (low + high), torch.nan)
