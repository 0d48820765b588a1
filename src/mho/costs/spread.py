"""A number with its doubt: low, typical, high."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Spread:
    """Low, typical and high of one quantity in one unit.

    Sums and products take low with low and high with high: constants of one model err together, and what comes out is
    the widest that they allow.
    """

    low: float
    typical: float
    high: float

    def __add__(self, other: "Spread") -> "Spread":
        return Spread(self.low + other.low, self.typical + other.typical, self.high + other.high)

    def __mul__(self, factor: "Spread | float") -> "Spread":
        if isinstance(factor, Spread):
            return Spread(self.low * factor.low, self.typical * factor.typical, self.high * factor.high)
        return Spread(self.low * factor, self.typical * factor, self.high * factor)

    def over(self, amount: float) -> "Spread":
        """``amount`` divided by it: what is high becomes low."""
        return Spread(amount / self.high, amount / self.typical, amount / self.low)


NOTHING = Spread(0.0, 0.0, 0.0)


def exactly(value: float) -> Spread:
    """A number without doubt."""
    return Spread(value, value, value)
