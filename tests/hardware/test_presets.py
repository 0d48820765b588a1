"""Every preset loads, is what it says, survives a round trip and cites a source for each number."""

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mho.errors import HardwareError
from mho.hardware import (
    Adc,
    GenericCell,
    Hardware,
    Mapping,
    PcmCell,
    Source,
    dump_hardware,
    load_hardware,
    preset_names,
)

EXPECTED = {
    "flash-sonos",
    "generic",
    "generic-channel",
    "generic-channel-rms",
    "generic-stuck",
    "ideal",
    "lognormal",
    "neuron-asymmetric",
    "pcm-hermes",
    "pcm-joshi2020",
    "photonic-mzi",
    "reram-cmo",
    "reram-isaac",
    "reram-wan2022",
    "sram-charge",
}


def changed_numbers(part: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted keys of the numbers of ``part`` that differ from the default of their dataclass."""
    for spec in dataclasses.fields(part):
        value = getattr(part, spec.name)
        here = (*path, spec.name)
        if spec.name in ("sources", "schema"):
            continue
        if dataclasses.is_dataclass(value):
            yield from changed_numbers(value, here)
        elif value != spec.default and isinstance(value, (int, float, tuple)) and not isinstance(value, bool):
            yield ".".join(here)


def test_the_presets_of_the_issue_are_there() -> None:
    assert set(preset_names()) == EXPECTED
    assert list(preset_names()) == sorted(preset_names())


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_preset_is_named_after_its_file_and_summed_up(name: str) -> None:
    hw = load_hardware(name)
    assert hw.name == name
    assert hw.summary.endswith(".")


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_round_trip(name: str, tmp_path: Path) -> None:
    hw = load_hardware(name)
    file = tmp_path / "copy.toml"
    file.write_text(dump_hardware(hw), encoding="utf-8")
    assert load_hardware(file) == hw
    assert load_hardware(str(file)) == hw


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_every_number_has_a_source(name: str) -> None:
    hw = load_hardware(name)
    keys = [source.key for source in hw.sources]
    for leaf in changed_numbers(hw):
        assert any(leaf == key or leaf.startswith(key + ".") for key in keys), f"{name}: {leaf} has no source"


def test_a_number_without_source_is_noticed() -> None:
    hw = Hardware(name="x", adc=Adc(bits=6), sources=(Source(key="cell", cite="c", status="assumed"),))
    assert list(changed_numbers(hw)) == ["adc.bits"]


def test_ideal_is_ideal() -> None:
    hw = load_hardware("ideal")
    assert hw == Hardware(name="ideal", summary=hw.summary, cell=GenericCell(), mapping=Mapping(scheme="signed"))


def test_generic_is_the_hardware_of_the_main_result() -> None:
    hw = load_hardware("generic")
    assert isinstance(hw.cell, GenericCell)
    assert (hw.cell.programming_noise, hw.cell.read_noise) == (0.10, 0.01)
    assert hw.dac is not None and hw.dac.bits == 6
    assert hw.adc is not None and hw.adc.bits == 6
    assert hw.mapping == Mapping(scheme="signed", per_column=False)
    assert hw.tile.rows is None and hw.tile.cols is None


def test_the_variants_of_generic_differ_from_it_in_what_they_say() -> None:
    generic, channel = load_hardware("generic"), load_hardware("generic-channel")
    ours = {"name": "x", "summary": "", "sources": ()}
    assert channel.replace(**ours, mapping=generic.mapping) == generic.replace(**ours)
    lognormal, stuck = load_hardware("lognormal"), load_hardware("generic-stuck")
    assert lognormal.replace(**ours, cell=channel.cell) == channel.replace(**ours)
    assert stuck.faults.stuck_on + stuck.faults.stuck_off == 0.005
    assert isinstance(stuck.cell, GenericCell)
    assert stuck.cell.programming_noise * 2**0.5 == pytest.approx(0.1, rel=1e-3)


def test_hermes_has_one_device_a_polarity_and_its_own_scale() -> None:
    hw = load_hardware("pcm-hermes")
    assert isinstance(hw.cell, PcmCell)
    assert hw.cell.g_max_uS == hw.cell.programming_g_ref_uS == 10.35
    assert (hw.tile.rows, hw.tile.cols) == (256, 256)


def test_description_needs_no_heavy_import() -> None:
    code = "import sys, mho.hardware; print([m for m in ('pydantic', 'tomli_w', 'scipy') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_constructors_refuse_what_toml_would() -> None:
    with pytest.raises(HardwareError, match=r"Adc\.bits = '6'.*int"):
        Adc(bits="6")  # type: ignore[arg-type]
    with pytest.raises(HardwareError, match=r"Adc\.bits = True"):
        Adc(bits=True)
    with pytest.raises(HardwareError, match="signed"):
        Mapping(scheme="signd")  # type: ignore[arg-type]
    with pytest.raises(HardwareError, match="read_noise = nan"):
        GenericCell(read_noise=float("nan"))
    with pytest.raises(HardwareError, match="negative conductance"):
        load_hardware("pcm-hermes").replace(mapping=Mapping(scheme="signed"))


def test_the_file_in_the_readme_loads(tmp_path: Path) -> None:
    readme = Path(sys.modules["mho.hardware"].__file__ or "").parent / "README.md"
    block = readme.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    file = tmp_path / "my-device.toml"
    file.write_text(block, encoding="utf-8")
    assert load_hardware(file).name == "my-device"
