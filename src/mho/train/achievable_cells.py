"""Which parameters stand on cells, and what each of their cells remembers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from mho.errors import HardwareError, InputError
from mho.hardware.update import PulsedDevice
from mho.nn.site import BOUND, analog_layers, bounded_parameters
from mho.physics.pulses import Cells, nominal_cells, spread_cells
from mho.rng import normals

Outside = Literal["error", "clamp"]


@final
@dataclass
class Block:
    """One parameter on cells. ``bound``: what its layer can map, 0-d or one a column; ``None``: not bounded.

    ``cells`` has the shape of the parameter, or is 0-d where all are alike. ``writes`` and ``pulses`` count them
    a cell; ``outside``: weights that were set to their cell's bounds at the start.
    """

    name: str
    parameter: Tensor
    bound: Tensor | None
    device: PulsedDevice
    cells: Cells
    writes: Tensor
    pulses: Tensor
    outside: int = 0

    def scale(self) -> Tensor:
        """Weight of one unit of the device: the bound lies at the nearer of w_max and -w_min; 1 without a bound.

        0-d, or [out, 1, ...] with a bound a column.
        """
        if self.bound is None:
            return torch.ones((), dtype=self.parameter.dtype, device=self.parameter.device)
        return self._bound() / min(self.device.w_max, -self.device.w_min)

    def _bound(self) -> Tensor:
        assert self.bound is not None
        bound = self.bound.to(self.parameter.dtype)
        return bound.reshape(-1, *([1] * (self.parameter.dim() - 1))) if bound.dim() else bound

    def limits(self) -> tuple[Tensor, Tensor]:
        """(lowest, highest) weight of each cell: its own bounds, within what the layer can map."""
        scale = self.scale()
        low, high = self.cells.w_min * scale, self.cells.w_max * scale
        if self.bound is not None:
            most = self._bound()
            low, high = torch.maximum(low, -most), torch.minimum(high, most)
        return low, high

    def flat(self, part: Tensor, index: Tensor) -> Tensor:
        """Entries of ``part``, which broadcasts to the parameter, at flat positions ``index``."""
        return part if part.dim() == 0 else part.expand(self.parameter.shape).reshape(-1)[index]

    def count(self, index: Tensor, pulses: Tensor) -> None:
        """One write of ``pulses`` >= 0 on the cells at ``index``."""
        self.writes.view(-1)[index] += 1
        self.pulses.view(-1)[index] += pulses.to(self.pulses.dtype)

    def state(self) -> dict[str, Any]:
        """Tensors that a checkpoint keeps; cells that are all alike follow from the description."""
        kept: dict[str, Any] = {"writes": self.writes, "pulses": self.pulses, "outside": self.outside}
        if self.cells.gain_up.dim():
            kept["cells"] = dict(zip(Cells._fields, self.cells, strict=True))
        return kept

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.writes.copy_(state["writes"])
        self.pulses.copy_(state["pulses"])
        self.outside = state["outside"]
        if "cells" in state:
            like = self.parameter
            self.cells = Cells(*(state["cells"][name].to(like.device, like.dtype) for name in Cells._fields))


def parameter_names(groups: list[dict[str, Any]], model: nn.Module | None) -> Iterator[tuple[str, Tensor]]:
    """Each parameter of an optimizer with its name: the model's, the group's, or "group.index"."""
    known = {} if model is None else {id(p): name for name, p in model.named_parameters()}
    for g, group in enumerate(groups):
        names = group.get("param_names", [None] * len(group["params"]))
        for i, (parameter, name) in enumerate(zip(group["params"], names, strict=True)):
            yield known.get(id(parameter), name or f"{g}.{i}"), parameter


def _on_cells(model: nn.Module) -> dict[int, Tensor | None]:
    """Bounds of the weights of ``model`` that stand on cells, by the weight's id: those of analog layers, or, in a
    network without any (a Hopfield network), those that have a fixed bound."""
    found: dict[int, Tensor | None] = {}
    for _, layer in analog_layers(model):
        for parameter in layer.sites:
            found.setdefault(id(getattr(layer, parameter)), getattr(layer, parameter + BOUND, None))
    if not found:
        found = {id(weight): bound for weight, bound in bounded_parameters(model)}
    if not found:
        raise InputError(
            "AchievableUpdates: the model has no analog layer and no weight with a fixed bound. Fix: pass what "
            "mho.convert returned, or leave model out to put every parameter of two or more dimensions on cells."
        )
    return found


def make_blocks(
    named: list[tuple[str, Tensor]], model: nn.Module | None, device: PulsedDevice, seed: int, outside: Outside
) -> list[Block]:
    """The parameters on cells, fabricated: a cell is a function of seed, parameter name and place.

    Raises :class:`InputError` where there are none, or where one is not float32 or float64;
    :class:`HardwareError` for a device that cannot hold both signs, and for weights beyond their cells' bounds
    unless ``outside="clamp"``.
    """
    if not device.w_min < 0.0 < device.w_max:
        raise HardwareError(
            f"AchievableUpdates: w_min = {device.w_min!r}, w_max = {device.w_max!r}: the device cannot hold weights of "
            "both signs. Fix: describe the pair of cells of a weight, with bounds on both sides of 0."
        )
    bounds = None if model is None else _on_cells(model)
    blocks = []
    for name, parameter in named:
        if parameter.dim() >= 2 if bounds is None else id(parameter) in bounds:
            bound = None if bounds is None else bounds[id(parameter)]
            blocks.append(_block(name, parameter, bound, device, seed, outside))
    if not blocks:
        raise InputError(
            "AchievableUpdates: no parameter of the optimizer stands on a cell. Fix: give the optimizer the analog "
            "weights of model, or parameters of two or more dimensions."
        )
    return blocks


@torch.no_grad()
def _block(
    name: str, parameter: Tensor, bound: Tensor | None, device: PulsedDevice, seed: int, outside: Outside
) -> Block:
    if parameter.dtype not in (torch.float32, torch.float64):
        raise InputError(
            f"AchievableUpdates: {name} is {parameter.dtype}, in which single pulses are rounded away. "
            "Fix: keep weights in float32 (autocast may still compute in less)."
        )
    cells = nominal_cells(device, parameter)
    if device.d2d or device.d2d_asymmetry or device.d2d_bounds:
        xi = normals((4, parameter.numel()), seed, "achievable", name, "cells").reshape(4, *parameter.shape)
        cells = spread_cells(device, xi.to(parameter.device, parameter.dtype))
    writes = torch.zeros(parameter.shape, dtype=torch.int32, device=parameter.device)
    block = Block(name, parameter, bound, device, cells, writes, writes.long())
    low, high = block.limits()
    # A bound that was measured on these very weights may differ from them by rounding.
    slack = 1e-6 * (high - low)
    block.outside = int(((parameter < low - slack) | (parameter > high + slack)).sum())
    if block.outside and outside == "error":
        raise HardwareError(
            f"AchievableUpdates: {block.outside} of {parameter.numel()} weights of {name} lie beyond the bounds of "
            f"their cells (the widest are {float(low.min()):.4g} and {float(high.max()):.4g}). Fix: outside='clamp' "
            "writes the nearest value at the start; or convert with clip_sigma, whose bound is put on the device's."
        )
    parameter.copy_(parameter.clamp(low, high))
    return block
