"""A differentiable twin of one device: its description, and the columns of its own tiles.

It stands in for the device in the backward pass (physics-aware training), and as the substrate of a whole training
(twin-trained networks).
"""

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from mho.crossbar import fused
from mho.crossbar.array import program
from mho.crossbar.mvm import has_fresh_noise
from mho.crossbar.noise import Counter, Draw, Noise, StaticDraws, draw_static
from mho.hardware.spec import Hardware, Tile
from mho.lab.columns import Columns, Known, offset_in_lsb
from mho.lab.placement import Placement
from mho.nn.site import Programmed, Site
from mho.nn.surrogate import draw_seed


@final
class ChipTwin:
    """A substrate that computes what the device would, as far as ``hardware`` and ``columns`` know it.

    In training each product meets new errors of writing and reading; the gains and offsets of the columns are those of
    this device, as ``placement`` puts each output on them. Where an output takes two columns (cells of one sign), their
    mean is used. Else it is quiet: levels, converters, non-linearity, gains. ``columns`` are asked at each product: a
    :class:`~mho.lab.columns.ColumnStream` makes a twin that is refreshed while training.
    """

    simulated = True

    def __init__(self, hardware: Hardware, placement: Placement, columns: Known) -> None:
        adc = hardware.adc
        own = None if adc is None else replace(adc, gain_d2d=1.0, offset_d2d_lsb=0.0 if adc.bits is None else 1.0)
        self._hw = hardware.replace(
            tile=Tile(rows=placement.block_rows), adc=own, mapping=replace(hardware.mapping, per_column=False)
        )
        self._placement = placement
        self._columns = columns

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
        """One product; differentiable in ``x`` and ``weight``."""
        hw = self._hw
        if site.name not in programmed:
            draws = self._draws(site, weight, training)
            # Wires in first order: the exact solution has no gradient.
            programmed[site.name] = program(weight, site.op, hw, draws, bound=bound, exact_wires=False)
        array = programmed[site.name]
        noise = Noise(Counter(draw_seed())) if training and has_fresh_noise(hw, array) else Noise()
        if not training:
            array = array._replace(read_var=None, thermal_var=None, shot_weight=None)
        y, _ = fused.product(x, array, site.op, hw, noise, ranges, bias)
        return y

    def _draws(self, site: Site, weight: Tensor, training: bool) -> StaticDraws:
        gain, offset = self._periphery(site)
        drawn: StaticDraws | None = None
        if training:

            def source(shape: tuple[int, ...], label: str) -> Draw:
                return Counter(draw_seed())

            drawn = draw_static(site.op, self._hw, weight.shape, source)
        drawn = drawn or StaticDraws()
        if self._hw.adc is None:
            return drawn
        return drawn._replace(
            adc_gain=gain - 1.0, adc_offset=None if self._hw.adc.bits is None else offset_in_lsb(offset, self._hw)
        )

    def _periphery(self, site: Site) -> tuple[Tensor, Tensor]:
        """Gain and offset of each output of a site, [blocks of rows, outputs]."""
        patches = self._placement.patches[site.name]
        starts = sorted({p.inputs[0] for p in patches})
        outputs = max(p.outputs[1] for p in patches)
        gain, offset = torch.ones(len(starts), outputs), torch.zeros(len(starts), outputs)
        for p in patches:
            columns = self._columns.get(p.tile) or Columns.nominal(self._placement.can.cols)
            lines = (p.plus,) if p.minus is None else (p.plus, p.minus)
            row, span = starts.index(p.inputs[0]), slice(*p.outputs)
            gain[row, span] = torch.stack([columns.gain[line] for line in lines]).mean(0)
            if p.minus is None:
                offset[row, span] = columns.offset[p.plus]
            else:
                offset[row, span] = columns.offset[p.plus] - columns.offset[p.minus]
        return gain, offset
