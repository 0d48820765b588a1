"""The engine of a campaign: cells that are left, workers, results, the page. It knows nothing of what a cell does."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mho.bench.machine import usable_cores
from mho.campaign.cells import Cell, Work
from mho.campaign.crew import Crew
from mho.campaign.drive import Driver
from mho.campaign.pool import Pool
from mho.campaign.progress import Progress, Tally
from mho.campaign.store import Store
from mho.train.interrupt import deferred_interrupt


@dataclass(frozen=True, kw_only=True)
class CampaignRun:
    """Where a campaign left its files, and how its cells ended.

    ``blocked``: cells that wait for a run that failed. ``problems``: (cell in words, message) of failed cells and
    those given up.
    """

    folder: Path
    progress: Progress
    blocked: int
    problems: tuple[tuple[str, str], ...]

    @property
    def results(self) -> Path:
        return self.folder / "results.parquet"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"


def hire_crew(work: Work, workers: int | None, ray: str | None) -> Crew:
    """Processes of this machine, or actors of the Ray cluster at ``ray``."""
    if ray is None:
        return Pool(work, usable_cores() if workers is None else workers)
    from mho.campaign.on_ray import RayCrew

    return RayCrew(work, ray, workers)


def run_cells(
    name: str,
    cells: Sequence[Cell],
    folder: Path,
    make_crew: Callable[[], Crew],
    *,
    text: str = "",
    retry: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> CampaignRun:
    """The cells that have no result in ``folder`` yet, on the crew that ``make_crew`` starts; then the page.

    For cells and work of one's own; :func:`run_campaign` calls it. The caller holds the folder's lock. No worker is
    started where nothing is left to do.
    """
    store = Store(folder)
    store.compact()
    past = {i: p for i, p in store.past().items() if p.status == "done" or not retry}
    left = [cell for cell in cells if cell.id not in past]
    succeeded = {cell_id for cell_id, p in past.items() if p.status == "done"}
    with deferred_interrupt() as interrupted:
        if any(cell.after is None or cell.after in succeeded for cell in left):
            with closing(make_crew()) as crew:
                tally = Tally(cells, past, crew.size)
                tell = on_progress or (lambda progress: None)
                tell(tally.progress())

                def record(cell: Cell, row: Mapping[str, Any]) -> None:
                    store.append(row)
                    tally.add(cell.kind, row["status"], row.get("seconds") or 0.0)
                    tell(tally.progress(f"{row['status']}: {cell.labels}"))

                Driver(left, succeeded, crew, record, interrupted).drive()
        store.compact()
        rows = store.table().to_pylist()
        if not interrupted():
            from mho.campaign.page import write_page  # Drawing costs seconds to import: workers start before it.

            write_page(folder / "report.html", name, cells, rows, text)
    by_id = {row["id"]: row for row in rows}
    ended = [(cell, by_id[cell.id]) for cell in cells if cell.id in by_id]
    return CampaignRun(
        folder=folder,
        progress=Tally(cells, store.past(), 1).progress(),
        blocked=len(cells) - len(ended),
        problems=tuple((str(cell.labels), row["message"] or "") for cell, row in ended if row["status"] != "done"),
    )
