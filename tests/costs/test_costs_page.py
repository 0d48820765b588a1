"""The section of a page: every number of the report, bars that add up to it, and words where there is no price."""

import re
from functools import partial

import pytest
import torch
from priced_hardware import priced
from torch import nn

import mho
from mho.costs import energy
from mho.errors import InputError
from mho.reporting import energy as page
from mho.reporting.sections import Figure, Table, Text

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
    assert all(name in sections[2].alt for name in ("0.weight", "2.weight"))
    assert "Left out" in sections[3].paragraphs[-1]
    html = mho.report(tmp_path / "page.html", *sections).read_text(encoding="utf-8")
    assert "Where the energy goes" in html and len(re.findall("<figure", html)) == 1
    assert "analog needs more energy than int8" in html


def test_the_bars_hold_all_energy_of_all_layers():
    found = small_report(priced())
    names, joules = page._stacks(found)
    assert len(names) == 6 and names[-1] == "other parts"
    for layer, row in zip(found.layers, joules, strict=True):
        assert float(row.sum()) == near(layer.total_J.typical)
    assert list(joules.sum(0)[:-1]) == sorted(joules.sum(0)[:-1], reverse=True)


def test_hardware_without_prices_has_no_bars():
    found = small_report("pcm-joshi2020")
    sections = page.energy_sections(found)
    assert not any(isinstance(s, Figure) for s in sections) and "No verdict" in sections[0].paragraphs[0]
    with pytest.raises(InputError, match="no layer has a price"):
        page.energy_bars(found)
