"""The section of a page: every number of the report, bars that add up to it, and words where there is no price."""

import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from priced_hardware import priced
from torch import nn

import mho
from mho.costs import energy
from mho.errors import InputError
from mho.reporting import energy as page
from mho.reporting.run import RunData, run_sections
from mho.reporting.sections import Figure, Table, Text

AWARE = {"mean": 92.0, "std": 1.0, "p5": 91.0, "worst": 90.0, "ci95": [91.0, 93.0], "chips": 3}
near = partial(pytest.approx, rel=1e-6, abs=0.0)


def small_report(hardware):
    torch.manual_seed(0)
    return energy(nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3)), torch.rand(4, 9), hardware)


def test_the_page_shows_the_verdict_the_numbers_and_the_bars(tmp_path):
    found = small_report(priced())
    sections = page.energy_sections(found)
    assert [type(s) for s in sections] == [Text, Table, Figure, Text]
    assert found.verdict("int8") in sections[0].paragraphs
    assert page.energy_sections(found, "Analog wins.")[0].paragraphs == ("Analog wins.",)
    rows = {row[0].removeprefix("of it "): row[1:] for row in sections[1].rows}
    assert {"Analog, one inference", "adc", "array", "static", "Digital int8", "Latency", "TOPS/W"} <= set(rows)
    assert float(rows["fJ a MAC"][1]) == pytest.approx(found.fJ_per_mac.typical, rel=5e-3)
    assert float(rows["Area of the tiles, mm2"][0]) == pytest.approx(found.area_mm2.low, rel=5e-3)
    assert all(name in sections[2].alt for name in ("0.weight", "2.weight", "whole network"))
    assert "static, of no single layer" in sections[2].caption
    assert "Left out" in sections[3].paragraphs[-1]
    html = mho.report(tmp_path / "page.html", *sections).read_text(encoding="utf-8")
    assert "Where the energy goes" in html and len(re.findall("<figure", html)) == 1
    assert "analog needs more energy than int8" in html


@pytest.mark.parametrize("hardware", [priced(), "photonic-mzi", "generic"])
def test_the_bars_hold_all_energy_of_all_layers_and_of_the_whole_network(hardware):
    found = small_report(hardware)
    bars, names, joules = page._stacks(found)
    assert float(joules.sum()) == near(found.total_J.typical)
    assert bars == [*(layer.name for layer in found.layers), *(["whole network"] if found.beside_J else [])]
    for layer, row in zip(found.layers, joules, strict=False):
        assert float(row.sum()) == near(layer.total_J.typical)
    own = joules.sum(0)[: len(names) - (names[-1] == "other parts")]
    assert list(own) == sorted(own, reverse=True)


def test_colours_are_for_the_largest_parts():
    _, names, _ = page._stacks(small_report(priced()))
    assert len(names) == 6 and names[-1] == "other parts"


def test_both_networks_of_a_run_have_accuracy_and_joules_whoever_wins():
    summary = {
        "hardware_aware": {"mean": 92.0},
        "energy": {
            "process": "45 nm", "analog_J": [1e-9, 2e-9, 3e-9], "fp32_J": [4e-6, 5e-6, 6e-6],
            "int8_J": [7e-12, 8e-12, 9e-12], "int8_accuracy": 98.0, "compared_with": "digital int8",
        },
    }  # fmt: skip
    assert page.compared_rows(summary) == (
        ("analog, hardware-aware, mean over chips", "92.00", "1 nJ", "2 nJ", "3 nJ"),
        ("digital fp32", "", "4 uJ", "5 uJ", "6 uJ"),
        ("digital int8, compared with", "98.00", "7 pJ", "8 pJ", "9 pJ"),
    )
    bare = {**summary, "energy": {**summary["energy"], "analog_J": None}}
    assert page.compared_rows(bare)[0][2:] == ("no price", "", "")
    assert page.compared_rows({"hardware_aware": {"mean": 92.0}}) == () == page.compared_table({})
    data = RunData(name="r", hardware="h", equal_accuracy="Analog loses.")
    with_joules = run_sections(replace(data, summary={"energy": summary["energy"], "hardware_aware": AWARE}))
    tables = [s for s in with_joules if isinstance(s, Table) and s.title == "Accuracy and energy of both networks"]
    assert len(tables) == 1 and tables[0].rows[2][3] == "8 pJ"


def test_hardware_without_prices_has_no_bars():
    found = small_report("pcm-joshi2020")
    sections = page.energy_sections(found)
    assert not any(isinstance(s, Figure) for s in sections) and "No verdict" in sections[0].paragraphs[0]
    with pytest.raises(InputError, match="no layer has a price"):
        page.energy_bars(found)
