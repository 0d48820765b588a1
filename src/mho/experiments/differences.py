"""In which keys two descriptions differ."""

from collections.abc import Mapping
from typing import Any


def flat(table: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables as one, by dotted key: ``{"train": {"lr": 1}}`` is ``{"train.lr": 1}``."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values by dotted key, where they differ; None where one has no such key."""
    ours, theirs = flat(a), flat(b)
    pairs = {key: (ours.get(key), theirs.get(key)) for key in dict.fromkeys((*ours, *theirs))}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
