"""A bench in a thread: resistors behind a socket that speaks SCPI. Its arithmetic is plain Python, not the package's.

It stands for what pyvisa-sim cannot: computed answers, blocks of any bytes, late answers, switching off and on.
"""

import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from mho.lab.scpi import BenchLayout, Commands, ScpiBench, open_bench

ROWS, COLS = ("101", "102", "103", "104"), ("201", "202", "203")


class FakeBench:
    """One client at a time. ``misbehave``: command -> what to do instead, once each."""

    def __init__(self) -> None:
        self.g_S = [[0.0] * len(COLS) for _ in ROWS]
        self.volts = dict.fromkeys(ROWS, 0.0)
        self.offset_A = 0.0
        self.noise_A = 0.0
        self.range_A = 1.0
        self.on = False
        self.errors: list[str] = []
        self.event = 128
        self.messages: list[str] = []
        self.misbehave: dict[str, list[Callable[[], bytes | None]]] = {}
        self._random = random.Random(1)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(5)
        self._socket.close()

    def power_cycle(self) -> None:
        self.g_S = [[0.0] * len(COLS) for _ in ROWS]
        self.volts = dict.fromkeys(ROWS, 0.0)
        self.on = False
        self.event |= 128

    def _serve(self) -> None:
        while not self._stop.is_set():
            client, _ = self._socket.accept()
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client, client.makefile("rb") as stream:
                while not self._stop.is_set():
                    try:
                        message = self._message(stream)
                        if not message:
                            break
                        answer = self._answer(message)
                        if answer is not None:
                            client.sendall(answer)
                    except OSError:
                        break

    def _message(self, stream) -> bytes:
        """A line, or a line with a block in it."""
        message = b""
        while not message.endswith(b"\n"):
            piece = stream.read(1)
            if not piece:
                return b""
            message += piece
            if piece == b"#":
                digits = stream.read(1)
                length = stream.read(int(digits))
                message += digits + length + stream.read(int(length))
        return message[:-1]

    def _answer(self, message: bytes) -> bytes | None:
        if b"#" in message:
            return self._one(message)
        answers = [self._one(part) for part in message.split(b";")]
        return b"".join(a for a in answers if a) or None

    def _one(self, message: bytes) -> bytes | None:
        text = message.split(b"#")[0].decode()
        self.messages.append(text.strip())
        for start, turns in self.misbehave.items():
            if text.startswith(start) and turns:
                return turns.pop(0)()
        if text == "*IDN?":
            return b"Acme,Bench 3,77,1.0\n"
        if text == "*OPC?":
            return b"1\n"
        if text == "*CAL?":
            return b"0\n"
        if text == "*CLS":
            self.errors.clear()
            self.event = 0
            return None
        if text == "*ESR?":
            event, self.event = self.event, 0
            return b"%d\n" % event
        if text == ":SYST:ERR?":
            return (self.errors.pop(0) if self.errors else '0,"No error"').encode() + b"\n"
        if text.startswith(":READ?"):
            return self._currents()
        if text.startswith(":CELL:COND "):
            payload = message.split(b"#", 1)[1]
            values = struct.unpack(f">{len(ROWS) * len(COLS)}f", payload[1 + int(payload[:1]) :])
            self.g_S = [list(values[r * len(COLS) : (r + 1) * len(COLS)]) for r in range(len(ROWS))]
            return None
        if found := re.fullmatch(r":SOUR:VOLT (\S+),\(@(\d+)\)", text):
            self.volts[found[2]] = float(found[1])
        elif found := re.fullmatch(r":SENS:CURR:RANG (\S+),\(@[\d,]+\)", text):
            self.range_A = float(found[1])
        elif found := re.fullmatch(r":OUTP (\d),\(@[\d,]+\)", text):
            self.on = found[1] == "1"
        elif text != ":FORM REAL,32":
            self.errors.append('-113,"Undefined header"')
        return None

    def _currents(self) -> bytes:
        found = []
        for c in range(len(COLS)):
            i = sum(self.volts[name] * self.g_S[r][c] for r, name in enumerate(ROWS)) if self.on else 0.0
            i += self.offset_A + self._random.gauss(0.0, 1.0) * self.noise_A
            found.append(i if abs(i) <= self.range_A else 9.9e37 * (1 if i > 0 else -1))
        payload = struct.pack(f">{len(found)}f", *found)
        return f"#{len(str(len(payload)))}{len(payload)}".encode() + payload + b"\n"


def late(bench: FakeBench, message: str, delay_s: float) -> Callable[[], bytes | None]:
    """The right answer, too late."""

    def act() -> bytes | None:
        time.sleep(delay_s)
        return bench._answer(message.encode())

    return act


LAYOUT = BenchLayout(
    row_channels=ROWS,
    col_channels=COLS,
    v_max_V=0.2,
    v_read_V=0.1,
    i_min_uA=0.1,
    i_max_uA=100.0,
    g_max_uS=100.0,
    timeout_s=0.3,
    commands=Commands(write_cells=":CELL:COND"),
)


@pytest.fixture
def fake() -> Iterator[FakeBench]:
    bench = FakeBench()
    yield bench
    bench.stop()


@pytest.fixture
def layout() -> BenchLayout:
    return LAYOUT


@pytest.fixture
def connect(fake: FakeBench) -> Iterator[Callable[..., ScpiBench]]:
    opened: list[ScpiBench] = []

    def make(layout: BenchLayout = LAYOUT) -> ScpiBench:
        while opened:
            opened.pop().close()
        opened.append(open_bench(f"TCPIP::127.0.0.1::{fake.port}::SOCKET", layout))
        return opened[-1]

    yield make
    for bench in opened:
        bench.close()


@pytest.fixture
def too_late() -> Callable[[FakeBench, str, float], Callable[[], bytes | None]]:
    return late
