"""A device that answers from a recording, to the same bits."""

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, final

from torch import Tensor

from mho.errors import DataError, DeviceFault, RangeError, nearest
from mho.lab.protocol import Calibration, Capabilities, Conductances, Health, ProgramReport, Readout
from mho.lab.record import frames
from mho.lab.record.calls import (
    ANSWERS,
    NAMED,
    Key,
    Named,
    Places,
    capabilities_of,
    digest,
    first_difference,
    retell,
    retell_error,
    spoken,
)

MOST_NAMES = 1000
"""So many names are searched for the one nearest to a name that is missing."""


class NotRecorded(RangeError):
    """The recording holds no such call, or another one under its name. Trying again does not help."""


@final
class ReplayDevice:
    """The device of the recording ``path``. Payloads are read when they are asked for; memory holds offsets only.

    ``program`` and ``mvm`` are found by method and operation, the others by the operation before them and their
    number since (:class:`~mho.lab.record.calls.Places`). Of a call that was recorded more than once (retries; a host
    that was killed and resumed) the one that was asked last counts: its answer is the one that the host went on with,
    also where the answer to an earlier attempt came in later. Of calls before the first operation of a life the first
    counts: those of later lives belong to no uninterrupted run.

    ``strict``: tile, settings and inputs must be those recorded. ``boot``: what ``health`` gives for ``Health.boot``,
    ``None`` what was recorded; a fixed one hides restarts of the recorded device, which a host that was resumed in
    between saw at another time than a host that runs through.

    Raises :class:`DataError` where the file is no recording or damaged, :class:`NotRecorded` for a call that is not
    in it, or differs. ``dropped_bytes``: length of a torn frame at the end.
    """

    def __init__(self, path: str | os.PathLike[str], strict: bool = True, *, boot: str | None = None) -> None:
        self._path = Path(path)
        self._strict = strict
        self._boot = boot
        self._lock = threading.Lock()
        self._places = Places()
        self._answered = "none"
        try:
            self._stream: BinaryIO | None = self._path.open("rb")
        except OSError as error:
            raise DataError(f"{self._path}: {error.strerror or error}. Fix: give a file of Recorder.") from error
        try:
            self._capabilities, self._index, end = _index(self._stream, self._path)
            self._size = os.fstat(self._stream.fileno()).st_size
        except BaseException:
            self._stream.close()
            raise
        self.dropped_bytes = self._size - end

    def __len__(self) -> int:
        """How many different calls it can answer."""
        return len(self._index)

    def __enter__(self) -> "ReplayDevice":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def capabilities(self) -> Capabilities:
        """What the device said when it was connected last."""
        self._open()
        return self._capabilities

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """The report of this programming."""
        sent = [("targets_uS", targets_uS)] + ([] if mask is None else [("mask", mask)])
        report: ProgramReport = self._answer(self._named("program", operation), {"tile": tile}, sent)
        return report

    def read(self, tile: int) -> Conductances:
        """The read of this tile at this place of the run."""
        answer: Conductances = self._answer(self._ordered("read", tile), {"tile": tile}, [])
        return answer

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """The readout of this multiplication."""
        arguments = {"tile": tile, "full_scale_uA": full_scale_uA, "repeats": repeats}
        readout: Readout = self._answer(self._named("mvm", operation), arguments, [("inputs_V", inputs_V)])
        return readout

    def calibrate(self) -> Calibration:
        """The calibration at this place of the run."""
        answer: Calibration = self._answer(self._ordered("calibrate"), {}, [])
        return answer

    def health(self) -> Health:
        """The health at this place of the run."""
        answer: Health = self._answer(self._ordered("health"), {}, [])
        return answer if self._boot is None else replace(answer, boot=self._boot)

    def wait_until(self, time_s: float) -> Health:
        """The wait at this place of the run; it takes no time."""
        answer: Health = self._answer(self._ordered("wait"), {"time_s": time_s}, [])
        return answer if self._boot is None else replace(answer, boot=self._boot)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None

    def _named(self, method: str, operation: str) -> Key:
        with self._lock:
            return self._places.of_operation(method, operation)

    def _ordered(self, method: str, tile: int | None = None) -> Key:
        with self._lock:
            return self._places.of_order(method, tile)

    def _open(self) -> BinaryIO:
        if self._stream is None:
            raise DeviceFault(f"replay of {self._path}: it was closed. Fix: open it again.")
        return self._stream

    def _answer(self, key: Key, arguments: Mapping[str, Any], sent: Named) -> Any:
        with self._lock:
            stream = self._open()
            if key not in self._index:
                raise self._missing(key)
            frame = frames.frame_at(stream, self._index[key], self._size, str(self._path))
            assert frame is not None  # it was whole when the index was made
            tensors = frames.load(stream, frame, str(self._path))
            self._answered = spoken(key)
        then = {n.removeprefix("in."): t for n, t in tensors.items() if n.startswith("in.")}
        if self._strict:
            self._compare(key, frame.header, arguments, sent, then)
        if "error" in frame.header:
            raise retell_error(frame.header["error"])
        given = {n.removeprefix("out."): t for n, t in tensors.items() if n.startswith("out.")}
        return retell(ANSWERS[key[0]], frame.header["answer"], given)

    def _compare(
        self, key: Key, header: frames.Header, arguments: Mapping[str, Any], sent: Named, then: dict[str, Tensor]
    ) -> None:
        for name, value in arguments.items():
            if header["arguments"][name] != value:
                raise self._differs(key, f"{name} = {value!r}, recorded {header['arguments'][name]!r}")
        names = set(then) | set(header["digests"])
        odd = names.symmetric_difference(n for n, _ in sent)
        if odd:
            raise self._differs(key, f"{min(odd)} is {'missing' if min(odd) in names else 'given'}, and was not before")
        for name, tensor in sent:
            if name in then:
                difference = first_difference(name, tensor, then[name])
            else:
                same = digest(tensor) == header["digests"][name]
                difference = "" if same else f"{name} has another digest (only digests were recorded)"
            if difference:
                raise self._differs(key, difference)

    def _differs(self, key: Key, difference: str) -> NotRecorded:
        return NotRecorded(
            f"replay of {self._path}: {spoken(key)}: {difference}. The run is not the one that was recorded. "
            "Fix: the same code, seeds and settings; strict=False answers without comparing."
        )

    def _missing(self, key: Key) -> NotRecorded:
        method, _, operation, _ = key
        names = [k[2] for k in self._index if k[0] == method][-MOST_NAMES:]
        hint = nearest(operation, set(names)) if names and len(set(names)) > 3 else f"Known: {sorted(set(names))}."
        return NotRecorded(
            f"replay of {self._path}: {spoken(key)} is not among its {len(self._index)} calls (last answered: "
            f"{self._answered}). {hint} Fix: replay the run that was recorded, or record this one."
        )


def _index(stream: BinaryIO, path: Path) -> tuple[Capabilities, dict[Key, int], int]:
    can: Capabilities | None = None
    offsets: dict[Key, int] = {}
    asked: dict[Key, tuple[int, int]] = {}
    end = len(frames.MAGIC)
    for frame in frames.scan(stream, str(path)):
        end, header = frame.end, frame.header
        if header["kind"] == "life":
            can = capabilities_of(header["capabilities"])
            continue
        method, tile, operation, ordinal = header["key"]
        key, when = (method, tile, operation, ordinal), (header["life"], header["number"])
        first_counts = method not in NAMED and not operation
        if key not in asked or (when < asked[key] if first_counts else when > asked[key]):
            offsets[key], asked[key] = frame.offset, when
    if can is None:
        raise DataError(f"{path}: a recording without a single whole frame. Fix: record again.")
    return can, offsets, end
