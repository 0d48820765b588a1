"""One number for a curve of accuracy against noise."""

import math

import numpy as np
from numpy.typing import ArrayLike

from mho.errors import InputError


def _curve(levels: ArrayLike, accuracy: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Levels in rising order with their accuracies; refuses what is no curve."""
    x, y = np.asarray(levels, dtype=float), np.asarray(accuracy, dtype=float)
    if x.ndim != 1 or x.shape != y.shape or len(x) < 2 or not np.isfinite(x).all() or not np.isfinite(y).all():
        raise InputError(
            f"robustness curve: levels {x.shape} and accuracies {y.shape} must be two or more finite pairs. Fix: "
            "sweep at least two noise levels."
        )
    order = np.argsort(x, kind="stable")
    if (np.diff(x[order]) == 0).any():
        raise InputError(f"robustness curve: a level is there twice in {x.tolist()}. Fix: each level once.")
    return x[order], y[order]


def area_under_curve(
    levels: ArrayLike, accuracy: ArrayLike, *, reference: float, chance: float, upto: float | None = None
) -> float:
    """Normalised area under the robustness curve: the mean over levels of (A - chance) / (reference - chance).

    Trapezia between the measured levels, from the lowest to ``upto`` (a level, interpolated; None: the highest).
    ``accuracy``, ``reference`` (the digital network) and ``chance`` in percent. 1: as good as digital at every level;
    0: chance. Raises :class:`InputError` for fewer than two levels or a reference at or below chance.
    """
    x, y = _curve(levels, accuracy)
    if not reference > chance:
        raise InputError(f"area_under_curve: reference {reference} % is not above chance {chance} %.")
    end = x[-1] if upto is None else upto
    if not x[0] < end <= x[-1]:
        raise InputError(f"area_under_curve: upto = {upto} lies outside the levels {x[0]} to {x[-1]}.")
    inside = x < end
    x, y = np.append(x[inside], end), np.append(y[inside], np.interp(end, x, y))
    return float(np.trapezoid((y - chance) / (reference - chance), x) / (x[-1] - x[0]))


def level_at_loss(levels: ArrayLike, accuracy: ArrayLike, *, reference: float, loss: float = 1.0) -> float:
    """The noise level at which the accuracy has fallen ``loss`` points below ``reference``, interpolated linearly.

    The first crossing counts. The lowest level where the curve begins below; infinity where it never gets there.
    """
    x, y = _curve(levels, accuracy)
    below = y < reference - loss
    if not below.any():
        return math.inf
    first = int(below.argmax())
    if first == 0:
        return float(x[0])
    span = y[first - 1] - y[first]
    return float(x[first - 1] + (x[first] - x[first - 1]) * (y[first - 1] - (reference - loss)) / span)
