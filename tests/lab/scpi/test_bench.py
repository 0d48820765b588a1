"""A bench of resistors behind a socket, through PyVISA: physics by Ohm's law, and what happens when it fails."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mho.errors import DeviceFault, HardwareError, RangeError, TransportError
from mho.lab import Session
from mho.lab.protocol import CellStatus, NotProgrammed
from mho.lab.scpi import BenchLayout, Commands, ScpiBench
from mho.rng import uniforms
from mho.testing import check_device

Connect = Callable[..., ScpiBench]
G = uniforms((4, 3), "bench", "g") * 100
NO_NUMBERS = b"#212" + bytes.fromhex("7e951bee 00000000 7fc00000") + b"\n"
"""9.91E37 (SCPI's "not a number"), 0, NaN."""
V = (uniforms((5, 4), "bench", "v") - 0.5) * 0.4


def test_ohm_and_kirchhoff(fake, connect: Connect) -> None:
    bench = connect()
    report = bench.program(0, G, operation="w")
    torch.testing.assert_close(torch.tensor(fake.g_S) * 1e6, G)
    assert (report.status == int(CellStatus.OK)).all()
    torch.testing.assert_close(report.achieved_uS, G)
    readout = bench.mvm(0, V, operation="m", full_scale_uA=80.0, repeats=2)
    torch.testing.assert_close(readout.currents_uA, (V @ G).expand(2, 5, 3))
    assert not torch.allclose(readout.currents_uA[0], V @ G.flip(0))
    assert set(fake.volts.values()) == {0.0}  # nothing is left driven
    torch.testing.assert_close(bench.read(0).g_uS, G)
    can = bench.capabilities()
    assert (can.vendor, can.model, can.serial, can.firmware) == ("Acme", "Bench 3", "77", "1.0")
    bench.close()
    assert not fake.on


def test_the_conformance_suite(fake, connect: Connect) -> None:
    fake.noise_A = 1e-8
    report = check_device(connect)
    # One tile, written whole, and ammeters without a known number of bits.
    assert {name for name, _ in report.skipped} == {"masked", "tiles", "full_scale"}


def test_a_read_back_is_free_of_offsets_and_a_product_is_not(fake, connect: Connect) -> None:
    fake.offset_A = 2e-6
    bench = connect()
    torch.testing.assert_close(bench.program(0, G, operation="w").achieved_uS, G, atol=1e-4, rtol=1e-4)
    readout = bench.mvm(0, V, operation="m", full_scale_uA=80.0)
    torch.testing.assert_close(readout.currents_uA[0], V @ G + 2.0, atol=1e-4, rtol=1e-4)


def test_beyond_the_range_is_full_scale_and_flagged(connect: Connect) -> None:
    bench = connect()
    bench.program(0, G, operation="w")
    true = V @ G
    full = float(true.abs().max()) / 2
    readout = bench.mvm(0, V, operation="m", full_scale_uA=full)
    torch.testing.assert_close(readout.currents_uA[0], true.clamp(-full, full))
    assert readout.flags == ("saturated",)
    assert not bench.mvm(0, V, operation="n", full_scale_uA=4 * full).flags


def test_no_number_is_nan_and_not_valid(fake, connect: Connect) -> None:
    bench = connect()
    bench.program(0, G, operation="w")
    fake.misbehave[":READ?"] = [
        lambda: b"#212" + bytes.fromhex("7e951bee 00000000 7fc00000") + b"\n"
    ]  # 9.91E37, 0, NaN
    readout = bench.mvm(0, V[:1], operation="m", full_scale_uA=80.0)
    assert readout.valid.tolist() == [[[False, True, False]]]
    assert torch.equal(readout.currents_uA.isnan(), ~readout.valid)
    fake.misbehave[":READ?"] = [lambda: NO_NUMBERS]
    assert (~bench.read(0).valid).sum() == 2


def test_a_late_answer_is_not_taken_for_the_next_one(fake, connect: Connect, too_late) -> None:
    """The mutant: a line that does not come into step again answers with the currents of another vector."""
    bench = connect()
    bench.program(0, G, operation="w")
    for start in (":READ?", "*OPC?", ":SYST:ERR?"):
        fake.misbehave[start] = [too_late(fake, ":READ? (@201,202,203)" if start == ":READ?" else start, 0.5)]
        with pytest.raises(TransportError, match="Fix: check cable and instrument; try again"):
            bench.mvm(0, V[:1], operation="m", full_scale_uA=80.0)
        readout = bench.mvm(0, V[1:2], operation="n", full_scale_uA=80.0)
        torch.testing.assert_close(readout.currents_uA[0], V[1:2] @ G)


def test_a_line_that_is_out_of_step_would_answer_wrongly(fake, connect: Connect, too_late) -> None:
    bench = connect()
    bench.program(0, G, operation="w")
    line = bench._line
    fake.misbehave["*OPC?"] = [too_late(fake, "*IDN?", 0.5)]
    with pytest.raises(TransportError):
        line.ask("*OPC?")
    line._in_step = True  # the mutant
    assert line.ask("*OPC?") != "1"
    line._in_step = False


def test_a_session_gets_over_silence(fake, connect: Connect) -> None:
    fake.misbehave[":READ?"] = [lambda: None, lambda: b"#212abc", lambda: b"+1.0E-6\n"]
    session = Session(connect(), sleep=lambda s: None)
    session.program(0, G, operation="w")
    readout = session.mvm(0, V, operation="m", full_scale_uA=80.0)
    torch.testing.assert_close(readout.currents_uA[0], V @ G)
    assert not fake.misbehave[":READ?"]


def test_programming_whose_answer_was_lost_is_verified_and_not_done_again(fake, connect: Connect) -> None:
    bench = connect()
    sent = fake.messages.count
    fake.misbehave[":READ?"] = [lambda: None]
    with pytest.raises(TransportError):
        bench.program(0, G, operation="w")
    with pytest.raises(NotProgrammed):
        bench.mvm(0, V, operation="m", full_scale_uA=80.0)
    report = bench.program(0, G, operation="w")
    assert report.repeated
    assert sent(":CELL:COND") == 1
    fake.misbehave[":READ?"] = [lambda: None]
    with pytest.raises(TransportError):
        bench.program(0, 100 - G, operation="x")
    fake.g_S[0][0] = 0.0  # it was lost after all
    assert not bench.program(0, 100 - G, operation="x").repeated
    assert sent(":CELL:COND") == 3


def test_an_error_of_the_instrument_is_a_fault_with_its_words(fake, connect: Connect) -> None:
    bench = connect()
    bench.program(0, G, operation="w")
    fake.errors += ['-222,"Data out of range"', '-350,"Queue overflow"']
    with pytest.raises(DeviceFault, match=r'Acme.*: -222 "Data out of range"; -350 "Queue overflow". Fix: see the'):
        bench.mvm(0, V, operation="m", full_scale_uA=80.0)
    assert bench.health().ok
    fake.errors.append('503,"Fan"')
    health = bench.health()
    assert not health.ok
    assert "503" in health.message
    torch.testing.assert_close(bench.mvm(0, V, operation="m", full_scale_uA=80.0).currents_uA[0], V @ G)


def test_a_bench_that_was_switched_off_says_so(fake, connect: Connect) -> None:
    bench = connect()
    bench.program(0, G, operation="w")
    assert bench.health().boot == "0"
    fake.power_cycle()
    with pytest.raises(NotProgrammed):
        bench.mvm(0, V, operation="m", full_scale_uA=80.0)
    health = bench.health()
    assert health.boot == "1"
    assert health.programmed_tiles == ()
    bench.program(0, G, operation="w")  # the same operation, and it is carried out
    torch.testing.assert_close(bench.mvm(0, V, operation="m", full_scale_uA=80.0).currents_uA[0], V @ G)


def test_fixed_resistors(fake, connect: Connect, layout: BenchLayout) -> None:
    fake.g_S = (G * 1e-6).tolist()
    bench = connect(replace(layout, commands=Commands()))
    with pytest.raises(RangeError, match=r"are fixed. Way out: read\(\) tells what they are"):
        bench.program(0, G, operation="w")
    torch.testing.assert_close(bench.read(0).g_uS, G)
    torch.testing.assert_close(bench.mvm(0, V, operation="m", full_scale_uA=80.0).currents_uA[0], V @ G)
    assert bench.health().programmed_tiles == (0,)


def test_a_cell_that_misses(fake, connect: Connect) -> None:
    bench = connect()
    keep = type(fake)._currents

    def broken(self) -> bytes:
        self.g_S[2][1] = 0.0
        return keep(self)

    fake._currents = broken.__get__(fake)
    status = bench.program(0, G.clamp_min(20), operation="w").status
    assert status[2, 1] == int(CellStatus.MISSED)
    assert (status != int(CellStatus.OK)).sum() == 1


def test_calibration(fake, connect: Connect, layout: BenchLayout) -> None:
    bench = connect()
    assert bench.calibrate().identity.startswith("77@")
    fake.misbehave["*CAL?"] = [lambda: b"4\n"]
    with pytest.raises(DeviceFault, match=r"\*CAL\? answers '4'"):
        bench.calibrate()
    bench = connect(replace(layout, commands=Commands(calibrate=None)))
    with pytest.raises(DeviceFault, match="no such command"):
        bench.calibrate()


def test_wrong_answers_to_plain_questions(fake, connect: Connect) -> None:
    bench = connect()
    fake.misbehave["*OPC?"] = [lambda: b"0\n"]
    with pytest.raises(TransportError, match=r"\*OPC\? answers '0', expected 1"):
        bench.program(0, G, operation="w")
    fake.misbehave[":SYST:ERR?"] = [lambda: b"fine\n"]
    with pytest.raises(TransportError, match=r":SYST:ERR\? answers 'fine', expected a number"):
        bench.program(0, G, operation="w")
    fake.misbehave[":READ?"] = [lambda: b"#18" + bytes(8) + b"\n"]
    with pytest.raises(TransportError, match="a block of 8 bytes, expected 3 floats"):
        bench.program(0, G, operation="w")
    bench.program(0, G, operation="w")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row_channels": ()}, "no channel, or one twice"),
        ({"row_channels": ("1", "1")}, "no channel, or one twice"),
        ({"col_channels": ("101",)}, "these are rows too"),
        ({"v_read_V": 0.3}, "above v_max_V"),
        ({"i_min_uA": 200.0}, "above i_max_uA"),
        ({"timeout_s": 0.0}, "must be above 0"),
        ({"byte_order": "middle"}, "must be one of 'big', 'little'"),
    ],
)
def test_impossible_layouts(layout: BenchLayout, change: dict, message: str) -> None:
    with pytest.raises(HardwareError, match=message):
        replace(layout, **change)


def test_templates_name_their_fields() -> None:
    with pytest.raises(HardwareError, match=r"Commands.set_voltage = .*must name \{channel\}, \{value\}"):
        Commands(set_voltage="VOLT {value}")
    with pytest.raises(HardwareError, match=r"Commands.error = .*must name no field"):
        Commands(error="{x}?")
