"""What happened between host and device: every fault, retry and repair, with its time, in memory and in a file."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import final

KINDS = frozenset(
    {
        "transport",  # a call's answer did not come, or not whole
        "timeout",  # ... within its time
        "fault",  # the device answered that it cannot
        "invalid",  # numbers of an answer that did not come or were not finite
        "retry",  # the same call again
        "restored",  # a tile written again because the device had lost it
        "restarted",  # the device's controller started anew
        "breaker open",  # too many failures in a row: no calls but health
        "breaker closed",  # the device is back
        "skipped",  # a training step without enough valid numbers
        "probe",  # gain, offset and noise as measured by probe vectors
        "compensated",  # the digital correction of a tile was renewed
        "refitted",  # the twin was fitted anew
        "calibrated",  # the device calibrated itself
        "reprogrammed",  # a tile was written again because it had drifted
        "waited",  # the device's clock was asked to run on
        "dead line",  # a row or column that does not answer
        "gradient",  # agreement of a gradient with the device's own differences
    }
)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the log. ``time_s``: of the host, since the epoch; ``attempt``: from 0."""

    time_s: float
    kind: str
    operation: str
    detail: str
    attempt: int = 0
    count: int = 1


@final
class EventLog:
    """Events in order. ``path``: a file of JSON lines that is appended to, so that a resumed run keeps its past."""

    def __init__(self, path: str | os.PathLike[str] | None = None, *, keep: int = 10_000) -> None:
        self._path = None if path is None else Path(path)
        self._keep = keep
        self.events: list[Event] = []
        self.counts: Counter[str] = Counter()
        self.listeners: list[Callable[[Event], None]] = []

    def write(self, kind: str, operation: str, detail: str, *, attempt: int = 0, count: int = 1) -> None:
        """Note one event (``count`` of its kind at once). Raises ``KeyError`` for a kind that is not in KINDS."""
        if kind not in KINDS:
            raise KeyError(f"event log: unknown kind {kind!r}; known: {', '.join(sorted(KINDS))}")
        event = Event(time.time(), kind, operation, detail, attempt, count)
        self.counts[kind] += count
        self.events.append(event)
        if len(self.events) > self._keep:
            del self.events[: -self._keep]
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(event)) + "\n")
        for listener in self.listeners:
            listener(event)
