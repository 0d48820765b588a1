"""How far a campaign is, and when it will be there."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mho.campaign.cells import Cell
from mho.campaign.store import Past


@dataclass(frozen=True, kw_only=True)
class Progress:
    """``seconds_left``: None until a cell of every kind that is left has ended once. ``last``: what ended, in words."""

    total: int
    done: int
    failed: int
    given_up: int
    seconds_left: float | None
    last: str = ""

    @property
    def ended(self) -> int:
        """Cells that will not run again by themselves."""
        return self.done + self.failed + self.given_up


class Tally:
    """Counts what ended of ``cells``, now or in an earlier start (``past``), and what each kind of cell took."""

    def __init__(self, cells: Iterable[Cell], past: Mapping[str, Past], workers: int) -> None:
        self.workers = workers
        self.by_status: Counter[str] = Counter()
        self.left: Counter[str] = Counter()
        self.spent: defaultdict[str, list[float]] = defaultdict(list)
        for cell in cells:
            self.left[cell.kind] += 1
            if cell.id in past:
                self.add(cell.kind, past[cell.id].status, past[cell.id].seconds)

    def add(self, kind: str, status: str, seconds: float) -> None:
        """One cell of ``kind`` ended."""
        self.by_status[status] += 1
        self.left[kind] -= 1
        if status == "done":
            self.spent[kind].append(seconds)

    def progress(self, last: str = "") -> Progress:
        """The state now; the time left is the mean of each kind's cells times those left, over all workers."""
        kinds = [kind for kind, count in self.left.items() if count > 0]
        known = all(self.spent[kind] for kind in kinds)
        left = sum(self.left[k] * sum(self.spent[k]) / len(self.spent[k]) for k in kinds) if known else 0.0
        return Progress(
            total=sum(self.by_status.values()) + sum(self.left.values()),
            done=self.by_status["done"],
            failed=self.by_status["failed"],
            given_up=self.by_status["given up"],
            seconds_left=left / self.workers if known else None,
            last=last,
        )
