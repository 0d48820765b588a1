"""A cell of a campaign, what its work finds, and how a worker answers."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mho.errors import MhoError
from mho.units import duration_text

Kind = Literal["run", "evaluate"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Where a cell stands in the campaign; None where a label has no meaning for its kind."""

    recipe: str = ""
    seed: int | None = None
    network: str | None = None
    hardware: str | None = None
    noise_scale: float | None = None
    age_s: float | None = None
    lot: int | None = None

    def __str__(self) -> str:
        shown = {
            "seed": self.seed,
            "network": self.network,
            "hardware": self.hardware,
            "noise x": self.noise_scale,
            "age": None if self.age_s is None else duration_text(self.age_s),
            "lot": self.lot,
        }
        return ", ".join([self.recipe, *(f"{name} {value}" for name, value in shown.items() if value is not None)])


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One piece of work.

    ``task``: everything that its result depends on, as JSON can hold it; the cell's name is its hash. ``given``: what
    the worker needs besides (paths, parsed descriptions), which may change without making it another cell.
    ``after``: the id of the cell that must have succeeded before.
    """

    kind: Kind
    labels: Labels
    task: Mapping[str, Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    after: str | None = None

    @cached_property
    def description(self) -> str:
        """``kind`` and ``task`` as canonical JSON."""
        return json.dumps({"kind": self.kind, **self.task}, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @cached_property
    def id(self) -> str:
        """80 bits of BLAKE2b of the description, in hex."""
        return hashlib.blake2b(self.description.encode(), digest_size=10).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a cell found. ``correct[chip, image]`` and ``clean`` (percent without noise), or a run's ``summary``."""

    correct: NDArray[np.bool_] | None = None
    clean: float | None = None
    summary: Mapping[str, Any] | None = None


Do = Callable[[Cell], Found]
"""What a worker does with each cell."""
Work = Callable[[], Do]
"""Called once in each worker; a name of a module or a partial of one, for it is pickled."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a worker sends back: ``found``, or the ``message`` of the cell's own error."""

    cell_id: str
    found: Found | None
    message: str
    started_at: float
    seconds: float
    worker: str


def answer(do: Do, cell: Cell) -> Answer:
    """``do(cell)`` with its time; an exception becomes a message, for one cell must not stop the others."""
    started, began = time.time(), time.perf_counter()
    found, message = None, ""
    try:
        found = do(cell)
    except MhoError as error:
        message = str(error) or type(error).__name__
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
    spent = time.perf_counter() - began
    return Answer(
        cell_id=cell.id, found=found, message=message, started_at=started, seconds=spent, worker=worker_name()
    )


def worker_name() -> str:
    """This process, as a table of results calls it: ``host:pid``."""
    return f"{platform.node()}:{os.getpid()}"
