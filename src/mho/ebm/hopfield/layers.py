"""Layers of a Hopfield network as frozen data: what is coupled to what, and of which shape it is."""

import math
from dataclasses import dataclass
from typing import Literal, final

from mho.ebm.hopfield.activations import Activation, Clip
from mho.errors import InputError

Pool = Literal["max", "average", "soft"]
Shape = tuple[int, ...]
UNIT = Clip()


@final
@dataclass(frozen=True, kw_only=True)
class Dense:
    """``units`` coupled to all units of the layer before. ``skip``: number of an earlier layer (0 is the input) that
    is coupled too."""

    units: int
    activation: Activation = UNIT
    skip: int | None = None

    def shape(self, source: Shape, where: str) -> Shape:
        """Shape of the states without the batch."""
        if self.units < 1:
            raise InputError(f"{where}: units = {self.units}. Fix: at least 1.")
        return (self.units,)


@final
@dataclass(frozen=True, kw_only=True)
class Conv:
    """``channels`` maps coupled to the layer before by a convolution, then pooled in windows of ``window``.

    ``padding=None``: kernel // 2, which keeps the size at stride 1. ``pool``: "max" and "soft" make the energy
    non-linear in the layer before, whose update is then a fixed-point step instead of an exact solve. ``skip``: number
    of an earlier layer that is coupled too, unit by unit where the shapes agree, else by a 1 x 1 convolution.
    """

    channels: int
    kernel: int = 3
    stride: int = 1
    padding: int | None = None
    pool: Pool | None = None
    window: int = 2
    activation: Activation = UNIT
    skip: int | None = None

    @property
    def pad(self) -> int:
        return self.kernel // 2 if self.padding is None else self.padding

    def shape(self, source: Shape, where: str) -> Shape:
        """Shape of the states without the batch: [channels, height, width]."""
        if len(source) != 3:
            raise InputError(f"{where}: a convolution after a layer of shape {source}. Fix: [channels, height, width].")
        if min(self.channels, self.kernel, self.stride, self.window) < 1 or self.pad < 0:
            raise InputError(f"{where}: {self}: channels, kernel, stride and window are at least 1, padding 0.")
        sides = [(side + 2 * self.pad - self.kernel) // self.stride + 1 for side in source[1:]]
        if self.pool is not None:
            if any(side % self.window for side in sides):
                raise InputError(
                    f"{where}: maps of {sides[0]} x {sides[1]} do not divide into windows of {self.window}. Fix: "
                    "another window, stride or padding."
                )
            sides = [side // self.window for side in sides]
        if min(sides) < 1:
            raise InputError(f"{where}: nothing is left of {source} after kernel {self.kernel}, stride {self.stride}.")
        return (self.channels, *sides)


Layer = Dense | Conv


def shapes(input_shape: Shape, layers: tuple[Layer, ...]) -> tuple[Shape, ...]:
    """Shapes of input and layers. Raises :class:`InputError` naming the layer that does not fit."""
    if not layers or not input_shape or math.prod(input_shape) < 1:
        raise InputError(
            f"HopfieldNet: input of shape {input_shape} and {len(layers)} layers. Fix: one or more of both."
        )
    found = [tuple(input_shape)]
    for number, layer in enumerate(layers, 1):
        where = f"layers.{number - 1}"
        found.append(layer.shape(found[-1], where))
        if layer.skip is not None:
            if not 0 <= layer.skip < number - 1:
                raise InputError(f"{where}: skip = {layer.skip}: 0 to {number - 2}, a layer before the last one.")
            if isinstance(layer, Conv) and len(found[layer.skip]) != 3:
                raise InputError(f"{where}: skip = {layer.skip} has shape {found[layer.skip]}. Fix: a layer of maps.")
    return tuple(found)
