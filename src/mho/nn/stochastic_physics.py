"""The physical terms of a stochastic residual layer: what its hardware adds to one product."""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor

from mho.crossbar.array import Array, program, slice_factors
from mho.crossbar.mvm import mvm, needs_adc_range, needs_input_range, wanted_range
from mho.crossbar.noise import Draw, Noise, StaticDraws, draw_static
from mho.crossbar.variance import (
    CellMoments,
    cell_moments,
    fresh_variance,
    is_uniform,
    refuse_neuron,
    rounding_variance,
    static_variance,
    weight_moments,
)
from mho.hardware.spec import Hardware
from mho.nn.stochastic_lower import Lowering
from mho.nn.surrogate import RANGE_MOMENTUM
from mho.physics import converters

Static = Literal["weights", "outputs", "positions"]


class Product(NamedTuple):
    """a = W x + b with the static noise of drawn weights, the variance of all else, and what converters saw."""

    a: Tensor
    variance: Tensor
    observed: Tensor


def converters_off(hw: Hardware) -> Hardware:
    """``hw`` without levels, output noise and bends of its converters: their gain errors and ranges stay."""
    return hw.replace(
        dac=None if hw.dac is None else replace(hw.dac, bits=None, inl_lsb=0.0),
        adc=None if hw.adc is None else replace(hw.adc, bits=None, enob=None, offset_d2d_lsb=0.0, inl_lsb=0.0),
        output_noise=0.0,
        neuron=None,
    )


@final
@dataclass(frozen=True, eq=False)
class Physics:
    """One product on ``hw`` without its converters' levels: their rounding is a variance like all else.

    ``static``: whether static noise is drawn as weights, or belongs to the variance. Made by :meth:`of`.
    """

    lowering: Lowering
    hw: Hardware
    static: Static
    bare: Hardware
    cell: CellMoments | None

    @classmethod
    def of(cls, lowering: Lowering, hw: Hardware, static: Static) -> "Physics":
        """Raises :class:`HardwareError` for a neuron, and for wires where static noise is not drawn as weights."""
        refuse_neuron(hw)
        t_s = hw.environment.t_s
        if static != "weights":
            weight_moments(torch.zeros(1, 1), hw, t_s=t_s)
        return cls(lowering, hw, static, converters_off(hw), None if is_uniform(hw, t_s) else cell_moments(hw, t_s))

    def draw(self, shape: torch.Size, device: torch.device, scale: float) -> StaticDraws | None:
        """One array's static noise from torch's generator, where it is drawn as weights."""
        if self.static != "weights":
            return None

        def source(shape: tuple[int, ...], _: str) -> Draw:
            return torch.randn(shape, device=device)

        return draw_static(self.lowering.op, self.hw, shape, source, scale)

    def product(
        self, x: Tensor, w: Tensor, bias: Tensor | None, bound: Tensor | None, ranges: Tensor, draws: StaticDraws | None
    ) -> Product:
        """One noisy product without its fresh noise. ``x``: padded; ``ranges`` [input, ADC], 0: this batch's own."""
        op, hw, t_s = self.lowering.op, self.hw, self.hw.environment.t_s
        array = program(w, op, hw, draws, t_s=t_s, bound=bound, exact_wires=False)
        zero = ranges.new_zeros(())
        a, seen = mvm(x, array, op, self.bare, Noise(), input_range=zero, adc_range=zero, bias=bias)
        observed = torch.stack([torch.as_tensor(v, dtype=zero.dtype, device=zero.device) for v in seen])
        r_in, r_out = torch.where(ranges > 0, ranges, observed).unbind()
        dac, adc = rounding_variance(x, array, op, hw, input_range=r_in, adc_range=r_out)
        variance = fresh_variance(x, array, op, hw, input_range=r_in, adc_range=r_out) + dac + adc
        if self.static == "weights":
            return Product(self._with_offset(a, array, r_out), variance, observed)
        weights, gains = static_variance(x, w, op, hw, adc_range=r_out, bound=bound, t_s=t_s, cell=self.cell)
        if self.cell is not None:
            # The mean over chips is not the weight: a conductance is never below 0, and drifts.
            a = op.apply(x, weight_moments(w, hw, bound=bound, t_s=t_s, cell=self.cell).mean, bias)
        return Product(a, variance + weights + gains, observed)

    def _with_offset(self, a: Tensor, array: Array, r_out: Tensor) -> Tensor:
        """The offsets of this chip's column converters, summed over the parts."""
        adc, op = self.hw.adc, self.lowering.op
        if array.adc_offset is None or adc is None or adc.bits is None:
            return a
        factors = a.new_tensor(slice_factors(self.hw)).repeat_interleave(len(op.blocks(self.hw.tile.rows)))
        offset = adc.offset_d2d_lsb * r_out.to(a.dtype) / converters.levels(adc.bits)
        return a + op.over_columns(offset * torch.tensordot(factors, array.adc_offset.to(a), dims=1))

    def spread(
        self, x: Tensor, a: Tensor, w: Tensor, bound: Tensor | None, ranges: Tensor, *, of_reads: bool
    ) -> Tensor:
        """Variance of the output about the digital product ``a``.

        ``of_reads``: between repeated reads of one chip (fresh noise and ADC rounding, which it dithers);
        else all sources, static noise as its variance.
        """
        op, hw, t_s = self.lowering.op, self.hw, self.hw.environment.t_s
        array = program(w, op, hw, None, t_s=t_s, bound=bound, exact_wires=False)
        wanted_in = wanted_range(x, None if hw.dac is None else hw.dac.range_sigma)
        wanted_out = wanted_range(a, None if hw.adc is None else hw.adc.range_sigma)
        r_in, r_out = torch.where(ranges > 0, ranges, torch.stack((wanted_in, wanted_out)).to(ranges)).unbind()
        dac, adc = rounding_variance(x, array, op, hw, input_range=r_in, adc_range=r_out)
        reads = fresh_variance(x, array, op, hw, input_range=r_in, adc_range=r_out) + adc
        if of_reads:
            return reads
        weights, gains = static_variance(x, w, op, hw, adc_range=r_out, bound=bound, t_s=t_s, cell=self.cell)
        return reads + dac + weights + gains

    def moved(self, ranges: Tensor, observed: Tensor) -> Tensor:
        """The ranges, moved towards what the converters of one batch would ask for."""
        if not (needs_input_range(self.hw) or needs_adc_range(self.hw)):
            return ranges
        near = ranges + RANGE_MOMENTUM * (observed - ranges)
        # A batch of nothing but zeros, or one with NaN or infinity, says nothing about the range.
        says = (observed > 0) & torch.isfinite(observed)
        return torch.where(says, torch.where(ranges > 0, near, observed), ranges)
