"""Cells whose work takes no time, and work that fails, dies and waits; importable by a spawned process.

    python -m campaign_cells FOLDER COUNT SECONDS [RAY_ADDRESS]

is a driver of ``COUNT`` such cells, for tests that kill it.
"""

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mho.campaign.cells import Cell, Do, Found, Labels


def cell(number: int, do: str = "work", seconds: float = 0.0, after: Cell | None = None) -> Cell:
    """One cell; ``do``: "work", "fail", "die", "die once", "run"."""
    labels = Labels(recipe="fake", seed=0, network="digital", hardware="none", noise_scale=float(number), age_s=0.0)
    return Cell(
        kind="run" if do == "run" else "evaluate",
        labels=labels,
        task={"number": number, "do": do, "seconds": seconds},
        after=None if after is None else after.id,
    )


def work(log: Path) -> Do:
    """Writes "begin ID PID" and "end ID PID" to ``log`` around each cell."""
    return partial(_do, log)


def _do(log: Path, cell: Cell) -> Found:
    _note(log, "begin", cell)
    time.sleep(cell.task["seconds"])
    do = cell.task["do"]
    if do == "fail":
        raise ValueError(f"cell {cell.task['number']} cannot be done")
    mark = log.with_name(f"{log.name}-{cell.id}")
    if do == "die" or (do == "die once" and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    _note(log, "end", cell)
    if do == "run":
        return Found(summary={"digital": {"accuracy": 98.0}})
    return Found(correct=np.ones((2, 3), dtype=np.bool_), clean=100.0)


def _note(log: Path, word: str, cell: Cell) -> None:
    # One write to a file opened for appending: lines of several processes do not mix.
    with log.open("ab", buffering=0) as stream:
        stream.write(f"{word} {cell.id} {os.getpid()}\n".encode())


def no_work() -> Do:
    """Work that cannot even begin."""
    raise RuntimeError("the licence server is asleep")


def lines(log: Path, word: str) -> list[tuple[str, int]]:
    """(cell id, process id) of every line of ``log`` that begins with ``word``."""
    text = log.read_text() if log.exists() else ""
    split = [line.split() for line in text.splitlines()]
    return [(parts[1], int(parts[2])) for parts in split if parts[0] == word]


def many(count: int, seconds: float) -> tuple[Cell, ...]:
    """``count`` cells that each wait ``seconds``."""
    return tuple(cell(number, seconds=seconds) for number in range(count))


def run(folder: Path, cells: tuple[Cell, ...], ray: str | None = None) -> Any:
    """As ``mho sweep`` does, with two workers."""
    from mho.campaign.engine import hire_crew, run_cells
    from mho.campaign.lock import held  # Not on top: a worker needs nothing of it, and starts the faster.

    make = partial(hire_crew, partial(work, folder / "log"), 2, ray)
    with held(folder / ".lock", f"campaign {folder}"):
        return run_cells("fake", cells, folder, make)


if __name__ == "__main__":
    run(Path(sys.argv[1]), many(int(sys.argv[2]), float(sys.argv[3])), *sys.argv[4:5])
