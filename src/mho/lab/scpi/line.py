"""The conversation with one instrument: text, blocks, and what to do when an answer does not come.

An answer that comes after its time-out would be taken for the answer to the next question. So after every broken
conversation the line is out of step, and before the next message it is brought into step again: it asks ``*IDN?`` and
throws everything away up to the known identity and the answer to ``*OPC?`` after it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, final

from mho.errors import DeviceFault, TransportError
from mho.lab.scpi.blocks import read_block

MOST_MESSAGE_BYTES = 1024
"""Longest message of joined commands; input buffers of instruments are rarely smaller."""
MOST_ERRORS = 32
"""So many entries of an error queue are read at once."""
MOST_STALE_BYTES = 1 << 20
"""So many bytes of old answers are thrown away before the line is given up."""


class Wire(Protocol):
    """What this package needs of a PyVISA resource."""

    timeout: float

    def write_raw(self, message: bytes) -> int:
        """Send bytes."""
        ...

    def read_bytes(self, count: int) -> bytes:
        """Exactly ``count`` bytes, or an error."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@final
class Line:
    """One instrument behind ``wire``; messages end with a line feed.

    Raises :class:`TransportError` where an answer does not come or is malformed, :class:`DeviceFault` for the
    instrument's own errors.
    """

    def __init__(self, wire: Wire, error_query: str, timeout_s: float) -> None:
        self._wire = wire
        self._error_query = error_query
        self._in_step = True
        wire.timeout = timeout_s * 1e3
        self.identity = ""
        self.identity = self.ask("*IDN?")

    def write(self, text: str, payload: bytes = b"") -> None:
        """Send a command, with a block behind it if there is one."""
        with self._talk(text):
            self._send(text.encode() + payload)

    def ask(self, text: str) -> str:
        """The line that answers a query."""
        with self._talk(text):
            self._send(text.encode())
            return self._text(text)

    def ask_block(self, text: str, most_bytes: int) -> bytes:
        """The block that answers a query."""
        with self._talk(text):
            self._send(text.encode())
            payload = read_block(self._wire.read_bytes, most_bytes)
            end = self._wire.read_bytes(1)
            if end != b"\n":
                raise TransportError(f"{text}: {end!r} follows the block, expected a line feed. Fix: try again.")
            return payload

    def do(self, *commands: str) -> None:
        """Send commands in as few messages as fit, wait until all is done, then see that there is no complaint.

        One message and one answer: many small messages in a row would each wait for the network.
        """
        message = ""
        for command in (*commands, "*OPC?"):
            if message and len(message) + len(command) >= MOST_MESSAGE_BYTES:
                self.write(message)
                message = ""
            message = f"{message};{command}" if message else command
        done = self.ask(message)
        if done.strip() != "1":
            raise self._broken(f"*OPC? answers {done!r}, expected 1")
        self.complain()

    def complain(self) -> None:
        """Raise what is in the instrument's error queue, and empty it."""
        found: list[str] = []
        while len(found) < MOST_ERRORS:
            entry = self.ask(self._error_query)
            number, _, text = entry.partition(",")
            try:
                code = int(number)
            except ValueError:
                raise self._broken(f"{self._error_query} answers {entry!r}, expected a number and a text") from None
            if code == 0:
                break
            found.append(f"{code} {text.strip()}")
        if found:
            raise DeviceFault(
                f"{self.identity}: {'; '.join(found)}. Fix: see the instrument's manual; check the commands and the "
                "ranges of the layout."
            )

    def close(self) -> None:
        """Let go of the instrument."""
        self._wire.close()

    def _send(self, message: bytes) -> None:
        self._wire.write_raw(message + b"\n")

    def _text(self, what: str) -> str:
        line = bytearray()
        while not line.endswith(b"\n"):
            line += self._wire.read_bytes(1)
            if len(line) > 4096:
                raise TransportError(f"{what}: an answer of more than 4096 bytes without an end. Fix: try again.")
        return line.decode(errors="replace").strip()

    @contextmanager
    def _talk(self, what: str) -> Iterator[None]:
        try:
            if not self._in_step:
                self._into_step()
            self._in_step = False
            yield
            self._in_step = True
        except TransportError:
            raise
        except Exception as error:
            # Backends raise VisaIOError, and where they are not careful errors of sockets and of their own.
            if isinstance(error, OSError | EOFError) or type(error).__module__.partition(".")[0].startswith("pyvisa"):
                raise TransportError(f"{what}: {error}. Fix: check cable and instrument; try again.") from error
            raise

    def _into_step(self) -> None:
        # Old answers come before the one to *IDN?, which may itself be old; the one to *OPC? is then the last of all.
        self._send(b"*IDN?")
        wanted = self.identity.encode()
        seen = bytearray()
        while not (seen.endswith(b"\n") and seen.rstrip().endswith(wanted)):
            seen += self._wire.read_bytes(1)
            if len(seen) > MOST_STALE_BYTES:
                raise TransportError("*IDN?: only old answers come. Fix: switch the instrument off and on; try again.")
        self._send(b"*OPC?")
        line = self.identity
        while line == self.identity:
            line = self._text("*OPC?")
        if line != "1":
            raise TransportError(f"*OPC? answers {line!r}, expected 1: still out of step. Fix: try again.")

    def _broken(self, what: str) -> TransportError:
        self._in_step = False
        return TransportError(f"{self.identity}: {what}. Fix: try again.")
