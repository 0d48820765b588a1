"""[update]: pulse responses in TOML, there and back, and every way to get one wrong."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from mho.errors import HardwareError
from mho.hardware import (
    ConstantStep,
    ExponentialStep,
    Hardware,
    LinearStep,
    PiecewiseStep,
    PowerStep,
    PulsedDevice,
    SoftBounds,
    Source,
    dump_hardware,
    load_hardware,
    preset_names,
)
from mho.hardware.update import Response

RESPONSES: list[Response] = [
    ConstantStep(scale_down=0.9),
    LinearStep(gamma_up=-0.5, gamma_down=0.5),
    SoftBounds(slope_up=1.25, slope_down=0.75),
    ExponentialStep(amplitude_up=0.1, amplitude_down=0.3, gamma_up=12, gamma_down=13, a=0.2, b=0.3),
    PowerStep(gamma_up=1.5, gamma_down=0.5),
    PiecewiseStep(nodes_up=(1.0, 0.8, 0.1), nodes_down=(0.1, 1.0)),
]
FULL = {
    "dw_min": 0.002,
    "w_min": -0.5,
    "w_max": 0.8,
    "c2c": 0.3,
    "d2d": 0.2,
    "d2d_asymmetry": 0.01,
    "d2d_bounds": 0.1,
    "write_noise": 0.01,
    "pulse_limit": 31,
    "pulse_energy_pJ": 0.4,
}
BASE = 'name = "a"\n[cell]\ntechnology = "generic"\n'
SOFT = '[update.response]\nkind = "soft-bounds"\n'


def load(text: str, folder: Path) -> Hardware:
    file = folder / "my.toml"
    file.write_text(text, encoding="utf-8")
    return load_hardware(file)


@pytest.mark.parametrize("response", RESPONSES, ids=lambda r: r.kind)
def test_round_trip(response: Response, tmp_path: Path) -> None:
    for device in (PulsedDevice(response=response), PulsedDevice(response=response, **FULL)):  # type: ignore[arg-type]
        hw = Hardware(name="x", update=device)
        assert load(dump_hardware(hw), tmp_path) == hw
    assert {f.name for f in dataclasses.fields(PulsedDevice)} == {"response", *FULL}


def test_a_source_may_name_a_number_of_it(tmp_path: Path) -> None:
    source = '[[sources]]\nkey = "update.response.slope_up"\ncite = "c"\nstatus = "fitted"\n'
    hw = load(BASE + "[update]\ndw_min = 0.01\n" + SOFT + "slope_up = 2\n" + source, tmp_path)
    assert hw.update == PulsedDevice(response=SoftBounds(slope_up=2), dw_min=0.01)
    assert hw.sources == (Source(key="update.response.slope_up", cite="c", status="fitted"),)


def test_presets_are_read_only_and_say_so() -> None:
    assert all(load_hardware(name).update is None for name in preset_names())
    assert "update" not in dump_hardware(load_hardware("generic"))


CASES = {
    "typo": (SOFT + "slope_upp = 2.0", ["'update.response.slope_upp'", "Did you mean 'slope_up'"]),
    "typo in the part": ("[update]\ndw_mim = 0.1\n" + SOFT, ["'update.dw_mim'", "Did you mean 'dw_min'"]),
    "unit left out": ("[update]\npulse_energy = 1\n" + SOFT, ["'pulse_energy_pJ'? Write the value in pJ"]),
    "key of another kind": (SOFT + "gamma_up = 1", ["'update.response.gamma_up'", "unknown key"]),
    "unknown kind": (SOFT.replace("bounds", "bonds"), ["'update.response.kind'", "Did you mean 'soft-bounds'"]),
    "kind is no text": ("[update.response]\nkind = 3", ["'update.response.kind' = 3", "Known: constant"]),
    "no kind": ("[update.response]\nslope_up = 1", ["'update.response'", "kind = one of constant, linear"]),
    "no response": ("[update]\ndw_min = 0.1", ["'update.response': there is no response", "[update.response]"]),
    "response is no table": ('[update]\nresponse = "soft-bounds"', ["'update.response' = 'soft-bounds'", "a table"]),
    "part is no table": ("", ["'update' = 3", "write a table, [update]"]),
    "negative slope": (SOFT + "slope_up = -1.0", ["'update.response.slope_up' = -1.0", "at least 0"]),
    "missing": ('[update.response]\nkind = "power"\ngamma_up = 1', ["'update.response.gamma_down': missing"]),
    "one node": (
        '[update.response]\nkind = "piecewise"\nnodes_up = [1, 1]\nnodes_down = [1]',
        ["'update.response.nodes_down' = (1.0,)", "add nodes"],
    ),
    "no step": ("[update]\ndw_min = 0\n" + SOFT, ["'update.dw_min' = 0", "above 0"]),
    "limit": ("[update]\npulse_limit = 0\n" + SOFT, ["'update.pulse_limit' = 0", "at least 1"]),
    "limit is no whole number": ("[update]\npulse_limit = 2.5\n" + SOFT, ["'update.pulse_limit' = 2.5", "whole"]),
    "range upside down": ("[update]\nw_min = 0.7\n" + SOFT, ["'update.w_min' = 0.7", "exchange"]),
    "soft bounds on one side": ("[update]\nw_min = 0.1\n" + SOFT, ["'update.w_min' = 0.1", "both sides of 0"]),
    "spread on one side": (
        '[update]\nw_min = 0.1\nd2d_bounds = 0.1\n[update.response]\nkind = "constant"',
        ["'update.d2d_bounds' = 0.1", "both sides of 0"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_mistakes_are_named(case: str, tmp_path: Path) -> None:
    text, words = CASES[case]
    text = BASE + text if text else "update = 3\n" + BASE
    with pytest.raises(HardwareError) as found:
        load(text, tmp_path)
    for word in ["my.toml", "Fix:", *words]:
        if word != "Fix:" or "Did you mean" not in str(found.value):
            assert word in str(found.value)


def test_python_is_held_to_the_same() -> None:
    with pytest.raises(HardwareError, match=r"PulsedDevice\.c2c = -0\.1"):
        PulsedDevice(c2c=-0.1)
    with pytest.raises(HardwareError, match=r"PulsedDevice\.response = 'soft-bounds': is no response"):
        PulsedDevice(response="soft-bounds")  # type: ignore[arg-type]
    with pytest.raises(HardwareError, match=r"ConstantStep\.scale_up = '1'"):
        ConstantStep(scale_up="1")  # type: ignore[arg-type]


def test_the_description_needs_no_torch() -> None:
    code = "import sys, mho.hardware.update; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
