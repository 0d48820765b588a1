"""A device that another process serves: the protocol of :mod:`mho.lab`, spoken over gRPC."""

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, final

import grpc
import torch
from torch import Tensor

from mho.errors import DataError, DeviceBusyError, DeviceFault, RangeError, TransportError
from mho.lab import checks
from mho.lab.protocol import Calibration, Capabilities, Conductances, Health, NotProgrammed, ProgramReport, Readout
from mho.lab.remote import messages, replies, requests
from mho.lab.remote.address import target
from mho.lab.remote.messages import SERVICE
from mho.lab.remote.requests import MvmCall, ProgramCall, ReadCall
from mho.lab.remote.status import ERROR_KEY, error_of

CONNECT_S = 10.0
CHUNK_BYTES = 1 << 20
"""Inputs of one message of a stream: large enough that what a call costs a device once is spread over many vectors."""
NUMBER_BYTES = 5
"""A current and its validity."""
T = TypeVar("T")


@final
class RemoteDevice:
    """The device behind ``address`` (``grpc://host:port``; ``grpcs://`` or ``tls_ca``: TLS).

    ``timeout_s``: of a call; by default what the device says of itself. ``client``: the name under which this client
    holds the device, by default one of its own; the lease is taken by the first call that needs it.

    A batch whose inputs are larger than ``chunk_bytes`` is streamed: chunk ``k`` is a call of its own under the name
    ``operation/k``, and is sent while the device works on those before. What fits one chunk gives the same bits as
    the same call in process.

    Raises what the device raises, as the same class; :class:`~mho.errors.TransportError` where no whole answer came.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        tls_ca: Path | str | None = None,
        timeout_s: float | None = None,
        client: str | None = None,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        where, secure = target(address)
        self._address = address
        self._timeout_s = timeout_s
        self._chunk_bytes = chunk_bytes
        self._metadata = [("mho-client", client or uuid.uuid4().hex)]
        if token is not None:
            self._metadata.append(("authorization", f"Bearer {token}"))
        self._channel = _channel(where, secure, tls_ca)
        self._can: Capabilities | None = None
        self._message_bytes = 0
        self._grip: Any = None
        self._on_tile: dict[int, str] = {}
        self._lock = threading.Lock()
        self._closed = False

    def capabilities(self) -> Capabilities:
        """What the device can do; asked once."""
        self._open()
        if self._can is None:
            return self._learn(self._ask("Describe", messages.ask_message()))
        return self._can

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Program a tile, once under this name even if it is called again."""
        can = self.capabilities()
        checks.program(can, tile, targets_uS, mask)
        self._hold()
        before = self._on_tile.get(tile, "")
        call = ProgramCall(tile, operation, targets_uS, mask, before)
        # From here on the tile may have been written, whatever comes back.
        self._on_tile[tile] = operation
        try:
            raw = self._ask("Program", requests.program_message(call))
        except (RangeError, DeviceBusyError, NotProgrammed):
            self._on_tile[tile] = before
            raise
        return self._read(lambda: replies.read_program(raw, can), "Program")

    def read(self, tile: int) -> Conductances:
        """Read a tile back."""
        can = self.capabilities()
        checks.tile_number(can, tile)
        self._hold()
        raw = self._ask("Read", requests.read_message(ReadCall(tile, self._on_tile.get(tile, ""))))
        return self._read(lambda: replies.read_conductances(raw, can), "Read")

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """Currents of all columns; large batches are streamed in chunks."""
        can = self.capabilities()
        checks.mvm(can, tile, inputs_V, full_scale_uA, repeats)
        self._hold()
        expects = self._on_tile.get(tile, "")
        parts = inputs_V.split(self._vectors_a_chunk(can, repeats))
        names = [operation] if len(parts) == 1 else [f"{operation}/{k}" for k in range(len(parts))]
        calls = [
            MvmCall(tile, name, part, full_scale_uA, repeats, expects) for name, part in zip(names, parts, strict=True)
        ]
        found = list(self._stream(calls, can))
        return found[0] if len(found) == 1 else _joined(operation, found)

    def calibrate(self) -> Calibration:
        """Let the device calibrate itself."""
        self._open()
        self._hold()
        raw = self._ask("Calibrate", messages.ask_message())
        return self._read(lambda: replies.read_calibration(raw), "Calibrate")

    def health(self) -> Health:
        """How the device is; needs no lease."""
        self._open()
        raw = self._ask("Health", messages.ask_message())
        return self._read(lambda: replies.read_health(raw), "Health")

    def wait_until(self, time_s: float) -> Health:
        """Let the device's clock run on."""
        checks.waits(self.capabilities(), time_s)
        self._hold()
        raw = self._ask("Wait", requests.wait_message(time_s))
        return self._read(lambda: replies.read_health(raw), "Wait")

    def close(self) -> None:
        """Let go of the device; the server keeps it open for others."""
        if self._closed:
            return
        self._closed = True
        if self._grip is not None:
            # A server that is gone has no lease; one that does not answer sees the connection end.
            with contextlib.suppress(TransportError, RangeError):
                self._ask("Release", messages.ask_message(), 1.0)
            self._grip.cancel()
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _open(self) -> None:
        if self._closed:
            raise DeviceFault(f"{self._address}: it was closed. Fix: connect again.")

    def _limit_s(self) -> float:
        if self._timeout_s is not None:
            return self._timeout_s
        return CONNECT_S if self._can is None else self._can.timeout_s

    def _ask(self, method: str, message: bytes, timeout_s: float | None = None) -> bytes:
        call = self._channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            return bytes(call(message, timeout=timeout_s or self._limit_s(), metadata=self._metadata))
        except grpc.RpcError as error:
            raise self._error(error, method) from error

    def _stream(self, calls: list[MvmCall], can: Capabilities) -> Iterator[Readout]:
        """Answers in order. gRPC takes the messages from the generator in a thread of its own, as there is room."""
        open_stream = self._channel.stream_stream(f"/{SERVICE}/Mvm")
        sent = (requests.mvm_message(call) for call in calls)
        answers = open_stream(sent, timeout=self._limit_s() * len(calls), metadata=self._metadata)
        try:
            for call in calls:
                raw = next(answers, None)
                if raw is None:
                    raise TransportError(f"{self._address} Mvm: the stream ended early. Way out: call again.")
                yield self._read(partial(replies.read_mvm, raw, call, can), "Mvm")
            if next(answers, None) is not None:
                raise TransportError(f"{self._address} Mvm: more answers than questions. Way out: call again.")
        except grpc.RpcError as error:
            raise self._error(error, "Mvm") from error
        finally:
            answers.cancel()

    def _hold(self) -> None:
        """Take the lease, or see that it is still there; a connection that was lost takes it anew."""
        with self._lock:
            if self._grip is not None and self._grip.is_active():
                return
            grip = self._channel.unary_stream(f"/{SERVICE}/Hold")(messages.ask_message(), metadata=self._metadata)
            timer = threading.Timer(self._limit_s(), grip.cancel)
            timer.daemon = True
            timer.start()
            try:
                raw = bytes(next(grip))
            except (grpc.RpcError, StopIteration) as error:
                raise self._error(error, "Hold") from error
            finally:
                timer.cancel()
            self._learn(raw)
            self._grip = grip

    def _learn(self, raw: bytes) -> Capabilities:
        can, message_bytes = self._read(lambda: replies.read_description(raw), "Describe")
        if self._can is not None and can != self._can:
            raise DeviceFault(
                f"{self._address}: another device answers now ({can.model} {can.serial}, it was {self._can.model} "
                f"{self._can.serial}). Fix: connect again."
            )
        self._can, self._message_bytes = can, message_bytes
        return can

    def _vectors_a_chunk(self, can: Capabilities, repeats: int) -> int:
        room = self._message_bytes - 4096
        asked = min(self._chunk_bytes, room) // (4 * can.rows)
        return max(1, min(asked, room // (NUMBER_BYTES * repeats * can.cols)))

    def _read(self, reader: Callable[[], T], method: str) -> T:
        try:
            return reader()
        except RangeError as error:
            raise TransportError(f"{self._address} {method}: an answer that cannot be read: {error}") from error

    def _error(self, error: Any, method: str) -> Exception:
        where = f"{self._address} {method}"
        if not isinstance(error, grpc.Call):
            return TransportError(f"{where}: the stream ended without an answer. Way out: call again.")
        kind = dict(error.trailing_metadata() or ()).get(ERROR_KEY)
        return error_of(error.code(), kind, error.details() or "", where)


def _joined(operation: str, parts: list[Readout]) -> Readout:
    """One readout of all chunks; time and temperature are those of the last."""
    return Readout(
        operation=operation,
        currents_uA=torch.cat([part.currents_uA for part in parts], 1),
        valid=torch.cat([part.valid for part in parts], 1),
        time_s=parts[-1].time_s,
        temperature_K=parts[-1].temperature_K,
        flags=tuple(sorted({flag for part in parts for flag in part.flags})),
    )


def _channel(where: str, secure: bool, tls_ca: Path | str | None) -> Any:
    options = [
        # The server says what it takes; a client need not guess a bound of its own.
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A server that is started again is found within seconds, not after gRPC's two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if tls_ca is None and not secure:
        return grpc.insecure_channel(where, options)
    roots = None
    if tls_ca is not None:
        try:
            roots = Path(tls_ca).read_bytes()
        except OSError as error:
            raise DataError(f"tls_ca = {tls_ca}: {error.strerror}. Fix: give a PEM file that can be read.") from error
    return grpc.secure_channel(where, grpc.ssl_channel_credentials(roots), options)
