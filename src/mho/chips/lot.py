"""A lot of virtual chips that all run one network: a module whose output has a leading chip axis."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from mho.chips.compensation import drift_gains
from mho.chips.substrate import OnChip, chip_seed, fabricate_array
from mho.crossbar.array import Array
from mho.errors import ConversionError, InputError
from mho.hardware.spec import Hardware
from mho.nn.norms import Statistics, first_inputs, reestimate, tracking_norms
from mho.nn.site import BOUND, Site, analog_layers
from mho.nn.surrogate import NewChip
from mho.nn.watch import FirstForward, remove_hooks
from mho.units import duration_text, seconds


def fabricate(
    model: nn.Module,
    chips: int = 25,
    seed: int = 0,
    *,
    age: float | str | None = None,
    hardware: Hardware | Callable[[Hardware], Hardware] | None = None,
    first: int = 0,
) -> "Chips":
    """Program a converted network on the virtual chips ``first`` to ``chips`` - 1 of the lot ``seed``.

    Returns a module: input as for ``model``, output with a leading chip axis, [chips, batch, ...]. A
    chip depends on ``seed``, its number and the parameters' names alone, not on how many chips there
    are, the batch size, tiles, dtype or device. ``age``: seconds or text ("1 day") after programming;
    ``None``: the description's ``environment.t_s``. ``hardware``: evaluate under another description
    (or a change of each layer's own) than the network was converted for.

    Raises :class:`ConversionError` for a network without analog layers.
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
    return Chips(_lot_copy(model, change), tuple(chip_seed(seed, i) for i in range(first, chips)), age)


def _lot_copy(model: nn.Module, change: Callable[[Hardware], Hardware]) -> nn.Module:
    """A copy in eval mode without the hooks of training, every site under its evaluated description."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)
    remove_hooks(twin, NewChip, FirstForward)
    for _, layer in analog_layers(twin):
        layer.sites = {key: replace(site, hw=change(site.hw)) for key, site in layer.sites.items()}
    return twin


@final
class Chips(nn.Module):
    """Made by :func:`fabricate`. A chip does not train: its network is always in eval mode."""

    def __init__(self, model: nn.Module, seeds: tuple[int, ...], age: float | str | None = None) -> None:
        super().__init__()
        self.model = model
        self.seeds = seeds
        self.t_s: float | None = None if age is None else seconds(age)
        self._statistics: tuple[Statistics, ...] | None = None
        self.substrate = OnChip(seeds, self._program(self.t_s))
        for _, layer in analog_layers(model):
            layer.substrate = self.substrate

    def __len__(self) -> int:
        return len(self.seeds)

    def train(self, mode: bool = True) -> "Chips":
        """Keeps the network in eval mode whatever ``mode``."""
        self.training = False
        return self

    def extra_repr(self) -> str:
        return f"chips={len(self)}, age={'as described' if self.t_s is None else duration_text(self.t_s)}"

    def _sites(self) -> dict[str, tuple[Site, Tensor, Tensor | None]]:
        return {
            site.name: (site, getattr(layer, key), getattr(layer, key + BOUND, None))
            for _, layer in analog_layers(self.model)
            for key, site in layer.sites.items()
        }

    def _program(self, t_s: float | None) -> dict[str, tuple[Array, ...]]:
        return {
            name: tuple(
                fabricate_array(site, weight, bound, seed, site.hw.environment.t_s if t_s is None else t_s)
                for seed in self.seeds
            )
            for name, (site, weight, bound) in self._sites().items()
        }

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's output on every chip, stacked along a new first axis."""
        self.substrate.pass_number += 1
        with self.substrate.sharing(tuple(a for a in args if isinstance(a, Tensor))):
            outputs = [self.run(chip, *args, **kwargs) for chip in range(len(self))]
        return _pytree.tree_map(lambda *leaves: torch.stack(leaves), *outputs)

    def run(self, chip: int, *args: Any, **kwargs: Any) -> Any:
        """The network's output on one chip."""
        self._select(chip)
        return self.model(*args, **kwargs)

    def _select(self, chip: int) -> None:
        self.substrate.select(chip)
        if self._statistics is not None:
            for name, (mean, var) in self._statistics[chip].items():
                norm = self.model.get_submodule(name)
                norm.running_mean.copy_(mean)  # type: ignore[operator, union-attr]  # a batch norm's buffers
                norm.running_var.copy_(var)  # type: ignore[operator, union-attr]

    def _variant(self, t_s: float | None) -> "Chips":
        twin = Chips(copy.deepcopy(self.model), self.seeds, t_s)
        twin.substrate.gains = self.substrate.gains
        twin._statistics = self._statistics
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
        twin.substrate.gains = drift_gains(self._sites(), self.substrate.arrays, self._program(0.0), vectors, seed)
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
            twin._select(chip)
            found.append(reestimate(twin.model, norms, inputs))
        twin._statistics = tuple(found)
        return twin
