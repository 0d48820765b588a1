"""A number with its 95 % interval, and the interval of a spread."""

import math
from dataclasses import dataclass
from typing import final

Z95 = 1.959963984540054
"""Two-sided 95 % point of the normal law."""
TAIL = 0.025


@final
@dataclass(frozen=True)
class Estimate:
    """``value`` with the 95 % interval [low, high]; ``name``: dotted key of the hardware; ``how`` it was found."""

    name: str
    value: float
    low: float
    high: float
    unit: str
    how: str

    @property
    def sure(self) -> bool:
        """Whether the interval excludes 0: there is something."""
        return self.low > 0 or self.high < 0

    def holds(self, truth: float) -> bool:
        """Whether ``truth`` lies in the interval (to 1e-9 of its size: the ends of whole numbers count)."""
        slack = 1e-9 * max(1.0, abs(truth))
        return self.low - slack <= truth <= self.high + slack

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.4g} {self.unit} (95 %: {self.low:.4g} to {self.high:.4g}; {self.how})"


def normal(name: str, value: float, se: float, unit: str, how: str) -> Estimate:
    """value +- 1.96 se."""
    return Estimate(name, value, value - Z95 * se, value + Z95 * se, unit, how)


def positive(e: Estimate) -> Estimate:
    """The part of the interval that is not negative, for a quantity that cannot be."""
    return Estimate(e.name, max(e.value, 0.0), max(e.low, 0.0), max(e.high, 0.0), e.unit, e.how)


def root(name: str, square: float, se: float, unit: str, how: str) -> Estimate:
    """sqrt of a square that was estimated with the standard error ``se``; below 0 counts as 0."""
    low, high = square - Z95 * se, square + Z95 * se
    found = [math.sqrt(max(x, 0.0)) for x in (square, low, high)]
    return Estimate(name, found[0], found[1], found[2], unit, how)


def spread(name: str, values: list[float], measured_var: float, unit: str, how: str) -> Estimate:
    """Standard deviation of the law that ``values`` were drawn from, each measured with ``measured_var``.

    Sum (x - mean)^2 / (sigma^2 + measured_var) ~ chi2(n - 1): the interval is that of the population that this chip
    was drawn from, not of the realised spread. Its width is chance in n draws: where ``measured_var`` is small beside
    sigma^2 (here 1e-4 of it) better measurements do not narrow it. At least two values.
    """
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    n = len(values)
    mean = math.fsum(values) / n
    total = math.fsum((x - mean) ** 2 for x in values)
    low, high = stats.chi2.ppf([TAIL, 1 - TAIL], n - 1)
    squares = (total / (n - 1), total / high, total / low)
    found = [math.sqrt(max(s - measured_var, 0.0)) for s in squares]
    return Estimate(name, found[0], found[1], found[2], unit, how)


def realised(name: str, values: list[float], measured_var: list[float], unit: str, how: str) -> Estimate:
    """Standard deviation (n - 1) of these very parts, each measured with its ``measured_var``; no law is asked for.

    With x the measured parts, d their deviations and u the variances of measurement, the square of the spread is
    (sum d^2) / (n - 1) - mean u, and its variance (4 sum (d^2 - u) u + 2 sum u^2) / (n - 1)^2: a part that lies far
    out counts with its own error, which is often larger than the mean (a gain's grows with the gain).
    """
    n = len(values)
    mean = math.fsum(values) / n
    squares = [(x - mean) ** 2 for x in values]
    square = (math.fsum(squares) - math.fsum(measured_var) * (n - 1) / n) / (n - 1)
    true = math.fsum((d - u) * u for d, u in zip(squares, measured_var, strict=True))
    var = 4 * max(true, 0.0) + 2 * math.fsum(u * u for u in measured_var)
    return root(name, square, math.sqrt(var) / (n - 1), unit, how)


def exactly(name: str, value: int, unit: str, how: str) -> Estimate:
    """A whole number that the data leave no doubt about."""
    return Estimate(name, float(value), float(value), float(value), unit, how)
