"""The comparison with other simulators: statistics of rounds, what is found, what fails (no peer is needed)."""

import importlib
import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch):
    """``peers("compare")`` imports benchmarks/peers/compare.py and forgets it afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    names = ("networks", "tools", "compare", "worker", "make_table")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


class Stub:
    """Answers like a worker: the given seconds in turn, or an error at a round."""

    def __init__(self, seconds: list[float], fails_at: int | None = None) -> None:
        self.seconds, self.fails_at, self.asked = seconds, fails_at, 0

    def ask(self, case: str) -> dict:
        self.asked += 1
        if self.fails_at == self.asked:
            return {"error": "ValueError: no convolution"}
        return {"s": self.seconds[self.asked - 1]}


def test_ratios_are_those_of_one_round(peers) -> None:
    compare = peers("compare")
    torch_s, mho_s = (
        [9.0, 1.0, 2.0, 4.0],
        [9.0, 2.0, 4.0, 8.0],
    )  # it slows down; round 0 is not counted
    workers = {"torch": Stub(torch_s), "mho": Stub(mho_s), "broken": Stub([1.0, 1.0], fails_at=3)}
    found = compare.compare(workers, ["train_mlp"], 3)["train_mlp"]
    assert found["torch"]["ratio"] == 1.0
    assert found["mho"]["ratio"] == 2.0
    assert found["mho"]["ratio_quartiles"] == [2.0, 2.0]
    assert found["mho"]["ms"] == 4000.0
    assert found["mho"]["rounds"] == 3
    assert found["broken"] == {"failed": "ValueError: no convolution"}
    assert workers["broken"].asked == 3


def test_short_runs_are_repeated_and_the_first_is_not_timed(peers) -> None:
    worker = peers("worker")
    lasts = itertools.chain([5.0], itertools.cycle([0.01, 0.03, 0.02]))
    now = [0.0]
    runs = []

    def run() -> None:
        runs.append(next(lasts))
        now[0] += runs[-1]

    assert worker.seconds(run, 0.1, lambda: now[0]) == pytest.approx(0.02)
    assert sum(runs[1:]) == pytest.approx(0.12)
    before = len(runs)
    assert worker.seconds(run, 1e-9, lambda: now[0]) == pytest.approx(runs[-1])  # a long run is timed once
    assert len(runs) == before + 2


def test_the_table_says_what_was_measured(peers) -> None:
    table = peers("make_table")
    document = json.loads((FOLDER.parent / "results" / "peers.json").read_text(encoding="utf-8"))
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert table.filled(readme, document) == readme, "run: python benchmarks/peers/make_table.py"
    row = {"ms": 250.4, "ratio": 2.5, "ratio_quartiles": [2.0, 3.0]}
    made = table.block(
        {
            "results": {"train_mlp": {"torch": {**row, "ms": 1.5}, "mho": row, "crosssim": {"failed": "no"}}},
            "versions": {tool: {"version": "1"} for tool in ("torch", "mho", "crosssim")},
            "machine": {"processor": "P", "cores": 2, "torch": "2", "load_average": 1.0},
            "settings": {"threads": 1, "rounds": 20, "clock": "cpu"},
        }
    )
    assert "1 thread of 2 cores, **processor time**, torch 2, 20 rounds, load average 1.0." in made
    assert "| torch 1 | 1.50 ms |" in made
    assert "| mho 1 | 250 ms, **2.50** (2.00 to 3.00) |" in made
    assert "| CrossSim 1 | failed |" in made


def test_environments_are_found_by_name(peers, tmp_path: Path) -> None:
    compare = peers("compare")
    (tmp_path / "aihwkit" / "bin").mkdir(parents=True)
    (tmp_path / "aihwkit" / "bin" / "python").touch()
    assert set(compare.found_tools(tmp_path, [])) == {"torch", "mho", "aihwkit_torch", "aihwkit_cpp"}
    with pytest.raises(SystemExit, match="no bin/python"):
        compare.found_tools(tmp_path, [f"lightning={tmp_path / 'nowhere'}"])


@pytest.mark.parametrize(("name", "parameters"), [("mlp", 535_818), ("resnet20", 269_722)])
def test_networks_are_those_of_the_field(peers, name: str, parameters: int) -> None:
    model, x, y = peers("networks").network(name)
    assert sum(p.numel() for p in model.parameters()) == parameters
    with torch.no_grad():
        assert model(x[:2]).shape == (2, 10)
    assert len(x) == len(y)


def test_torch_and_mho_run_a_step(peers) -> None:
    networks, tools = peers("networks"), peers("tools")
    for tool in ("torch", "mho"):
        model, x, y = networks.network("mlp")
        before = model[0].weight.detach().clone()
        step = tools.TOOLS[tool](model, x[:16], y[:16], True)
        step()
        assert tool == "mho" or not torch.equal(before, model[0].weight)
        tools.TOOLS[tool](networks.network("mlp")[0], x[:16], y[:16], False)()
