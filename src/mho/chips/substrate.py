"""The substrate of virtual chips: arrays that were programmed once, read with fresh noise."""

from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor

from mho.crossbar import fused
from mho.crossbar.array import Array, program
from mho.crossbar.mvm import has_fresh_noise
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.nn.site import Site
from mho.nn.surrogate import refuse_unknown_ranges
from mho.rng import derive_seed, normals


def chip_seed(seed: int, index: int) -> int:
    """The seed of chip ``index`` of a lot: more chips do not change the first ones."""
    return derive_seed(seed, "chip", index)


@torch.no_grad()
def fabricate_array(site: Site, weight: Tensor, bound: Tensor | None, seed: int, t_s: float) -> Array:
    """Program one weight on the chip of ``seed`` and age it to ``t_s`` seconds.

    Drawn on the CPU in float32 over the whole logical matrix, then moved: device, dtype and tile size
    of the weight do not change the chip.
    """
    draws = draw_static(site.op, site.hw, weight.shape, lambda shape, label: normals(shape, seed, site.name, label))
    if draws is not None:
        draws = type(draws)(*(d if not isinstance(d, Tensor) else d.to(weight.device) for d in draws))
    return program(weight.detach(), site.op, site.hw, draws, t_s=t_s, bound=bound)


@final
class OnChip:
    """Answers products with the arrays of one chip of a lot at a time.

    ``arrays[site name][chip]``; ``gains[site name][chip]``: digital drift compensation. The fresh
    noise of a read depends on the chip's seed, the pass and the number of the read in it.
    """

    def __init__(self, seeds: tuple[int, ...], arrays: Mapping[str, tuple[Array, ...]]) -> None:
        self.seeds = seeds
        self.arrays = arrays
        self.gains: Mapping[str, tuple[float, ...]] = {}
        self.chip = 0
        self.pass_number = 0
        self._read = 0

    def select(self, chip: int) -> None:
        """Let ``chip`` answer from now on."""
        self.chip, self._read = chip, 0

    def mvm(
        self,
        site: Site,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ranges: Tensor,
        bound: Tensor | None,
        training: bool,
    ) -> Tensor:
        """One product on the selected chip; ``weight`` gave its array and is not looked at again."""
        refuse_unknown_ranges(site, ranges)
        array = self.arrays[site.name][self.chip]
        noise = Noise()
        if has_fresh_noise(site.hw, array):
            self._read += 1
            noise = Noise(Counter(derive_seed(self.seeds[self.chip], "fresh", self.pass_number, self._read)))
        gains = self.gains.get(site.name)
        if gains is None:
            return fused.product(x, array, site.op, site.hw, noise, ranges, bias)[0]
        y = fused.product(x, array, site.op, site.hw, noise, ranges, None)[0] * gains[self.chip]
        return y if bias is None else y + site.op.over_columns(bias).to(y.dtype)
