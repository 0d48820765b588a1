"""One deck, one process: ngspice in a folder of its own, with a time limit."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from mho.errors import DeviceFault, RangeError, TransportError
from mho.lab.spice.netlist import RAW_FILE
from mho.lab.spice.raw import Plot, parse_raw

COMMAND = "ngspice"
TIMEOUT_S = 120.0
_LOG_LINES = 12


def find(command: str = COMMAND) -> str:
    """The path of ngspice; :class:`~mho.errors.DeviceFault` where there is none."""
    path = shutil.which(command)
    if path is None:
        raise DeviceFault(f"spice: the command {command!r} was not found. Fix: apt-get install ngspice.")
    return path


def version(command: str = COMMAND) -> str:
    """What ``ngspice --version`` calls itself, e.g. ``"ngspice-39"``."""
    text = _call([find(command), "--version"], None, 10.0)
    found = re.search(r"ngspice-[\w.+-]+", text)
    if found is None:
        raise DeviceFault(f"spice: {command!r} does not say that it is ngspice. Fix: name Debian's ngspice.")
    return found.group()


def simulate(deck: str, *, timeout_s: float = TIMEOUT_S, command: str = COMMAND) -> tuple[Plot, ...]:
    """Run ``deck`` and return the plots it wrote.

    :class:`~mho.errors.DeviceFault` when ngspice is missing or found no solution (with the last lines of its log),
    :class:`~mho.errors.TransportError` after ``timeout_s`` or when its file is cut.
    """
    if not timeout_s > 0.0:
        raise RangeError(f"spice: timeout_s = {timeout_s!r} must be above 0. Fix: give seconds.")
    path = find(command)
    with tempfile.TemporaryDirectory(prefix="mho-spice-") as folder:
        Path(folder, "deck.cir").write_text(deck, encoding="ascii")
        # -n: no start-up file of the user may change what a deck means.
        log = _call([path, "-n", "-b", "deck.cir"], folder, timeout_s)
        raw = Path(folder, RAW_FILE)
        # ngspice leaves with 0 also when it failed: the file is the only sign.
        if not raw.exists():
            raise no_solution(log)
        return parse_raw(raw.read_bytes())


def no_solution(log: str) -> DeviceFault:
    """The fault of a run without a result, with the end of its log."""
    tail = "\n".join(line for line in log.splitlines() if line.strip())
    last = "\n  ".join(tail.splitlines()[-_LOG_LINES:])
    return DeviceFault(
        f"spice: ngspice found no solution. Fix: check the circuit's values; its log ends with\n  {last}"
    )


def _call(arguments: list[str], folder: str | None, timeout_s: float) -> str:
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TransportError(
            f"spice: ngspice took longer than timeout_s = {timeout_s:g} and was ended. Fix: fewer vectors a call, a "
            "smaller tile, or a longer limit."
        ) from None
    except OSError as error:
        raise DeviceFault(f"spice: {arguments[0]} could not be started: {error}. Fix: install it anew.") from error
    # Errors last: they say what went wrong, and the two streams have no common order.
    return (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace")
