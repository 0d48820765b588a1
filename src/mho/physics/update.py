"""How a device answers to a programming pulse: delta w = dw_min f(w) (1 + c2c xi), up and down.

The descriptions are in ``mho.hardware.update``; :func:`factors` is their law and dispatches on the kind of
response. A new response is a frozen dataclass and one ``register`` (two where its curves are straight lines).
Many pulses on many cells, each with its own step and bounds: ``mho.physics.pulses``.
"""

import functools

import torch
from torch import Tensor

from mho.errors import HardwareError, InputError
from mho.hardware.update import (
    ConstantStep,
    ExponentialStep,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    PulsedDevice,
    Response,
    SoftBounds,
)

Pair = tuple[Tensor, Tensor]
Bound = float | Tensor
"""A bound of all cells, or one a cell in the shape of w."""


@functools.singledispatch
def factors(response: object, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    """(f_up, f_down) >= 0 at w, in the shape of w, for w in [w_min, w_max]."""
    raise HardwareError(
        f"mho.physics.update.factors: no law for {type(response).__name__}. Fix: pass a response of "
        "mho.hardware.update, or register one with factors.register."
    )


@functools.singledispatch
def slopes(response: object, w: Tensor, w_min: Bound, w_max: Bound) -> Pair | None:
    """(df_up/dw, df_down/dw) where both curves are straight lines in w between the bounds, else ``None``.

    Then n pulses have a closed form (:func:`mho.physics.pulses.moved`).
    """
    return None


@factors.register
def _(response: ConstantStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    return torch.full_like(w, response.scale_up), torch.full_like(w, response.scale_down)


@slopes.register
def _(response: ConstantStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    return torch.zeros_like(w), torch.zeros_like(w)


@factors.register
def _(response: LinearStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    return (1.0 + response.gamma_up * w).clamp(min=0.0), (1.0 + response.gamma_down * w).clamp(min=0.0)


@slopes.register
def _(response: LinearStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    return torch.full_like(w, response.gamma_up), torch.full_like(w, response.gamma_down)


@factors.register
def _(response: SoftBounds, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    if not isinstance(w_min, Tensor) and not isinstance(w_max, Tensor) and not w_min < 0.0 < w_max:
        raise HardwareError(f"SoftBounds: w_min = {w_min!r}, w_max = {w_max!r}. Fix: bounds on both sides of 0.")
    return response.slope_up * (1.0 - w / w_max), response.slope_down * (1.0 - w / w_min)


@slopes.register
def _(response: SoftBounds, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    one = torch.ones_like(w)
    return -response.slope_up * one / w_max, -response.slope_down * one / w_min


@factors.register
def _(response: ExponentialStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    z = 2.0 * response.a * w / (w_max - w_min) + response.b
    up = 1.0 - response.amplitude_up * torch.exp(response.gamma_up * z)
    down = 1.0 - response.amplitude_down * torch.exp(-response.gamma_down * z)
    return up.clamp(min=0.0), down.clamp(min=0.0)


@factors.register
def _(response: PowerStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    omega = ((w_max - w) / (w_max - w_min)).clamp(0.0, 1.0)
    return omega**response.gamma_up, (1.0 - omega) ** response.gamma_down


@factors.register
def _(response: PiecewiseStep, w: Tensor, w_min: Bound, w_max: Bound) -> Pair:
    where = ((w - w_min) / (w_max - w_min)).clamp(0.0, 1.0)
    return _interpolate(response.nodes_up, where), _interpolate(response.nodes_down, where)


def _interpolate(nodes: tuple[float, ...], where: Tensor) -> Tensor:
    table = torch.tensor(nodes, dtype=where.dtype, device=where.device)
    position = where * (len(nodes) - 1)
    left = position.floor().clamp(max=len(nodes) - 2)
    share = position - left
    index = left.long()
    return table[index] * (1.0 - share) + table[index + 1] * share


def step(w: Tensor, pulses: Tensor, device: PulsedDevice, xi: Tensor | None = None) -> Tensor:
    """w after ``pulses`` (signed whole numbers, broadcast with w): each +-dw_min f(w)(1 + c2c xi), kept in bounds.

    Pulses act one after the other, each at the w that the last one left; all cells are alike (no d2d) and
    write noise is left out. ``xi``: standard normals [max |pulses|, *w.shape], one a pulse; ``None``: no
    cycle-to-cycle noise. Memory of a device ends at w_min and w_max: pulses beyond have no effect.
    :class:`InputError` when c2c > 0 gets no xi or xi holds too few pulses. Not made for gradients.
    """
    count = int(pulses.abs().max()) if pulses.numel() else 0
    if device.c2c > 0.0 and (xi is None or xi.shape[0] < count):
        have = 0 if xi is None else xi.shape[0]
        raise InputError(f"update.step: {have} normals a device for {count} pulses. Fix: give xi of [{count}, ...].")
    for k in range(count):
        up, down = factors(device.response, w, device.w_min, device.w_max)
        jump = device.dw_min * torch.where(pulses > 0, up, -down)
        if xi is not None:
            jump = jump * (1.0 + device.c2c * xi[k])
        w = torch.where(pulses.abs() > k, (w + jump).clamp(device.w_min, device.w_max), w)
    return w


def odd_even(w: Tensor, device: PulsedDevice) -> Pair:
    """(F, G) at w: F = (f_up + f_down) / 2, G = (f_down - f_up) / 2.

    An update d, carried out as d / dw_min pulses, changes the weight by d F(w) - |d| G(w) (to first order in
    dw_min): gradient descent plus a pull towards the symmetry point, where G = 0.
    """
    up, down = factors(device.response, w, device.w_min, device.w_max)
    return 0.5 * (up + down), 0.5 * (down - up)


def asymmetry(w: Tensor, device: PulsedDevice) -> Tensor:
    """(f_up - f_down) / (f_up + f_down), in [-1, 1]: 0 at the symmetry point; NaN where neither moves."""
    up, down = factors(device.response, w, device.w_min, device.w_max)
    return (up - down) / (up + down)


def symmetry_point(device: PulsedDevice) -> float:
    """w* where an up and a down pulse cancel, f_up = f_down; alternating pulses drift towards it.

    Bisection in float64 over [w_min, w_max]. Soft bounds have it in closed form,
    (s_up - s_down) / (s_up / w_max - s_down / w_min). :class:`HardwareError` where the two curves do
    not cross, or coincide (a symmetric constant step: every point is one).
    """

    def gap(w: float) -> float:
        up, down = factors(device.response, torch.tensor(w, dtype=torch.float64), device.w_min, device.w_max)
        return float(up - down)

    low, high = device.w_min, device.w_max
    at_low, at_high = gap(low), gap(high)
    if at_low == 0.0 and at_high != 0.0:
        return low
    if at_high == 0.0 and at_low != 0.0:
        return high
    if at_low * at_high >= 0.0:
        raise HardwareError(
            f"PulsedDevice: f_up - f_down is {at_low:.3g} at w_min and {at_high:.3g} at w_max: no single symmetry "
            "point. Fix: a response whose up and down curves cross once."
        )
    for _ in range(200):
        middle = 0.5 * (low + high)
        if (gap(middle) > 0.0) == (at_low > 0.0):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def number_of_states(device: PulsedDevice, at: float = 0.0) -> float:
    """(w_max - w_min) / (dw_min (f_up + f_down) / 2) with f taken at w = ``at``; range / dw_min for f = 1."""
    up, down = factors(device.response, torch.tensor(at, dtype=torch.float64), device.w_min, device.w_max)
    mean = 0.5 * float(up + down)
    if mean <= 0.0:
        raise HardwareError(f"PulsedDevice: a pulse at w = {at!r} moves nothing. Fix: another point.")
    return (device.w_max - device.w_min) / (device.dw_min * mean)


__all__ = [
    "Bound",
    "ConstantStep",
    "ExponentialStep",
    "LinearStep",
    "Pair",
    "PiecewiseStep",
    "PowerStep",
    "PulsedDevice",
    "Response",
    "SoftBounds",
    "asymmetry",
    "factors",
    "number_of_states",
    "odd_even",
    "slopes",
    "step",
    "symmetry_point",
]
