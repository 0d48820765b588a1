"""What figures are drawn from: names and numpy arrays, checked when made."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mho.errors import InputError

Floats = NDArray[np.float64]


def _percent(values: object, what: str, ndim: int) -> Floats:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != ndim or array.size == 0:
        raise InputError(f"{what}: accuracy has shape {array.shape}, needs {ndim} axes, none empty.")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 100:
        raise InputError(f"{what}: accuracy must be finite and in percent, found {array.min()} to {array.max()}.")
    return array


@dataclass(frozen=True, eq=False)
class Curve:
    """Accuracy of one network: ``accuracy[point, chip]`` in percent at ``x[point]`` (rising).

    ``slot``: colour and marker; None takes the order of first appearance.
    """

    name: str
    x: Floats
    accuracy: Floats
    slot: int | None = None

    def __post_init__(self) -> None:
        x = np.asarray(self.x, dtype=np.float64)
        accuracy = _percent(self.accuracy, f"Curve {self.name!r}", 2)
        if x.shape != accuracy.shape[:1] or not np.isfinite(x).all() or (np.diff(x) <= 0).any():
            raise InputError(
                f"Curve {self.name!r}: x has shape {x.shape} for accuracy {accuracy.shape}; needs one finite, rising x "
                "a point. Fix: sort the points, chips on the second axis."
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "accuracy", accuracy)


@dataclass(frozen=True)
class Baseline:
    """A reference without chips, as a dashed line: ``percent`` right."""

    name: str
    percent: float

    def __post_init__(self) -> None:
        _percent([self.percent], f"Baseline {self.name!r}", 1)


@dataclass(frozen=True, eq=False)
class Group:
    """Accuracy of every chip of one network at one point: ``accuracy[chip]`` in percent."""

    name: str
    accuracy: Floats
    slot: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "accuracy", _percent(self.accuracy, f"Group {self.name!r}", 1))


@dataclass(frozen=True, eq=False)
class History:
    """One quantity during training: ``values[i]`` after ``epochs[i]``."""

    name: str
    epochs: Floats
    values: Floats
    slot: int | None = None

    def __post_init__(self) -> None:
        epochs, values = np.asarray(self.epochs, dtype=np.float64), np.asarray(self.values, dtype=np.float64)
        if epochs.ndim != 1 or epochs.shape != values.shape or epochs.size == 0 or not np.isfinite(values).all():
            raise InputError(
                f"History {self.name!r}: epochs {epochs.shape} and values {values.shape} must be two equally long "
                "lists of finite numbers. Fix: leave out epochs without a value."
            )
        object.__setattr__(self, "epochs", epochs)
        object.__setattr__(self, "values", values)


@dataclass(frozen=True)
class DominanceRow:
    """Level of one noise source relative to full scale in dB: -20 is a tenth; -inf is absent."""

    source: str
    level_dB: float
    note: str = ""

    def __post_init__(self) -> None:
        if np.isnan(self.level_dB) or self.level_dB == np.inf:
            raise InputError(f"DominanceRow {self.source!r}: level_dB = {self.level_dB}. Fix: dB, or -inf for absent.")


Series = TypeVar("Series", Curve, Group, History)


def slots_by_name(names: Iterable[str]) -> dict[str, int]:
    """A slot for each name, in the order of first appearance: one network, one colour on a page."""
    return {name: index for index, name in enumerate(dict.fromkeys(names))}


def with_slots(items: Sequence[Series], slots: dict[str, int] | None = None) -> tuple[Series, ...]:
    """``items`` with their missing slots filled from ``slots`` or from their own order."""
    known = slots if slots is not None else slots_by_name(item.name for item in items)
    return tuple(item if item.slot is not None else replace(item, slot=known[item.name]) for item in items)
