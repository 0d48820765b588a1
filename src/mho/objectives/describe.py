"""The terms of the loss as a table: what each measures, in what unit, at what cost."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True)
class Term:
    """One line of the table. ``cost``: passes beyond the forward and backward pass of the task."""

    name: str
    weight: float
    measure: str
    unit: str
    cost: str


def table(terms: Sequence[Term]) -> str:
    """Name, weight ("off" for 0), measure, unit and cost in columns."""
    header = ("term", "weight", "measure", "unit", "extra cost a step")
    body = [(t.name, f"{t.weight:g}" if t.weight else "off", t.measure, t.unit, t.cost) for t in terms]
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in (header, *body)
    )


__all__ = ["Term", "table"]
