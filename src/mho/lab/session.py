"""The policies, written once for all devices: limits, time-outs, retries, breaker, chunks, budget, log.

A session is itself a :class:`~mho.lab.protocol.Device`, so that a recorder, or another session, can stand around it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar, final

import torch
from torch import Tensor

from mho.errors import DeviceFault, TransportError
from mho.lab import checks, clock
from mho.lab.log import EventLog
from mho.lab.policy import Budget, Policy
from mho.lab.protocol import (
    Calibration,
    Capabilities,
    Conductances,
    Device,
    Health,
    NotProgrammed,
    ProgramReport,
    Readout,
)

Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class _Written:
    """What a tile should hold: its last whole writing, and the masked ones since."""

    operation: str
    targets_uS: Tensor
    masks: tuple[tuple[str, Tensor, Tensor], ...] = ()


@final
class Session:
    """``device`` behind the policies of ``policy``, within ``budget``, with every fault in ``log``.

    What is out of range is refused before it is sent (:class:`~mho.errors.RangeError`). Calls whose answer does not
    come are tried again under the same operation, so that a device that has carried them out does not do so twice. A
    device that was started anew has lost its tiles: they are written again. Batches are cut to the device's size.
    Numbers that did not come, or are not finite, are NaN and invalid, and counted; nothing is filled with zeros.

    Raises :class:`TransportError` when the device has not come back within ``policy.give_up_s``,
    :class:`DeviceFault` when it answers that it cannot, :class:`BudgetError` before a call beyond the budget.
    """

    def __init__(
        self,
        device: Device,
        policy: Policy | None = None,
        *,
        budget: Budget | None = None,
        log: EventLog | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.device = device
        self.policy = policy or Policy()
        self.budget = budget or Budget()
        self.log = log or EventLog()
        self._sleep = sleep
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mho-lab")
        self._failures = 0
        self._boot: str | None = None
        self._written: dict[int, _Written] = {}
        self._can: Capabilities | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def capabilities(self) -> Capabilities:
        """What the device can do (asked once)."""
        if self._can is None:
            self._can = self._call("other", "capabilities", self.device.capabilities)
            self._boot = self._call("other", "health", self.device.health).boot
        return self._can

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Write a tile; remembered, so that it can be restored."""
        checks.program(self.capabilities(), tile, targets_uS, mask)
        report = self._call(
            "program",
            operation,
            lambda: self.device.program(tile, targets_uS, operation=operation, mask=mask),
            tile=tile if mask is not None else None,
        )
        shape = tuple(targets_uS.shape)
        if tuple(report.status.shape) != shape or (
            report.achieved_uS is not None and tuple(report.achieved_uS.shape) != shape
        ):
            raise DeviceFault(f"{operation}: the report of tile {tile} has another shape than the tile {list(shape)}.")
        if report.achieved_uS is not None:
            missing = int((~torch.isfinite(report.achieved_uS)).sum())
            if missing:  # the cells are written; only their read-back is not known
                self.log.write("invalid", operation, f"{missing} cells were not read back", count=missing)
        self._remember(tile, targets_uS, operation, mask)
        return report

    def read(self, tile: int) -> Conductances:
        """Read a tile back; cells that are not finite are invalid."""
        checks.tile_number(self.capabilities(), tile)
        found = self._call("other", f"read tile {tile}", lambda: self.device.read(tile), tile=tile)
        good = found.valid & torch.isfinite(found.g_uS)
        return replace(found, g_uS=_masked(found.g_uS, good), valid=good)

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """All columns for every input vector, in chunks of the device's size."""
        can = self.capabilities()
        if inputs_V.dim() != 2 or len(inputs_V) <= can.max_batch:
            checks.mvm(can, tile, inputs_V, full_scale_uA, repeats)
            return self._chunk(tile, inputs_V, operation, full_scale_uA, repeats)
        pieces = inputs_V.split(can.max_batch)
        for piece in pieces:
            checks.mvm(can, tile, piece, full_scale_uA, repeats)
        answers = [
            self._chunk(tile, piece, f"{operation}/{k}", full_scale_uA, repeats) for k, piece in enumerate(pieces)
        ]
        last = answers[-1]
        return replace(
            last,
            operation=operation,
            currents_uA=torch.cat([a.currents_uA for a in answers], 1),
            valid=torch.cat([a.valid for a in answers], 1),
            flags=tuple(dict.fromkeys(flag for a in answers for flag in a.flags)),
        )

    def calibrate(self) -> Calibration:
        """Let the device calibrate itself."""
        done = self._call("other", "calibrate", self.device.calibrate)
        self.log.write("calibrated", "calibrate", f"{done.identity}, residual {done.residual}")
        return done

    def health(self) -> Health:
        """How the device is now."""
        return self._call("other", "health", self.device.health)

    def wait_until(self, time_s: float) -> Health:
        """Let the device's clock run on; a wait whose answer was lost is not waited for twice."""
        checks.waits(self.capabilities(), time_s)
        found = self._call("other", f"wait until {time_s:.9g}", lambda: clock.wait_until(self.device, time_s))
        self.log.write("waited", f"wait until {time_s:.9g}", f"the device's clock stands at {found.time_s:.9g} s")
        return found

    def close(self) -> None:
        """Let go of the device; a device that is already gone is not an error."""
        with contextlib.suppress(TransportError):
            self.device.close()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _chunk(self, tile: int, inputs_V: Tensor, operation: str, full_scale_uA: float, repeats: int) -> Readout:
        """One call, asked again while too many of its numbers are missing; what came once is kept."""
        shape = (repeats, len(inputs_V), self.capabilities().cols)
        merged: Readout | None = None
        for attempt in range(self.policy.retries + 1):
            name = operation if attempt == 0 else f"{operation}/again {attempt}"
            answer = self._call(
                "mvm",
                name,
                partial(self.device.mvm, tile, inputs_V, operation=name, full_scale_uA=full_scale_uA, repeats=repeats),
                tile=tile,
                vectors=repeats * len(inputs_V),
            )
            answer = self._whole(answer, shape, name, attempt)
            merged = answer if merged is None else _merge(merged, answer)
            if merged.invalid_share <= self.policy.max_invalid:
                break
        assert merged is not None
        return replace(merged, operation=operation)

    def _whole(self, answer: Readout, shape: tuple[int, int, int], name: str, attempt: int) -> Readout:
        """The answer in the shape that was asked for; what is missing or not finite is NaN, invalid and logged."""
        currents, valid = answer.currents_uA, answer.valid
        if tuple(currents.shape) != shape:
            fits = currents.dim() == 3 and all(a <= b for a, b in zip(currents.shape, shape, strict=True))
            if not fits or valid.shape != currents.shape:
                raise DeviceFault(
                    f"{name}: the answer has shape {list(currents.shape)}, asked was {list(shape)}. Way out: the "
                    "driver is at fault; mho.testing.check_device tells where."
                )
            r, n, c = currents.shape
            whole = torch.full(shape, torch.nan)
            known = torch.zeros(shape, dtype=torch.bool)
            whole[:r, :n, :c], known[:r, :n, :c] = currents, valid
            currents, valid = whole, known
        good = valid & torch.isfinite(currents)
        missing = int((~good).sum())
        if missing:
            detail = f"{missing} of {good.numel()} numbers are missing or not finite"
            self.log.write("invalid", name, detail, attempt=attempt, count=missing)
        return replace(answer, currents_uA=_masked(currents, good), valid=good)

    def _call(
        self, kind: str, operation: str, send: Callable[[], Answer], *, tile: int | None = None, vectors: int = 0
    ) -> Answer:
        """Send with time-out; try again, wait for the device, restore ``tile`` as the policy says."""
        attempt = 0
        while True:
            self.budget.take(kind, vectors)
            began = time.monotonic()
            try:
                answer = self._timed(send)
            except NotProgrammed as error:
                if tile is None or tile not in self._written or attempt > self.policy.retries:
                    raise
                self.log.write("fault", operation, str(error), attempt=attempt)
                self._restore(tile)
            except TransportError as error:
                self._failed("timeout" if isinstance(error, CallTimeout) else "transport", operation, error, attempt)
            except DeviceFault as error:
                self.log.write("fault", operation, str(error), attempt=attempt)
                raise
            else:
                self._failures = 0
                return answer
            finally:
                self.budget.spent(time.monotonic() - began)
            attempt += 1
            self.log.write("retry", operation, f"attempt {attempt + 1}", attempt=attempt)

    def _timed(self, send: Callable[[], Answer]) -> Answer:
        limit = self.policy.timeout_s or (self._can.timeout_s if self._can else 30.0)
        future = self._worker.submit(send)
        try:
            return future.result(limit)
        except FutureTimeout:
            if future.done():  # the driver itself raised a TimeoutError
                raise TransportError("the driver's own time-out passed") from None
            # The call may still run in its thread: a new thread serves the next ones.
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="mho-lab")
            raise CallTimeout(f"no answer within {limit:.3g} s") from None

    def _failed(self, kind: str, operation: str, error: Exception, attempt: int) -> None:
        """Pause before the next attempt; beyond the retries, wait for the device with the breaker open."""
        self._failures += 1
        self.log.write(kind, operation, str(error), attempt=attempt)
        if attempt > 2 * self.policy.retries:  # the device is well, and this call still fails
            raise TransportError(
                f"{operation}: {error}; {attempt + 1} attempts. Way out: look at the log; a longer "
                "Policy(timeout_s=...), "
                "or more retries."
            ) from error
        if attempt < self.policy.retries and self._failures < self.policy.breaker_failures:
            self._sleep(self.policy.pause_s(attempt))
            return
        self.log.write("breaker open", operation, f"{self._failures} failures in a row")
        for _ in self._pauses():
            try:
                health = self._timed(self.device.health)
            except TransportError:
                continue
            self._failures = 0
            self.log.write("breaker closed", operation, "the device answers again")
            if self._boot is not None and health.boot != self._boot:
                self.log.write("restarted", operation, f"boot {self._boot} -> {health.boot}")
            self._boot = health.boot
            return
        raise TransportError(
            f"{operation}: {error}. The device has not answered for {self.policy.give_up_s:.3g} s. Way out: start it "
            "again and resume; a longer Policy(give_up_s=...)."
        ) from error

    def _pauses(self) -> Iterator[None]:
        waited = 0.0
        while waited < self.policy.give_up_s:
            self._sleep(self.policy.breaker_pause_s)
            waited += self.policy.breaker_pause_s
            yield

    def _remember(self, tile: int, targets_uS: Tensor, operation: str, mask: Tensor | None) -> None:
        if mask is None:
            self._written[tile] = _Written(operation, targets_uS.clone())
            return
        known = self._written.get(tile)
        if known is not None:
            entry = (operation, targets_uS.clone(), mask.clone())
            self._written[tile] = replace(known, masks=(*known.masks, entry))

    def _restore(self, tile: int) -> None:
        """Write a tile again under the operations that had written it."""
        known = self._written[tile]
        for operation, targets, mask in ((known.operation, known.targets_uS, None), *known.masks):
            write = partial(self.device.program, tile, targets, operation=operation, mask=mask)
            self._call("program", operation, write)
        self.log.write("restored", known.operation, f"tile {tile} was lost and is written again")


class CallTimeout(TransportError):
    """No answer within the time of one call."""


def _masked(values: Tensor, good: Tensor) -> Tensor:
    return torch.where(good, values, torch.full_like(values, torch.nan))


def _merge(first: Readout, second: Readout) -> Readout:
    """What came at first, completed by what came later."""
    return replace(
        second,
        currents_uA=torch.where(first.valid, first.currents_uA, second.currents_uA),
        valid=first.valid | second.valid,
        flags=tuple(dict.fromkeys((*first.flags, *second.flags))),
    )
