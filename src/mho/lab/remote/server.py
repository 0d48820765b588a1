"""A device served over gRPC: start, stop, and a call that serves until it is interrupted."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import grpc

from mho.errors import DataError, RangeError
from mho.lab.protocol import Device
from mho.lab.remote.address import host_and_port
from mho.lab.remote.limits import Limits
from mho.lab.remote.service import Service
from mho.lab.remote.worker import Worker

GRACE_S = 1.0
ROOM_BYTES = 1 << 16
"""What a message may have beside its largest tensor."""


@dataclass(frozen=True)
class TlsFiles:
    """Certificate chain and private key of the server, PEM."""

    cert: Path
    key: Path

    def read(self) -> tuple[bytes, bytes]:
        """Key and certificate; :class:`~mho.errors.DataError` where a file cannot be read."""
        return _pem(Path(self.key), "tls.key"), _pem(Path(self.cert), "tls.cert")


@final
class DeviceServer:
    """Serves ``device`` on ``listen`` from :meth:`start` to :meth:`stop`; a context manager does both.

    ``token``: what clients must give. ``tls``: files of a certificate; without it all goes in clear text. The
    device stays the caller's: it is not closed here, and is called from one thread of this server only.
    """

    def __init__(
        self,
        device: Device,
        listen: str = "127.0.0.1:7070",
        *,
        token: str | None = None,
        tls: TlsFiles | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._host, self._wanted = host_and_port(listen, "listen")
        if token is not None and (not token or not token.isascii() or not token.isprintable()):
            raise RangeError("token: empty, or not printable ASCII. Fix: use letters and digits, 20 or more.")
        self._device = device
        self._token = token
        self._tls = tls
        self._limits = Limits() if limits is None else limits
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._trouble: BaseException | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    @property
    def address(self) -> str:
        """What a client gives to connect."""
        return f"{'grpc' if self._tls is None else 'grpcs'}://{self._host}:{self._port}"

    def start(self) -> Self:
        """Listen; when this returns, calls are served. Errors: address in use, certificate, device, limits."""
        if self._thread is not None:
            raise RangeError("server: it was started before. Fix: make a new one.")
        worker = Worker(self._device, self._limits)
        credentials = None if self._tls is None else grpc.ssl_server_credentials([self._tls.read()])
        try:
            self._fits(worker)
        except RangeError:
            worker.stop()
            raise
        self._thread = threading.Thread(target=self._run, args=(worker, credentials), name="mho server", daemon=True)
        self._thread.start()
        self._started.wait()
        if self._trouble is not None:
            self._thread.join()
            raise self._trouble
        return self

    def stop(self) -> None:
        """Take no more calls, give those under way a second, and close. Safe to call twice."""
        if self._loop is not None and self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
        self.wait()

    def wait(self) -> None:
        """Until the server has stopped."""
        while self._thread is not None and self._thread.is_alive():
            self._thread.join(0.5)  # in slices: Ctrl-C must come through

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _fits(self, worker: Worker) -> None:
        can = worker.can
        need = 5 * can.rows * can.cols + ROOM_BYTES
        if need > self._limits.message_bytes:
            raise RangeError(
                f"limits.message_bytes = {self._limits.message_bytes}: a tile of {can.rows} x {can.cols} and its mask "
                f"need {need}. Fix: allow {need} or more."
            )

    def _run(self, worker: Worker, credentials: Any) -> None:
        try:
            asyncio.run(self._serve(worker, credentials))
        except BaseException as error:
            self._trouble = error
        finally:
            worker.stop()
            self._started.set()

    async def _serve(self, worker: Worker, credentials: Any) -> None:
        self._loop = asyncio.get_running_loop()
        server = grpc.aio.server(options=_options(self._limits), maximum_concurrent_rpcs=self._limits.streams)
        service = Service(worker, self._limits, self._token)
        server.add_generic_rpc_handlers(service.handlers())
        wanted = f"{self._host}:{self._wanted}"
        try:
            if credentials is None:
                self._port = server.add_insecure_port(wanted)
            else:
                self._port = server.add_secure_port(wanted, credentials)
        except RuntimeError as error:
            raise RangeError(
                f"listen = {wanted}: it cannot be listened on; is another server there, or the certificate broken? "
                "Fix: choose another port (0 is any that is free), stop the other server, or mend the files."
            ) from error
        await server.start()
        self._started.set()
        await self._stopping.wait()
        service.close()
        await server.stop(GRACE_S)


def serve(
    device: Device,
    listen: str = "127.0.0.1:7070",
    *,
    token: str | None = None,
    tls: TlsFiles | None = None,
    limits: Limits | None = None,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve ``device`` until the process is interrupted; ``ready`` is told the address when calls are served."""
    with DeviceServer(device, listen, token=token, tls=tls, limits=limits) as server:
        if ready is not None:
            ready(server.address)
        server.wait()


def _options(limits: Limits) -> list[tuple[str, int]]:
    patience_ms = int(1000 * limits.patience_s)
    return [
        ("grpc.so_reuseport", 0),  # else two servers share a port and each gets some of the calls
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.max_send_message_length", limits.message_bytes),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_concurrent_streams", limits.streams),
        ("grpc.server_handshake_timeout_ms", patience_ms),
        # A client behind a cut cable says nothing: without these its lease would last until it is idle.
        ("grpc.keepalive_time_ms", patience_ms),
        ("grpc.keepalive_timeout_ms", patience_ms),
    ]


def _pem(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{what} = {path}: {error.strerror}. Fix: give a PEM file that can be read.") from error
