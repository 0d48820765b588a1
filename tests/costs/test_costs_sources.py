"""No constant without a source: of the room, of every preset and design; and the chips that were built."""

import ast
import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import pytest

import mho.costs
from mho.costs.constants import HOUSE, OURS, Constant, constants_of, unit_of
from mho.costs.spread import Spread
from mho.costs.text import constant_text
from mho.errors import HardwareError
from mho.hardware import Quantity, load_hardware, preset_names
from mho.hardware import cost as cost_module

ROOT = Path(__file__).parents[2]
ROOM = Path(mho.costs.__file__).parent
PRICED = tuple(n for n in preset_names() if load_hardware(n).cost is not None)


def test_real_chips_of_every_kind_have_prices():
    technologies = {load_hardware(n).cell.technology for n in PRICED}
    assert {"pcm", "reram", "sram", "photonic", "flash"} <= technologies
    assert {"pcm-hermes", "reram-wan2022", "reram-isaac", "sram-charge", "photonic-mzi", "flash-sonos"} <= set(PRICED)


def states_its_process_or_says_that_it_does_not(constant):
    printed = constant_text(constant)
    node = "node not stated" if constant.node_nm is None else f"{constant.node_nm:g} nm"
    supply = "voltage not stated" if constant.voltage_V is None else f"{constant.voltage_V:g} V"
    return f"; {constant.status}; {node}, {supply}; {constant.source}" in printed


def test_what_a_constant_does_not_state_is_printed_as_such():
    bare = Constant("x", Spread(1, 2, 3), "pJ", "somewhere", "model")
    assert constant_text(bare) == "x: 2 (1 to 3) pJ; model; node not stated, voltage not stated; somewhere"
    full = Constant("x", Spread(2, 2, 2), "pJ", "somewhere", "model", 14.0, 0.8, "a note")
    assert constant_text(full) == "x: 2 pJ; model; 14 nm, 0.8 V; somewhere (a note)"
    kept = (s.cite for name in PRICED for s in load_hardware(name).sources if s.key == "cost")
    assert not any("voltage" in cite and "where they are stated" not in cite for cite in kept)


@pytest.mark.parametrize("name", PRICED)
def test_every_price_has_a_source_a_status_and_a_unit(name):
    hw = load_hardware(name)
    found = constants_of(hw.cost)
    assert len(found) >= 3
    for constant in found:
        assert len(constant.source) > 8 and not constant.source.lower().startswith("none")
        assert constant.status in ("measured", "model", "bound")
        assert states_its_process_or_says_that_it_does_not(constant)
        assert constant.value.low <= constant.value.typical <= constant.value.high
        assert constant.unit in ("pJ", "fJ", "fF", "um2", "mW", "s") or constant.name.endswith("pulses")
    assert {c.name for c in found} == {c.name for c in constants_of(hw.cost)}
    assert any(s.key == "cost" for s in hw.sources)


def test_the_rooms_own_constants_have_sources_and_a_constant_without_one_cannot_be_made():
    assert len({c.name for c in HOUSE}) == len(HOUSE) >= 15
    for constant in HOUSE:
        assert len(constant.source) > 8 and constant.unit and constant.status in ("measured", "model", "bound")
        assert states_its_process_or_says_that_it_does_not(constant)
        assert constant.source != OURS or "ours" in constant.note
    with pytest.raises(HardwareError, match="no source"):
        Constant("free", Spread(1, 1, 1), "pJ", "", "model")
    listed = {v.name for v in vars(mho.costs.constants).values() if isinstance(v, Constant)}
    assert listed <= {c.name for c in HOUSE}


def test_no_number_of_physics_hides_in_the_arithmetic():
    # Numbers of physics stand in constants.py, as constants with a source; text.py has prefixes and digits.
    harmless = {0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 32, 45, 100, 0.5, 0.9, 1.5, 12.4}
    harmless |= {2e-12, 1e-12, 1e-15, 1e-18, 1e-6, 1e-3, 1e15}  # units
    for file in ROOM.glob("*.py"):
        if file.name in ("constants.py", "text.py"):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, (int, float))
                and not isinstance(node.value, bool)
            ):
                assert node.value in harmless, f"{file.name}:{node.lineno}: {node.value}"


def test_every_quantity_names_its_unit():
    for part in vars(cost_module).values():
        if dataclasses.is_dataclass(part) and part is not Quantity:
            for spec in dataclasses.fields(part):
                if "Quantity" in str(spec.type):
                    assert unit_of(spec.name) or spec.name == "pulses", f"{part.__name__}.{spec.name}"


@pytest.fixture(scope="module")
def sanity():
    spec = importlib.util.spec_from_file_location("energy_sanity", ROOT / "benchmarks" / "energy_sanity.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_published_chips_are_met_within_what_was_asked(sanity):
    rows = sanity.run(64, 1)
    asked = [r for r in rows if r.aim is not None]
    assert {r.chip for r in asked} == {"ISAAC", "NeuRRAM", "HERMES, 64 cores"}
    for row in asked:
        assert row.verdict == "yes", f"{row.chip}, {row.what}: {row.ratio:.2f}"
    text = sanity.table(rows)
    assert "ratio" in text and "MISSED" not in text and "Mythic" in text
    twice = dataclasses.replace(asked[0], model_nJ=2 * asked[0].model_nJ)
    assert twice.verdict == "MISSED"


def test_the_record_of_the_table_is_that_of_the_command(sanity):
    record = json.loads((ROOT / "benchmarks" / "results" / "energy-sanity.json").read_text(encoding="utf-8"))
    rows = sanity.run(256, 0)
    assert [r["what"] for r in record["rows"]] == [r.what for r in rows]
    for kept, row in zip(record["rows"], rows, strict=True):
        assert kept["model_nJ"] == pytest.approx(row.model_nJ, rel=1e-6)
        assert kept["published_nJ"] == pytest.approx(row.published_nJ, rel=1e-9)
