"""A Hopfield network: parameters by name, couplings by number, and the energy that both define."""

import math
from collections.abc import Iterator
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from mho.ebm.hopfield.couplings import Coupling, Full, Kernel, Unit
from mho.ebm.hopfield.layers import Conv, Layer, Shape, shapes
from mho.ebm.relax import Relaxation, States
from mho.errors import InputError
from mho.rng import normals


class Link(NamedTuple):
    """``coupling`` from layer ``source`` (0: the input) to a later layer ``target``."""

    coupling: Coupling | Unit
    source: int
    target: int


@final
class HopfieldNet(nn.Module):
    """Layers of states s_1 .. s_K over a clamped input s_0, coupled in both directions by the same weights.

        E(s) = sum_k sum G_k(s_k) - sum_links <s_target, A(s_source)> - sum_k <b_k, s_k>

    with G_k the potential of the layer's activation (s^2 / 2 within its bounds for ``Clip``) and A a matrix, a
    convolution with pooling, or a wire from unit to unit. Given all others, a layer rests exactly at
    phi(drives + pulls + bias). ``readout``: number of classes of a linear map of the last layer that is no state
    (for the cost :class:`CrossEntropy`); without it the last layer is the output.

    Parameters are plain: ``layers.0.weight``, ``layers.0.bias``, ``layers.2.skip``, ``readout.weight``. They start
    from normals of the streams of ``seed``: weights at gain / sqrt(inputs), biases at 0. ``gain``: one number, or one
    a layer (and the readout). ``bound_sigma``: weights have a fixed full scale of so many standard deviations of
    their start (buffers ``..._bound``, part of a checkpoint): what full conductance stands for on every chip. Without
    it a chip's full scale is the largest weight. ``forward(x)``: scores [batch, classes] of the state of rest, by
    ``relaxation``.

    Raises :class:`InputError` for layers that do not fit one another.
    """

    def __init__(
        self,
        input_shape: Shape,
        layers: tuple[Layer, ...],
        *,
        readout: int | None = None,
        gain: float | tuple[float, ...] = 1.0,
        bound_sigma: float | None = None,
        seed: int = 0,
        relaxation: Relaxation | None = None,
    ) -> None:
        super().__init__()
        self.shapes = shapes(input_shape, layers)
        self.described = layers
        self.classes = readout if readout is not None else math.prod(self.shapes[-1])
        self.relaxation = relaxation or Relaxation()
        count = len(layers) + (readout is not None)
        gains = gain if isinstance(gain, tuple) else (gain,) * count
        if len(gains) != count:
            raise InputError(f"HopfieldNet: {len(gains)} gains for {count} layers. Fix: one number, or one a layer.")
        self.layers = nn.ModuleList()
        links: list[Link] = []
        for number, layer in enumerate(layers, 1):
            holder, found = _couplings(layer, number, self.shapes, gains[number - 1], seed)
            self.layers.append(holder)
            links += found
        self.links = tuple(links)
        self.readout = _Weights() if readout is not None else None
        if self.readout is not None:
            inputs = math.prod(self.shapes[-1])
            self.readout.weight = _drawn((readout, inputs), inputs, gains[-1], seed, "readout.weight")
            self.readout.bias = nn.Parameter(torch.zeros(readout))
        if bound_sigma is not None and not 0 < bound_sigma < math.inf:
            raise InputError(f"HopfieldNet: bound_sigma = {bound_sigma}: positive, or None for no bound.")
        for holder in [*self.layers, *([] if self.readout is None else [self.readout])]:
            for key, weight in list(holder.named_parameters()):
                if bound_sigma is not None and key != "bias":
                    holder.register_buffer(f"{key}_bound", bound_sigma * weight.detach().std(correction=0))

    @property
    def full_scales(self) -> dict[str, Tensor]:
        """Fixed full scales by the name of their parameter (empty without ``bound_sigma``)."""
        return {name.removesuffix("_bound"): value for name, value in self.named_buffers()}

    def bounds(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pairs of a weight and its full scale: what ``mho.fit`` clamps after each step (``mho.nn.site.Bounded``)."""
        held = dict(self.named_parameters())
        for name, bound in self.full_scales.items():
            yield held[name], bound

    @property
    def digital(self) -> tuple[str, ...]:
        """Names that are no conductances: the biases, as in every network of mho."""
        return tuple(name for name, _ in self.named_parameters() if name.endswith(".bias"))

    def values(self) -> dict[str, Tensor]:
        """The parameters by name, detached: what ideal hardware holds."""
        return {name: p.detach() for name, p in self.named_parameters()}

    def initial(self, x: Tensor) -> States:
        """States of zero (clipped into a layer's bounds) for the batch of ``x``."""
        found = []
        for layer, shape in zip(self.described, self.shapes[1:], strict=True):
            zero = x.new_zeros((len(x), *shape))
            found.append(layer.activation.apply(zero) if layer.activation.quadratic else zero + 0.5)
        return found

    def energy(self, states: States, x: Tensor, values: dict[str, Tensor] | None = None) -> Tensor:
        """E(s) of each example, [batch]. Differentiable in ``states`` and in ``values`` (default: the parameters)."""
        held = dict(self.named_parameters()) if values is None else values
        all_states = [x, *states]
        total = x.new_zeros(len(x))
        for number, layer in enumerate(self.described, 1):
            s = states[number - 1]
            total = total + layer.activation.potential(s).flatten(1).sum(1)
            bias = held[f"layers.{number - 1}.bias"]
            total = total - (over_units(bias, s) * s).flatten(1).sum(1)
        for coupling, source, target in self.links:
            if isinstance(coupling, Unit):
                driven = coupling.drive(all_states[source])
            else:
                driven = coupling.drive(all_states[source], held[coupling.name])
            total = total - (driven * all_states[target]).flatten(1).sum(1)
        return total

    def forward(self, x: Tensor) -> Tensor:
        """Scores of the state of rest on ideal hardware, [batch, classes]; no gradient passes (see ``eqprop``)."""
        from mho.ebm.hopfield.clamped import clamp, scores

        with torch.no_grad():
            return scores(clamp(self, x), self.relaxation)

    def check_input(self, x: Tensor) -> None:
        """Raise :class:`InputError` for an input of another shape or with NaN or infinity."""
        if tuple(x.shape[1:]) != self.shapes[0] or not x.is_floating_point():
            raise InputError(f"HopfieldNet: input {x.dtype} {list(x.shape)}; needs floats [batch, {self.shapes[0]}].")
        if not bool(torch.isfinite(x.sum())):
            raise InputError("HopfieldNet: the input holds NaN or infinity. Way out: look at this batch.")

    def extra_repr(self) -> str:
        return f"{' - '.join('x'.join(map(str, shape)) for shape in self.shapes)}, classes={self.classes}"


class _Weights(nn.Module):
    """A place for parameters with names."""

    weight: nn.Parameter
    bias: nn.Parameter
    skip: nn.Parameter


def over_units(bias: Tensor, s: Tensor) -> Tensor:
    """A bias [channels] shaped to broadcast over states [batch, channels, ...]."""
    return bias.reshape(-1, *([1] * (s.dim() - 2)))


def _drawn(shape: tuple[int, ...], inputs: int, gain: float, seed: int, name: str) -> nn.Parameter:
    return nn.Parameter(normals(shape, seed, name, "initial") * (gain / math.sqrt(inputs)))


def _couplings(
    layer: Layer, number: int, found: tuple[Shape, ...], gain: float, seed: int
) -> tuple[_Weights, list[Link]]:
    holder, where, source = _Weights(), f"layers.{number - 1}", found[number - 1]
    shape = found[number]
    holder.bias = nn.Parameter(torch.zeros(shape[0]))
    coupling: Coupling
    if isinstance(layer, Conv):
        kernel = (layer.channels, source[0], layer.kernel, layer.kernel)
        holder.weight = _drawn(kernel, math.prod(kernel[1:]), gain, seed, f"{where}.weight")
        coupling = Kernel(f"{where}.weight", layer.stride, layer.pad, layer.pool, layer.window, source)
    else:
        inputs = math.prod(source)
        holder.weight = _drawn((layer.units, inputs), inputs, gain, seed, f"{where}.weight")
        coupling = Full(f"{where}.weight", source)
    links = [Link(coupling, number - 1, number)]
    if layer.skip is None:
        return holder, links
    other = found[layer.skip]
    if other == shape:
        return holder, [*links, Link(Unit(), layer.skip, number)]
    if isinstance(layer, Conv):
        stride = other[1] // shape[1]
        if any((side - 1) // max(stride, 1) + 1 != wanted for side, wanted in zip(other[1:], shape[1:], strict=True)):
            raise InputError(f"{where}: skip from {other} to {shape}: no stride fits. Fix: sizes that divide.")
        kernel = (layer.channels, other[0], 1, 1)
        holder.skip = _drawn(kernel, other[0], gain, seed, f"{where}.skip")
        return holder, [*links, Link(Kernel(f"{where}.skip", stride, 0, None, 1, other), layer.skip, number)]
    inputs = math.prod(other)
    holder.skip = _drawn((layer.units, inputs), inputs, gain, seed, f"{where}.skip")
    return holder, [*links, Link(Full(f"{where}.skip", other), layer.skip, number)]
