"""How a device answers to a programming pulse: delta w = dw_min f(w) (1 + sigma_c xi), up and down.

A response says f of both directions, as a magnitude >= 0. Formulas and names: Gokmen and Vlasov 2016
(constant), Gong et al. 2018 (exponential), Rasch et al. 2021 (arXiv:2104.02184, the others).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mho.errors import HardwareError, InputError

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class ConstantStep:
    """f = scale, the same at every w."""

    scale_up: float = 1.0
    scale_down: float = 1.0

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w."""
        return torch.full_like(w, self.scale_up), torch.full_like(w, self.scale_down)


@dataclass(frozen=True, kw_only=True)
class LinearStep:
    """f = max(0, 1 + gamma w), one gamma a direction."""

    gamma_up: float
    gamma_down: float

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w."""
        return (1.0 + self.gamma_up * w).clamp(min=0.0), (1.0 + self.gamma_down * w).clamp(min=0.0)


@dataclass(frozen=True, kw_only=True)
class SoftBounds:
    """f_up = slope_up (1 - w / w_max), f_down = slope_down (1 - w / w_min); needs w_min < 0 < w_max.

    From w = 0, n up pulses reach w_max (1 - (1 - dw_min slope_up / w_max)^n).
    """

    slope_up: float = 1.0
    slope_down: float = 1.0

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w; :class:`HardwareError` unless w_min < 0 < w_max."""
        if not w_min < 0.0 < w_max:
            raise HardwareError(f"SoftBounds: w_min = {w_min!r}, w_max = {w_max!r}. Fix: bounds on both sides of 0.")
        return self.slope_up * (1.0 - w / w_max), self.slope_down * (1.0 - w / w_min)


@dataclass(frozen=True, kw_only=True)
class ExponentialStep:
    """f = max(0, 1 - A exp(+- gamma z)), z = 2 a w / (w_max - w_min) + b; + for up, - for down.

    Gong et al., IEDM 2018 measured A 0.00081 / 0.36833, gamma 12.44625 / 12.78785, a 0.244, b 0.2425.
    """

    amplitude_up: float
    amplitude_down: float
    gamma_up: float
    gamma_down: float
    a: float
    b: float

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w."""
        z = 2.0 * self.a * w / (w_max - w_min) + self.b
        up = 1.0 - self.amplitude_up * torch.exp(self.gamma_up * z)
        down = 1.0 - self.amplitude_down * torch.exp(-self.gamma_down * z)
        return up.clamp(min=0.0), down.clamp(min=0.0)


@dataclass(frozen=True, kw_only=True)
class PowerStep:
    """f_up = omega^gamma_up, f_down = (1 - omega)^gamma_down, omega = (w_max - w) / (w_max - w_min)."""

    gamma_up: float
    gamma_down: float

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w."""
        omega = ((w_max - w) / (w_max - w_min)).clamp(0.0, 1.0)
        return omega**self.gamma_up, (1.0 - omega) ** self.gamma_down


@dataclass(frozen=True, kw_only=True)
class PiecewiseStep:
    """f by linear interpolation of measured nodes, evenly spaced from w_min to w_max (two or more)."""

    nodes_up: tuple[float, ...]
    nodes_down: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, nodes in (("nodes_up", self.nodes_up), ("nodes_down", self.nodes_down)):
            if len(nodes) < 2 or min(nodes) < 0.0:
                raise HardwareError(
                    f"PiecewiseStep.{name} = {nodes!r}: needs two or more numbers >= 0. Fix: add nodes."
                )

    def factors(self, w: Tensor, w_min: float, w_max: float) -> Pair:
        """(f_up, f_down) at w."""
        where = ((w - w_min) / (w_max - w_min)).clamp(0.0, 1.0)
        return _interpolate(self.nodes_up, where), _interpolate(self.nodes_down, where)


Response = ConstantStep | LinearStep | SoftBounds | ExponentialStep | PowerStep | PiecewiseStep


@dataclass(frozen=True, kw_only=True)
class PulsedDevice:
    """A response with its step at f = 1, its bounds, and its cycle-to-cycle noise sigma_c (relative)."""

    response: Response
    dw_min: float = 0.001
    w_min: float = -0.6
    w_max: float = 0.6
    c2c: float = 0.0

    def __post_init__(self) -> None:
        if not (self.dw_min > 0.0 and self.w_min < self.w_max and self.c2c >= 0.0):
            raise HardwareError(
                f"PulsedDevice: dw_min = {self.dw_min!r}, w_min = {self.w_min!r}, w_max = {self.w_max!r}, "
                f"c2c = {self.c2c!r}. Fix: dw_min > 0, w_min < w_max, c2c >= 0."
            )


def _interpolate(nodes: tuple[float, ...], where: Tensor) -> Tensor:
    table = torch.tensor(nodes, dtype=where.dtype, device=where.device)
    position = where * (len(nodes) - 1)
    left = position.floor().clamp(max=len(nodes) - 2)
    share = position - left
    index = left.long()
    return table[index] * (1.0 - share) + table[index + 1] * share


def step(w: Tensor, pulses: Tensor, device: PulsedDevice, xi: Tensor | None = None) -> Tensor:
    """w after ``pulses`` (signed whole numbers, broadcast with w): each +-dw_min f(w)(1 + c2c xi), kept in bounds.

    Pulses act one after the other, each at the w that the last one left. ``xi``: standard normals
    [max |pulses|, *w.shape], one a pulse; ``None``: no cycle-to-cycle noise. Memory of a device ends
    at w_min and w_max: pulses beyond have no effect. :class:`InputError` when c2c > 0 gets no xi or
    xi holds too few pulses. Not made for gradients.
    """
    count = int(pulses.abs().max()) if pulses.numel() else 0
    if device.c2c > 0.0 and (xi is None or xi.shape[0] < count):
        have = 0 if xi is None else xi.shape[0]
        raise InputError(f"update.step: {have} normals a device for {count} pulses. Fix: give xi of [{count}, ...].")
    for k in range(count):
        up, down = device.response.factors(w, device.w_min, device.w_max)
        jump = device.dw_min * torch.where(pulses > 0, up, -down)
        if xi is not None:
            jump = jump * (1.0 + device.c2c * xi[k])
        w = torch.where(pulses.abs() > k, (w + jump).clamp(device.w_min, device.w_max), w)
    return w


def asymmetry(w: Tensor, device: PulsedDevice) -> Tensor:
    """(f_up - f_down) / (f_up + f_down), in [-1, 1]: 0 at the symmetry point; NaN where neither moves."""
    up, down = device.response.factors(w, device.w_min, device.w_max)
    return (up - down) / (up + down)


def symmetry_point(device: PulsedDevice) -> float:
    """w* where an up and a down pulse cancel, f_up = f_down; alternating pulses drift towards it.

    Bisection in float64 over [w_min, w_max]. Soft bounds have it in closed form,
    (s_up - s_down) / (s_up / w_max - s_down / w_min). :class:`HardwareError` where the two curves do
    not cross, or coincide (a symmetric constant step: every point is one).
    """

    def gap(w: float) -> float:
        up, down = device.response.factors(torch.tensor(w, dtype=torch.float64), device.w_min, device.w_max)
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
    up, down = device.response.factors(torch.tensor(at, dtype=torch.float64), device.w_min, device.w_max)
    mean = 0.5 * float(up + down)
    if mean <= 0.0:
        raise HardwareError(f"PulsedDevice: a pulse at w = {at!r} moves nothing. Fix: another point.")
    return (device.w_max - device.w_min) / (device.dw_min * mean)
