"""Drivers that are broken in one place each, for the conformance suite to catch."""

from dataclasses import replace

import torch
from torch import Tensor

from mho.errors import DeviceFault, RangeError, TransportError
from mho.hardware import load_hardware
from mho.lab import VirtualDevice, checks
from mho.lab.protocol import Calibration, Capabilities, Conductances, Health, ProgramReport, Readout


def chip(preset: str = "pcm-hermes", seed: int = 3, tiles: int = 3, rows: int = 24, cols: int = 16) -> VirtualDevice:
    return VirtualDevice(load_hardware(preset), seed, tiles=tiles, rows=rows, cols=cols)


class Wrapped:
    """A driver that passes everything on; its children are broken in one place each."""

    def __init__(self) -> None:
        self.inner = chip()

    def capabilities(self) -> Capabilities:
        return self.inner.capabilities()

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        return self.inner.program(tile, targets_uS, operation=operation, mask=mask)

    def read(self, tile: int) -> Conductances:
        return self.inner.read(tile)

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        return self.inner.mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)

    def calibrate(self) -> Calibration:
        return self.inner.calibrate()

    def health(self) -> Health:
        return self.inner.health()

    def wait_until(self, time_s: float) -> Health:
        return self.inner.wait_until(time_s)

    def close(self) -> None:
        self.inner.close()


class NameLess(Wrapped):
    def capabilities(self):
        return replace(super().capabilities(), serial="")


class Renamed(Wrapped):
    calls = 0

    def capabilities(self):
        self.calls += 1
        return replace(super().capabilities(), firmware=str(self.calls))


class Impatient(Wrapped):
    def capabilities(self):
        return replace(super().capabilities(), latency_s=11.0)


class Lossy(Wrapped):
    """Every call fails."""

    def program(self, tile, targets_uS, *, operation, mask=None):
        raise TransportError("the cable is loose")


class Misnamed(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), operation="x")


class MisnamedReadout(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        return replace(super().mvm(tile, inputs_V, **rest), operation="x")


class UnknownStatus(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        report = super().program(tile, targets_uS, operation=operation, mask=mask)
        return replace(report, status=report.status + 9)


class WideStatus(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        report = super().program(tile, targets_uS, operation=operation, mask=mask)
        return replace(report, status=report.status.long())


class BlindReport(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), achieved_uS=None)


class AlwaysRepeated(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), repeated=True)


class ReadsTransposed(Wrapped):
    def read(self, tile):
        found = super().read(tile)
        return replace(found, g_uS=found.g_uS.flip(0))


class ReadsSiemens(Wrapped):
    def read(self, tile):
        found = super().read(tile)
        return replace(found, g_uS=found.g_uS * 1e-6)


class Amperes(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        return replace(readout, currents_uA=readout.currents_uA * 1e-6)


class Doubles(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        return replace(readout, currents_uA=readout.currents_uA.double())


class RepeatsLast(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        return replace(readout, currents_uA=readout.currents_uA.transpose(0, 1))


class Backwards(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        return replace(readout, time_s=-readout.time_s)


class ZeroFilled(Wrapped):
    """A short answer that is filled up with zeros."""

    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        currents, valid = readout.currents_uA.clone(), readout.valid.clone()
        currents[:, -1:], valid[:, -1:] = 0.0, False
        return replace(readout, currents_uA=currents, valid=valid)


class SilentNaN(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        currents = readout.currents_uA.clone()
        currents[0, 0, 0] = torch.nan
        return replace(readout, currents_uA=currents)


class Reboots(Wrapped):
    calls = 0

    def health(self):
        self.calls += 1
        return replace(super().health(), boot=str(self.calls))


class KnowsNothing(Wrapped):
    def health(self):
        return replace(super().health(), programmed_tiles=())


class DeadOutside(Wrapped):
    def health(self):
        return replace(super().health(), dead_cols=((0, 16),))


class Forgets(Wrapped):
    """Calibration writes the array."""

    def calibrate(self):
        self.inner.program(0, self.inner.read(0).g_uS.flip(0).clamp(-10, 10), operation="calibration")
        return super().calibrate()


class StaleAtOnce(Wrapped):
    def calibrate(self):
        return replace(super().calibrate(), valid_s=0.0)


class ClosesOnce(Wrapped):
    closed = False

    def close(self):
        if self.closed:
            raise DeviceFault("it is closed already")
        self.closed = True
        super().close()


class AnswersAfterClose(Wrapped):
    def health(self):
        return Health(ok=True, boot="0", programmed_tiles=(0,))


class WrongErrorAfterClose(Wrapped):
    def calibrate(self):
        try:
            return super().calibrate()
        except DeviceFault as error:
            raise TransportError("gone") from error


class InPlace(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        answer = super().mvm(tile, inputs_V, **rest)
        inputs_V.mul_(0.999)
        return answer


def rename(device, tile: int, operation: str) -> None:
    """Let a tile forget under which name it was written."""
    state = device._tiles.get(tile)
    state.report = replace(state.report, operation=operation)


class KeepsTheCallersTargets(Wrapped):
    """A program that is sent when it is needed, from the caller's own tensor."""

    given: tuple | None = None

    def program(self, tile, targets_uS, *, operation, mask=None):
        self.given = (tile, targets_uS)
        return super().program(tile, targets_uS, operation=operation, mask=mask)

    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        if self.given:
            self.inner.program(*self.given, operation="late")
            rename(self.inner, 0, "other")
        return super().mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)


class OneBuffer(Wrapped):
    """All answers in one tensor."""

    buffer: Tensor | None = None

    def mvm(self, tile, inputs_V, **rest):
        readout = super().mvm(tile, inputs_V, **rest)
        if self.buffer is None or self.buffer.shape != readout.currents_uA.shape:
            self.buffer = readout.currents_uA
        return replace(readout, currents_uA=self.buffer.copy_(readout.currents_uA))


class OneReport(Wrapped):
    """The report that is remembered is the one that was given out."""

    kept: ProgramReport | None = None

    def program(self, tile, targets_uS, *, operation, mask=None):
        if self.kept is not None and self.kept.operation == operation:
            return replace(self.kept, repeated=True)
        self.kept = super().program(tile, targets_uS, operation=operation, mask=mask)
        return self.kept


class Clips(Wrapped):
    """Conductances out of range are clipped without a word."""

    def program(self, tile, targets_uS, *, operation, mask=None):
        if targets_uS.dtype == torch.float32:
            targets_uS = targets_uS.clamp(-10, 10)
        return super().program(tile, targets_uS, operation=operation, mask=mask)


class WritesBeforeItRefuses(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        try:
            return super().program(tile, targets_uS, operation=operation, mask=mask)
        except RangeError:
            if targets_uS.dtype == torch.float32 and targets_uS.shape == (24, 16):
                super().program(0, targets_uS.nan_to_num(0).clamp(-10, 10), operation=operation)
            raise


class WrongErrorForTiles(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        if tile < 0:
            raise IndexError(tile)
        return super().program(tile, targets_uS, operation=operation, mask=mask)


class ClipsInputs(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        if inputs_V.dtype == torch.float32:
            inputs_V = inputs_V.clamp(-0.2, 0.2)
        return super().mvm(tile, inputs_V, **rest)


class AnyFullScale(Wrapped):
    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        full = max(full_scale_uA, self.inner.capabilities().i_min_uA)
        return super().mvm(tile, inputs_V, operation=operation, full_scale_uA=full, repeats=repeats)


class NaNIsZero(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        if inputs_V.dtype == torch.float32:
            inputs_V = torch.where(inputs_V.isnan(), 0.0, inputs_V)
        return super().mvm(tile, inputs_V, **rest)


class NaNTargetsAreZero(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        if targets_uS.dtype == torch.float32:
            targets_uS = torch.where(targets_uS.isnan(), 0.0, targets_uS)
        return super().program(tile, targets_uS, operation=operation, mask=mask)


class EmptyIsZero(Wrapped):
    def mvm(self, tile, inputs_V, **rest):
        try:
            return super().mvm(tile, inputs_V, **rest)
        except DeviceFault:
            if self.inner._tiles._closed:
                raise
            zero = torch.zeros(rest.get("repeats", 1), len(inputs_V), 16)
            return Readout(rest["operation"], zero, torch.ones_like(zero, dtype=torch.bool))


class WritesAgain(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        repeated = self.inner._tiles.repeated(tile, operation) is not None
        if repeated:
            rename(self.inner, tile, "forgotten")
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), repeated=repeated)


class SaysNothingOfRepeating(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), repeated=False)


class CountsOperations(Wrapped):
    """The second time an operation comes it is carried out on the next vector."""

    seen: dict | None = None

    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        self.seen = self.seen or {}
        turns = self.seen.setdefault(operation, 0)
        self.seen[operation] += 1
        rolled = inputs_V.roll(turns, 0)
        return super().mvm(tile, rolled, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)


class IgnoresMask(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        checks.program(self.inner.capabilities(), tile, targets_uS, mask)
        report = super().program(tile, targets_uS, operation=operation)
        return report if mask is None else replace(report, status=torch.where(mask, 0, 3).to(torch.uint8))


class MasksRowsOnly(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        if mask is None:
            return super().program(tile, targets_uS, operation=operation)
        checks.program(self.inner.capabilities(), tile, targets_uS, mask)
        wide = mask.any(1, keepdim=True).expand_as(mask)
        report = super().program(tile, targets_uS, operation=operation, mask=wide)
        return replace(report, status=torch.where(mask, 0, 3).to(torch.uint8))


class InvertsMask(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        checks.program(self.inner.capabilities(), tile, targets_uS, mask)
        return super().program(tile, targets_uS, operation=operation, mask=None if mask is None else ~mask)


class StatusForgetsMask(Wrapped):
    def program(self, tile, targets_uS, *, operation, mask=None):
        report = super().program(tile, targets_uS, operation=operation, mask=mask)
        return replace(report, status=torch.zeros_like(report.status))


class PartialIsALie(Wrapped):
    def capabilities(self):
        return replace(super().capabilities(), partial=False)


class ReadsThoughItSaysNot(Wrapped):
    def capabilities(self):
        return replace(super().capabilities(), read_back=False)

    def program(self, tile, targets_uS, *, operation, mask=None):
        return replace(super().program(tile, targets_uS, operation=operation, mask=mask), achieved_uS=None)


class Compresses(Wrapped):
    """The drivers of the rows are square: v -> v (0.3 + |v| / v_max)."""

    def mvm(self, tile, inputs_V, **rest):
        checks.mvm(self.inner.capabilities(), tile, inputs_V, rest["full_scale_uA"], rest.get("repeats", 1))
        top = self.inner.capabilities().v_max_V
        return super().mvm(tile, (inputs_V * (0.3 + 2 * inputs_V.abs() / top)).clamp(-top, top), **rest)


class OneDrawForAll(Wrapped):
    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        checks.mvm(self.inner.capabilities(), tile, inputs_V, full_scale_uA, repeats)
        readout = super().mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA)
        shape = (repeats, *readout.currents_uA.shape[1:])
        return replace(
            readout, currents_uA=readout.currents_uA.expand(shape).clone(), valid=readout.valid.expand(shape).clone()
        )


class NoFullScale(Wrapped):
    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        can = self.inner.capabilities()
        legal = can.i_min_uA * 0.99 <= full_scale_uA <= can.i_max_uA * 1.01
        full = max(full_scale_uA, 20.0) if legal else full_scale_uA
        return super().mvm(tile, inputs_V, operation=operation, full_scale_uA=full, repeats=repeats)


class WrapsAround(Wrapped):
    """An overflow of the converter changes the sign."""

    def mvm(self, tile, inputs_V, *, operation, full_scale_uA, repeats=1):
        readout = super().mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats)
        i = readout.currents_uA
        return replace(readout, currents_uA=torch.where(i.abs() >= 0.999 * full_scale_uA, -i, i))


class ReadsMemoryInItsOwnOrder(Wrapped):
    """Strides are ignored."""

    def mvm(self, tile, inputs_V, **rest):
        if inputs_V.dim() == 2 and not inputs_V.is_contiguous():
            inputs_V = inputs_V.t().reshape(inputs_V.shape)
        return super().mvm(tile, inputs_V, **rest)


class OneTile(Wrapped):
    """All tiles are the same cells."""

    def program(self, tile, targets_uS, *, operation, mask=None):
        self.inner.program(1 - tile if tile in (0, 1) else tile, targets_uS, operation=operation, mask=mask)
        return super().program(tile, targets_uS, operation=operation, mask=mask)


class SaysThatItWaits(Wrapped):
    wait_until = None  # type: ignore[assignment]


class WaitsTwice(Wrapped):
    """Stretches of time instead of times."""

    def wait_until(self, time_s):
        checks.wait(self.inner.capabilities(), self.inner.health().time_s, time_s)
        self.inner.wait(0.1)
        return self.inner.health()


class WaitsNot(Wrapped):
    def wait_until(self, time_s):
        checks.wait(self.inner.capabilities(), self.inner.health().time_s, time_s)
        return self.inner.health()


class WaitsForEver(Wrapped):
    def wait_until(self, time_s):
        limit_s = self.inner.health().time_s + self.inner.capabilities().max_wait_s
        return self.inner.wait_until(min(time_s, limit_s) if time_s == time_s else time_s)


class WaitsAndRefuses(Wrapped):
    def wait_until(self, time_s):
        try:
            return self.inner.wait_until(time_s)
        except RangeError:
            self.inner.wait(self.inner.capabilities().max_wait_s)
            raise


class WaitsThoughItSaysNot(Wrapped):
    def capabilities(self):
        return replace(super().capabilities(), max_wait_s=0.0)


class LosesTilesInTime(Wrapped):
    def wait_until(self, time_s):
        return replace(self.inner.wait_until(time_s), programmed_tiles=())


class WaitsAfterClose(Wrapped):
    closed = False

    def close(self):
        self.closed = True
        super().close()

    def wait_until(self, time_s):
        return Health(ok=True, boot="0") if self.closed else self.inner.wait_until(time_s)


BROKEN: list[tuple[type[Wrapped], str]] = [
    (NameLess, "capabilities: serial is empty"),
    (Renamed, "capabilities: capabilities change"),
    (Impatient, r"capabilities: a typical call of 11.0 s is lost after 10.0 s"),
    (Lossy, "capabilities: a call that must succeed raised TransportError: the cable is loose"),
    (Misnamed, "calls itself 'x'"),
    (MisnamedReadout, "the readout of .* calls itself 'x'"),
    (UnknownStatus, "program_report: status holds 9, which CellStatus does not know"),
    (WideStatus, "program_report: status is torch.int64"),
    (BlindReport, "program_report: achieved_uS is None, read_back = True"),
    (AlwaysRepeated, "program_report: a new operation is called repeated"),
    (ReadsTransposed, "read_answer: what is read and what was written have a correlation of"),
    (ReadsSiemens, "read_answer: what is read .* differ by a factor of .*is a unit wrong"),
    (ReadsThoughItSaysNot, "read_answer: read_back is false, and read answers"),
    (Amperes, "mvm_answer: what is multiplied and v g differ by a factor of"),
    (Doubles, "currents_uA is torch.float64"),
    (RepeatsLast, r"currents_uA has the shape \[24, 8, 16\], expected \[8, 24, 16\]"),
    (Backwards, "mvm_answer: the clock runs backwards"),
    (ZeroFilled, "a number that is not valid was filled in; it must be NaN"),
    (SilentNaN, "a number that is called valid is NaN"),
    (Reboots, "health: boot changes"),
    (KnowsNothing, "health: tile 0 was programmed"),
    (DeadOutside, "health: a dead line is outside"),
    (Forgets, "calibrate: after calibration"),
    (StaleAtOnce, "calibrate: valid_s = 0.0"),
    (ClosesOnce, "close: .*closed already"),
    (AnswersAfterClose, "close: health answers after close"),
    (WrongErrorAfterClose, "close: calibrate after close raises TransportError"),
    (InPlace, "tensors_in: inputs_V was modified"),
    (KeepsTheCallersTargets, "tensors_in: after targets_uS was overwritten"),
    (OneBuffer, "tensors_out: an answer changes with the next call"),
    (OneReport, "tensors_out: a report that was overwritten comes back overwritten"),
    (Clips, "program_limits: a conductance above the range is accepted"),
    (WritesBeforeItRefuses, "program_limits: after refused programming"),
    (WrongErrorForTiles, "program_limits: tile -1 raises IndexError"),
    (PartialIsALie, "program_limits: a mask, though partial is false is accepted"),
    (ClipsInputs, "mvm_limits: a voltage above v_max_V is accepted"),
    (AnyFullScale, "mvm_limits: full scale 0 is accepted"),
    (NaNIsZero, "not_a_number: an input of nan is accepted"),
    (NaNTargetsAreZero, "not_a_number: a target of nan is accepted"),
    (EmptyIsZero, "not_programmed: mvm of tile 2, which holds nothing, answers"),
    (WritesAgain, "program_once: a tile was written twice under one name"),
    (SaysNothingOfRepeating, "program_once: .*does not say repeated"),
    (CountsOperations, "mvm_once: the same operation answers otherwise"),
    (SaysThatItWaits, "waiting: max_wait_s is above 0, and there is no wait_until"),
    (WaitsTwice, "waiting: a wait that comes again takes another 0.1 s"),
    (WaitsNot, "waiting: asked to wait until 0.101 s, the clock stands at 0.001 s"),
    (WaitsForEver, "waiting: a wait for ever is accepted"),
    (WaitsAndRefuses, "waiting: a wait that was refused took"),
    (WaitsThoughItSaysNot, "waiting: a wait, though max_wait_s is 0, is accepted"),
    (LosesTilesInTime, r"waiting: tile 0 was programmed, programmed_tiles = \(\)"),
    (WaitsAfterClose, "close: wait_until answers after close"),
    (IgnoresMask, "masked: the rows outside the mask changed"),
    (MasksRowsOnly, "masked: the columns outside the mask changed"),
    (InvertsMask, "masked: a cell inside the mask is SKIPPED"),
    (StatusForgetsMask, "masked: a cell outside the mask is neither SKIPPED nor STUCK"),
    (Compresses, r"linear: i\(a\)"),
    (OneDrawForAll, "repeats: noise of 0 uA between repeats"),
    (NoFullScale, "full_scale: .* uA at a full scale of"),
    (WrapsAround, "full_scale: beyond a full scale"),
    (ReadsMemoryInItsOwnOrder, "batches: vector 0 answers otherwise alone"),
    (OneTile, "tiles: tile 0 answers otherwise since tile 1 was written"),
]
