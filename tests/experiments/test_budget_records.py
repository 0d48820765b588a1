"""Records of noise budgets: a command writes the file that it is recorded in, and the page says what they show."""

import importlib
import json
import shlex
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from mho.allocation import Setting

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECORDS = sorted((BENCHMARKS / "results").glob("noise-budget-*.json"))


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("noise_budget"), importlib.import_module("budget_table")


def row(mean: float, array: float, total: float, **more: Any) -> dict[str, Any]:
    energy = {"array": array, "adc": 10.0, "total": total}
    return {"mean": mean, "p5": mean - 1, "energy_J": energy, "read_s": 1e-4, **more}


def settings(*bits: int) -> list[dict[str, Any]]:
    return [{"name": str(i), "read": 0.1, "bits": b} for i, b in enumerate(bits)]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_recorded_command_writes_that_record(modules: tuple[ModuleType, ModuleType], path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    given = modules[0].parser().parse_args(shlex.split(found["command"])[2:])
    assert modules[0].record_name(found["recipe"], given) == path.name


def test_runs_that_differ_in_what_they_train_for_do_not_write_over_one_another(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    options = ["", "--retrain 2", "--retrain 2 --same", "--retrain 2 --harm 3", "--retrain 2 --adc-sigma 3.5"]
    options += ["--retrain 2 --adc-sigma 3.2", "--retrain 2 --adc-sigma 3.2 --harm 3", "--retrain 2 --name=-x"]
    told = modules[0].parser()
    names = [modules[0].record_name("r", told.parse_args(["runs/r", *text.split()])) for text in options]
    assert len(set(names)) == len(options)


def test_the_same_for_all_layers_is_trained_alike_and_all_are_paired_with_the_network_as_it_was(
    modules: tuple[ModuleType, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, trained = modules[0], []

    def train(network: Any, trainer: Any, seed: int, epochs: int, lr: float) -> Any:
        trained.append((network.settings, seed, epochs, lr))
        return network

    class Network:
        def __init__(self, settings: Any) -> None:
            self.settings = settings

        def train(self) -> "Network":
            return self

    class Data:
        train_x = train_y = torch.zeros(4, 1)

        def normalise(self, x: torch.Tensor) -> torch.Tensor:
            return x

    monkeypatch.setattr(module, "trained_on", train)
    monkeypatch.setattr(module, "sensitivities", lambda network, images: ())
    monkeypatch.setattr(module, "loads", lambda network, x, known: ())
    monkeypatch.setattr(module, "today", lambda known: ())
    monkeypatch.setattr(module, "harm", lambda known, settings: 2.0)
    monkeypatch.setattr(
        module, "plan", lambda known, budget, reads, uniform=False: (Setting("w", budget, 5 + uniform),)
    )
    monkeypatch.setattr(module, "applied", lambda network, settings: Network(settings))
    monkeypatch.setattr(module.mho, "evaluate", lambda network, test, chips: network)
    monkeypatch.setattr(module, "entry", lambda network, result, before, example: {"before": before})
    trainer = SimpleNamespace(data=Data(), recipe=SimpleNamespace(seeds=[3]))
    for options, kinds in (
        ([], ["as it was", "a layer"]),
        (["--same"], ["as it was", "the same for all layers", "a layer"]),
    ):
        trained.clear()
        given = module.parser().parse_args(["runs/r", "--retrain", "2", *options])
        table = module.retrained(Network(()), trainer, given, [(torch.zeros(2, 1), torch.zeros(2))])
        assert list(table) == kinds
        assert [row["before"] is None for row in table.values()] == [True] + [False] * (len(kinds) - 1)
        assert all(row["before"].settings == () for row in list(table.values())[1:])
        assert {entry[1:] for entry in trained} == {(3, 2, 0.02)}
        bits = [settings[0].bits for settings, *_ in trained if settings]
        assert bits == ([6, 5] if options else [5])
        assert all(settings[0].read == 4.5 * 2.0 for settings, *_ in trained if settings)


def test_a_layer_is_better_only_where_neither_accuracy_nor_energy_is_worse(
    modules: tuple[ModuleType, ModuleType],
) -> None:
    say = modules[1].a_layer_against_the_same
    same = row(86.0, 2.0, 100.0)
    verdicts = {
        (86.1, 99.0): True, (86.0, 99.0): True, (86.1, 100.0): True,
        (85.9, 90.0): False, (86.5, 101.0): False, (86.0, 100.0): False,
    }  # fmt: skip
    for (mean, total), better in verdicts.items():
        said = say({"the same for all layers": same, "a layer": row(mean, 1.0, total)})
        assert ("a layer is better" in said) == better and ("no better than" in said) == (not better), (mean, total)
        assert "energy of the array 0.50 times" in said and f"{mean - 86:+.2f} points" in said
    assert say({"as it was": same, "a layer": same}) == ""


def test_tables_without_the_row_to_compare_with_are_counted(modules: tuple[ModuleType, ModuleType]) -> None:
    both = {"the same for all layers": row(86, 1, 9), "a layer": row(86, 1, 9, settings=settings(5, 6))}
    alike = {"a layer": row(86, 1, 9, settings=settings(5, 5))}
    alone = {"a layer": row(86, 1, 9, settings=settings(5, 6))}
    said = modules[1].what_is_shown([both, alike, alone, alone])
    assert "1 of 4 tables have both rows" in said and "no better than the same for all" in said
    assert "In 1 of the others the plan a layer came out the same for all layers." in said
    assert "In 2 there is nothing to compare with" in said
    assert "nothing to compare" not in modules[1].what_is_shown([both, alike])


def test_the_page_says_the_joules_of_each_run_as_it_was(modules: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    table = {"as it was": row(86, 13.1e-9, 1257e-9), "a layer": row(85, 1e-9, 900e-9, settings=settings(5, 6))}
    found = {"command": "python x", "images": 100, "chips": 2, "seeds": [0], "read_noise": {"0.01": table}}
    (tmp_path / "noise-budget-x.json").write_text(json.dumps(found))
    page = "\n".join(modules[1].section(tmp_path))
    assert "13.1 nJ in the array" in page and "1257 nJ in all" in page and "100 us of reads" in page
    assert "conversions, logic and buffers are not in it" in page
    assert modules[1].section(tmp_path / "nothing") == []
