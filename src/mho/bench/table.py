"""The results for a person."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

COLUMNS = ("digital ms", "mho ms", "ratio", "quartiles", "aim", "digital MB", "mho MB")


def speed_table(results: Sequence[dict[str, Any]]) -> Table:
    """One line a case; an aim is information (on two quiet cores), never a verdict that fails."""
    table = _table("case", *COLUMNS)
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


def memory_table(results: Sequence[dict[str, Any]]) -> Table:
    """Peaks of both sides a case, and their ratio."""
    table = _table("case", "digital MB", "mho MB", "ratio", "aim")
    for row in results:
        peaks = (f"{row[key]:.0f}" for key in ("digital_peak_mb", "peak_mb"))
        table.add_row(row["case"], *peaks, f"{row['ratio']:.2f}", aim_text(row["ratio"], row["aim"]))
    return table


def scaling_table(results: Sequence[dict[str, Any]]) -> Table:
    """One line a case and number of threads."""
    table = _table("case", "threads", "digital ms", "mho ms", "ratio", "quartiles")
    for row in results:
        low, high = row["ratio_quartiles"]
        times = (f"{row[key]:.2f}" for key in ("digital_ms", "mho_ms", "ratio"))
        table.add_row(row["case"], str(row["threads"]), *times, f"{low:.2f} to {high:.2f}")
    return table


def _table(first: str, *columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def aim_text(ratio: float, aim: float | None) -> str:
    """How a ratio stands to its aim, in words that a pipe keeps.

    >>> aim_text(2.4, 2.5), aim_text(2.6, 2.5), aim_text(3.0, None)
    ('<= 2.5 met', '<= 2.5 over', '')
    """
    return "" if aim is None else f"<= {aim:g} {'met' if ratio <= aim else 'over'}"
