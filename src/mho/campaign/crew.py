"""What a driver needs of workers, wherever they run: a pool of processes, or Ray."""

from collections.abc import Collection, Hashable
from dataclasses import dataclass
from typing import Literal, Protocol

from mho.campaign.cells import Answer, Cell

Hand = Hashable
"""One worker, as its crew knows it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """What became of a worker: "ready" for its first cell, "answer" to the one it had, or "died" and ``why``."""

    hand: Hand
    what: Literal["ready", "answer", "died"]
    reply: Answer | None = None
    why: str = ""


class Crew(Protocol):
    """Workers that are hired, given one cell at a time and waited for. ``size``: how many there may be."""

    size: int

    def hire(self) -> Hand:
        """Begin to start a worker and return at once; its first event is "ready" or "died"."""
        ...

    def give(self, hand: Hand, cell: Cell) -> None:
        """Hand over a cell. A worker that is dead already says so with its next event, not here."""
        ...

    def wait(self, hands: Collection[Hand], timeout_s: float) -> list[Event]:
        """The events of ``hands`` since the last call, at least one unless ``timeout_s`` passes first."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...
