"""What ``mho.energy`` answers, and what it says where it cannot: bad input, no map, no prices, no counter."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from priced_hardware import priced, q
from torch import nn
from typer.testing import CliRunner

import mho
from mho.cli.energy import energy as command
from mho.costs import NotMeasured, energy
from mho.costs.components import check_prices
from mho.costs.digital import ON_CHIP_BITS, Work, baseline
from mho.costs.meter import Rapl, find_counter, measure
from mho.errors import ConversionError, HardwareError, InputError
from mho.hardware import AdcCost, Cost, Hardware, Mapping, Quantity, dump_hardware, load_hardware

near = partial(pytest.approx, rel=1e-6, abs=0.0)


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 3))


X = torch.linspace(-1, 1, 36).reshape(4, 9)


# --- the answer ------------------------------------------------------------------------------------------------------


def test_parts_add_up_and_every_view_says_the_same():
    found = energy(small(), X, priced(), uses=1e6)
    whole = sum(v.typical for layer in found.layers for v in layer.energy_J.values())
    extra = found.static_J.typical + found.programming_J.typical / 1e6
    assert found.total_J.typical == near(whole + extra)
    assert found.total_J.low < found.total_J.typical < found.total_J.high
    assert found.macs == 9 * 7 + 7 * 3
    assert found.tops_per_W.typical == near(2 * found.macs / found.total_J.typical * 1e-12)
    assert found.fJ_per_mac.typical == near(found.total_J.typical / found.macs * 1e15)
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["total_J"]["typical"] == near(found.total_J.typical)
    assert plain["layers"][0]["counts"]["macs"] == 4 * 63
    array = found.to_xarray()
    assert float(array.sel(spread="typical").sum()) == near(whole) and array.dims == ("layer", "part", "spread")
    assert array.attrs["units"] == "J"


def test_the_table_names_layers_parts_floors_the_digital_network_and_what_is_left_out():
    text = str(energy(small(), X, priced()))
    for words in (
        "0.weight", "2.weight", "drive", "adc", "TOPS/W", "fJ a MAC", "latency", "mm2", "floors:", "kT ln 2",
        "digital fp32", "digital int8", "digital int4", "programming, once and not in the sum", "left out:",
        "45 nm, 0.9 V", "int8 over analog",
    ):  # fmt: skip
        assert words in text, words
    assert max(map(len, text.splitlines())) < 700


def test_the_network_is_that_of_training_or_another_hardware():
    hw = priced()
    model = mho.calibrate(mho.convert(small(), hw), [X])
    same, digital = energy(model, X), energy(small(), X, hw)
    assert same.parts_J.keys() == digital.parts_J.keys()
    assert not any("ranges" in note for layer in same.layers for note in layer.notes)
    assert all("ranges not known" in layer.notes[0] for layer in digital.layers)
    wide = energy(model, X, lambda old: old.replace(adc=replace(old.adc, bits=10)))
    assert wide.parts_J["adc"].typical > same.parts_J["adc"].typical
    named = energy(model, X, "pcm-hermes")
    assert {layer.hardware for layer in named.layers} == {"pcm-hermes"} and named.process == "14 nm, 0.8 V"


def test_a_hardware_as_a_file_keeps_its_prices(tmp_path: Path):
    file = tmp_path / "priced.toml"
    file.write_text(dump_hardware(priced()), encoding="utf-8")
    assert load_hardware(file) == priced()
    assert energy(small(), X, str(file)).total_J == energy(small(), X, priced()).total_J


def test_the_verdict_follows_the_spread():
    hw = priced()
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(256, 256)), torch.rand(1, 256)
    tile = replace(hw.tile, rows=256, cols=256)
    cheap = hw.replace(tile=tile, cost=Cost(node_nm=45, supply_V=0.9, adc=AdcCost(energy_pJ=q(1e-3), bits=6)))
    dear = hw.replace(tile=tile, cost=Cost(node_nm=45, supply_V=0.9, adc=AdcCost(energy_pJ=q(1e6), bits=6)))
    between = hw.replace(tile=tile, cost=Cost(node_nm=45, supply_V=0.9, adc=AdcCost(energy_pJ=q(300.0, 50.0), bits=6)))
    good, bad, open_ = (energy(net, x, h) for h in (cheap, dear, between))
    assert "analog needs less energy than fp32 even at its worst" in good.verdict("fp32")
    assert "analog needs more energy than fp32 even at its best" in bad.verdict("fp32")
    assert "energy than int8 at typical constants, and they decide" in open_.verdict("int8")
    assert "100 % of the analog energy is adc" in bad.verdict("int8")
    ratio = good.against("fp32")
    assert ratio.low == near(next(d for d in good.digital if d.format == "fp32").total_J.low / good.total_J.high)
    assert "No verdict" in energy(small(), X, "pcm-joshi2020").verdict("int8")
    for ask in (good.against, good.verdict):
        with pytest.raises(InputError, match=r"format 'int3': must be one of fp32, int8, int4"):
            ask("int3")


def test_no_verdict_names_hardware_layers_and_the_way_out():
    bare = energy(small(), X, "pcm-joshi2020")
    said = bare.verdict("int8")
    assert said == (
        "No verdict against int8: no part of hardware 'pcm-joshi2020' has a price (0.weight, 2.weight): "
        "give them in its [cost] table."
    )
    assert said in str(bare)
    hw = priced()
    mixed = energy(mho.convert(small(), hw, where={"2": hw.replace(name="bare", cost=None)}), X)
    assert "hardware 'bare' has a price (2.weight)" in mixed.verdict("int8")


def test_what_time_and_area_lack_is_named_and_a_part_is_not_printed_as_the_area():
    hw = priced()
    cost = replace(hw.cost, adc=replace(hw.cost.adc, conversion_s=None, area_um2=None))
    lacking = replace(cost, tile=replace(cost.tile, area_um2=None))
    found = energy(small(), X, hw.replace(cost=lacking))
    assert found.area_mm2 is None and "area of the tiles" not in str(found)
    assert "time of a conversion (cost.adc.conversion_s)" in found.left_out
    assert "area of the converters (cost.adc.area_um2)" in found.left_out
    assert not any("area of the cells" in part for part in found.left_out)
    whole = energy(small(), X, hw)
    assert not any("area" in part or "conversion" in part for part in whole.left_out) and whole.area_mm2 is not None
    # A tile's own area holds what no part counts: with it nothing is missing.
    assert energy(small(), X, hw.replace(cost=cost)).area_mm2.typical < whole.area_mm2.typical
    neurram = energy(small(), X, "reram-wan2022")
    assert neurram.area_mm2 is None and "area of the cells (cost.array.area_um2)" in neurram.left_out
    some = energy(mho.convert(small(), hw, where={"2": hw.replace(name="lacking", cost=lacking)}), X)
    assert some.layers[0].area_mm2 is not None and some.area_mm2 is None


# --- the digital side ------------------------------------------------------------------------------------------------


def test_the_digital_network_is_counted_with_the_same_operations():
    layers = [Work(macs=1000.0, weights=100, calls=1, numbers_in=10.0, numbers_out=20.0)]
    fp32, int8, int4 = (baseline(layers, 500.0, f, 45.0, 0.9) for f in ("fp32", "int8", "int4"))
    assert fp32.arithmetic_J.typical == near(1500 * 4.6e-12) and int8.arithmetic_J.typical == near(1500 * 0.3e-12)
    assert int4.arithmetic_J.typical == near(1500 * 0.15e-12)
    assert int8.memory_J.typical == near(130 * 8 * 20 / 64 * 1e-12) and fp32.memory_J.typical == near(
        4 * int8.memory_J.typical
    )
    assert baseline(layers, 500.0, "int8", 14.0, 0.8).total_J.typical < int8.total_J.typical
    big = [replace(layers[0], weights=ON_CHIP_BITS // 8 + 1)]
    assert baseline(big, 0, "int8", 45, 0.9).weights_in_dram and not baseline(big, 0, "int4", 45, 0.9).weights_in_dram
    with pytest.raises(InputError, match=r"'int3': must be one of fp32, int8, int4"):
        baseline(layers, 0, "int3", 45, 0.9)


def test_weights_of_a_recurrent_layer_are_fetched_at_each_step_whatever_the_batch():
    torch.manual_seed(0)
    net = mho.convert(nn.LSTM(4, 3), priced())
    one = energy(net, torch.rand(6, 1, 4), priced(), inferences=1)
    many = energy(net, torch.rand(6, 5, 4), priced(), inferences=5)
    for a, b in zip(one.digital, many.digital, strict=True):
        assert a.memory_J.typical == near(b.memory_J.typical) and a.arithmetic_J.typical == near(b.arithmetic_J.typical)


def test_products_of_data_with_data_are_priced_as_digital():
    torch.manual_seed(0)
    net = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    found = energy(net, torch.rand(2, 5, 8), priced())
    assert found.other_macs == 2 * 5 * 5 * 8
    assert found.parts_J["digital rest"].typical == near(400 * 0.3e-12)
    assert len(found.layers) == 4
    assert any(part.startswith("memory traffic of what no crossbar holds, on both") for part in found.left_out)
    assert not any("memory traffic" in part for part in energy(small(), X, priced()).left_out)


# --- counters --------------------------------------------------------------------------------------------------------


def test_where_there_is_no_counter_a_sentence_says_so(monkeypatch, tmp_path: Path):
    monkeypatch.setattr("mho.costs.meter.Rapl", partial(Rapl, tmp_path))
    found = energy(small(), X, priced(), measured=True)
    assert isinstance(found.measured, NotMeasured)
    assert "not measured here: no RAPL counter that can be read" in str(found)
    told = found.to_dict()["measured"]
    assert told["joules"] is None and "no RAPL counter" in told["reason"]
    monkeypatch.setattr("mho.costs.meter.NVML_LIBRARY", "libno-such-nvml.so")
    assert "no NVML counter" in str(find_counter("cuda:0"))


class Counts:
    """A counter that gives a joule more at each reading, and says whether it was closed."""

    name, wraps_s = "made up", float("inf")

    def __init__(self):
        self.reads, self.closed = 0, 0

    def read_J(self):
        self.reads += 1
        return float(self.reads)

    def close(self):
        self.closed += 1


def test_what_was_measured_is_numbers_with_unit_source_and_batch_and_the_counter_is_closed(monkeypatch):
    counter = Counts()
    monkeypatch.setattr("mho.costs.api.find_counter", lambda device: counter)
    monkeypatch.setattr("mho.costs.api.measure", partial(measure, seconds=1e-3))
    told = energy(small(), X, priced(), measured=True).to_dict()["measured"]
    assert told["joules"] * told["runs"] * told["batch"] == near(1.0) and told["batch"] == 4
    assert (told["unit"], told["source"]) == ("J", "made up") and told["seconds"] > 0
    assert counter.closed == 1
    json.dumps(told)


# --- what it cannot do -----------------------------------------------------------------------------------------------


def test_hardware_without_prices_gives_counts_floors_and_the_digital_network():
    found = energy(small(), X, "pcm-joshi2020")
    assert found.total_J is None and found.tops_per_W is None and found.parts_J == {} and not found.complete
    assert found.layers[0].counts.conversions == 4 * 7 and found.floors.converters_J > 0
    text = str(found)
    assert (
        "hardware 'pcm-joshi2020' has no prices" in text
        and "[cost]" in text
        and "digital int8" in text
        and "no price" in text
    )
    assert found.to_dict()["total_J"] is None and found.to_xarray().shape == (2, 0, 3)


def test_one_layer_without_prices_leaves_the_rest_of_the_table():
    hw = priced()
    model = mho.convert(small(), hw, where={"2": hw.replace(name="bare", cost=None)})
    found = energy(model, X)
    assert [bool(layer.energy_J) for layer in found.layers] == [True, False]
    assert found.macs == 63 and found.total_J.typical > 0
    text = str(found)
    assert "priced layers only" in text and "hardware 'bare' has no prices" in text and found.against("int8") is None


def test_a_layer_that_is_not_mapped_is_named_and_counted_as_digital():
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ConvTranspose2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 4))
    found = energy(net, torch.rand(2, 2, 6, 6), priced().replace(tile=Hardware(name="x").tile))
    assert [layer.name for layer in found.layers] == ["0.weight", "3.weight"]
    assert "1 (ConvTranspose2d) is not mapped and counted as digital" in str(found)
    assert found.other_macs == 3 * 2 * 9 * 16
    assert any("what no crossbar holds (of its 54 weights too), on both sides" in part for part in found.left_out)


def test_layers_that_the_example_does_not_reach_are_named():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(9, 3), nn.Linear(9, 3)

        def forward(self, x):
            return self.used(x)

    found = energy(Half(), X, priced())
    assert found.layers[1].notes == ("the example input does not use it",) and "does not use it" in str(found)
    assert found.layers[1].counts.macs == 0
    assert found.verdict("int8").endswith("the example input does not use idle.weight: give one that does.")


def test_zero_inputs_are_answered_with_a_note():
    found = energy(small(), torch.zeros(2, 9), priced())
    assert found.layers[0].energy_J["array"].typical == 0 and found.layers[0].energy_J["adc"].typical > 0
    assert "0.weight: its input is all zero" in str(found)


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (torch.empty(0, 9), r"shape \(0, 9\), no element"),
        ("image.png", "example input is str"),
        (torch.full((2, 9), float("nan")), r"input of 0\.weight holds NaN"),
    ],
)
def test_an_example_without_numbers_is_refused(example, message):
    with pytest.raises(InputError, match=message):
        energy(small(), example, priced())


@pytest.mark.parametrize(
    ("options", "message"),
    [({"uses": 0.0}, "uses = 0.0"), ({"inferences": 0}, "inferences = 0"), ({"inferences": True}, "inferences = True")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        energy(small(), X, priced(), **options)


def test_a_digital_network_needs_a_hardware():
    with pytest.raises(ConversionError, match=r"Sequential has no analog layer\. Way out: mho\.convert"):
        energy(small(), X)


def test_a_process_that_is_not_known_is_refused_with_the_way_out():
    hw = priced()
    bare = Cost(node_nm=250, supply_V=2.5)
    with pytest.raises(HardwareError, match=r"cost\.node_nm = 250.*Fix: give cost\.logic"):
        energy(small(), X, hw.replace(cost=bare))


def test_in_a_process_without_a_fit_own_prices_are_enough_and_the_digital_network_is_at_45_nm():
    torch.manual_seed(0)
    net, x = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0), torch.rand(2, 5, 8)
    hw = priced()
    own = hw.replace(cost=replace(hw.cost, node_nm=250, supply_V=2.5))
    check_prices(own.cost)
    found, there = energy(net, x, own), energy(net, x, hw)
    assert found.digital == there.digital and found.parts_J == there.parts_J and found.other_J is not None
    assert found.process == "250 nm, 2.5 V (digital at 45 nm, 0.9 V)"
    assert "not known at 250 nm and 2.5 V: the digital network" in str(found)
    assert "not known at" not in str(there) and there.process == "45 nm, 0.9 V"
    for key in ("add_pJ", "scale_pJ", "activation_pJ"):
        with pytest.raises(HardwareError, match=rf"{key}.*cost\.move\.buffer_pJ"):
            check_prices(replace(own.cost, logic=replace(own.cost.logic, **{key: None})))
    with pytest.raises(HardwareError, match=r"cost\.move\.buffer_pJ"):
        check_prices(replace(own.cost, move=replace(own.cost.move, buffer_pJ=None)))


def test_one_name_with_several_prices_keeps_all_of_them():
    hw = priced()
    other = hw.replace(cost=replace(hw.cost, node_nm=14, supply_V=0.8, chip_static_mW=q(5.0)))
    found = energy(mho.convert(small(), hw, where={"2": other}), X)
    assert any("layers lie on several processes" in note for note in found.notes)
    named = {c.name: c.value.typical for c in found.constants if c.name.endswith("chip_static_mW")}
    assert named == {"priced (0.weight): chip_static_mW": 3.0, "priced (2.weight): chip_static_mW": 5.0}
    tiles = sum(layer.place.tiles for layer in found.layers)
    assert found.static_J.typical == near((3.0 + 5.0 + 0.2 * tiles) * 1e-3 * found.latency_s.typical)
    # Other prices, the same chip: its static power flows once.
    same = hw.replace(cost=replace(hw.cost, logic=replace(hw.cost.logic, add_pJ=q(9.0))))
    found = energy(mho.convert(small(), hw, where={"2": same}), X)
    assert found.static_J.typical == near((3.0 + 0.2 * tiles) * 1e-3 * found.latency_s.typical)


def test_impossible_prices_are_refused_where_they_are_made(tmp_path: Path):
    with pytest.raises(HardwareError, match=r"Quantity\.source.*without a source"):
        Quantity(low=1, typical=1, high=1, source=" ", status="model")
    with pytest.raises(HardwareError, match=r"typical = 3.*not between low = 1 and high = 2"):
        Quantity(low=1, typical=3, high=2, source="s", status="model")
    text = dump_hardware(priced())
    for old, new, message in (
        ('status = "model"', 'status = "guess"', r"'cost\..*status' = 'guess'"),
        ("energy_pJ", "energy_nJ", r"'cost\.drive\.energy_nJ'.*Did you mean 'energy_pJ'"),
        ('source = "made up"', 'source = ""', "without a source"),
        ("bits = 6\nplanes_per_conversion", "planes_per_conversion", "set cost.adc.bits"),
    ):
        file = tmp_path / "bad.toml"
        assert old in text
        file.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(HardwareError, match=message):
            load_hardware(file)


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def call():
    app = typer.Typer()
    app.command()(command)

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


def test_the_command_prints_the_table_its_constants_and_json(call, tmp_path: Path):
    file = tmp_path / "energy.json"
    done = call("mlp", "--hardware", "pcm-hermes", "--shape", "784", "--constants", "--json", file)
    assert done.exit_code == 0, done.output
    assert "TOPS/W" in done.output and "random numbers" in done.output
    assert "pcm-hermes: adc.energy_pJ" in done.output and "Horowitz" in done.output
    assert json.loads(file.read_text())["layers"][0]["hardware"] == "pcm-hermes"
    real = call("mnist-mini", "--hardware", "flash-sonos")
    assert "16 test images of mnist-mini" in real.output


def test_the_command_says_what_it_needs(call):
    missing = call("lenet")
    assert isinstance(missing.exception, InputError) and "--shape 1,28,28" in str(missing.exception)
    assert "whole numbers" in call("lenet", "--shape", "1,x").output


def test_signed_ideal_hardware_is_no_hardware_to_price():
    found = energy(small(), X, Hardware(name="ideal", mapping=Mapping(scheme="signed")))
    assert (
        found.floors.column_J is None and "floors" not in str(found) and not np.isnan(found.digital[0].total_J.typical)
    )
