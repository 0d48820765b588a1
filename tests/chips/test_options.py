"""A setting that changes nothing is a bug: toggle each field, see the output change."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mho
from mho.hardware import (
    Adc,
    Dac,
    Environment,
    Faults,
    GenericCell,
    Hardware,
    Mapping,
    Neuron,
    Readout,
    Tile,
    Wires,
    load_hardware,
)

NETWORK_SEED = 7
BASE = Hardware(
    name="base",
    cell=GenericCell(g_min_uS=1.0, bits=6, programming_noise=0.02, read_noise=0.02, drift_nu=0.05, drift_nu_d2d=0.01),
    mapping=Mapping(slices=2, bits_per_slice=3),
    tile=Tile(rows=12, cols=4),
    dac=Dac(bits=8, gain_d2d=0.02, inl_lsb=1.0),
    adc=Adc(bits=8, enob=7.0, gain_d2d=0.02, offset_d2d_lsb=2.0, inl_lsb=1.0),
    output_noise=0.01,
    neuron=Neuron(gain_neg=0.8, offset=0.05, low=-0.6, high=0.7, soft=True, gain_d2d=0.05, offset_d2d=0.02),
    wires=Wires(wire_ohm=30.0),
    readout=Readout(thermal=True, fano=0.5, t_read_s=1e-9, v_read_V=0.05, columns="timed"),
    faults=Faults(stuck_on=0.05, stuck_off=0.05, dead_rows=0.1, dead_cols=0.1),
    environment=Environment(temperature_K=300.0, t_s=100.0),
)
PARTS = ("cell", "mapping", "tile", "dac", "adc", "neuron", "wires", "readout", "faults", "environment")
NOT_PHYSICS = {"name", "summary", "schema", "sources", "technology", "columns"}
"""``columns`` says what a readout can do; ``column_repeats`` and ``column_windows`` do it."""
OTHER: dict[tuple[str, str], Any] = {
    ("cell", "sigma_table"): ((1.0, 0.5), (25.0, 2.0)),
    ("mapping", "scheme"): "offset",
    ("mapping", "per_column"): True,
    ("dac", "range_sigma"): 2.0,
    ("adc", "range_sigma"): 2.0,
    ("adc", "enob"): 5.0,
    ("wires", "model"): "first_order",
    ("readout", "fano"): 1.0,
    ("readout", "repeats"): 2,
    ("readout", "column_repeats"): (1, 2, 1, 1, 2, 1, 2, 1),
    ("readout", "column_windows"): (1.0, 0.5, 1.0, 0.25, 1.0, 1.0, 0.5, 1.0),
    ("tile", "rows"): 7,
    ("faults", "dead_rows"): 0.4,
    ("faults", "dead_cols"): 0.5,
}


def _changed(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value - 1
    return 0.3 if value == 0.0 else value * 1.5


def _cases() -> list[tuple[str, str]]:
    return [
        (part, f.name) for part in PARTS for f in dataclasses.fields(getattr(BASE, part)) if f.name not in NOT_PHYSICS
    ] + [("", "output_noise")]


def _toggled(hw: Hardware, part: str, key: str) -> tuple[Hardware, Hardware]:
    """(the hardware to start from, the same with one field changed)."""
    if part == "":
        return hw, hw.replace(output_noise=0.05)
    spec: Any = getattr(hw, part)
    if (part, key) in (("cell", "sigma_table"), ("cell", "programming_lognormal")):  # instead of the other noise
        spec = dataclasses.replace(spec, programming_noise=0.0)
    if key == "column_repeats":
        spec = dataclasses.replace(spec, repeats=2)
    value = OTHER[part, key] if (part, key) in OTHER else _changed(getattr(spec, key))
    return hw.replace(**{part: spec}), hw.replace(**{part: dataclasses.replace(spec, **{key: value})})


def _network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(NETWORK_SEED)
    return nn.Sequential(nn.Linear(20, 8), nn.ReLU(), nn.Linear(8, 8)), torch.randn(16, 20)


def _on_chips(hw: Hardware) -> Tensor:
    digital, x = _network()
    return mho.fabricate(mho.calibrate(mho.convert(digital, hw), [x]), chips=2, seed=1)(x)


def _in_training(hw: Hardware) -> Tensor:
    digital, x = _network()
    model = mho.calibrate(mho.convert(digital, hw), [x]).train()
    torch.manual_seed(1)
    return model(x)


@pytest.mark.parametrize(("part", "key"), _cases())
def test_every_option_changes_chips_and_surrogate(part: str, key: str) -> None:
    before, after = _toggled(BASE, part, key)
    assert before != after
    assert not torch.equal(_on_chips(before), _on_chips(after))
    if (part, key) != ("wires", "model"):  # training always takes the first-order model
        assert not torch.equal(_in_training(before), _in_training(after))


def _preset_cases() -> list[tuple[str, str]]:
    presets = (
        "pcm-hermes",
        "pcm-joshi2020",
        "reram-wan2022",
        "reram-cmo",
        "flash-sonos",
        "sram-charge",
        "photonic-mzi",
    )
    return [
        (name, f.name) for name in presets for f in dataclasses.fields(load_hardware(name).cell)
        if f.name not in NOT_PHYSICS
    ]  # fmt: skip


def _changed_deep(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_changed_deep(v) for v in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value) if f.name != "split"]
        return dataclasses.replace(value, **{name: _changed_deep(getattr(value, name)) for name in names})
    return value * 0.75 if isinstance(value, (int, float)) and not isinstance(value, bool) else _changed(value)


@pytest.mark.parametrize(("preset", "key"), _preset_cases())
def test_every_field_of_every_cell_changes_the_chips(preset: str, key: str) -> None:
    hw = load_hardware(preset)
    environment = dataclasses.replace(hw.environment, t_s=30.0)
    hw = hw.replace(environment=environment, adc=None, dac=None, output_noise=0.0, neuron=None, wires=None)
    value = getattr(hw.cell, key)
    if value is None:
        new: Any = {"bits": 3, "read_nA": (1.0, 100.0)}.get(key)
        if new is None:
            pytest.skip(f"{key} excludes another field of this preset")
    elif key == "bits":
        new, hw = value + 1, hw.replace(mapping=Mapping())  # a slice of one bit sits on any grid
    elif key == "g_ref_uS":
        new = value * 1.5
    else:
        new = value * 2 + 0.1 if value == 0.0 and not isinstance(value, tuple) else _changed_deep(value)
        new = value + 0.2 * (hw.cell.g_max_uS - value) if key == "g_min_uS" else new
    changed = hw.replace(cell=dataclasses.replace(hw.cell, **{key: new}))
    assert not torch.equal(_on_chips(hw), _on_chips(changed))
