"""Look at every product that the analog layers of a network compute in one forward pass.

Each layer's substrate is wrapped for the time of the pass. What is seen is exactly what the operator got: a
padded convolution, each time step of a recurrent layer, each projection of an attention.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn

from mho.crossbar.array import slice_factors
from mho.crossbar.ops import Block, Op
from mho.errors import ConversionError
from mho.hardware.spec import Hardware
from mho.nn import MultiheadAttention, Recurrent
from mho.nn.site import AnalogLayer, Programmed, Site, Substrate, analog_layers, is_traced, substituted
from mho.objectives.weights import AnalogWeight
from mho.physics import converters, neuron


@dataclass(frozen=True, eq=False)
class Part:
    """One tile of one bit slice in one product: what drives it, and its place in the digital sum.

    ``preactivation``: what the neuron or ADC of this part sees over its range, without noise; ``None``
    where the hardware has neither.
    """

    slice_index: int
    factor: float
    block: Block
    driven: Tensor
    preactivation: Tensor | None


@dataclass(frozen=True, eq=False)
class Product:
    """One product of a forward pass. ``ranges``: full scale of DAC and ADC in this pass; ``output``: with the bias.

    ``batch_axis``: the axis of ``x`` that counts samples, unless the layer was given something else.
    """

    at: AnalogWeight
    x: Tensor
    output: Tensor
    ranges: Tensor
    batch_axis: int

    @property
    def hw(self) -> Hardware:
        return self.at.hw

    @property
    def op(self) -> Op:
        return self.at.site.op

    def driven(self) -> Tensor:
        """What the rows are driven with: x rounded and bent by the DAC."""
        dac = self.hw.dac
        if dac is None or dac.bits is None:
            return self.x
        r = self.ranges[0].to(self.x.dtype)
        x_q = converters.quantize(self.x, r, dac.bits)
        return converters.inl(x_q, r, dac.inl_lsb, dac.bits) if dac.inl_lsb else x_q

    def parts(self) -> Iterator[Part]:
        """Every separately converted partial sum. Computes one product a part where a neuron or ADC bends it."""
        hw, x = self.hw, self.driven()
        bends = hw.neuron is not None or (hw.adc is not None and hw.adc.bits is not None)
        held = self.at.held() if bends else (None,) * hw.mapping.slices
        r = self.ranges[1].to(x.dtype)
        per_range = torch.where(r > 0, 1.0 / r, torch.ones_like(r))
        for k, (w, factor) in enumerate(zip(held, slice_factors(hw), strict=True)):
            for block in self.op.blocks(hw.tile.rows):
                cut = self.op.cut_input(x, block)
                a = None if w is None else self.op.apply(cut, self.op.cut_weight(w, block), None) * per_range
                yield Part(k, factor, block, cut, a)


@dataclass(eq=False)
class Observed:
    """What the pass showed so far."""

    products: list[Product] = field(default_factory=list)


@final
class _Tap:
    """A substrate that computes what the one behind it does, and remembers it."""

    def __init__(self, behind: Substrate, observed: Observed, batch_axis: int) -> None:
        self.behind, self.observed, self.batch_axis = behind, observed, batch_axis
        self.simulated = behind.simulated

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
        programmed: Programmed,
    ) -> Tensor:
        """The product of the substrate behind, seen."""
        if is_traced():
            raise ConversionError(
                f"{site.name}: PhysicsInformedLoss cannot look into a compiled network. Way out: train the eager one, "
                "or margin_noise = 0 and neuron = 0."
            )
        before = ranges.detach().clone()
        y = self.behind.mvm(site, x, weight, bias, ranges, bound, training, programmed)
        if torch.is_grad_enabled() and not y.requires_grad:
            y.requires_grad_()
        # A range that was not known has been set by this pass; a known one has moved on since it was used. A
        # learned one stays, and may learn from the loss.
        used = ranges if site.learned_ranges else torch.where(before > 0, before, ranges.detach())
        axis = self.batch_axis if x.dim() == 3 else 0
        self.observed.products.append(Product(AnalogWeight(weight, site, bound), x, y, used, axis))
        # A copy goes on: an activation in place must not change what was seen.
        return y.clone()


def _batch_axis(layer: AnalogLayer) -> int:
    """Recurrent layers and attention put time first before they multiply sequences."""
    return 1 if isinstance(layer, (Recurrent, MultiheadAttention)) else 0


@contextmanager
def observed(model: nn.Module) -> Iterator[Observed]:
    """Within the block every product of ``model``'s analog layers is recorded; afterwards all is as before."""
    seen = Observed()
    layers = [layer for _, layer in analog_layers(model)]
    # The out-projection of an attention is a layer of its own, and sees time first too.
    inner = {id(part): 1 for layer in layers if _batch_axis(layer) for part in layer.modules()}
    with substituted(model, lambda layer: _Tap(layer.substrate, seen, inner.get(id(layer), 0))):
        yield seen


def readout_slope(u: Tensor, hw: Hardware) -> Tensor:
    """d(read-out)/du at pre-activations u in units of the ADC range: nominal neuron, then what the ADC clips.

    Differentiable in u where the neuron is soft; rounding passes straight through.
    """
    with torch.enable_grad():
        at = u if u.requires_grad else u.detach().requires_grad_()
        f = at if hw.neuron is None else neuron.transfer(at, hw.neuron, None, None)
        if hw.adc is not None and hw.adc.bits is not None:
            f = converters.quantize(f, 1.0, hw.adc.bits)
        (slope,) = torch.autograd.grad(f, at, torch.ones_like(f), create_graph=True)
    return slope


__all__ = ["Observed", "Part", "Product", "observed", "readout_slope"]
