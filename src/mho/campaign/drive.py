"""The driver: gives cells to workers, notes what ends, hires anew what dies."""

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mho.campaign.cells import Answer, Cell
from mho.campaign.crew import Crew, Event, Hand
from mho.campaign.errors import CampaignError
from mho.campaign.store import Status, row_of

MOST_DEATHS = 3
"""A cell that so many workers died of is given up: once may be chance, or the memory of another program."""
MOST_STARTS = 3
START_LIMIT_S = 300.0
POLL_S = 0.2
GRACE_S = 5.0
"""How long cells in hand may still end after Ctrl-C."""

Record = Callable[[Cell, Mapping[str, Any]], None]


@dataclass(eq=False)
class Driver:
    """One start of a campaign: ``cells`` that have not come to an end, ``succeeded`` ids of those that did well.

    ``record(cell, row)`` is called once for each cell that ends; it must be on disk when the call returns. Cells
    whose ``after`` failed stay in ``blocked``.
    """

    cells: Sequence[Cell]
    succeeded: Collection[str]
    crew: Crew
    record: Record
    stop: Callable[[], bool] = lambda: False
    waiting: deque[Cell] = field(default_factory=deque)
    blocked: dict[str, list[Cell]] = field(default_factory=dict)
    in_hand: dict[Hand, Cell] = field(default_factory=dict)
    starting: dict[Hand, float] = field(default_factory=dict)
    idle: list[Hand] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    failed_starts: int = 0

    def __post_init__(self) -> None:
        for cell in self.cells:
            if cell.after is None or cell.after in self.succeeded:
                self.waiting.append(cell)
            else:
                self.blocked.setdefault(cell.after, []).append(cell)

    def drive(self) -> None:
        """Until every cell that can run has ended, or ``stop()`` says so.

        Raises :class:`CampaignError` where workers cannot be started: three in a row that die at it, or one
        that takes five minutes while there is no other.
        """
        while (self.waiting or self.in_hand) and not self.stop():
            self._hire()
            self._give()
            self._ended(self._events())
        until = time.monotonic() + GRACE_S
        while self.in_hand and time.monotonic() < until:
            self._ended(self.crew.wait(self.in_hand, POLL_S), give=False)

    def _hire(self) -> None:
        wanted = min(self.crew.size, len(self.waiting) + len(self.in_hand))
        while len(self.in_hand) + len(self.idle) + len(self.starting) < wanted:
            self.starting[self.crew.hire()] = time.monotonic()

    def _give(self) -> None:
        while self.idle and self.waiting:
            hand, cell = self.idle.pop(), self.waiting.popleft()
            self.in_hand[hand] = cell
            self.crew.give(hand, cell)

    def _events(self) -> list[Event]:
        events = self.crew.wait([*self.in_hand, *self.starting], POLL_S)
        oldest = min(self.starting.values(), default=time.monotonic())
        if not self.in_hand and not self.idle and not events and time.monotonic() - oldest > START_LIMIT_S:
            raise CampaignError(
                f"campaign: no worker was ready after {START_LIMIT_S:g} s. Fix: see whether the machine or cluster has "
                "free cores and memory."
            )
        return events

    def _ended(self, events: list[Event], give: bool = True) -> None:
        ended: list[tuple[Cell, Answer]] = []
        for event in events:
            if event.what == "died":
                self._died(event)
                continue
            self.failed_starts = 0
            self.starting.pop(event.hand, None)
            cell = self.in_hand.pop(event.hand, None)
            self.idle.append(event.hand)
            if cell is not None and event.reply is not None:
                ended.append((cell, event.reply))
                if event.reply.found is not None:
                    self.waiting.extend(self.blocked.pop(cell.id, ()))
        if give:
            self._give()  # Workers go on while the driver writes.
        for cell, reply in ended:
            status: Status = "done" if reply.found is not None else "failed"
            self.record(cell, row_of(cell, status, self.deaths[cell.id], reply))

    def _died(self, event: Event) -> None:
        if self.starting.pop(event.hand, None) is not None:
            self.failed_starts += 1
            if self.failed_starts >= MOST_STARTS:
                raise CampaignError(
                    f"campaign: {self.failed_starts} workers in a row died at their start: {event.why}. Fix: what the "
                    "message says; in a script of your own, call run_campaign under if __name__ == '__main__'."
                )
            return
        cell = self.in_hand.pop(event.hand, None)
        if event.hand in self.idle:
            self.idle.remove(event.hand)
        if cell is None:
            return
        self.deaths[cell.id] += 1
        if self.deaths[cell.id] < MOST_DEATHS:
            self.waiting.append(cell)
            return
        message = f"given up: {MOST_DEATHS} workers died of it, the last: {event.why}"
        self.record(cell, row_of(cell, "given up", self.deaths[cell.id], message=message))
