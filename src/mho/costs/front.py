"""Energy at equal accuracy: the only fair ratio between an analog and a digital network."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

from mho.costs.spread import Spread
from mho.errors import InputError


@final
@dataclass(frozen=True)
class Point:
    """One network on one hardware: J an inference, accuracy in percent (mean over chips; ``p5``: 5th percentile)."""

    label: str
    energy_J: Spread
    accuracy: float
    p5: float

    def __post_init__(self) -> None:
        if not (0 <= self.p5 <= 100 and 0 <= self.accuracy <= 100 and self.energy_J.low > 0):
            raise InputError(
                f"Point {self.label!r}: accuracy {self.accuracy!r}, p5 {self.p5!r}, energy {self.energy_J.low!r} J. "
                "Way out: percent from 0 to 100, joules above 0."
            )


def front(points: Iterable[Point], *, worst: bool = False) -> tuple[Point, ...]:
    """The points that no other beats in typical energy and accuracy both, cheapest first. ``worst``: by ``p5``."""
    best, kept = -math.inf, []
    for point in sorted(points, key=lambda p: (p.energy_J.typical, -_score(p, worst))):
        if _score(point, worst) > best:
            best = _score(point, worst)
            kept.append(point)
    return tuple(kept)


def _score(point: Point, worst: bool) -> float:
    return point.p5 if worst else point.accuracy


@final
@dataclass(frozen=True)
class EqualAccuracy:
    """The cheapest analog and the cheapest digital network within ``slack`` points of the ``best`` digital one.

    ``analog``: ``None`` where there is none. ``worst``: accuracy is the 5th percentile over chips, not their mean.
    """

    best: Point
    digital: Point
    analog: Point | None
    slack: float
    worst: bool = False

    @property
    def ratio(self) -> Spread | None:
        """Digital over analog energy; low: the worst for analog."""
        if self.analog is None:
            return None
        ours, theirs = self.analog.energy_J, self.digital.energy_J
        return Spread(theirs.low / ours.high, theirs.typical / ours.typical, theirs.high / ours.low)

    def __str__(self) -> str:
        ratio = self.ratio
        by = " by the 5th percentile over chips" if self.worst else ""
        if self.analog is None or ratio is None:
            return (
                f"No analog network comes within {self.slack:g} points of {self.best.label} "
                f"({self.best.accuracy:.2f} %){by}: analog does not win here, whatever it costs."
            )
        if ratio.low > 1:
            found = "analog wins, whatever the constants"
        elif ratio.high < 1:
            found = "analog loses, whatever the constants"
        else:
            found = f"analog {'wins' if ratio.typical > 1 else 'loses'} at typical constants, and they decide"
        ours, theirs, best = self.analog, self.digital, self.best
        above = "" if best == theirs else f", the most accurate: {best.accuracy:.2f} % of {best.label}"
        return (
            f"At equal accuracy to {self.slack:g} points{by} ({_score(ours, self.worst):.2f} % of {ours.label}, "
            f"{theirs.accuracy:.2f} % of {theirs.label}{above}) {found}: energy digital over analog "
            f"{ratio.typical:.3g} ({ratio.low:.3g} to {ratio.high:.3g})."
        )


def at_equal_accuracy(
    analog: Iterable[Point], digital: Iterable[Point], *, slack: float = 0.5, worst: bool = False
) -> EqualAccuracy:
    """The cheapest of ``analog`` against the cheapest of ``digital``, both at least as accurate as the best of
    ``digital`` less ``slack`` points (``worst``: by ``p5``).

    Raises :class:`InputError` without a digital network and for an impossible slack.
    """
    shipped = list(digital)
    if not shipped:
        raise InputError("at_equal_accuracy: no digital network. Fix: give at least one to compare with.")
    if not 0 <= slack < math.inf:
        raise InputError(f"at_equal_accuracy: slack = {slack!r}: must be finite and not negative.")
    best = max(shipped, key=lambda p: _score(p, worst))
    least = _score(best, worst) - slack

    def cheapest(points: Iterable[Point]) -> Point | None:
        return min((p for p in points if _score(p, worst) >= least), key=lambda p: p.energy_J.typical, default=None)

    return EqualAccuracy(best, cheapest(shipped) or best, cheapest(analog), slack, worst)
