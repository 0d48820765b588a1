"""The process around a deck: missing, failing, slow and cut. Stand-ins for the command need no ngspice."""

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from mho.errors import DeviceFault, RangeError, TransportError
from mho.lab.spice import SpiceDevice, noise_density, simulate, solve_columns, version

needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
G = torch.ones(1, 1, dtype=torch.float64)
HEAD = r"Plotname: x\nFlags: real\nNo. Variables: 1\nNo. Points: 1\nVariables:\n\t0\ti(vm0)\tcurrent\nBinary:\n"


def stand_in(folder: Path, script: str) -> str:
    path = folder / "ngspice"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_missing_command_says_how_to_get_it() -> None:
    for call in (lambda: simulate("", command="ngspice-missing"), lambda: version("ngspice-missing")):
        with pytest.raises(DeviceFault, match=r"'ngspice-missing' was not found. Fix: apt-get install ngspice"):
            call()
    with pytest.raises(DeviceFault, match="apt-get install ngspice"):
        SpiceDevice(2, 2, g_max_uS=1.0, v_max_V=1.0, command="ngspice-missing")


def test_a_slow_run_is_ended_and_may_be_tried_again(tmp_path: Path) -> None:
    command = stand_in(tmp_path, "echo $$ > " + str(tmp_path / "pid") + "\nexec sleep 60")
    start = time.monotonic()
    with pytest.raises(TransportError, match=r"longer than timeout_s = 0.5 and was ended"):
        simulate("", timeout_s=0.5, command=command)
    assert time.monotonic() - start < 20.0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_no_time_at_all_is_refused() -> None:
    with pytest.raises(RangeError, match=r"timeout_s = 0.0 must be above 0"):
        simulate("", timeout_s=0.0)


def test_a_cut_file_is_a_transport_error(tmp_path: Path) -> None:
    command = stand_in(tmp_path, f"printf '{HEAD}1234' > out.raw")
    with pytest.raises(TransportError, match="4 bytes of numbers, 8 expected"):
        simulate("", command=command)


def test_no_file_is_a_fault_with_the_end_of_the_log(tmp_path: Path) -> None:
    command = stand_in(tmp_path, "seq 1 40; echo 'singular matrix' >&2")
    with pytest.raises(DeviceFault, match=r"found no solution(.|\n)*\n  40\n  singular matrix") as caught:
        simulate("", command=command)
    assert "\n  20\n" not in str(caught.value)


def test_fewer_answers_than_questions_are_a_fault(tmp_path: Path) -> None:
    command = stand_in(tmp_path, f"printf '{HEAD}12345678' > out.raw")
    with pytest.raises(DeviceFault, match="1 of 3 vectors were solved"):
        solve_columns(G, torch.ones(3, 1, dtype=torch.float64), command=command)
    with pytest.raises(DeviceFault, match=r"noise of 1 of 2 columns"):
        noise_density(torch.ones(1, 2, dtype=torch.float64), command=command)


def test_another_program_is_not_ngspice(tmp_path: Path) -> None:
    with pytest.raises(DeviceFault, match="does not say that it is ngspice"):
        version(stand_in(tmp_path, "echo hello"))
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    with pytest.raises(DeviceFault, match="could not be started"):
        version(str(broken))


@needs_ngspice
def test_a_circuit_without_solution_is_a_fault() -> None:
    deck = "* two sources in parallel\nv0 a 0 1\nv1 a 0 2\n.control\nop\nwrite out.raw i(v0)\nquit\n.endc\n.end\n"
    with pytest.raises(DeviceFault, match=r"found no solution(.|\n)*op simulation\(s\) aborted"):
        simulate(deck)


@needs_ngspice
def test_start_up_files_of_the_user_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".spiceinit").write_text("set filetype=ascii\nquit\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert solve_columns(G, torch.ones(1, 1, dtype=torch.float64)).item() == pytest.approx(1.0, rel=1e-12)
