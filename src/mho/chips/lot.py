"""A lot of virtual chips that all run one network: a module whose output has a leading chip axis."""

import copy
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from mho.chips.compensation import drift_gains
from mho.chips.memory import budget_bytes, size_text
from mho.chips.shelf import Place, Shelf
from mho.chips.substrate import OnChip, chip_seed, fabricate_array
from mho.chips.workers import on_workers, one_core_each, replica
from mho.crossbar.array import Array
from mho.errors import ConversionError, InputError
from mho.hardware.spec import Hardware
from mho.nn.norms import Statistics, first_inputs, reestimate, tracking_norms
from mho.nn.site import BOUND, Site, analog_layers, substituted
from mho.nn.surrogate import NewChip, Surrogate
from mho.nn.watch import FirstForward, remove_hooks
from mho.units import duration_text, seconds

log = logging.getLogger(__name__)


def fabricate(
    model: nn.Module,
    chips: int = 25,
    seed: int = 0,
    *,
    age: float | str | None = None,
    hardware: Hardware | Callable[[Hardware], Hardware] | None = None,
    first: int = 0,
    memory_bytes: int | None = None,
) -> "Chips":
    """Program a converted network on the virtual chips ``first`` to ``chips`` - 1 of the lot ``seed``.

    Returns a module: input as for ``model``, output with a leading chip axis, [chips, batch, ...]. A
    chip depends on ``seed``, its number and the parameters' names alone, not on how many chips there
    are, the batch size, tiles, dtype or device. ``age``: seconds or text ("1 day") after programming;
    ``None``: the description's ``environment.t_s``. ``hardware``: evaluate under another description
    (or a change of each layer's own) than the network was converted for.

    ``memory_bytes``: what the arrays may take; ``None``: half of what is free on the weights' device. Where the
    lot takes more, arrays are made anew from the chips' seeds whenever they are read and not at hand: the same
    numbers, at the price of programming them again (0: every time). ``Chips.chips_at_once`` says how many fit.

    Raises :class:`ConversionError` for a network without analog layers, :class:`InputError` for other numbers of
    chips or bytes.
    """
    if isinstance(chips, bool) or not isinstance(chips, int) or chips < 1:
        raise InputError(f"fabricate: chips = {chips!r}: must be a whole number of at least 1.")
    if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first < chips:
        raise InputError(f"fabricate: first = {first!r}: must be a chip's number, 0 to {chips - 1}.")
    if next(analog_layers(model), None) is None:
        raise ConversionError(
            f"fabricate: {type(model).__name__} has no analog layer. Way out: mho.convert(model, hardware) first."
        )
    change = hardware if callable(hardware) else (lambda hw: hw if hardware is None else hardware)
    seeds = tuple(chip_seed(seed, i) for i in range(first, chips))
    return Chips(_lot_copy(model, change), seeds, age, first=first, memory_bytes=memory_bytes)


def _lot_copy(model: nn.Module, change: Callable[[Hardware], Hardware]) -> nn.Module:
    """A copy in eval mode without the hooks of training, every site under its evaluated description."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    remove_hooks(twin, NewChip, FirstForward)
    for _, layer in analog_layers(twin):
        layer.sites = {key: replace(site, hw=change(site.hw)) for key, site in layer.sites.items()}
    return twin


def _at_age(t_s: float | None, site: Site, weight: Tensor, bound: Tensor | None, seed: int) -> Array:
    return fabricate_array(site, weight, bound, seed, site.hw.environment.t_s if t_s is None else t_s)


@final
class Chips(nn.Module):
    """Made by :func:`fabricate`. A chip does not train: its network is always in eval mode."""

    def __init__(
        self,
        model: nn.Module,
        seeds: tuple[int, ...],
        age: float | str | None = None,
        *,
        first: int = 0,
        memory_bytes: int | None = None,
        arrays: Shelf | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.seeds = seeds
        self.first = first
        self.memory_bytes = memory_bytes
        self.one_of_many = first + len(seeds) > 1
        """Whether a chip leaves cores to others. Blocks of one evaluation must agree on it."""
        self.t_s: float | None = None if age is None else seconds(age)
        self._statistics: tuple[Statistics, ...] | None = None
        self.substrate = OnChip(seeds, self._program(self.t_s) if arrays is None else arrays)
        for _, layer in analog_layers(model):
            layer.substrate = self.substrate

    def __len__(self) -> int:
        return len(self.seeds)

    @property
    def chips_at_once(self) -> int:
        """How many chips' arrays are in memory together; 0: not even those of one chip fit."""
        return self.substrate.arrays.chips_at_once

    def train(self, mode: bool = True) -> "Chips":
        """Keeps the network in eval mode whatever ``mode``."""
        self.training = False
        return self

    def extra_repr(self) -> str:
        return f"chips={len(self)}, age={'as described' if self.t_s is None else duration_text(self.t_s)}"

    def _places(self) -> dict[str, Place]:
        return {
            site.name: (site, getattr(layer, key), getattr(layer, key + BOUND, None))
            for _, layer in analog_layers(self.model)
            for key, site in layer.sites.items()
        }

    def _program(self, t_s: float | None) -> Shelf:
        """The arrays of all chips ``t_s`` seconds after programming (``None``: as each site is described)."""
        places = self._places()
        device = next(iter(places.values()))[1].device
        budget = budget_bytes(self.memory_bytes, device)
        shelf = Shelf(places, self.seeds, partial(_at_age, t_s), budget)
        if not shelf.complete and budget:
            log.info(
                "%d of %d chips at a time: a chip's arrays take %s and may take %s; the others are made from their "
                "seeds when they are read",
                shelf.chips_at_once, len(self), size_text(shelf.chip_bytes), size_text(budget),
            )  # fmt: skip
        return shelf

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output on every chip, stacked along a new first axis.

        On the CPU and without gradients several chips run at the same time, one on each core, where the network is
        small and made of modules of torch and mho (see ``workers.py``).
        """
        self.substrate.pass_number += 1
        arrays = self.substrate.arrays
        inputs = [a for a in _pytree.tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        with self.substrate.sharing(tuple(a for a in args if isinstance(a, Tensor))):
            if not (self.one_of_many and one_core_each(self.model, arrays.chip_bytes, inputs)):
                outputs = [self.run(chip, *args, **kwargs) for chip in range(len(self))]
            else:
                # Making arrays is for one worker alone: a shelf has no lock.
                workers = min(torch.get_num_threads(), len(self)) if arrays.complete else 1
                nets = [self._beside() for _ in range(workers)]

                def run(worker: int, chip: int) -> Any:
                    self._select(chip, *nets[worker])
                    return nets[worker][0](*args, **kwargs)

                outputs = on_workers(run, len(self), workers)
        return _pytree.tree_map(lambda *leaves: torch.stack(leaves), *outputs)

    def run(self, chip: int, *args: Any, **kwargs: Any) -> Any:
        """The network's output on one chip."""
        self._select(chip, self.model, self.substrate)
        return self.model(*args, **kwargs)

    def _beside(self) -> tuple[nn.Module, OnChip]:
        """A network and a substrate for one more chip at the same time."""
        model, substrate = replica(self.model), self.substrate.beside()
        for _, layer in analog_layers(model):
            layer.substrate = substrate
        return model, substrate

    def _select(self, chip: int, model: nn.Module, substrate: OnChip) -> None:
        substrate.select(chip)
        if self._statistics is not None:
            for name, (mean, var) in self._statistics[chip].items():
                norm = model.get_submodule(name)
                norm.running_mean, norm.running_var = mean.clone(), var.clone()  # type: ignore[assignment]  # its buffers

    def _variant(self, t_s: float | None) -> "Chips":
        with substituted(self.model, lambda _: Surrogate()):  # a copy of the network, not of all arrays
            model = copy.deepcopy(self.model)
        same_age = self.substrate.arrays if t_s == self.t_s else None
        twin = Chips(model, self.seeds, t_s, first=self.first, memory_bytes=self.memory_bytes, arrays=same_age)
        twin.substrate.gains = self.substrate.gains
        twin._statistics, twin.one_of_many = self._statistics, self.one_of_many
        return twin

    def aged(self, age: float | str) -> "Chips":
        """The same chips at another age (seconds or text after programming).

        A sample path: aging to t1 and then to t2 is aging to t2. Compensation and batch-norm
        statistics are kept as they were measured.
        """
        return self._variant(seconds(age))

    def compensated(self, *, vectors: int = 64, seed: int = 0) -> "Chips":
        """The same chips with global drift compensation measured now: one digital gain a layer and chip.

        gain = sum|y(0)| / sum|y(t)| over ``vectors`` probe inputs that drive every row, read with the
        chip's own read noise (Joshi et al., Nat. Commun. 11, 2473, 2020).
        """
        twin = self._variant(self.t_s)
        places = self._places()

        def fresh(name: str, chip: int) -> Array:
            return _at_age(0.0, *places[name], self.seeds[chip])

        sites = {name: site for name, (site, _, _) in places.items()}
        numbers = range(self.first, self.first + len(self))
        twin.substrate.gains = drift_gains(sites, self.substrate.arrays.array, fresh, numbers, vectors, seed)
        return twin

    @torch.no_grad()
    def recalibrated(self, batches: Iterable, *, count: int = 10) -> "Chips":
        """The same chips with batch-norm statistics re-estimated on each chip from ``count`` batches.

        Unlabelled inputs; never test data unless you say so in your report. Raises
        :class:`InputError` where the network has no batch norm.
        """
        twin = self._variant(self.t_s)
        norms = tracking_norms(twin.model, "recalibrated")
        inputs = first_inputs(batches, count, "recalibrated")
        found: list[Statistics] = []
        for chip in range(len(twin)):
            twin._select(chip, twin.model, twin.substrate)
            found.append(reestimate(twin.model, norms, inputs))
        twin._statistics = tuple(found)
        return twin
