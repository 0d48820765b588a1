"""A fault injector around any device, deterministic by seed: what goes wrong on a real bench, on purpose.

What happens to a call depends on the seed, the method, the name of the operation (or the tile) and how often that
call came before; not on the clock and not on other calls. A run that is repeated meets the same faults. What lasts
(gain, stuck lines, a lost connection) lives as long as the injector.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar, final

import torch
from torch import Tensor

from mho.errors import RangeError, TransportError
from mho.lab import clock
from mho.lab.fault_plan import (
    Draws,
    Fault,
    FaultPlan,
    amplify,
    cut_short,
    draw,
    drive,
    pick,
    put_nan,
    read_through,
    stick,
)
from mho.lab.protocol import (
    Calibration,
    Capabilities,
    CellStatus,
    Conductances,
    Device,
    Health,
    ProgramReport,
    Readout,
)
from mho.rng import uniforms

__all__ = ["Fault", "FaultPlan", "FaultyDevice"]

Answer = TypeVar("Answer")


@dataclass(eq=False)
class _Lasting:
    """What stays broken, and the counters."""

    attempts: dict[tuple[str, str], int] = field(default_factory=dict)
    injected: dict[str, int] = field(default_factory=dict)
    rows: set[tuple[int, int]] = field(default_factory=set)
    cols: set[tuple[int, int]] = field(default_factory=set)
    gain: float = 1.0
    products: int = 0
    lost_calls: int = 0


@final
class FaultyDevice:
    """``device`` with the faults of ``plan``.

    ``injected`` counts what was done, by kind; ``on_fault`` gets every fault, before it takes effect. ``capabilities``
    and ``close`` meet no faults, apart from a lost connection for the former. ``sleep`` takes seconds.
    """

    def __init__(
        self,
        device: Device,
        plan: FaultPlan,
        seed: int = 0,
        *,
        on_fault: Callable[[Fault], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._device = device
        self._can = device.capabilities()
        self._plan = plan
        self._seed = seed
        self._on_fault = on_fault
        self._sleep = sleep
        self._lock = threading.Lock()
        for what, lines, count in (("row", plan.stuck_rows, self._can.rows), ("col", plan.stuck_cols, self._can.cols)):
            for tile, line in lines:
                if not (0 <= tile < self._can.tiles and 0 <= line < count):
                    raise RangeError(
                        f"stuck_{what}s: tile {tile}, {what} {line}: the device has {self._can.tiles} tiles of {count} "
                        f"{what}s. Fix: name a line that it has."
                    )
        self._lasting = _Lasting(rows=set(plan.stuck_rows), cols=set(plan.stuck_cols))

    @property
    def injected(self) -> Mapping[str, int]:
        """How many faults of each kind so far."""
        return MappingProxyType(self._lasting.injected)

    @property
    def gain(self) -> float:
        """The gain of the readout now: steps and drift since the last calibration."""
        return self._lasting.gain * math.exp(-self._plan.drift_per_call * self._lasting.products)

    def capabilities(self) -> Capabilities:
        """What the device says."""
        self._disconnected("capabilities", "", 0)
        return self._device.capabilities()

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Write a tile; the report may be damaged, its status does not know of stuck lines."""
        report, draws, attempt = self._call(
            "program",
            operation,
            lambda: self._device.program(tile, targets_uS, operation=operation, mask=mask),
        )
        if report.achieved_uS is None:
            return report
        seen = self._seen(tile, report.achieved_uS)
        valid = torch.ones_like(seen, dtype=torch.bool)
        achieved, valid = self._damage(seen, valid, draws, "program", operation, attempt)
        status = report.status.masked_fill(~valid, int(CellStatus.UNKNOWN))
        return replace(report, achieved_uS=achieved, status=status)

    def read(self, tile: int) -> Conductances:
        """Read back through the gain and the stuck lines."""
        answer, draws, attempt = self._call("read", str(tile), lambda: self._device.read(tile))
        seen = self._seen(tile, answer.g_uS)
        g, valid = self._damage(seen, answer.valid, draws, "read", str(tile), attempt)
        return replace(answer, g_uS=g, valid=valid)

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """Multiply through the gain and the stuck lines; the answer may be damaged."""

        driven_V = drive(inputs_V, self._lines(self._lasting.rows, tile), self._plan.stuck_V)
        readout, draws, attempt = self._call(
            "mvm",
            operation,
            lambda: self._device.mvm(tile, driven_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats),
        )
        currents, held = amplify(readout.currents_uA, self.gain, full_scale_uA)
        stuck_uA = max(-full_scale_uA, min(self._plan.stuck_uA, full_scale_uA))
        currents = stick(currents, readout.valid, self._lines(self._lasting.cols, tile), stuck_uA)
        currents, valid = self._damage(currents, readout.valid, draws, "mvm", operation, attempt)
        flags = (*readout.flags, "saturated") if held and "saturated" not in readout.flags else readout.flags
        self._break(tile, draws, operation, attempt)
        return replace(readout, currents_uA=currents, valid=valid, flags=flags)

    def calibrate(self) -> Calibration:
        """Let the device calibrate itself; the gain is 1 again."""
        answer, _, _ = self._call("calibrate", "", self._device.calibrate)
        with self._lock:
            self._lasting.gain, self._lasting.products = 1.0, 0
        return answer

    def health(self) -> Health:
        """What the device says; it knows nothing of these faults."""
        answer, _, _ = self._call("health", "", self._device.health)
        return answer

    def wait_until(self, time_s: float) -> Health:
        """Let the clock run on; nothing of these faults ages with it."""
        answer, _, _ = self._call("wait", repr(time_s), lambda: clock.wait_until(self._device, time_s))
        return answer

    def close(self) -> None:
        """Close the device."""
        self._device.close()

    def _call(self, method: str, operation: str, call: Callable[[], Answer]) -> tuple[Answer, Draws, int]:
        with self._lock:
            attempt = self._lasting.attempts.get((method, operation), 0)
            self._lasting.attempts[method, operation] = attempt + 1
        self._disconnected(method, operation, attempt)
        draws = draw(self._plan, self._seed, method, operation, attempt)
        if "disconnect" in draws.kinds:
            self._note("disconnect", method, operation, attempt, f"{self._plan.disconnect_calls} calls")
            with self._lock:
                self._lasting.lost_calls = self._plan.disconnect_calls - 1
            raise _lost(method, operation, "the connection broke before the call")
        if "drop_before" in draws.kinds:
            self._note("drop_before", method, operation, attempt)
            raise _lost(method, operation, "the call was lost on its way")
        answer = call()
        if "duplicate" in draws.kinds:
            self._note("duplicate", method, operation, attempt)
            call()
        if "delay" in draws.kinds:
            self._note("delay", method, operation, attempt, f"{self._plan.delay_s} s")
            self._sleep(self._plan.delay_s)
        if "drop_after" in draws.kinds:
            self._note("drop_after", method, operation, attempt)
            raise _lost(method, operation, "the answer was lost on its way")
        return answer, draws, attempt

    def _disconnected(self, method: str, operation: str, attempt: int) -> None:
        with self._lock:
            if not self._lasting.lost_calls:
                return
            self._lasting.lost_calls -= 1
        self._note("disconnected", method, operation, attempt)
        raise _lost(method, operation, "there is no connection")

    def _damage(
        self, values: Tensor, valid: Tensor, draws: Draws, method: str, operation: str, attempt: int
    ) -> tuple[Tensor, Tensor]:
        plan = self._plan
        for kind, share in (("nan_silent", plan.nan_share), ("nan_flagged", plan.nan_share)):
            if kind in draws.kinds:
                self._note(kind, method, operation, attempt, f"{share} of the numbers")
                chance = uniforms(tuple(values.shape), draws.seed, kind)
                values, valid = put_nan(values, valid, chance, share, flagged=kind == "nan_flagged")
        if "short" in draws.kinds:
            self._note("short", method, operation, attempt, f"{plan.short_share} of the vectors")
            values, valid = cut_short(values, valid, plan.short_share)
        return values, valid

    def _break(self, tile: int, draws: Draws, operation: str, attempt: int) -> None:
        """What breaks for good, from the next call on."""
        lasting = self._lasting
        for kind, lines, count in (
            ("stuck_row", lasting.rows, self._can.rows),
            ("stuck_col", lasting.cols, self._can.cols),
        ):
            if kind in draws.kinds:
                line = pick(count, draws.seed, kind)
                self._note(kind, "mvm", operation, attempt, f"tile {tile}, line {line}")
                with self._lock:
                    lines.add((tile, line))
        with self._lock:
            lasting.products += 1
            if "gain_step" in draws.kinds:
                lasting.gain *= 1.0 + self._plan.gain_step_rel
        if "gain_step" in draws.kinds:
            self._note("gain_step", "mvm", operation, attempt, f"gain {self.gain:.6g}")

    def _seen(self, tile: int, g_uS: Tensor) -> Tensor:
        rows, cols = self._lines(self._lasting.rows, tile), self._lines(self._lasting.cols, tile)
        if rows or cols:
            g_uS = read_through(g_uS, rows, cols, self._plan.stuck_V, self._plan.stuck_uA, self._can.v_max_V)
        return g_uS * self.gain

    def _lines(self, lines: set[tuple[int, int]], tile: int) -> list[int]:
        with self._lock:
            return sorted(line for t, line in lines if t == tile)

    def _note(self, kind: str, method: str, operation: str, attempt: int, detail: str = "") -> None:
        with self._lock:
            self._lasting.injected[kind] = self._lasting.injected.get(kind, 0) + 1
        if self._on_fault is not None:
            self._on_fault(Fault(kind, method, operation, attempt, detail))


def _lost(method: str, operation: str, why: str) -> TransportError:
    name = f" {operation!r}" if operation else ""
    return TransportError(f"injected fault, {method}{name}: {why}. Fix: try again under the same name.")
