"""The bench against pyvisa-sim. It answers from a list: this tests the protocol, not any physics."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mho.errors import DeviceFault, RangeError, TransportError
from mho.lab.scpi import BenchLayout, Commands, ScpiBench, open_bench

SIM = f"{Path(__file__).parent / 'bench.yaml'}@sim"
LAYOUT = BenchLayout(
    row_channels=("101", "102"),
    col_channels=("201", "202"),
    v_max_V=0.2,
    v_read_V=0.1,
    i_min_uA=0.1,
    i_max_uA=100.0,
    g_max_uS=100.0,
    timeout_s=0.1,
)
V = torch.tensor([[0.05, -0.1], [0.15, 0.0]])
OPEN: list[ScpiBench] = []


def opened(name: str = "TCPIP::bench::5025::SOCKET", layout: BenchLayout = LAYOUT) -> ScpiBench:
    OPEN.append(open_bench(name, layout, backend=SIM))
    return OPEN[-1]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.mark.parametrize("name", ["TCPIP::bench::5025::SOCKET", "GPIB0::9::INSTR"])
def test_a_block_is_taken_apart(name: str) -> None:
    bench = opened(name)
    readout = bench.mvm(0, V, operation="m", full_scale_uA=10.0, repeats=2)
    one = torch.tensor([2.0**-21 * 1e6, 2.0**-19 * 1e6])
    torch.testing.assert_close(readout.currents_uA, one.expand(2, 2, 2))
    assert readout.valid.all()
    can = bench.capabilities()
    assert (can.vendor, can.model, can.serial, can.firmware) == ("Simulated", "Bench", "42", "0.7")
    assert (can.rows, can.cols, can.tiles, can.partial) == (2, 2, 1, False)
    assert bench.calibrate().identity.startswith("42@")
    assert bench.health().ok


def test_the_instrument_gets_what_was_asked_for() -> None:
    bench = opened()
    line = bench._line
    assert line.ask(":OUTP?") == "1"
    line.do(*bench._sources([0.05, -0.1]))
    assert [line.ask(f":SOUR:VOLT? (@{c})") for c in ("101", "102")] == ["0.0500", "-0.1000"]
    bench.mvm(0, V, operation="m", full_scale_uA=10.0)
    assert line.ask(":SENS:CURR:RANG?") == "1.000e-05"
    assert line.ask(":SOUR:VOLT? (@101)") == "0.0000"


def test_the_instruments_own_limit_is_a_fault_and_ours_comes_first() -> None:
    bench = opened()
    with pytest.raises(DeviceFault, match=r'Simulated.*: -113 "Undefined header or data out of range"'):
        bench.mvm(0, V * 1.3, operation="m", full_scale_uA=10.0)
    with pytest.raises(RangeError, match="inputs_V"):
        bench.mvm(0, V * 1.5, operation="m", full_scale_uA=10.0)
    bench.mvm(0, V, operation="n", full_scale_uA=10.0)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (":SILENT?", "Timeout expired"),
        (":UNKNOWN?", "Timeout expired"),
        (":BROKEN?", "Timeout expired"),
        (":TEXT?", "starts with # and a digit"),
    ],
)
def test_what_does_not_come_is_a_transport_error_and_the_line_recovers(query: str, words: str) -> None:
    wrong = replace(LAYOUT, commands=Commands(measure=f"{query} (@{{channels}})"))
    bench = opened(layout=wrong)
    with pytest.raises((TransportError, DeviceFault)) as caught:
        bench.mvm(0, V, operation="m", full_scale_uA=10.0)
    first = caught.value.__context__ if isinstance(caught.value, DeviceFault) else caught.value
    assert isinstance(first, TransportError)
    assert words in str(first)
    bench.health()  # empties the queue of :UNKNOWN?
    assert bench.health().ok


def test_a_bench_that_does_not_exist() -> None:
    with pytest.raises(TransportError, match=r"scpi bench 'GPIB0::10::INSTR': cannot be opened .*Fix: check the name"):
        opened("GPIB0::10::INSTR")
    with pytest.raises(TransportError, match=r"scpi bench 'nonsense': cannot be opened"):
        opened("nonsense")
    with pytest.raises(DeviceFault, match="PyVISA has no backend '@nothing'"):
        open_bench("GPIB0::9::INSTR", LAYOUT, backend="@nothing")


def test_without_pyvisa_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvisa", None)
    with pytest.raises(DeviceFault, match=r"PyVISA is not installed .*Fix: pip install 'mho\[lab\]'"):
        open_bench("GPIB0::9::INSTR", LAYOUT)
