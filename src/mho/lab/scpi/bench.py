"""A bench of voltage sources and ammeters around an array of resistors, as a device."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from mho.errors import DeviceFault, RangeError
from mho.lab import checks
from mho.lab.protocol import (
    Calibration,
    Capabilities,
    CellStatus,
    Conductances,
    Health,
    NotProgrammed,
    ProgramReport,
    Readout,
)
from mho.lab.scpi.blocks import decode_floats, encode_floats
from mho.lab.scpi.layout import BenchLayout
from mho.lab.scpi.line import Line, Wire

NOT_A_NUMBER = 9.905e37
"""SCPI-99, 7.2.1: +-9.9E+37 is infinity (beyond range), 9.91E+37 is "not a number"; this lies between them."""
POWER_ON = 1 << 7
"""Bit of the standard event register (IEEE 488.2, 11.5.1): switched on since it was read last."""
MISSED_REL = 0.1
"""A cell that reads back further than this share of g_max from its target is MISSED."""


@final
class ScpiBench:
    """One tile of resistors: rows at sources, columns at ammeters (virtual ground), one answer block a vector.

    ``program`` writes all conductances as one block where ``layout.commands.write_cells`` exists, and is refused with
    :class:`RangeError` where the resistors are fixed. ``read`` drives one row after the other with +v and -v: g =
    (i(+v) - i(-v)) / 2 v, free of offsets. What an ammeter reports beyond its range is full scale and flagged
    ("saturated"); what it reports as no number is NaN and not valid. After every call the sources are at 0 V.

    Cost: three questions a vector and one a repeat; a bench is slow. ``clock_s``: the bench has none of its own.
    """

    def __init__(
        self,
        wire: Wire,
        layout: BenchLayout,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._layout = layout
        self._words = layout.commands
        self._clock_s = clock_s
        self._sleep = sleep
        self._began_s = clock_s()
        self._closed = False
        self._boots = 0
        self._rows = ",".join(layout.row_channels)
        self._cols = ",".join(layout.col_channels)
        self._line = Line(wire, self._words.error, layout.timeout_s)
        vendor, model, serial, firmware = [*self._line.identity.split(","), "", "", "", ""][:4]
        self._capabilities = Capabilities(
            vendor=vendor.strip() or "unknown",
            model=model.strip() or "SCPI bench",
            serial=serial.strip() or "unknown",
            firmware=firmware.strip(),
            tiles=1,
            rows=len(layout.row_channels),
            cols=len(layout.col_channels),
            g_min_uS=layout.g_min_uS,
            g_max_uS=layout.g_max_uS,
            v_max_V=layout.v_max_V,
            i_min_uA=layout.i_min_uA,
            i_max_uA=layout.i_max_uA,
            max_batch=layout.max_batch,
            max_repeats=64,
            partial=False,
            timeout_s=layout.call_timeout_s,
        )
        self._line.write("*CLS")  # old errors, and the news of the last switching on
        self._report: ProgramReport | None = None
        self._sent = ""
        self._prepare()

    def capabilities(self) -> Capabilities:
        """What this bench can do."""
        self._open()
        return self._capabilities

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Set all resistors and read them back; :class:`RangeError` where they are fixed."""
        self._open()
        if self._words.write_cells is None:
            raise RangeError(
                "program: the resistors of this bench are fixed. Way out: read() tells what they are; "
                "Commands(write_cells=...) where they can be set."
            )
        checks.program(self._capabilities, tile, targets_uS, mask)
        self._restarted()
        if self._report is not None and self._report.operation == operation:
            return replace(_own(self._report), repeated=True)
        if self._sent == operation:  # sent before, and its answer was lost: written again only where it must be
            report = self._verified(targets_uS, operation)
            if not bool((report.status != int(CellStatus.OK)).any()):
                self._report = report
                return replace(_own(report), repeated=True)
        self._report, self._sent = None, operation
        siemens = targets_uS.detach().double() * 1e-6
        self._line.write(f"{self._words.write_cells} ", encode_floats(siemens, self._layout.byte_order))
        self._line.do()
        self._report = self._verified(targets_uS, operation)
        return _own(self._report)

    def read(self, tile: int) -> Conductances:
        """Conductances from currents at +-v_read_V, one row at a time."""
        self._open()
        checks.tile_number(self._capabilities, tile)
        self._held()
        return self._read_back()

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """Set the sources to each vector and ask the ammeters ``repeats`` times."""
        self._open()
        checks.mvm(self._capabilities, tile, inputs_V, full_scale_uA, repeats)
        self._held()
        amperes = self._sweep(inputs_V.detach().double().tolist(), full_scale_uA, repeats)
        currents, valid, beyond = to_currents(amperes, full_scale_uA)
        return Readout(operation, currents, valid, self._time_s(), None, ("saturated",) if beyond else ())

    def calibrate(self) -> Calibration:
        """The instrument's own calibration (``*CAL?``)."""
        self._open()
        if self._words.calibrate is None:
            raise DeviceFault("calibrate: this bench has no such command. Way out: calibrate it by hand.")
        answer = self._line.ask(self._words.calibrate)
        if answer.strip().lstrip("+-").strip("0") != "":
            raise DeviceFault(f"calibrate: {self._words.calibrate} answers {answer!r}. Fix: see the manual; warm up.")
        self._line.complain()
        self._prepare()
        return Calibration(identity=f"{self._capabilities.serial}@{self._time_s():.3f}", time_s=self._time_s())

    def health(self) -> Health:
        """Reads the error queue and the power-on bit; an entry in the queue is a message, not an exception."""
        self._open()
        self._restarted()
        message = ""
        try:
            self._line.complain()
        except DeviceFault as fault:
            message = str(fault)
        written = self._words.write_cells is None or self._report is not None
        return Health(
            ok=not message,
            boot=str(self._boots),
            time_s=self._time_s(),
            programmed_tiles=(0,) if written else (),
            message=message,
        )

    def close(self) -> None:
        """Sources to 0 V and off, then let go."""
        if self._closed:
            return
        self._closed = True
        try:
            self._line.do(*self._sources(), self._words.output.format(state=0, channels=self._rows))
        finally:
            self._line.close()

    def _open(self) -> None:
        if self._closed:
            raise DeviceFault("scpi bench: it was closed. Fix: connect again.")

    def _held(self) -> None:
        self._restarted()
        if self._words.write_cells is not None and self._report is None:
            raise NotProgrammed("scpi bench, tile 0: nothing was written to it. Fix: program it first.")

    def _restarted(self) -> None:
        answer = self._line.ask("*ESR?")
        if answer.strip().lstrip("+").isdigit() and int(answer) & POWER_ON:
            self._boots += 1
            self._report, self._sent = None, ""
            self._prepare()

    def _prepare(self) -> None:
        on = self._words.output.format(state=1, channels=self._rows)
        self._line.do(self._words.data_format, *self._sources(), on)

    def _sources(self, volts: Sequence[float] | None = None) -> list[str]:
        """The commands that set all sources; to 0 V, if no voltages are given."""
        values = [0.0] * len(self._layout.row_channels) if volts is None else volts
        pairs = zip(self._layout.row_channels, values, strict=True)
        return [self._words.set_voltage.format(channel=channel, value=value) for channel, value in pairs]

    def _sweep(self, vectors: list[list[float]], full_scale_uA: float, repeats: int) -> Tensor:
        """Amperes [repeats, n, cols] in float64."""
        count = len(self._layout.col_channels)
        query = self._words.measure.format(channels=self._cols)
        self._line.do(self._words.set_range.format(value=full_scale_uA * 1e-6, channels=self._cols))
        found = torch.empty(repeats, len(vectors), count, dtype=torch.float64)
        try:
            for n, vector in enumerate(vectors):
                self._line.do(*self._sources(vector))
                self._sleep(self._layout.settle_s)
                for k in range(repeats):
                    block = self._line.ask_block(query, 4 * count)
                    found[k, n] = decode_floats(block, count, self._layout.byte_order)
        finally:
            self._line.do(*self._sources())
        return found

    def _read_back(self) -> Conductances:
        v = self._layout.v_read_V
        one = (torch.eye(len(self._layout.row_channels), dtype=torch.float64) * v).tolist()
        full = self._layout.i_max_uA
        up, up_valid, _ = to_currents(self._sweep(one, full, 1), full)
        down, down_valid, _ = to_currents(self._sweep([[-x for x in row] for row in one], full, 1), full)
        return Conductances((up - down)[0] / (2 * v), (up_valid & down_valid)[0], self._time_s())

    def _verified(self, targets_uS: Tensor, operation: str) -> ProgramReport:
        found = self._read_back()
        missed = (found.g_uS - targets_uS).abs() > MISSED_REL * self._layout.g_max_uS
        status = torch.where(missed, int(CellStatus.MISSED), int(CellStatus.OK)).to(torch.uint8)
        status[~found.valid] = int(CellStatus.UNKNOWN)
        return ProgramReport(operation, found.g_uS, status, time_s=found.time_s)

    def _time_s(self) -> float:
        return self._clock_s() - self._began_s


def to_currents(amperes: Tensor, full_scale_uA: float) -> tuple[Tensor, Tensor, bool]:
    """uA held at full scale, what is valid, and whether any was beyond. SCPI's no-number and NaN become NaN."""
    none = torch.isnan(amperes) | (amperes.abs() > NOT_A_NUMBER)
    micro = torch.where(none, math.nan, amperes * 1e6)
    beyond = bool((micro.abs() > full_scale_uA).any())
    return micro.clamp(-full_scale_uA, full_scale_uA).float(), ~none, beyond


def _own(report: ProgramReport) -> ProgramReport:
    assert report.achieved_uS is not None
    return replace(report, achieved_uS=report.achieved_uS.clone(), status=report.status.clone())
