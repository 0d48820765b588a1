"""The same campaign on Ray. Skipped where Ray is not installed: pip install 'mho[ray]'."""

import os
import sys
from functools import partial
from pathlib import Path

import pytest
from campaign_cells import cell, lines, many, no_work, run, work

import mho
from mho.campaign import CampaignError, read_results
from mho.campaign.engine import hire_crew, run_cells
from mho.campaign.on_ray import RayCrew

HELPERS = Path(__file__).parents[1] / "helpers"
SRC = Path(mho.__file__).parents[1]


def test_without_ray_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CampaignError, match=r"--ray auto: Ray is not installed .* pip install 'mho\[ray\]'"):
        RayCrew(no_work, "auto")


@pytest.fixture
def on_ray(monkeypatch):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'mho[ray]'")
    # Workers of a local cluster inherit this.
    monkeypatch.setenv("PYTHONPATH", f"{SRC}{os.pathsep}{HELPERS}")


@pytest.mark.slow  # starts a cluster, which a busy machine may be too slow for
@pytest.mark.usefixtures("on_ray")
def test_cells_that_fail_kill_and_depend_end_on_ray_as_in_a_pool(tmp_path):
    first = cell(100, "run")
    cells = (*many(8, 0.01), cell(10, "fail"), cell(11, "die"), cell(12, "die once"), first, cell(13, after=first))
    found = run(tmp_path, cells, "local")
    rows = {row["id"]: row for row in read_results(tmp_path).to_pylist()}
    assert len(rows) == len(cells) and found.progress.done == len(cells) - 2
    assert rows[cells[8].id]["message"] == "ValueError: cell 10 cannot be done"
    assert rows[cells[9].id]["status"] == "given up" and "the actor died" in rows[cells[9].id]["message"]
    assert rows[cells[10].id]["status"] == "done" and rows[cells[10].id]["deaths"] == 1
    order = [cell_id for cell_id, _ in lines(tmp_path / "log", "begin")]
    assert order.index(first.id) < order.index(cells[-1].id)
    # Two actors, and one for each death: nobody is started for one cell.
    assert len({pid for _, pid in lines(tmp_path / "log", "begin")}) <= 2 + 4


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_an_actor_that_cannot_start_is_an_error_not_a_loop(tmp_path):
    with pytest.raises(CampaignError, match=r"3 workers in a row died at their start: .*the licence server is asleep"):
        run_cells("fake", many(2, 0.0), tmp_path, partial(hire_crew, no_work, 1, "local"))


@pytest.mark.usefixtures("on_ray")
def test_an_address_without_a_cluster_is_named():
    with pytest.raises(CampaignError, match=r"--ray 127\.0\.0\.1:9: no cluster answers there"):
        RayCrew(partial(work, Path()), "127.0.0.1:9")
