"""What the products of one forward pass have in common, and how a product that is computed again finds it.

Activation checkpointing repeats a part of a forward pass inside the backward pass, maybe after other forward passes
(two losses, accumulated before one backward pass). It rewinds torch's generator, whose state therefore says
which pass a product belongs to.
"""

from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor

from mho.rng import derive_seed

REMEMBERED = 4096
"""Products: of that many the pass is known, some 300 bytes each."""

_HEAD = 40
"""Bytes of a generator's state that tell it from others: seed, place in the block, first numbers of the block."""


@dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass: its chip, the version of each weight at its first use, and (step, [2]) converter ranges."""

    chip_seed: int
    versions: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, tuple[int, Tensor]] = field(default_factory=dict)

    def step(self, name: str, version: int) -> int:
        """How often the weight ``name`` has changed since its first use in this pass."""
        return version - self.versions.setdefault(name, version)

    def frozen_ranges(self, name: str, ranges: Tensor, step: int) -> Tensor:
        """``ranges`` as they were at the first use in this step: all uses, repeated ones too, quantise alike."""
        kept = self.ranges.get(name)
        if kept is None or kept[0] != step:
            kept = self.ranges[name] = (step, ranges.clone())
        return kept[1]


@final
class Passes:
    """The last forward pass, and those to which the products of late belong."""

    def __init__(self) -> None:
        self.last: Pass | None = None
        self._of_state: dict[bytes, Pass] = {}

    def begin(self, chip_seed: int) -> None:
        """A forward pass of the whole network starts, on this chip; the same chip again is the same pass again."""
        if self.last is None or self.last.chip_seed != chip_seed:
            self.last = Pass(chip_seed)

    def of_product(self, training: bool) -> Pass:
        """The pass of the product that is computed now; to be asked before the product draws anything.

        A product whose pass is forgotten, or whose checkpoint keeps no generator, is taken to be of the last one.
        """
        if self.last is None:
            # Without advancing torch's generator: activation checkpointing, which rewinds it, would not
            # draw this seed a second time.
            self.begin(derive_seed(torch.initial_seed(), "chip"))
        assert self.last is not None
        if not training:
            return self.last
        state = torch.default_generator.get_state().numpy()[:_HEAD].tobytes()
        if is_repeated():
            return self._of_state.get(state, self.last)
        self._of_state[state] = self.last
        if len(self._of_state) > REMEMBERED:
            del self._of_state[next(iter(self._of_state))]
        return self.last

    def __getstate__(self) -> dict[str, Any]:
        """A copy has no backward pass that could repeat anything."""
        return {"last": self.last, "_of_state": {}}


def is_repeated() -> bool:
    """Whether this runs inside a backward pass, where activation checkpointing computes again."""
    return bool(torch._C._current_graph_task_id() != -1)
