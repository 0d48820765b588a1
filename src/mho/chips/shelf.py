"""The arrays of a lot: programmed once where all of them fit, else made anew from the chips' seeds when asked for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import final

from torch import Tensor

from mho.chips.memory import array_bytes
from mho.crossbar.array import Array
from mho.crossbar.reader import packed_bytes
from mho.errors import InputError
from mho.nn.site import Site, is_traced

Place = tuple[Site, Tensor, Tensor | None]
"""A site, its weight, and the weight's bound."""
Make = Callable[[Site, Tensor, Tensor | None, int], Array]
"""Programs one weight on the chip of a seed."""


@final
class Shelf(Mapping[str, Sequence[Array]]):
    """``shelf[site name][chip]``: one array, kept while ``budget`` bytes hold it (``None``: all are kept).

    An array is a function of its chip's seed, its site and its age: what was dropped comes back with the same bits.
    When room is needed, the chip that was used last before the present one goes first: chips are read in turn, so it
    is the one that is wanted again last. A chip that does not fit alone loses its own layers, oldest first; an array
    larger than the budget is never kept. At most ``budget`` bytes are kept, and one array beside them is in use.
    """

    def __init__(
        self, places: Mapping[str, Place], seeds: tuple[int, ...], make: Make, budget: int | None = None
    ) -> None:
        self._places, self._seeds, self._make = places, seeds, make
        self.budget = budget
        self.kept_bytes = 0
        self._kept: dict[int, dict[str, Array]] = {}  # the chip used last comes last
        self._sizes: dict[str, int] = {}
        self.chips_at_once, self.complete = 0, False
        for name in places:
            self.array(name, 0)
        self.chip_bytes = sum(self._sizes.values())
        """What the arrays of one chip take, with what is kept to read them."""
        fit = len(seeds) if budget is None or self.chip_bytes == 0 else budget // self.chip_bytes
        self.chips_at_once = min(fit, len(seeds))
        """How many chips are kept: the whole lot, or as many as fit; 0: not even one."""
        if self.chips_at_once == len(seeds):
            for chip in range(1, len(seeds)):
                for name in places:
                    self.array(name, chip)
            self.complete = True
            """Whether every array of the lot is kept: nothing changes any more, and several threads may read."""

    def array(self, name: str, chip: int) -> Array:
        """The array of one site on one chip: kept, or programmed now."""
        layers = self._kept.get(chip)
        if layers is not None and name in layers:
            if not self.complete:
                self._kept[chip] = self._kept.pop(chip)
            return layers[name]
        if is_traced():
            raise InputError(
                f"{name}: chip {chip} is not in memory ({self.chips_at_once} of {len(self._seeds)} chips fit), and it "
                "cannot be programmed under tracing. Way out: fabricate fewer chips, or give memory_bytes for all."
            )
        site, weight, bound = self._places[name]
        self._make_room(self._sizes.get(name, 0), chip)
        array = self._make(site, weight, bound, self._seeds[chip])
        own = array_bytes(array, (weight,) if bound is None else (weight, bound))
        size = self._sizes[name] = own + packed_bytes(array, site.op, site.hw)
        self._make_room(size, chip)
        if self.budget is None or self.kept_bytes + size <= self.budget:
            self.kept_bytes += size
            layers = self._kept.pop(chip, {})
            layers[name] = array
            self._kept[chip] = layers
        return array

    def _make_room(self, size: int, chip: int) -> None:
        """Drop arrays until ``size`` bytes more fit (or nothing is left)."""
        if self.budget is None or size > self.budget:
            return
        while self.kept_bytes + size > self.budget:
            others = [other for other in self._kept if other != chip]
            victim = others[-1] if others else chip
            layers = self._kept[victim]
            name = next(iter(layers))
            del layers[name]
            self.kept_bytes -= self._sizes[name]
            if not layers:
                del self._kept[victim]

    def __getitem__(self, name: str) -> Sequence[Array]:
        if name not in self._places:
            raise KeyError(name)
        return _Row(self, name, len(self._seeds))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@final
class _Row(Sequence[Array]):
    """The arrays of one site on all chips."""

    def __init__(self, shelf: Shelf, name: str, chips: int) -> None:
        self._shelf, self._name, self._chips = shelf, name, chips

    def __len__(self) -> int:
        return self._chips

    def __getitem__(self, chip):  # type: ignore[no-untyped-def]  # an int gives an array, a slice a tuple of them
        if isinstance(chip, slice):
            return tuple(self._shelf.array(self._name, i) for i in range(*chip.indices(self._chips)))
        if not -self._chips <= chip < self._chips:
            raise IndexError(f"chip {chip} of {self._chips}")
        return self._shelf.array(self._name, chip % self._chips)
