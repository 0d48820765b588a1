"""Reading one array that does not change: inference on a chip, with all that stays from read to read done once."""

from collections.abc import Callable
from functools import partial
from typing import final

import torch
from torch import Tensor

from mho.crossbar import kernels
from mho.crossbar.array import Array
from mho.crossbar.fused import Circuit, inner_positions, read_sigma_map
from mho.crossbar.mvm import averaging, has_fresh_noise, is_plain
from mho.crossbar.noise import Counter, Noise, part_seed
from mho.crossbar.ops import LinearOp, Op
from mho.crossbar.packed import PackedMatrix, packs
from mho.hardware.spec import Hardware

Product = Callable[[Tensor], Tensor]


@final
class Reader:
    """One circuit behind converters of known ranges, read without a gradient.

    It computes ``fused.product`` for the ranges ``r_in`` and ``r_out`` (full scale in units of the input and of the
    output) with fresh noise from a seed; ``noisy=False``: without. Bits are the same for a convolution; a matrix is
    read from a layout of its own, whose sums end in other last digits. The inputs are those that ``fused.takes``
    accepts.
    """

    def __init__(self, found: Circuit, r_in: float, r_out: float, noisy: bool) -> None:
        op, weight = found.op, found.array.weights[0]
        self.circuit = found
        self._tiles = tuple((block, _product(op, op.cut_weight(weight, block))) for block in found.blocks)
        self._dac = kernels.PreparedDac(r_in, found.input_levels) if found.input_levels and r_in > 0 else None
        self._noisy = noisy
        known = 0 < r_out < float("inf")
        rounds = found.output_levels > 0 and known
        sigma = found.periphery_sigma * r_out if noisy and known else 0.0
        self._maps = noisy and found.read_sigma > 0
        self._adc = (
            kernels.PreparedAdc(
                sigma, r_out if rounds else float("inf"), found.output_levels, len(weight), found.read_columns
            )
            if rounds or sigma > 0 or self._maps
            else None
        )

    def drive(self, x: Tensor) -> Tensor:
        """What the rows are driven with for ``x``: the same for every array behind the same converter."""
        x = kernels.dense(x)
        return x if self._dac is None else self._dac(x)

    def read(self, driven: Tensor, bias: Tensor | None, seed: int) -> Tensor:
        """The product for an input from :meth:`drive`, its noise made of ``seed``."""
        op, hw = self.circuit.op, self.circuit.hw
        if hw.readout.repeats == 1 or not self._noisy:
            return self._once(driven, bias, seed)
        total = None
        for number in range(hw.readout.repeats):
            y = self._once(driven, bias, part_seed(seed, number * len(self._tiles)))
            y = averaging(y, op, hw, number, Noise(Counter(seed)))
            total = y if total is None else total.add_(y)
        assert total is not None
        return total

    def _once(self, driven: Tensor, bias: Tensor | None, seed: int) -> Tensor:
        op, adc = self.circuit.op, self._adc
        # The kernel adds the bias of one tile; with several it is added to their sum.
        inner_bias = bias if adc is not None and len(self._tiles) == 1 and bias is not None and fits(bias) else None
        total: Tensor | None = None
        for part, (block, product) in enumerate(self._tiles):
            cut = op.cut_input(driven, block)
            y = kernels.dense(product(cut))
            if adc is not None:
                sigma_map = read_sigma_map(y, cut, self.circuit, 1.0) if self._maps else None
                adc(y, part_seed(seed, part), inner_positions(y, op), sigma_map, inner_bias)
            total = y if total is None else total.add_(y)
        assert total is not None
        return total if bias is None or inner_bias is not None else total.add_(op.over_columns(bias))


def packed_bytes(array: Array, op: Op, hw: Hardware) -> int:
    """What a reader of ``array`` keeps besides it, at most: a second copy of a matrix, in its layout."""
    weight = array.weights[0]
    if not isinstance(op, LinearOp) or (is_plain(hw, op) and not has_fresh_noise(hw, array)):
        return 0
    return weight.nbytes if packs(op.cut_weight(weight, op.blocks(hw.tile.rows)[0])) else 0


def _product(op: Op, weight: Tensor) -> Product:
    if isinstance(op, LinearOp) and packs(weight):
        return PackedMatrix(weight)
    return partial(op.apply, w=weight, bias=None)


def fits(bias: Tensor) -> bool:
    """Whether a kernel may read ``bias``."""
    return bias.dtype == torch.float32 and bias.device.type == "cpu" and bias.is_contiguous()
