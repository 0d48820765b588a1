"""Each input changed by a known factor, and the scaling that physics demands; energies against loops over cells."""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch
from priced_hardware import priced, q
from torch import nn

import mho
from mho.costs import energy
from mho.costs.adc import conversion_J, envelope_J, median_J, rate_factor, recent_J, surveyed_J
from mho.costs.cells import array_energy_J, driven_conductance_uS, total_conductance
from mho.costs.floors import floors
from mho.costs.nodes import energy_factor, relative_energy
from mho.costs.phases import drive_share
from mho.costs.spread import Spread
from mho.crossbar.ops import ConvOp, LinearOp
from mho.errors import HardwareError
from mho.hardware import (
    Adc,
    AdcCost,
    Dac,
    DriveCost,
    Environment,
    GenericCell,
    Hardware,
    Mapping,
    PhotonicCell,
    Quantity,
    Readout,
    SramCell,
)
from mho.physics.thermal import boxcar_bandwidth_Hz, charge_read_J, column_read_J, johnson_sigma_A, ktc_sigma_V

ROWS, COLS = 11, 7
# Joules are small: pytest's absolute tolerance of 1e-12 would let anything pass.
near = partial(pytest.approx, rel=1e-6, abs=0.0)


def network(hw: Hardware, scale: float = 1.0, **changes: object) -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(ROWS, COLS), nn.ReLU(), nn.Linear(COLS, 3))
    return mho.calibrate(mho.convert(net, hw), [scale * torch.randn(32, ROWS)])


def report(hw: Hardware, x: torch.Tensor | None = None, **options):
    torch.manual_seed(2)
    return energy(network(hw), torch.randn(4, ROWS) if x is None else x, hw, **options)


# --- converters ------------------------------------------------------------------------------------------------------


def test_a_converter_costs_four_times_a_bit_past_the_knee_and_little_more_below_it():
    for law in (envelope_J, recent_J, median_J):
        assert law(17) / law(16) == near(4, rel=2e-3)
        bits = [law(b / 4) for b in range(8, 80)]
        assert bits == sorted(bits)
    assert envelope_J(6) / envelope_J(5) < 1.01 and recent_J(6) / recent_J(5) == near((4.8 / 2.29) ** 0.5)
    assert median_J(5) / median_J(4) == near(2)


def test_the_surveys_envelope_and_median_differ_by_10_to_100_times():
    for bits in (6, 8, 10):
        found = surveyed_J(bits, None)
        assert 10 < found.typical / found.low < 100
        assert found.low <= found.typical <= found.high
    assert surveyed_J(7, None).typical == near(4.8e-12) and surveyed_J(9, None).typical == near(21.4e-12)
    assert surveyed_J(14, None).high == near(10 ** ((86.04 - 156.1) / 10) / 2, rel=0.01)
    assert envelope_J(8) == near(0.267e-12 + 0.1446e-18 * 65536)


def test_rate_costs_what_the_published_regression_says():
    # 12 bits: 7.2, 29 and 133 pJ at 10 M, 100 M and 1 G a second; 8 bits flat to 1 G; 9 bits double at 1 G.
    at = {f: rate_factor(12, f) for f in (1e7, 1e8, 1e9)}
    assert at[1e7] == near(1, abs=0.05)
    assert at[1e8] / at[1e7] == near(29 / 7.2, rel=0.05)
    assert at[1e9] / at[1e8] == near(133 / 29, rel=0.02)
    assert rate_factor(8, 1e9) == near(1, abs=0.02) and rate_factor(9, 1e9) == near(4.7 / 2.34, rel=0.03)
    slow, fast = (conversion_J(Adc(bits=12), AdcCost(conversion_s=q(t))) for t in (1e-6, 1e-9))
    assert fast.typical / slow.typical == near(at[1e9], rel=1e-6)


def test_the_bits_that_quantise_are_the_bits_that_cost():
    given = AdcCost(energy_pJ=q(2.0), bits=8)
    assert conversion_J(Adc(bits=8), given).typical == near(2e-12)
    assert conversion_J(Adc(bits=17), given).typical / conversion_J(Adc(bits=16), given).typical == near(4, rel=2e-3)
    # Effective bits cost, not those that are read out.
    assert conversion_J(Adc(bits=12, enob=8.0), given).typical == near(2e-12)
    stepwise = AdcCost(energy_pJ=q(0.0), bits=8, step_pJ=q(0.4))
    assert conversion_J(Adc(bits=9), stepwise).typical == near(9 * 0.4e-12)
    with pytest.raises(HardwareError, match=r"adc\.bits.*set adc\.bits"):
        conversion_J(Adc(), given)


# --- cells -----------------------------------------------------------------------------------------------------------


def array_J(hw, x=None):
    return sum(layer.energy_J["array"].typical for layer in report(hw, x).layers)


def test_array_energy_goes_with_voltage_squared_time_and_conductance():
    hw = priced()
    base = array_J(hw)
    assert array_J(hw.replace(readout=Readout(v_read_V=0.4, t_read_s=5e-8))) == near(4 * base)
    assert array_J(hw.replace(readout=Readout(v_read_V=0.2, t_read_s=1e-7))) == near(2 * base)
    assert array_J(hw.replace(cell=GenericCell(g_max_uS=40.0))) == near(2 * base)
    assert array_J(hw.replace(environment=Environment(temperature_K=400.0))) == base


@pytest.mark.parametrize(("shape", "power"), [("amplitude", 2), ("pulse-width", 1)])
def test_array_energy_goes_with_the_square_of_an_amplitude_and_with_a_duration(shape, power):
    hw = priced()
    cost = replace(hw.cost, drive=DriveCost(shape=shape))
    hw = hw.replace(cost=cost, dac=Dac(bits=16))
    model = network(hw)
    x = 0.3 * torch.randn(8, ROWS)
    full, half = (energy(model, v).layers[0].energy_J["array"].typical for v in (x, x / 2))
    assert full / half == near(2**power, rel=1e-2)


def loops_J(w, x, r, hw):
    """Every cell, vector and phase by itself."""
    op_bits, drive = hw.dac.bits, hw.cost.drive if hw.cost else DriveCost()
    top, v, t = 2 ** (op_bits - 1) - 1, hw.readout.v_read_V, hw.readout.t_read_s
    w_max, cell = float(w.abs().max()), hw.cell
    span, total = cell.g_max_uS - cell.g_min_uS, 0.0
    for vector in x.tolist():
        for i, value in enumerate(vector):
            code = round(max(-1.0, min(1.0, value / r)) * top)
            if drive.bits_per_phase is None:
                pulses = [(abs(code) / top * v, t)] if drive.shape == "amplitude" else [(v, abs(code) / top * t)]
            else:
                number = abs(code) if drive.polar else code % 2**op_bits
                bits, pulses = drive.bits_per_phase, []
                for _ in range(math.ceil((op_bits - drive.polar) / bits)):
                    pulses.append(((number % 2**bits) / (2**bits - 1) * v, t))
                    number //= 2**bits
            for o in range(w.shape[0]):
                share = float(w[o, i]) / w_max
                if hw.mapping.scheme == "differential":
                    cells = [cell.g_min_uS + max(share, 0) * span, cell.g_min_uS + max(-share, 0) * span]
                elif hw.mapping.scheme == "offset":
                    cells = [cell.g_min_uS + (share + 1) / 2 * span]
                else:
                    cells = [abs(share) * span]
                total += sum(volt**2 * g * 1e-6 * time for volt, time in pulses for g in cells)
    return total


@pytest.mark.parametrize("scheme", ["differential", "offset", "signed"])
@pytest.mark.parametrize(
    "drive",
    [
        DriveCost(),
        DriveCost(shape="pulse-width"),
        DriveCost(bits_per_phase=1),
        DriveCost(bits_per_phase=3),
        DriveCost(bits_per_phase=1, polar=False),
    ],
    ids=str,
)
def test_array_energy_is_the_sum_over_all_cells_and_phases(scheme, drive):
    torch.manual_seed(3)
    hw = priced().replace(mapping=Mapping(scheme=scheme), cell=GenericCell(g_min_uS=1.0 if scheme != "signed" else 0.0))
    hw = hw.replace(cost=replace(hw.cost, drive=drive))
    w, x, r = torch.randn(COLS, ROWS), 0.7 * torch.randn(5, ROWS), torch.tensor(1.2)
    g = total_conductance(w, hw, None, 0)
    found = array_energy_J(driven_conductance_uS(x, r, g, LinearOp(ROWS, COLS), hw), hw)
    expected = loops_J(w, x, float(r), hw)
    assert found == near(expected, rel=1e-5)
    # The mean input squared, instead of the mean of the squares, would be far off.
    flat = driven_conductance_uS(x.abs().mean().expand_as(x).contiguous(), r, g, LinearOp(ROWS, COLS), hw)
    assert array_energy_J(flat, hw) != near(expected, rel=0.02)


def test_array_energy_of_a_grouped_convolution_is_that_of_its_unfolded_patches():
    torch.manual_seed(4)
    hw = priced()
    op = ConvOp(4, 6, (3, 3), (2, 1), (1, 1), (1, 1), 2)
    w, x, r = torch.randn(6, 2, 3, 3), torch.randn(2, 4, 5, 6), torch.tensor(2.0)
    g = total_conductance(w, hw, None, 0)
    found = driven_conductance_uS(x, r, g, op, hw)
    patches = nn.functional.unfold(x.double(), 3, padding=1, stride=(2, 1))  # [batch, 4 * 9, positions]
    u = drive_share(patches, r, hw)
    by_group = [
        (u[:, k * 18 : (k + 1) * 18].sum((0, 2)) * g[k * 3 : (k + 1) * 3].flatten(1).sum(0)).sum() for k in (0, 1)
    ]
    assert found == near(float(sum(by_group)), rel=1e-9)


def test_filling_the_range_is_seen_in_joules():
    torch.manual_seed(5)
    hw = priced()
    net = nn.Sequential(nn.Linear(ROWS, COLS))
    with torch.no_grad():
        net[0].weight[0, 0] = 3.0  # an outlier leaves the others near zero conductance
    x = torch.randn(6, ROWS)
    wide, clipped = (energy(mho.calibrate(mho.convert(net, hw, clip_sigma=c), [x]), x).layers[0] for c in (None, 1.5))
    assert clipped.mean_conductance_uS > 1.5 * wide.mean_conductance_uS
    assert clipped.energy_J["array"].typical > 1.5 * wide.energy_J["array"].typical
    assert clipped.energy_J["adc"] == wide.energy_J["adc"]


def test_charge_costs_capacitance_times_the_square_of_the_supply():
    cell = SramCell(unit_fF=2.0, supply_V=0.5)
    hw = Hardware(name="sram", cell=cell, mapping=Mapping(scheme="signed"), dac=Dac(bits=8))
    one = array_energy_J(10.0, hw)
    assert one == near(10 * 2e-15 * 0.25)
    assert array_energy_J(10.0, hw.replace(cell=replace(cell, supply_V=1.0))) == near(4 * one)
    assert array_energy_J(10.0, hw.replace(cell=replace(cell, unit_fF=4.0))) == near(2 * one)


# --- floors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "fill", "g_S", "t_s"), [(8, 1.0, 1e-3, 1e-7), (6, 0.1, 5e-5, 2e-6)])
def test_at_the_floor_thermal_noise_is_half_a_least_significant_bit(bits, fill, g_S, t_s):
    levels = 2 ** (bits - 1) - 1
    floor = column_read_J(levels, 300.0, fill)
    volt = math.sqrt(floor / (g_S * t_s))
    noise = johnson_sigma_A(g_S, boxcar_bandwidth_Hz(t_s), 300.0)
    assert noise == near(fill * volt * g_S / levels / 2)


@pytest.mark.parametrize(("bits", "fill", "farad", "volt"), [(8, 1.0, 64e-15, 0.8), (5, 0.2, 1e-12, 0.5)])
def test_at_the_floor_of_a_charge_column_its_noise_is_half_a_least_significant_bit(bits, fill, farad, volt):
    levels = 2 ** (bits - 1) - 1
    kelvin = farad * volt**2 / charge_read_J(levels, 1.0, fill)  # at which this column is at its floor
    assert ktc_sigma_V(farad, kelvin) == near(fill * volt / levels / 2)


def test_the_column_floor_is_that_of_the_technology():
    adc = Adc(bits=8)
    signed = Mapping(scheme="signed")
    resistive, charge, light = (
        floors(Hardware(name="hw", cell=cell, mapping=signed, adc=adc), 3, 5, 0.5)
        for cell in (GenericCell(), SramCell(), PhotonicCell())
    )
    assert resistive.column_J == near(5 * column_read_J(127, 300.0, 0.5))
    assert charge.column_J == near(5 * charge_read_J(127, 300.0, 0.5)) and charge.column_J < resistive.column_J
    assert light.column_J is None and light.converters_J == resistive.converters_J


def test_floors_go_with_temperature_and_stay_below_the_estimate():
    hw = priced(adc_pJ=None)
    cold, hot = (report(hw.replace(environment=Environment(temperature_K=t))).floors for t in (300.0, 450.0))
    assert hot.column_J == near(1.5 * cold.column_J) and hot.erasure_J == near(1.5 * cold.erasure_J)
    assert hot.converters_J == cold.converters_J
    found = report(hw)
    assert found.floors.erasure_J < found.floors.column_J < found.total_J.low
    assert found.floors.converters_J <= sum(layer.energy_J["adc"].low for layer in found.layers)
    assert floors(Hardware(name="no converter"), 5, 5, None).converters_J is None


# --- everything that has a price --------------------------------------------------------------------------------------


def prices(part: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for spec in dataclasses.fields(part):
        value = getattr(part, spec.name)
        if isinstance(value, Quantity):
            yield (*path, spec.name)
        elif dataclasses.is_dataclass(value):
            yield from prices(value, (*path, spec.name))


def scaled(part, path, factor):
    value = getattr(part, path[0])
    if len(path) == 1:
        new = replace(value, **{k: factor * getattr(value, k) for k in ("low", "typical", "high")})
    else:
        new = scaled(value, path[1:], factor)
    return replace(part, **{path[0]: new})


def outcome(hw):
    found = report(hw, uses=100.0)
    return {
        **{k: v.typical for k, v in found.parts_J.items()},
        "s": found.latency_s.typical,
        "mm2": found.area_mm2.typical,
    }


@pytest.mark.parametrize("path", [*prices(priced(read_fJ=1.5).cost)], ids=".".join)
def test_every_price_counts_and_enters_linearly(path):
    hw = priced(read_fJ=1.5)
    at = [outcome(hw.replace(cost=scaled(hw.cost, path, factor))) for factor in (1.0, 2.0, 3.0)]
    steps = {k: (at[1][k] - at[0][k], at[2][k] - at[1][k]) for k in at[0]}
    moved = {k for k, (first, _) in steps.items() if abs(first) > 1e-9 * abs(at[0][k])}
    assert moved, "a price that changes nothing"
    assert all(steps[k][1] == near(steps[k][0], rel=1e-6) for k in moved)
    assert len(moved) == 1 or path[-1] == "conversion_s"  # time carries static energy with it


def test_a_line_costs_capacitance_times_swing_times_supply():
    hw = priced()
    base = report(hw).parts_J["lines"].typical
    for key in ("line_swing_V", "line_supply_V"):
        drive = replace(hw.cost.drive, **{key: 2 * getattr(hw.cost.drive, key)})
        assert report(hw.replace(cost=replace(hw.cost, drive=drive))).parts_J["lines"].typical == near(2 * base)
    counts = sum(layer.counts.line_charges for layer in report(hw).layers) / 4
    assert base == near(counts * 50e-15 * 0.5 * 0.9)


def test_energy_of_an_inference_does_not_depend_on_how_many_the_example_holds():
    hw, x = priced(), torch.randn(6, ROWS)
    one, many = report(hw, x), report(hw, x.repeat(5, 1))
    for part, value in one.parts_J.items():
        assert many.parts_J[part].typical == near(value.typical, rel=1e-9), part
    assert many.latency_s.typical == near(one.latency_s.typical) and many.area_mm2 == one.area_mm2


def test_time_is_phases_reads_and_waiting_columns():
    hw = priced()
    found = report(hw)
    # 4 planes of 50 ns; 2 conversions of the 3 columns that share a converter, 2 ns each.
    first = found.layers[0].latency_s.typical
    assert first == near(4 * 5e-8 + 2 * 3 * 2e-9)
    assert found.latency_s.typical == near(2 * first) and found.interval_s.typical == near(first)
    busy = replace(hw.cost.adc, columns=6, overlapped=True, planes_per_conversion=1)
    found = report(hw.replace(cost=replace(hw.cost, adc=busy)))
    assert found.layers[0].latency_s.typical == near(4 * 5e-8 + 6 * 2e-9)


def test_area_is_that_of_whole_tiles():
    hw = priced()
    layer = report(hw).layers[0]
    tile = 8 * 6 * 2 * 0.1 + 2 * 500 + 8 * 3 + 40
    assert layer.place.tiles == 4 and layer.area_mm2.typical == near(4 * tile * 1e-6)


def test_area_counts_the_reference_column_of_an_offset_mapping_as_cells_and_conversions_do():
    layer = report(priced().replace(mapping=Mapping(scheme="offset"))).layers[0]
    assert layer.place.references == 2  # one in each of the 2 tiles beside one another
    tile = 8 * (6 + 1) * 0.1 + 3 * 500 + 8 * 3 + 40  # 7 columns, 3 of them a converter
    assert layer.place.tiles == 4 and layer.area_mm2.typical == near(4 * tile * 1e-6)


# --- processes and spreads --------------------------------------------------------------------------------------------


def test_digital_energy_falls_with_node_and_voltage_and_returns():
    assert energy_factor(45, 0.9, 45, 0.9) == 1
    assert energy_factor(45, 0.9, 14, 0.8) * energy_factor(14, 0.8, 45, 0.9) == near(1)
    nodes = [relative_energy(n, 0.9) for n in (7, 10, 14, 16, 20, 32, 45, 65, 90, 130)]
    assert nodes == sorted(nodes)
    assert relative_energy(32, 0.9) < relative_energy(40, 0.9) < relative_energy(45, 0.9)
    for node, volt in ((5, 0.8), (180, 1.2), (45, 3.3), (45, 0.1)):
        with pytest.raises(HardwareError, match=r"7 to 130 nm and 0\.5 to 1\.8 V\. Fix"):
            relative_energy(node, volt)


def test_spreads_add_and_multiply_end_by_end():
    a, b = Spread(1, 2, 4), Spread(10, 20, 50)
    assert a + b == Spread(11, 22, 54) and a * b == Spread(10, 40, 200) and a * 2 == Spread(2, 4, 8)
    assert a.over(8) == Spread(2, 4, 8)
