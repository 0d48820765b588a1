"""A device that writes down every call to another one."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar, final

from torch import Tensor

from mho.errors import DataError, DeviceFault
from mho.lab import clock
from mho.lab.protocol import Calibration, Capabilities, Conductances, Device, Health, ProgramReport, Readout
from mho.lab.record import frames
from mho.lab.record.calls import Key, Named, Places, capabilities_of, digest, tell, tell_error

Answer = TypeVar("Answer")


@final
class Recorder:
    """``device``, every call to which is appended to the file ``path`` before its answer is given on.

    A recording that exists is continued: that is a new life of the host, and a frame that its former life left torn
    is cut off (``dropped_bytes``). Errors are recorded and raised on. ``inputs``: ``"whole"`` keeps the tensors that
    were sent, which a bug report and a twin need; ``"digest"`` only their digests, half the size. A frame is handed
    to the operating system in one piece before the call returns: a killed process loses no answer that it got.
    ``sync``: also wait for the disk, which a loss of power needs.

    Raises :class:`DataError` where the file is no recording, damaged, of another device, or cannot be written.
    """

    def __init__(
        self,
        device: Device,
        path: str | os.PathLike[str],
        *,
        inputs: Literal["whole", "digest"] = "whole",
        sync: bool = False,
    ) -> None:
        if inputs not in ("whole", "digest"):
            raise DataError(f"inputs = {inputs!r}: a recording keeps 'whole' inputs or a 'digest'. Fix: choose one.")
        self._device = device
        self._path = Path(path)
        self._whole = inputs == "whole"
        self._sync = sync
        self._lock = threading.Lock()
        self._places = Places()
        self._calls = 0
        can = device.capabilities()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream: BinaryIO | None = open(self._path, "a+b", buffering=0)  # noqa: SIM115 - open until close()
        except OSError as error:
            raise _unwritten(self._path, error) from error
        try:
            self._life, self.dropped_bytes = _resume(self._stream, self._path, can)
            told, _ = tell(can)
            self._append({"kind": "life", "life": self._life, "capabilities": told, "at_s": time.time()}, [])
        except BaseException:
            self._stream.close()
            raise

    @property
    def life(self) -> int:
        """How often this recording was continued; 0 for a new one."""
        return self._life

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def capabilities(self) -> Capabilities:
        """What the device says."""
        return self._device.capabilities()

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Write a tile."""
        sent = [("targets_uS", targets_uS)] + ([] if mask is None else [("mask", mask)])
        return self._call(
            lambda p: p.of_operation("program", operation),
            {"tile": tile},
            sent,
            lambda: self._device.program(tile, targets_uS, operation=operation, mask=mask),
        )

    def read(self, tile: int) -> Conductances:
        """Read a tile back."""
        return self._call(lambda p: p.of_order("read", tile), {"tile": tile}, [], lambda: self._device.read(tile))

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """Multiply."""
        return self._call(
            lambda p: p.of_operation("mvm", operation),
            {"tile": tile, "full_scale_uA": full_scale_uA, "repeats": repeats},
            [("inputs_V", inputs_V)],
            lambda: self._device.mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats),
        )

    def calibrate(self) -> Calibration:
        """Let the device calibrate itself."""
        return self._call(lambda p: p.of_order("calibrate"), {}, [], self._device.calibrate)

    def health(self) -> Health:
        """How the device is."""
        return self._call(lambda p: p.of_order("health"), {}, [], self._device.health)

    def wait_until(self, time_s: float) -> Health:
        """Let the device's clock run on."""
        return self._call(
            lambda p: p.of_order("wait"), {"time_s": time_s}, [], lambda: clock.wait_until(self._device, time_s)
        )

    def close(self) -> None:
        """Close the device, then the file."""
        self._device.close()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _call(
        self, name: Callable[[Places], Key], arguments: Mapping[str, Any], sent: Named, call: Callable[[], Answer]
    ) -> Answer:
        with self._lock:
            key = name(self._places)
            number = self._calls
            self._calls += 1
        header: frames.Header = {
            "kind": "call",
            "life": self._life,
            "number": number,
            "key": key,
            "arguments": arguments,
        }
        kept = [(f"in.{n}", t) for n, t in sent] if self._whole else []
        header["digests"] = {} if self._whole else {n: digest(t) for n, t in sent}
        header["at_s"] = time.time()
        started_s = time.perf_counter()
        try:
            answer = call()
        except Exception as error:
            took_s = time.perf_counter() - started_s
            self._append({**header, "took_s": took_s, "error": tell_error(error)}, kept)
            raise
        took_s = time.perf_counter() - started_s
        told, tensors = tell(answer)
        self._append({**header, "took_s": took_s, "answer": told}, kept + [(f"out.{n}", t) for n, t in tensors])
        return answer

    def _append(self, header: frames.Header, tensors: Named) -> None:
        frame = frames.pack(header, tensors)
        with self._lock:
            stream = self._stream
            if stream is None:
                raise DeviceFault(f"{self._path}: the recording was closed. Fix: connect and record anew.")
            try:
                written = stream.write(frame)
                if written != len(frame):
                    os.truncate(stream.fileno(), os.fstat(stream.fileno()).st_size - written)
                    raise OSError("no room for the whole frame")
                if self._sync:
                    os.fsync(stream.fileno())
            except OSError as error:
                raise _unwritten(self._path, error) from error


def _resume(stream: BinaryIO, path: Path, can: Capabilities) -> tuple[int, int]:
    """Number of this life and how many bytes were cut off; writes the magic line of a new file."""
    size = os.fstat(stream.fileno()).st_size
    end, life = len(frames.MAGIC), 0
    for frame in frames.scan(stream, str(path)):
        end = frame.end
        if frame.header["kind"] == "life":
            life += 1
            _same_device(capabilities_of(frame.header["capabilities"]), can, path)
    if size < len(frames.MAGIC):
        os.truncate(stream.fileno(), 0)
        stream.write(frames.MAGIC)
        return life, size
    os.truncate(stream.fileno(), end)
    return life, size - end


def _same_device(then: Capabilities, now: Capabilities, path: Path) -> None:
    for key in ("vendor", "model", "serial", "tiles", "rows", "cols"):
        old, new = getattr(then, key), getattr(now, key)
        if old != new:
            raise DataError(
                f"{path}: a recording of a device with {key} = {old!r}, this one has {new!r}. "
                "Fix: record to another file."
            )


def _unwritten(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: the recording cannot be written ({error.strerror or error}); what it held is whole. "
        "Fix: choose a folder that is writable and whose disk has room."
    )
