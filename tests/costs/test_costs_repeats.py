"""Repeats and columns of their own in counts, joules and seconds, against the same product counted read by read."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import mho
from mho.costs import energy
from mho.costs.components import recounted
from mho.costs.counts import count
from mho.costs.trace import trace
from mho.crossbar.ops import ConvOp, LinearOp
from mho.errors import HardwareError
from mho.hardware import Hardware, Readout, load_hardware
from mho.nn.site import analog_layers
from mho.physics.averaging import longer_read, repeated_read
from mho.physics.scaling import with_dac_bits

PER_READ = ("drives", "line_charges", "samples", "integrations", "conversions", "tile_reads")
ONCE = ("vectors", "macs", "outputs", "bits_in", "bits_out", "bits_link", "numbers_in")
OPS = [LinearOp(10, 6), ConvOp(4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 2)]


def with_readout(hw: Hardware, **changes: object) -> Hardware:
    return hw.replace(readout=replace(hw.readout, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("op", OPS, ids=["linear", "grouped"])
@pytest.mark.parametrize("name", ["generic-channel", "reram-wan2022", "sram-charge", "pcm-hermes"])
def test_a_repeat_drives_and_converts_again_and_fetches_once(op: LinearOp | ConvOp, name: str) -> None:
    hw = load_hardware(name)
    one, three = (count(op, repeated_read(hw, m), 5, numbers_in=50, bias=True) for m in (1, 3))
    assert all(getattr(three, k) == 3 * getattr(one, k) for k in PER_READ)
    assert all(getattr(three, k) == getattr(one, k) for k in ONCE)
    # Each further read adds one addition for each of its conversions.
    assert three.additions - one.additions == 2 * one.conversions


@pytest.mark.parametrize("op", OPS, ids=["linear", "grouped"])
def test_columns_that_are_left_out_are_not_converted(op: LinearOp | ConvOp) -> None:
    hw = load_hardware("sram-charge")
    counts = (3, 1, 2, 1, 1, 3)
    masked = with_readout(hw, repeats=3, columns="masked", column_repeats=counts)
    one, found, all_of = (count(op, h, 5, numbers_in=50, bias=False) for h in (hw, masked, repeated_read(hw, 3)))
    assert found.conversions * len(counts) == one.conversions * sum(counts)
    assert found.drives == all_of.drives == 3 * one.drives
    same = with_readout(hw, repeats=3, columns="masked", column_repeats=(3,) * 6)
    assert count(op, same, 5, numbers_in=50, bias=False) == all_of


def network(hw: Hardware) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    x = torch.rand(4, 12)
    return mho.calibrate(mho.convert(nn.Sequential(nn.Linear(12, 6)), hw), [x]), x


def parts(hw: Hardware) -> dict[str, float]:
    report = energy(*network(hw))
    assert report.total_J is not None
    return {k: v.typical for k, v in report.parts_J.items()} | {"s": report.layers[0].latency_s.typical}


def test_joules_and_seconds_of_repeats_are_those_of_their_reads() -> None:
    hw = load_hardware("generic-channel")
    one, four, longer = parts(hw), parts(repeated_read(hw, 4)), parts(longer_read(hw, 4.0))
    for part in ("drive", "array", "adc", "s"):
        assert four[part] == pytest.approx(4 * one[part]), part
    assert four["buffers"] == one["buffers"]
    assert longer["array"] == pytest.approx(four["array"]) and longer["adc"] == one["adc"]
    assert one["s"] < longer["s"] < four["s"]  # a longer read converts once


def test_cells_of_a_column_draw_for_its_own_window_and_reads() -> None:
    hw = load_hardware("generic-channel")
    alone = []
    for c in range(6):  # one column at a time, the others nearly off
        windows = tuple(1.0 if k == c else 1e-9 for k in range(6))
        alone.append(parts(with_readout(hw, columns="timed", column_windows=windows))["array"])
    whole = parts(hw)
    assert sum(alone) == pytest.approx(whole["array"], rel=1e-6)
    windows, counts = (1.0, 0.5, 0.25, 0.1, 0.7, 0.3), (2, 1, 2, 1, 2, 1)
    both = with_readout(hw, columns="timed", repeats=2, column_windows=windows, column_repeats=counts)
    found = parts(both)
    assert found["array"] == pytest.approx(sum(a * w * m for a, w, m in zip(alone, windows, counts, strict=True)))
    assert found["s"] == pytest.approx(2 * whole["s"])  # rows are driven until the last column is done
    assert found["adc"] == pytest.approx(whole["adc"] * 9 / 6)


def test_a_price_of_a_read_of_a_cell_goes_with_what_is_read() -> None:
    hw = load_hardware("generic-channel")
    assert hw.cost is not None
    from mho.hardware import ArrayCost, Quantity

    price = Quantity(low=1.0, typical=2.0, high=3.0, source="a test, made up", status="model")
    priced = hw.replace(cost=replace(hw.cost, array=ArrayCost(read_fJ=price)))
    one, two, half = (
        parts(h)["array"]
        for h in (
            priced,
            repeated_read(priced, 2),
            with_readout(priced, columns="timed", column_windows=(0.5,) * 5 + (1.0,)),
        )
    )
    assert one == pytest.approx(12 * 6 * 2e-15) and two == pytest.approx(2 * one)
    assert half == pytest.approx(one * 3.5 / 6)


def test_counting_anew_is_running_anew() -> None:
    hw = load_hardware("reram-wan2022")
    model, x = network(hw)
    (traced,) = trace(model, (x,), lambda h: h, 4).sites.values()
    for other in (repeated_read(hw, 3), longer_read(hw, 2.0), hw.replace(tile=replace(hw.tile, rows=5))):
        (again,) = trace(model, (x,), lambda _, other=other: other, 4).sites.values()
        assert recounted(traced, other) == again.counts


def test_a_dac_of_fewer_bits_drives_with_fewer_elements() -> None:
    hw = load_hardware("generic-channel")
    assert hw.cost is not None and hw.dac is not None and hw.dac.bits == 6
    priced = hw.replace(cost=replace(hw.cost, drive=replace(hw.cost.drive, bits=8)))
    assert parts(priced)["drive"] == pytest.approx(parts(hw)["drive"] / 4)
    assert parts(with_dac_bits(priced, 8))["drive"] == pytest.approx(parts(hw)["drive"])
    assert parts(with_dac_bits(hw, 4))["drive"] == parts(hw)["drive"]
    with pytest.raises(HardwareError, match="bits of a price that is not given"):
        replace(hw.cost.drive, energy_pJ=None, bits=8)


def test_thermal_floors_are_of_the_mean_and_not_of_each_read() -> None:
    hw = load_hardware("generic-channel")
    one, four = (energy(*network(h)).layers[0].floors for h in (hw, repeated_read(hw, 4)))
    assert one.column_J == four.column_J and one.converters_J is not None
    assert four.converters_J == pytest.approx(4 * one.converters_J)


def test_the_table_of_noise_knows_repeats() -> None:
    from mho.physics.dominance import dominance

    hw = load_hardware("generic-channel")
    once, four = ({r.source: r for r in dominance(h, 64, 16)} for h in (hw, repeated_read(hw, 4)))
    assert four["read noise"].sigma == pytest.approx(once["read noise"].sigma / 2)
    assert "mean of 4 reads" in four["read noise"].note
    assert four["programming error"].sigma == once["programming error"].sigma


def test_moments_and_energy_based_models_refuse_what_they_do_not_compute() -> None:
    model, x = network(repeated_read(load_hardware("generic-channel"), 2))
    with pytest.raises(HardwareError, match=r"readout\.repeats"):
        mho.forecast(model.eval(), [(x, torch.zeros(4, dtype=torch.long))])
    assert next(analog_layers(model))[1].sites["weight"].hw.readout == Readout(repeats=2)
