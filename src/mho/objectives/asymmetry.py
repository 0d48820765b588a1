"""Where the weights sit on a device that does not move equally far both ways."""

from collections.abc import Iterable

import torch
from torch import Tensor

from mho.errors import HardwareError
from mho.hardware import PulsedDevice
from mho.objectives.weights import AnalogWeight
from mho.physics import update


def position(w_hat: Tensor, device: PulsedDevice) -> Tensor:
    """Weights over full scale, [-1, 1], in the device's own units: zero stays 0, and full scale of either sign
    is the nearer of its bounds, which both signs reach. Raises :class:`HardwareError` unless w_min < 0 < w_max.
    """
    if not device.w_min < 0.0 < device.w_max:
        raise HardwareError(
            f"asymmetry: w_min = {device.w_min!r}, w_max = {device.w_max!r}: a weight of zero is not inside. "
            "Fix: bounds on both sides of 0."
        )
    return w_hat * min(device.w_max, -device.w_min)


def asymmetry2(w_hat: Tensor, device: PulsedDevice) -> Tensor:
    """((f_up - f_down)/(f_up + f_down))^2 at each weight: 0 at the symmetry point, 1 where one way is shut.

    Raises :class:`HardwareError` where neither direction moves the device.
    """
    at = position(w_hat, device)
    ratio = update.asymmetry(at, device)
    if not bool(torch.isfinite(ratio).all()) and bool(torch.isfinite(w_hat).all()):
        stuck = float(at.detach()[~torch.isfinite(ratio)][0])
        raise HardwareError(
            f"asymmetry: at w = {stuck:.4g} neither an up nor a down pulse of {type(device.response).__name__} moves "
            "the device. Fix: narrower w_min .. w_max, or another response."
        )
    return ratio.square()


def mean_asymmetry(weights: Iterable[AnalogWeight], device: PulsedDevice | None) -> Tensor:
    """Mean of :func:`asymmetry2` over all weights, in [0, 1]; no unit.

    ``device``: of all weights; ``None``: each hardware's own ``update``. Raises :class:`HardwareError` where a
    weight has neither.
    """
    parts = []
    for weight in weights:
        own = device if device is not None else weight.hw.update
        if own is None:
            raise HardwareError(
                f"{weight.site.name}: asymmetry needs to know how its cells answer to pulses, and hardware "
                f"{weight.hw.name!r} has no update. Fix: device = mho.hardware.PulsedDevice(...), an [update] section "
                "in the hardware, or asymmetry = 0."
            )
        parts.append(asymmetry2(weight.normalised(), own))
    return torch.stack([p.sum() for p in parts]).sum() / sum(p.numel() for p in parts)


__all__ = ["asymmetry2", "mean_asymmetry", "position"]
