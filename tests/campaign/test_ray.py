"""The same campaign on Ray. Skipped where Ray is not installed: pip install 'mho[ray]'."""

import os
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

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


class _FakeRay(ModuleType):
    """A process that has joined the cluster "there:1" already."""

    def __init__(self):
        super().__init__("ray")
        self.calls = []

    def is_initialized(self):
        return True

    def get_runtime_context(self):
        return SimpleNamespace(gcs_address="there:1")

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, **_):
        return lambda _: SimpleNamespace(remote=lambda _: SimpleNamespace(ready=SimpleNamespace(remote=lambda: "due")))

    def init(self, **_):
        raise RuntimeError("Maybe you called ray.init twice by accident?")

    def kill(self, actor):
        self.calls.append(("kill", actor))

    def shutdown(self):
        self.calls.append("shutdown")


def test_a_session_that_is_there_is_used_and_left(monkeypatch):
    fake = _FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    for address in ("local", "auto", "there:1"):
        crew = RayCrew(no_work, address)
        hand = crew.hire()
        crew.close()
        assert crew.size == 2 and fake.calls == [("kill", hand.actor)]
        fake.calls.clear()
    with pytest.raises(CampaignError, match=r"--ray else:2: this process has joined the cluster at there:1 already"):
        RayCrew(no_work, "else:2")
    assert not fake.calls


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
