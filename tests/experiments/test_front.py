"""Accuracy against joules of a finished run: every combination counted on the description that made its noise."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from mho.cli import main
from mho.costs import energy
from mho.costs.front import Point, at_equal_accuracy, front
from mho.costs.spread import Spread
from mho.errors import CheckpointError, HardwareError, InputError
from mho.experiments import run_recipe
from mho.experiments.front import Fronts, Variation, _joules, accuracy_front
from mho.hardware import load_hardware
from mho.reporting.front import accuracy_front_figure

RECIPE = """
name = "tiny-front"
hardware = "generic-channel"
[data]
dataset = "mnist-mini"
subset = 512
batch_size = 64
[network]
model = "lenet"
args = {width = 4}
[train]
epochs = 1
clip_sigma = 2.0
[evaluate]
chips = 2
noise_scales = [1.0]
sweep_images = 100
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(RECIPE)
    return run_recipe(path, out=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture(scope="module")
def found(folder):
    return accuracy_front([folder], bits=(4, 8), rows=(None, 64), reads=(1.0, 0.25), chips=2, images=200, slack=30.0)


def test_all_combinations_are_measured_and_the_front_is_theirs(found) -> None:
    assert len(found.analog) == 8 and len({p.label for p in found.analog}) == 8
    assert found.best == front(found.analog) and set(found.best) <= set(found.analog)
    assert [p.label for p in found.digital] == ["fp32 tiny-front", "int8 tiny-front", "int4 tiny-front"]


def test_joules_follow_bits_tiles_and_read_time(found) -> None:
    joules = {p.label.removeprefix("tiny-front, "): p.energy_J.typical for p in found.analog}
    base = joules["4 bit, one tile a layer, read time x 1"]
    assert joules["8 bit, one tile a layer, read time x 1"] > base
    assert joules["4 bit, tiles of 64 rows, read time x 1"] > base
    assert joules["4 bit, one tile a layer, read time x 0.25"] < base
    fp32, int8, int4 = (p.energy_J.typical for p in found.digital)
    assert int4 < int8 < fp32


def test_a_variation_is_what_it_says() -> None:
    hw = Variation(4, 64, 0.25).of(load_hardware("generic-channel"))
    assert (hw.adc.bits, hw.dac.bits, hw.tile.rows) == (4, 4, 64)
    assert hw.readout.t_read_s == pytest.approx(0.25e-7)
    assert hw.cell.read_noise == pytest.approx(0.02)


def test_the_figure_names_every_point_of_the_front(found) -> None:
    figure = accuracy_front_figure(found.analog, found.digital)
    assert all(p.label in figure.alt for p in (*found.best, *found.digital))
    with pytest.raises(InputError, match="no analog point"):
        accuracy_front_figure(())


def test_the_command_prints_the_sentence_and_writes_page_and_numbers(folder, tmp_path, capsys) -> None:
    page = tmp_path / "front.html"
    arguments = [
        "--bits",
        "6",
        "--rows",
        "0",
        "--reads",
        "1",
        "--repeats",
        "2",
        "--chips",
        "2",
        "--images",
        "100",
        "--worst",
        "--quiet",
    ]
    with pytest.raises(SystemExit) as ended:
        main(["front", str(folder), *arguments, "--out", str(page)])
    assert ended.value.code == 0
    written = json.loads(page.with_suffix(".json").read_text())
    assert written["by"] == "p5"
    assert written["sentence"] in " ".join(capsys.readouterr().out.split())
    assert len(written["analog"]) == 1 and "Accuracy against energy" in page.read_text()


def test_the_front_of_the_worst_chips(found) -> None:
    points = (Point("a", Spread(1, 1, 1), 90.0, 70.0), Point("b", Spread(2, 2, 2), 89.0, 80.0))
    digital = (Point("int8", Spread(3, 3, 3), 91.0, 91.0),)
    equal = at_equal_accuracy(points, digital, slack=15.0, worst=True)
    by_worst = Fronts("hw", 10, 2, points, digital, equal, worst=True)
    assert [p.label for p in by_worst.best] == ["a", "b"] and by_worst.to_dict()["by"] == "p5"
    assert [p.label for p in replace(by_worst, worst=False).best] == ["a"] and found.to_dict()["by"] == "mean"
    assert equal.analog is not None and equal.analog.label == "b"
    mean, worst = (accuracy_front_figure(points, digital, worst=w) for w in (False, True))
    assert "a 1 J 90.00 %" in mean.alt and "a 1 J 70.00 %; b 2 J 80.00 %" in worst.alt
    assert worst.key[0].name == "analog, 5th percentile of chips"


def test_what_cannot_be_compared_is_said(folder, tmp_path, capsys) -> None:
    with pytest.raises(CheckpointError, match="no finished run"):
        accuracy_front([tmp_path])
    with pytest.raises(InputError, match="nothing to compare"):
        accuracy_front([folder], bits=())
    with pytest.raises(SystemExit):
        main(["front", str(folder), "--bits", "four"])
    assert "numbers with commas between" in capsys.readouterr().err


def test_joules_that_are_not_known_have_their_own_cause() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(9, 3), nn.Linear(9, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    x = torch.rand(2, 9)
    assert _joules(energy(nn.Linear(9, 3), x, "generic"), "whole").typical > 0
    with pytest.raises(
        HardwareError, match=r"joules of half are not known: the example input does not use idle\.weight"
    ):
        _joules(energy(Half(), x, "generic"), "half")
    with pytest.raises(
        HardwareError, match=r"hardware 'pcm-joshi2020' has a price \(weight\): give them in its \[cost\]"
    ):
        _joules(energy(nn.Linear(9, 3), x, "pcm-joshi2020"), "bare")


def test_repeats_are_whole_reads_and_cost_conversions_too(folder) -> None:
    settings = {"bits": (6,), "rows": (None,), "chips": 2, "images": 100}
    several = accuracy_front([folder], reads=(1.0,), repeats=(1, 4), **settings)
    longer = accuracy_front([folder], reads=(4.0,), **settings)
    labels = [p.label for p in several.analog]
    assert labels[1] == labels[0] + ", mean of 4 reads"
    one, four = (p.energy_J.typical for p in several.analog)
    assert one < longer.analog[0].energy_J.typical < four
    assert Variation(6, None, 1.0, 4).of(load_hardware("generic-channel")).readout.repeats == 4
    with pytest.raises(InputError, match="number of reads"):
        accuracy_front([folder], repeats=())
