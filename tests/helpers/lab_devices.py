"""Descriptions and devices that several tests of the lab use."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping
from mho.hardware.spec import Tile
from mho.lab import VirtualDevice
from mho.lab.protocol import Calibration, Capabilities, Conductances, Health, ProgramReport, Readout

QUIET = Hardware(name="quiet", cell=GenericCell(), mapping=Mapping(scheme="signed"), tile=Tile(rows=16, cols=8))
SHEET = QUIET.replace(
    name="sheet", cell=GenericCell(programming_noise=0.03, read_noise=0.01), dac=Dac(bits=8), adc=Adc(bits=8)
)
HIDDEN = SHEET.replace(name="hidden", adc=Adc(bits=8, gain_d2d=0.2, offset_d2d_lsb=4.0))


class Scripted:
    """A virtual device before each of whose calls ``script(method, number)`` may raise or return a changed answer."""

    def __init__(self, script: Callable[[str, int], Callable | None], hardware: Hardware = SHEET, **options) -> None:
        self.inner = VirtualDevice(hardware, 5, **{"tiles": 8, **options})
        self.script = script
        self.calls: list[str] = []
        self.boot = "first"

    def _do(self, method: str, send: Callable):
        self.calls.append(method)
        change = self.script(method, self.calls.count(method))
        answer = send()
        return answer if change is None else change(answer)

    def capabilities(self) -> Capabilities:
        return self._do("capabilities", self.inner.capabilities)

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        return self._do("program", lambda: self.inner.program(tile, targets_uS, operation=operation, mask=mask))

    def read(self, tile: int) -> Conductances:
        return self._do("read", lambda: self.inner.read(tile))

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        return self._do(
            "mvm",
            lambda: self.inner.mvm(tile, inputs_V, operation=operation, full_scale_uA=full_scale_uA, repeats=repeats),
        )

    def calibrate(self) -> Calibration:
        return self._do("calibrate", self.inner.calibrate)

    def health(self) -> Health:
        return self._do("health", lambda: replace(self.inner.health(), boot=self.boot))

    def wait_until(self, time_s: float) -> Health:
        return self._do("wait_until", lambda: replace(self.inner.wait_until(time_s), boot=self.boot))

    def close(self) -> None:
        self.inner.close()


def pattern(device, seed: int = 0) -> Tensor:
    """Random conductances over the whole range of the device's cells."""
    can = device.capabilities()
    u = torch.rand(can.rows, can.cols, generator=torch.Generator().manual_seed(seed))
    return can.lowest_uS + (can.g_max_uS - can.lowest_uS) * u


def volts(device, n: int, seed: int = 0) -> Tensor:
    """Random inputs over the whole range."""
    can = device.capabilities()
    u = torch.rand(n, can.rows, generator=torch.Generator().manual_seed(seed))
    return (2 * u - 1) * can.v_max_V
