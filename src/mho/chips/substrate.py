"""The substrate of virtual chips: arrays that were programmed once, read with fresh noise."""

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.chips.shelf import Shelf
from mho.crossbar import fused
from mho.crossbar.array import Array, program
from mho.crossbar.fused_weight import eager_cpu
from mho.crossbar.mvm import has_fresh_noise
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.crossbar.reader import Reader
from mho.nn.site import Programmed, Site, is_traced
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

    ``arrays[site name][chip]``, kept or made when asked for; ``gains[site name][chip]``: digital drift compensation.
    The fresh noise of a read depends on the chip's seed, the pass and the number of the read in it.
    """

    simulated = True

    def __init__(self, seeds: tuple[int, ...], arrays: Shelf) -> None:
        self.seeds = seeds
        self.arrays = arrays
        self.gains: Mapping[str, tuple[float, ...]] = {}
        self.chip = 0
        self.pass_number = 0
        self._read = 0
        self._pass_seed = 0
        self._ready: dict[tuple[str, int], Ready] = {}
        self._inputs: tuple[tuple[int, int], ...] = ()  # address and size
        self._rounded: dict[tuple[Hashable, ...], Tensor] = {}

    def beside(self) -> "OnChip":
        """Another that answers for another chip of the same lot at the same time: all is shared but the choice."""
        twin = OnChip(self.seeds, self.arrays)
        twin.gains, twin.pass_number = self.gains, self.pass_number
        twin._ready, twin._inputs, twin._rounded = self._ready, self._inputs, self._rounded
        return twin

    def select(self, chip: int) -> None:
        """Let ``chip`` answer from now on."""
        if not self.arrays.complete and chip != self.chip:
            self._ready.clear()  # what is ready holds its array
        self.chip, self._read = chip, 0
        self._pass_seed = derive_seed(self.seeds[chip], "fresh", self.pass_number)

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
        """One product on the selected chip; ``weight`` gave its array and is not looked at again."""
        ready = self._ready.get((site.name, self.chip))
        if ready is None:
            ready = self._prepare(site, ranges, programmed)
        fresh = None
        if ready.noisy:
            self._read += 1
            fresh = Counter(read_seed(self._pass_seed, self._read))
        gain, inner_bias = ready.gain, bias if ready.gain is None else None
        reader = ready.reader
        if (
            reader is not None
            and not (torch.is_grad_enabled() and x.requires_grad)
            and eager_cpu(x)
            and fused.takes(reader.circuit, x, fresh)
        ):
            y = reader.read(self._driven(site, reader, x), inner_bias, 0 if fresh is None else fresh.seed)
        else:
            y, _ = fused.product(x, ready.array, site.op, site.hw, Noise(fresh), ranges, inner_bias)
        if gain is None:
            return y
        y = y * gain
        return y if bias is None else y + site.op.over_columns(bias).to(y.dtype)

    def _driven(self, site: Site, reader: Reader, x: Tensor) -> Tensor:
        """The rounded input of a site; what all chips see alike is rounded once for each input and view of it."""
        size, address = x.numel(), x.data_ptr()
        if all(size != count or address != place for place, count in self._inputs):
            return reader.drive(x)
        key = (site.name, address, x.shape, x.stride())
        if key not in self._rounded:
            self._rounded[key] = reader.drive(x)
        return self._rounded[key]

    @contextmanager
    def sharing(self, inputs: tuple[Tensor, ...]) -> Iterator[None]:
        """While all chips see ``inputs``: keep what the converters rounded them to."""
        self._inputs = tuple((x.data_ptr(), x.numel()) for x in inputs if x.is_contiguous())
        try:
            yield
        finally:
            self._inputs = ()
            self._rounded.clear()

    def _prepare(self, site: Site, ranges: Tensor, programmed: Programmed) -> "Ready":
        refuse_unknown_ranges(site, ranges)
        # Where not even one chip fits, a layer that reads a weight at each time step has it made once a pass.
        array = programmed.get(site.name)
        if array is None:
            array = programmed[site.name] = self.arrays.array(site.name, self.chip)
        gains = self.gains.get(site.name)
        r_in, r_out = ranges.tolist()
        noisy = has_fresh_noise(site.hw, array)
        circuit = fused.circuit(array, site.op, site.hw) if eager_cpu(*array.weights) else None
        ready = Ready(
            array=array,
            reader=None if circuit is None else Reader(circuit, r_in, r_out, noisy),
            noisy=noisy,
            gain=None if gains is None else gains[self.chip],
        )
        if not is_traced() and self.arrays.chips_at_once > 0:
            self._ready[site.name, self.chip] = ready
        return ready


@dataclass(frozen=True, slots=True, eq=False)
class Ready:
    """What is known of one site on one chip before its first read."""

    array: Array
    reader: Reader | None
    noisy: bool
    gain: float | None


def read_seed(pass_seed: int, read: int) -> int:
    """The seed of one read of a pass (an odd step other than that of the parts of one read)."""
    return (pass_seed + read * 0xD1B5_4A32_D192_ED03) & 0x7FFF_FFFF_FFFF_FFFF
