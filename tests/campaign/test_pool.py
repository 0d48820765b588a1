"""Processes of this machine that die, drivers that die, and what is on disk afterwards."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from campaign_cells import cell, lines, many, no_work, run, work

import mho
from mho.campaign import CampaignError, read_results
from mho.campaign.engine import run_cells
from mho.campaign.pool import Pool

HELPERS = Path(__file__).parents[1] / "helpers"
SRC = Path(mho.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{SRC}{os.pathsep}{HELPERS}"}
PATIENCE_S = 60.0


def until(condition, what):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.02)


def alive(pid):
    """Whether the process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def driver(folder, count, seconds):
    command = [sys.executable, "-m", "campaign_cells", str(folder), str(count), str(seconds)]
    return subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Good cells among one that fails, one that kills its workers, one that kills its first, and a chain of two."""
    folder = tmp_path_factory.mktemp("mixed")
    first = cell(100, "run")
    cells = (
        *many(6, 0.0), cell(10, "fail"), cell(11, "die"), cell(12, "die once"), first, cell(13, after=first),
        cell(14, after=cell(10, "fail")),
    )  # fmt: skip
    return folder, cells, run(folder, cells)


def test_a_failed_cell_is_recorded_with_its_message_and_stops_nothing(mixed):
    folder, cells, found = mixed
    rows = {row["id"]: row for row in read_results(folder).to_pylist()}
    assert rows[cells[6].id]["status"] == "failed"
    assert rows[cells[6].id]["message"] == "ValueError: cell 10 cannot be done"
    assert {rows[c.id]["status"] for c in cells[:6]} == {"done"}
    assert found.progress.failed == 1 and found.progress.total == len(cells)


def test_a_cell_that_kills_its_workers_is_given_up_and_named(mixed):
    folder, cells, found = mixed
    row = next(row for row in read_results(folder).to_pylist() if row["id"] == cells[7].id)
    assert row["status"] == "given up" and row["deaths"] == 3 and "SIGKILL" in row["message"]
    assert any("noise x 11" in where and "3 workers died" in why for where, why in found.problems)


def test_a_cell_whose_worker_was_killed_once_is_done_by_another(mixed):
    folder, cells, _ = mixed
    row = next(row for row in read_results(folder).to_pylist() if row["id"] == cells[8].id)
    began = [pid for cell_id, pid in lines(folder / "log", "begin") if cell_id == cells[8].id]
    assert row["status"] == "done" and row["deaths"] == 1 and len(set(began)) == 2


def test_a_cell_waits_for_the_one_that_it_needs_and_for_ever_if_that_failed(mixed):
    folder, cells, found = mixed
    order = [cell_id for cell_id, _ in lines(folder / "log", "begin")]
    assert order.index(cells[9].id) < order.index(cells[10].id)
    assert cells[11].id not in order and found.blocked == 1


def test_what_ended_never_runs_again_and_failures_only_on_demand(mixed):
    folder, cells, _ = mixed
    before = (folder / "log").read_text()
    again = run(folder, cells)
    assert (folder / "log").read_text() == before and again.progress.done == 9
    with_retry = run_cells("fake", cells, folder, lambda: Pool(partial(work, folder / "log"), 1), retry=True)
    after = (folder / "log").read_text().removeprefix(before).splitlines()
    assert {line.split()[1] for line in after} == {cells[6].id, cells[7].id}
    assert with_retry.progress == again.progress and read_results(folder).num_rows == 11


def test_the_page_names_what_failed(mixed):
    folder, _, _ = mixed
    page = (folder / "report.html").read_text()
    assert "9 of 12 cells are done" in page and "cell 10 cannot be done" in page and "given up" in page


def test_workers_live_for_the_whole_campaign(tmp_path):
    run(tmp_path, many(12, 0.02))
    assert len({pid for _, pid in lines(tmp_path / "log", "begin")}) <= 2


def test_a_killed_driver_takes_its_workers_with_it_and_the_next_goes_on(tmp_path):
    cells, parts = many(24, 0.15), tmp_path / "parts"
    first = driver(tmp_path, 24, 0.15)
    until(lambda: len(list(parts.glob("*.parquet"))) >= 3, "three results")
    with pytest.raises(CampaignError, match=f"is in use by process {first.pid}"):
        run(tmp_path, cells)
    os.kill(lines(tmp_path / "log", "begin")[0][1], signal.SIGKILL)  # a worker
    until(lambda: len({pid for _, pid in lines(tmp_path / "log", "begin")}) == 3, "a new worker")
    first.kill()
    first.communicate()
    workers = {pid for _, pid in lines(tmp_path / "log", "begin")}
    until(lambda: not any(alive(pid) for pid in workers), "the end of the workers")
    kept = {path.stem for path in parts.glob("*.parquet")}
    found = run(tmp_path, cells)
    assert found.progress.done == 24 and not list(parts.glob("*"))
    assert sorted(read_results(tmp_path).column("id").to_pylist()) == sorted(c.id for c in cells)
    ended = [cell_id for cell_id, _ in lines(tmp_path / "log", "end")]
    assert all(ended.count(cell_id) == 1 for cell_id in kept)
    assert len(lines(tmp_path / "log", "begin")) <= 24 + 1 + 2  # in hand at the two kills


def test_ctrl_c_keeps_what_is_in_hand_and_ends_cleanly(tmp_path):
    running = driver(tmp_path, 40, 0.1)
    until(lambda: len(list((tmp_path / "parts").glob("*.parquet"))) >= 2, "two results")
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to all processes
    _, told = running.communicate(timeout=PATIENCE_S)
    assert running.returncode != 0 and told.rstrip().endswith("KeyboardInterrupt")
    ended = [cell_id for cell_id, _ in lines(tmp_path / "log", "end")]
    assert sorted(read_results(tmp_path).column("id").to_pylist()) == sorted(ended)
    assert 2 <= len(ended) < 40


def test_workers_that_cannot_start_are_an_error_not_a_loop(tmp_path):
    with pytest.raises(CampaignError, match=r"3 workers in a row died at their start: RuntimeError: the licence"):
        run_cells("fake", many(3, 0.0), tmp_path, lambda: Pool(no_work, 1))
