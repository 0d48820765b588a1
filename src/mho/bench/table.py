"""The results for a person."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

COLUMNS = ("digital ms", "mho ms", "ratio", "quartiles", "aim", "digital MB", "mho MB")


def speed_table(results: Sequence[dict[str, Any]]) -> Table:
    """One line a case; an aim is information (on two quiet cores), never a verdict that fails."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("case", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    for row in results:
        low, high = row["ratio_quartiles"]
        table.add_row(
            row["case"],
            f"{row['digital_ms']:.2f}",
            f"{row['mho_ms']:.2f}",
            f"{row['ratio']:.2f}",
            f"{low:.2f} to {high:.2f}",
            aim_text(row["ratio"], row["aim"]),
            f"{row['digital_peak_mb']:.0f}",
            f"{row['peak_mb']:.0f}",
        )
    return table


def aim_text(ratio: float, aim: float | None) -> str:
    """How a ratio stands to its aim, in words that a pipe keeps.

    >>> aim_text(2.4, 2.5), aim_text(2.6, 2.5), aim_text(3.0, None)
    ('<= 2.5 met', '<= 2.5 over', '')
    """
    return "" if aim is None else f"<= {aim:g} {'met' if ratio <= aim else 'over'}"
