"""The one thread that touches the device: calls one after the other, each operation once."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

from torch import Tensor

from mho.errors import DeviceBusyError, RangeError
from mho.lab import checks, clock
from mho.lab.protocol import Capabilities, Device, NotProgrammed
from mho.lab.remote import messages, replies, requests
from mho.lab.remote.answers import Answers, mark_of
from mho.lab.remote.limits import Limits


@dataclass(frozen=True)
class _Written:
    """By whom and under which operation a tile was written last."""

    client: str
    operation: str


@final
class Worker:
    """``device`` behind a queue. Requests are read and checked in the caller's thread, while the device works.

    What each tile holds is known by the name of the operation that wrote it. A client says what it believes to be
    there; where another client has written since, it is told so and does not get answers from foreign weights.
    """

    def __init__(self, device: Device, limits: Limits) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mho device")
        self._answers = Answers(limits.answers_bytes)
        self._on_tile: dict[int, _Written] = {}
        can = self._thread.submit(device.capabilities).result()
        self.can: Capabilities = replace(
            can, max_batch=min(can.max_batch, limits.batch), max_wait_s=min(can.max_wait_s, limits.wait_s)
        )

    def program(self, client: str, raw: bytes) -> Future[bytes]:
        """Program a tile; an operation that comes again is not carried out again, unless the tile has lost it."""
        call = requests.read_program(raw, self.can)
        checks.program(self.can, call.tile, call.targets_uS, call.mask)
        mark = mark_of(call.tile, _bytes(call.targets_uS), None if call.mask is None else _bytes(call.mask))
        key = client, _program(call.tile), call.operation

        def write() -> bytes:
            before = self._on_tile.get(call.tile)
            if before is not None and before.client != client:
                self._answers.forget(key[1])  # the other's writing has undone them
            known = self._answers.find(key, mark)
            if known is not None:
                return replies.as_repeated(known)
            if call.mask is not None:
                self._expect(call.tile, call.expects)
            self._on_tile[call.tile] = _Written(client, call.operation)
            try:
                with self._losses(call.tile):
                    report = self._device.program(call.tile, call.targets_uS, operation=call.operation, mask=call.mask)
            except (RangeError, DeviceBusyError):
                # Not carried out: the tile holds what it held. After other errors nobody knows.
                self._restore(call.tile, before)
                raise
            answer = replies.program_reply(report)
            self._answers.keep(key, mark, answer)
            return answer

        return self._thread.submit(write)

    def read(self, client: str, raw: bytes) -> Future[bytes]:
        """Read a tile back."""
        call = requests.read_read(raw)
        checks.tile_number(self.can, call.tile)

        def look() -> bytes:
            self._expect(call.tile, call.expects)
            with self._losses(call.tile):
                return replies.conductances_reply(self._device.read(call.tile))

        return self._thread.submit(look)

    def mvm(self, client: str, raw: bytes) -> Future[bytes]:
        """Multiply; an operation that comes again is answered from memory while its answer is kept."""
        call = requests.read_mvm(raw, self.can)
        checks.mvm(self.can, call.tile, call.inputs_V, call.full_scale_uA, call.repeats)
        mark = mark_of(call.tile, call.full_scale_uA, call.repeats, _bytes(call.inputs_V))

        def multiply() -> bytes:
            known = self._answers.find((client, "mvm", call.operation), mark)
            if known is not None:
                return known
            self._expect(call.tile, call.expects)
            with self._losses(call.tile):
                readout = self._device.mvm(
                    call.tile,
                    call.inputs_V,
                    operation=call.operation,
                    full_scale_uA=call.full_scale_uA,
                    repeats=call.repeats,
                )
            answer = replies.mvm_reply(readout)
            self._answers.keep((client, "mvm", call.operation), mark, answer)
            return answer

        return self._thread.submit(multiply)

    def calibrate(self, client: str, raw: bytes) -> Future[bytes]:
        """Let the device calibrate itself."""
        messages.read_ask(raw)
        return self._thread.submit(lambda: replies.calibration_reply(self._device.calibrate()))

    def health(self, client: str, raw: bytes) -> Future[bytes]:
        """How the device is."""
        messages.read_ask(raw)
        return self._thread.submit(lambda: replies.health_reply(self._device.health()))

    def wait(self, client: str, raw: bytes) -> Future[bytes]:
        """Let the device's clock run on, within the limits of this server."""
        until_s = requests.read_wait(raw)
        checks.waits(self.can, until_s)

        def run() -> bytes:
            checks.wait(self.can, self._device.health().time_s, until_s)
            return replies.health_reply(clock.wait_until(self._device, until_s))

        return self._thread.submit(run)

    def stop(self) -> None:
        """Take no more calls; the one under way ends by itself. The device is left open: it is the owner's."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _expect(self, tile: int, operation: str) -> None:
        held = self._on_tile.get(tile)
        if operation and held is not None and held.operation != operation:
            raise NotProgrammed(
                f"tile {tile}: it holds operation {held.operation!r}, and not {operation!r}: another client has "
                "written it, or the last writing did not come through. Fix: program the tile again."
            )

    @contextmanager
    def _losses(self, tile: int) -> Iterator[None]:
        """When the device says that a tile holds nothing, nothing that was written there counts as done."""
        try:
            yield
        except NotProgrammed:
            self._on_tile.pop(tile, None)
            self._answers.forget(_program(tile))
            raise

    def _restore(self, tile: int, before: _Written | None) -> None:
        if before is None:
            self._on_tile.pop(tile, None)
        else:
            self._on_tile[tile] = before


def _program(tile: int) -> str:
    return f"program of tile {tile}"


def _bytes(t: Tensor) -> bytes:
    return t.numpy().tobytes()
