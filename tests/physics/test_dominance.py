"""The dominance table against samples: each source alone, on random layers read by the real operator."""

import math
from dataclasses import replace

import pytest
import torch

from mho.crossbar.array import program, to_conductances
from mho.crossbar.mvm import has_fresh_noise, mvm
from mho.crossbar.noise import Noise, draw_noise, draw_static, parts
from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.hardware import load_hardware, preset_names
from mho.hardware.cells import GenericCell, SramCell
from mho.hardware.spec import (
    Adc,
    Dac,
    Environment,
    Faults,
    Hardware,
    Mapping,
    Neuron,
    Readout,
    Tile,
    Wires,
)
from mho.physics import wires
from mho.physics.dominance import FULL_SCALE_SIGMAS, INPUT_RMS, WEIGHT_RMS, Row, dominance
from mho.physics.typical import TypicalLayer, normal_law

ROWS, COLS, BATCH = 192, 160, 96
SIGNED, PAIR, OFFSET = (Mapping(scheme=s) for s in ("signed", "differential", "offset"))
CELL = GenericCell(g_min_uS=1.0)


def bare(cell=CELL, mapping=SIGNED, **parts_of):
    return Hardware(name="test", cell=cell, mapping=mapping, **parts_of)


def preset_cell(name, **parts_of):
    return bare(load_hardware(name).cell, PAIR, **parts_of)


def sampled_error(hw, reference, t_s, *, lots=3):
    """Rms difference of the outputs of ``hw`` and ``reference`` over random layers, as a share of full scale."""
    errors, signals = [], []
    for lot in range(lots):
        generator = torch.Generator().manual_seed(lot)

        def source(shape, label, generator=generator):
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        w = (WEIGHT_RMS * source((COLS, ROWS), "w")).clamp(-1, 1)
        x = INPUT_RMS * source((BATCH, ROWS), "x")
        op = LinearOp(ROWS, COLS)
        signal = INPUT_RMS * WEIGHT_RMS * math.sqrt(ROWS)
        part = FULL_SCALE_SIGMAS * signal / math.sqrt(len(op.blocks(hw.tile.rows)))
        ranges = {"input_range": torch.ones(()), "adc_range": torch.tensor(part, dtype=torch.float64)}
        outputs = []
        for described in (hw, reference):
            draws = draw_static(op, described, w.shape, source)
            array = program(w, op, described, draws, t_s=t_s, bound=torch.ones((), dtype=torch.float64))
            shape = (parts(op, described), BATCH, COLS)
            fresh = draw_noise(has_fresh_noise(described, array), shape, source)
            outputs.append(mvm(x, array, op, described, Noise(fresh.fresh), **ranges)[0])
        errors.append((outputs[0] - outputs[1]).square().mean())
        signals.append((x @ w.t()).square().mean())
    return math.sqrt(sum(errors) / sum(signals)) / FULL_SCALE_SIGMAS


IDEAL = bare()
SOFT = Neuron(gain_pos=1.1, gain_neg=0.4, low=-0.3, high=0.9, soft=True)
CASES = {
    "generic, signed": ("programming error", bare(replace(CELL, programming_noise=0.1)), IDEAL, 0.0),
    "generic, pair": ("programming error", bare(replace(CELL, programming_noise_rel=0.1), PAIR), IDEAL, 0.0),
    "generic, pair, clipped at 0": ("programming error", bare(GenericCell(programming_noise=0.1), PAIR), IDEAL, 0.0),
    "generic, offset": ("programming error", bare(replace(CELL, programming_noise=0.05), OFFSET), IDEAL, 0.0),
    "pcm": ("programming error", preset_cell("pcm-joshi2020"), IDEAL, 0.0),
    "photonic": ("programming error", bare(load_hardware("photonic-mzi").cell), IDEAL, 0.0),
    "flash": ("programming error", bare(replace(load_hardware("flash-sonos").cell, read_nA=None), PAIR), IDEAL, 0.0),
    "levels": ("weight levels", bare(replace(CELL, bits=3), PAIR), IDEAL, 0.0),
    "slices": ("weight levels", bare(mapping=Mapping(scheme="differential", slices=2, bits_per_slice=2)), IDEAL, 0.0),
    "slices, error": (
        "programming error",
        bare(replace(CELL, programming_noise=0.05), Mapping(scheme="offset", slices=2, bits_per_slice=2)),
        bare(mapping=Mapping(scheme="offset", slices=2, bits_per_slice=2)),
        0.0,
    ),
    "mean drift": ("mean drift", bare(replace(CELL, drift_nu=0.05), PAIR), IDEAL, 1e5),
    "spread of drift": (
        "spread of drift",
        bare(replace(CELL, drift_nu=0.05, drift_nu_d2d=0.02), PAIR),
        bare(replace(CELL, drift_nu=0.05), PAIR),
        1e5,
    ),
    "read": ("read noise", bare(replace(CELL, read_noise=0.02), PAIR), IDEAL, 0.0),
    "read, relative, old": (
        "read noise",
        bare(replace(CELL, read_noise_rel=0.1, drift_nu=0.05), OFFSET),
        bare(replace(CELL, drift_nu=0.05), OFFSET),
        1e4,
    ),
    "kT/C": ("kT/C noise", bare(SramCell(mismatch_sqrt_fF=0.0)), IDEAL, 0.0),
    "thermal": ("thermal noise", bare(mapping=PAIR, readout=Readout(thermal=True, t_read_s=1e-9)), IDEAL, 0.0),
    "thermal, tiles": (
        "thermal noise",
        bare(mapping=OFFSET, readout=Readout(thermal=True, t_read_s=1e-9), tile=Tile(rows=64)),
        IDEAL,
        0.0,
    ),
    "shot": ("shot noise", bare(mapping=PAIR, readout=Readout(fano=0.7, t_read_s=1e-9)), IDEAL, 0.0),
    "stuck on": ("stuck-on cells", bare(mapping=PAIR, faults=Faults(stuck_on=0.02)), IDEAL, 0.0),
    "stuck off": ("stuck-off cells", bare(mapping=OFFSET, faults=Faults(stuck_off=0.02)), IDEAL, 0.0),
    "dead columns": ("dead columns", bare(mapping=PAIR, faults=Faults(dead_cols=0.5)), IDEAL, 0.0),
    "dead rows": ("dead rows", bare(mapping=PAIR, faults=Faults(dead_rows=0.5)), IDEAL, 0.0),
    "IR drop, pair": (
        "IR drop",
        bare(mapping=PAIR, wires=Wires(wire_ohm=0.2, model="first_order"), tile=Tile(rows=64, cols=64)),
        IDEAL,
        0.0,
    ),
    "IR drop, signed": ("IR drop", bare(wires=Wires(wire_ohm=0.1, model="first_order")), IDEAL, 0.0),
    "DAC": ("DAC rounding and clipping", bare(dac=Dac(bits=4)), IDEAL, 0.0),
    "DAC gain": ("DAC gain mismatch", bare(dac=Dac(gain_d2d=0.05)), bare(dac=Dac()), 0.0),
    "DAC non-linearity": ("DAC non-linearity", bare(dac=Dac(bits=6, inl_lsb=2.0)), bare(dac=Dac(bits=6)), 0.0),
    "ADC": ("ADC rounding and clipping", bare(adc=Adc(bits=5)), IDEAL, 0.0),
    "ADC, tiles": ("ADC rounding and clipping", bare(adc=Adc(bits=5), tile=Tile(rows=64)), IDEAL, 0.0),
    "ADC noise": ("ADC noise", bare(adc=Adc(bits=14, enob=5.0)), bare(adc=Adc(bits=14)), 0.0),
    "ADC gain": ("ADC gain mismatch", bare(adc=Adc(gain_d2d=0.05)), IDEAL, 0.0),
    "ADC offset": ("ADC offset mismatch", bare(adc=Adc(bits=12, offset_d2d_lsb=30.0)), bare(adc=Adc(bits=12)), 0.0),
    "ADC non-linearity": ("ADC non-linearity", bare(adc=Adc(bits=12, inl_lsb=30.0)), bare(adc=Adc(bits=12)), 0.0),
    "output noise": ("output noise", bare(adc=Adc(), output_noise=0.04, tile=Tile(rows=64)), IDEAL, 0.0),
    "neuron": ("neuron transfer", bare(neuron=SOFT), IDEAL, 0.0),
    "neuron gain": ("neuron gain mismatch", bare(neuron=replace(SOFT, gain_d2d=0.1)), bare(neuron=SOFT), 0.0),
    "neuron offset": ("neuron offset mismatch", bare(neuron=replace(SOFT, offset_d2d=0.05)), bare(neuron=SOFT), 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_each_source_alone_has_the_predicted_sigma(case):
    source, hw, reference, t_s = CASES[case]
    predicted = {row.source: row.sigma for row in dominance(hw, ROWS, COLS, t_s=t_s)}[source]
    sampled = sampled_error(hw, reference, t_s)
    # Few lines die and few converters differ, so their sample is smaller than that of the cells.
    few = any(word in source for word in ("dead", "ADC gain", "ADC offset", "DAC gain", "neuron"))
    assert predicted == pytest.approx(sampled, rel=0.08 if few else 0.03)


def test_closed_form_of_gaussian_weights():
    rows = dominance(load_hardware("generic"), 256, 64)
    levels = {row.source: row for row in rows}
    expected = 0.10 / (WEIGHT_RMS * FULL_SCALE_SIGMAS)
    assert levels["programming error"].sigma == pytest.approx(expected, rel=2e-3)
    assert levels["programming error"].kind == "static"
    assert levels["programming error"].level_dB == pytest.approx(20 * math.log10(expected), abs=0.02)
    assert levels["read noise"].sigma == pytest.approx(0.01 / (WEIGHT_RMS * FULL_SCALE_SIGMAS), rel=2e-3)
    assert [r.sigma for r in rows] == sorted((r.sigma for r in rows), reverse=True)


def test_ideal_hardware_has_no_source():
    assert dominance(load_hardware("ideal"), 256, 256) == ()


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_a_finite_table(name):
    rows = dominance(load_hardware(name), 300, 40, t_s=3600.0)
    assert all(isinstance(row, Row) and 0 < row.sigma < math.inf and row.note for row in rows)
    assert len({row.source for row in rows}) == len(rows)


def test_one_row_for_each_field_that_can_be_turned_on():
    everything = bare(
        replace(CELL, bits=4, programming_noise=0.1, read_noise=0.01, drift_nu=0.05, drift_nu_d2d=0.01),
        PAIR,
        dac=Dac(bits=6, gain_d2d=0.01, inl_lsb=0.5),
        adc=Adc(bits=6, enob=5.0, gain_d2d=0.01, offset_d2d_lsb=0.5, inl_lsb=0.5),
        output_noise=0.02,
        neuron=replace(SOFT, gain_d2d=0.01, offset_d2d=0.01),
        wires=Wires(wire_ohm=0.5),
        readout=Readout(thermal=True, fano=0.5),
        faults=Faults(stuck_on=0.01, stuck_off=0.01, dead_rows=0.01, dead_cols=0.01),
        environment=Environment(t_s=3600.0),
        tile=Tile(rows=64, cols=64),
    )
    rows = dominance(everything, ROWS, COLS)
    assert len(rows) == 24 and {row.kind for row in rows} == {"static", "slow", "fresh", "deterministic"}
    assert "first order is too coarse" not in {r.source: r for r in rows}["IR drop"].note
    coarse = dominance(replace(everything, wires=Wires(wire_ohm=20.0)), ROWS, COLS)
    assert "first order is too coarse" in {r.source: r for r in coarse}["IR drop"].note


def test_levels_follow_the_layer_and_the_settings():
    noisy = bare(replace(CELL, programming_noise=0.1))
    small, large = (dominance(noisy, n, 8)[0].sigma for n in (16, 4096))
    assert small == pytest.approx(large)  # as many errors as weights: the ratio does not depend on rows
    assert dominance(noisy, 64, 8, weight_rms=0.125)[0].sigma == pytest.approx(2 * small, rel=0.01)
    ranged = bare(dac=Dac(bits=6, range_sigma=2.0))
    assert dominance(ranged, 64, 8)[0].sigma == dominance(ranged, 64, 8, input_rms=0.5)[0].sigma
    assert dominance(ranged, 64, 8)[0].sigma != dominance(ranged, 64, 8, input_rms=INPUT_RMS)[0].sigma
    old, young = (dominance(load_hardware("pcm-hermes"), 64, 64, t_s=t) for t in (1e6, 60.0))
    assert {r.source: r.sigma for r in old}["spread of drift"] > {r.source: r.sigma for r in young}["spread of drift"]


@pytest.mark.parametrize("mapping", [SIGNED, PAIR, OFFSET])
def test_the_typical_layer_maps_weights_as_the_crossbar_does(mapping):
    layer = TypicalLayer(bare(mapping=mapping), 8, 8, 0.3, 0.25, 0.0)
    w = layer.weights.points
    torch.testing.assert_close(layer.targets(w), to_conductances(w, layer.hw))


def test_normal_law_has_the_moments_of_the_normal_law():
    law = normal_law(0.2)
    assert law.mean(law.points.square()) == pytest.approx(0.04, rel=1e-6)
    saturating = normal_law(0.5, 1.0, 1001)
    sample = (0.5 * torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert saturating.mean(saturating.points.square()) == pytest.approx(float(sample.square().mean()), rel=5e-3)
    assert float(saturating.mass.sum()) == pytest.approx(1.0)


def test_ir_drop_uses_the_first_order_factor_of_the_tile():
    hw = bare(wires=Wires(wire_ohm=0.3), tile=Tile(rows=32, cols=16))
    layer = TypicalLayer(hw, 64, 64, INPUT_RMS, WEIGHT_RMS, 0.0)
    mean_uS = layer.weights.mean(layer.targets(layer.weights.points).abs())
    loss = 1 - wires.first_order_factor(torch.full((32, 16), mean_uS, dtype=torch.float64), 0.3)
    expected = float(loss.square().mean().sqrt()) / FULL_SCALE_SIGMAS
    assert dominance(hw, 64, 64)[0].sigma == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rows": 0}, "rows"),
        ({"cols": -1}, "cols"),
        ({"t_s": -1.0}, "t_s"),
        ({"t_s": math.nan}, "t_s"),
        ({"input_rms": 0.0}, "input_rms"),
        ({"weight_rms": 1.5}, "weight_rms"),
    ],
)
def test_impossible_layers_are_refused(changes, named):
    arguments = {"rows": 8, "cols": 8, **changes}
    with pytest.raises(InputError, match=f"{named} = .*Fix" if named != "t_s" else "t_s = .*Fix"):
        dominance(load_hardware("generic"), arguments.pop("rows"), arguments.pop("cols"), **arguments)
