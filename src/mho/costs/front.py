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
    """The cheapest analog network as accurate as the digital one, to ``slack`` points; ``None``: there is none."""

    digital: Point
    analog: Point | None
    slack: float

    @property
    def ratio(self) -> Spread | None:
        """Digital over analog energy; low: the worst for analog."""
        if self.analog is None:
            return None
        ours, theirs = self.analog.energy_J, self.digital.energy_J
        return Spread(theirs.low / ours.high, theirs.typical / ours.typical, theirs.high / ours.low)

    def __str__(self) -> str:
        ratio = self.ratio
        if self.analog is None or ratio is None:
            return (
                f"No analog network comes within {self.slack:g} points of {self.digital.label} "
                f"({self.digital.accuracy:.2f} %): analog does not win here, whatever it costs."
            )
        if ratio.low > 1:
            found = "analog wins, whatever the constants"
        elif ratio.high < 1:
            found = "analog loses, whatever the constants"
        else:
            found = f"analog {'wins' if ratio.typical > 1 else 'loses'} at typical constants, and they decide"
        return (
            f"At equal accuracy to {self.slack:g} points ({self.analog.accuracy:.2f} % of {self.analog.label}, "
            f"{self.digital.accuracy:.2f} % of {self.digital.label}) {found}: energy digital over analog "
            f"{ratio.typical:.3g} ({ratio.low:.3g} to {ratio.high:.3g})."
        )


def at_equal_accuracy(
    analog: Iterable[Point], digital: Point, *, slack: float = 0.5, worst: bool = False
) -> EqualAccuracy:
    """``digital`` against the cheapest of ``analog`` within ``slack`` points of it (``worst``: by ``p5``)."""
    if not 0 <= slack < math.inf:
        raise InputError(f"at_equal_accuracy: slack = {slack!r}: must be finite and not negative.")
    able = [p for p in analog if _score(p, worst) >= _score(digital, worst) - slack]
    best = min(able, key=lambda p: p.energy_J.typical, default=None)
    return EqualAccuracy(digital, best, slack)
