"""How a cell answers to a programming pulse, as data. The laws are in ``mho.physics.update``.

A pulse moves a weight by dw_min f(w) (1 + c2c xi), up or down; a response says f of both directions, as a
magnitude >= 0. Weights are in units of the device: those of ``w_min``, ``w_max`` and ``dw_min``. Formulas and
names: Gokmen and Vlasov 2016 (constant), Gong et al. 2018 (exponential), Rasch et al. 2021 (arXiv:2104.02184,
the others).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from mho.errors import HardwareError
from mho.hardware.fields import Count, Fraction, NonNegative, Positive, check_fields, contradiction


@dataclass(frozen=True, kw_only=True)
class ConstantStep:
    """f = scale, the same at every w."""

    kind: Literal["constant"] = "constant"
    scale_up: NonNegative = 1.0
    scale_down: NonNegative = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class LinearStep:
    """f = max(0, 1 + gamma w), one gamma a direction."""

    kind: Literal["linear"] = "linear"
    gamma_up: float
    gamma_down: float

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class SoftBounds:
    """f_up = slope_up (1 - w / w_max), f_down = slope_down (1 - w / w_min); needs w_min < 0 < w_max.

    From w = 0, n up pulses reach w_max (1 - (1 - dw_min slope_up / w_max)^n).
    """

    kind: Literal["soft-bounds"] = "soft-bounds"
    slope_up: NonNegative = 1.0
    slope_down: NonNegative = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class ExponentialStep:
    """f = max(0, 1 - A exp(+- gamma z)), z = 2 a w / (w_max - w_min) + b; + for up, - for down.

    Gong et al., IEDM 2018 measured A 0.00081 / 0.36833, gamma 12.44625 / 12.78785, a 0.244, b 0.2425.
    """

    kind: Literal["exponential"] = "exponential"
    amplitude_up: float
    amplitude_down: float
    gamma_up: float
    gamma_down: float
    a: float
    b: float

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class PowerStep:
    """f_up = omega^gamma_up, f_down = (1 - omega)^gamma_down, omega = (w_max - w) / (w_max - w_min)."""

    kind: Literal["power"] = "power"
    gamma_up: NonNegative
    gamma_down: NonNegative

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, kw_only=True)
class PiecewiseStep:
    """f by linear interpolation of measured nodes, evenly spaced from w_min to w_max (two or more)."""

    kind: Literal["piecewise"] = "piecewise"
    nodes_up: tuple[float, ...]
    nodes_down: tuple[float, ...]

    def __post_init__(self) -> None:
        check_fields(self)
        for name, nodes in (("nodes_up", self.nodes_up), ("nodes_down", self.nodes_down)):
            if len(nodes) < 2 or min(nodes) < 0.0:
                raise contradiction(self, name, nodes, "needs two or more numbers >= 0", "add nodes")


Response = ConstantStep | LinearStep | SoftBounds | ExponentialStep | PowerStep | PiecewiseStep


@dataclass(frozen=True, kw_only=True)
class PulsedDevice:
    """A response with its step at f = 1, its bounds, its spreads and its price.

    ``c2c``: cycle-to-cycle std of one pulse, relative. Device to device, fixed for a cell: ``d2d``, relative std of
    its step, both directions alike; ``d2d_asymmetry``, std of a further gain that is added for up and subtracted
    for down pulses (it moves the symmetry point); ``d2d_bounds``, relative std of each bound. ``write_noise``: std
    that one write, of any number of pulses, leaves on the weight, in units of the device.
    ``pulse_limit``: most pulses of one cell in one update (``None``: as many as are asked for).
    ``pulse_energy_pJ``: energy of one pulse on one cell (``None``: not known).
    """

    response: Response = field(default_factory=ConstantStep)
    dw_min: Positive = 0.001
    w_min: float = -0.6
    w_max: float = 0.6
    c2c: NonNegative = 0.0
    d2d: NonNegative = 0.0
    d2d_asymmetry: NonNegative = 0.0
    d2d_bounds: Fraction = 0.0
    write_noise: NonNegative = 0.0
    pulse_limit: Count | None = None
    pulse_energy_pJ: NonNegative | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not dataclasses.is_dataclass(self.response) or isinstance(self.response, type):
            raise HardwareError(
                f"PulsedDevice.response = {self.response!r}: is no response. Fix: give one, such as SoftBounds()."
            )
        if self.w_min >= self.w_max:
            raise contradiction(self, "w_min", self.w_min, f"not below w_max = {self.w_max}", "exchange or lower w_min")
        if isinstance(self.response, SoftBounds) and not self.w_min < 0.0 < self.w_max:
            raise contradiction(
                self, "w_min", self.w_min, f"SoftBounds with w_max = {self.w_max}", "bounds on both sides of 0"
            )
        if self.d2d_bounds > 0.0 and not self.w_min < 0.0 < self.w_max:
            raise contradiction(
                self, "d2d_bounds", self.d2d_bounds, "a relative spread of bounds", "bounds on both sides of 0"
            )
