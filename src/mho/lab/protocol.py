"""What a device is to the rest of the package: seven calls, in physical units.

A driver needs no base class: any object with these methods is a :class:`Device`. Drivers are thin. Time-outs,
retries, limits, chunking, budgets and logs are written once, in :mod:`mho.lab.session`, for all of them.

Conductances in uS, voltages in V, currents in uA, times in s. Tensors are float32 on the CPU. Rows of a tile are its
inputs and columns its outputs: ``i[n, c] = sum_r v[n, r] g[r, c]`` (1 V times 1 uS is 1 uA).
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from mho.errors import DeviceFault
from mho.hardware.fields import Bits, Count, NonNegative, Positive, check_fields, contradiction


class CellStatus(IntEnum):
    """What became of a cell that was programmed."""

    OK = 0
    MISSED = 1
    """Written, but outside the device's own tolerance."""
    STUCK = 2
    """Did not answer to programming at all."""
    SKIPPED = 3
    """Not asked for (outside the mask)."""
    UNKNOWN = 4
    """The device cannot read back."""


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a device can do, in physical units. Constant while it is connected.

    ``signed``: a cell of the array (in truth a pair behind one column) holds -g_max_uS ... g_max_uS, and ``g_min_uS``
    is 0; else g_min_uS ... g_max_uS. ``v_max_V``: largest |input|; ``i_max_uA``: largest full scale of the output
    converter, ``i_min_uA``: smallest (both equal: fixed). ``latency_s``: of one typical call; ``timeout_s``: after
    which a call is certainly lost. ``read_back``: ``read`` and the achieved values of ``program`` exist. ``partial``:
    a mask may be given. ``max_wait_s``: how far one call may let the device's clock run on; 0: it cannot be asked to,
    above 0 the device is a :class:`TimedDevice`.
    """

    vendor: str
    model: str
    serial: str
    firmware: str = ""
    tiles: Count
    rows: Count
    cols: Count
    g_min_uS: NonNegative = 0.0
    g_max_uS: Positive
    signed: bool = False
    v_max_V: Positive
    input_bits: Bits | None = None
    i_min_uA: Positive
    i_max_uA: Positive
    output_bits: Bits | None = None
    coding: Literal["amplitude", "pulse-width", "bit-serial"] = "amplitude"
    max_batch: Count = 4096
    max_repeats: Count = 1024
    read_back: bool = True
    partial: bool = True
    latency_s: NonNegative = 0.0
    timeout_s: Positive = 10.0
    max_wait_s: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.g_min_uS >= self.g_max_uS:
            raise contradiction(self, "g_min_uS", self.g_min_uS, f"not below g_max_uS = {self.g_max_uS}", "lower it")
        if self.signed and self.g_min_uS > 0:
            raise contradiction(self, "g_min_uS", self.g_min_uS, "a signed cell ranges to -g_max_uS", "set it to 0")
        if self.i_min_uA > self.i_max_uA:
            raise contradiction(self, "i_min_uA", self.i_min_uA, f"above i_max_uA = {self.i_max_uA}", "lower it")

    @property
    def lowest_uS(self) -> float:
        """The smallest conductance that may be asked for."""
        return -self.g_max_uS if self.signed else self.g_min_uS


@dataclass(frozen=True, eq=False)
class ProgramReport:
    """What programming a tile achieved.

    ``achieved_uS`` [rows, cols]: what the device read back (noisy as any read), ``None`` where it cannot. ``status``
    uint8 [rows, cols] of :class:`CellStatus`. ``pulses``, ``energy_J``: as the device counted them, ``None``: it does
    not. ``repeated``: this operation had been carried out before; the device was not written again.
    """

    operation: str
    achieved_uS: Tensor | None
    status: Tensor
    pulses: int | None = None
    energy_J: float | None = None
    time_s: float = 0.0
    repeated: bool = False


@dataclass(frozen=True, eq=False)
class Conductances:
    """A read of a whole tile: ``g_uS`` and ``valid`` [rows, cols]; invalid cells hold NaN, never zero."""

    g_uS: Tensor
    valid: Tensor
    time_s: float = 0.0


@dataclass(frozen=True, eq=False)
class Readout:
    """Answers to a batch of input vectors.

    ``currents_uA`` [repeats, n, cols], ``valid`` bool of the same shape; what is not valid holds NaN, never zero.
    ``time_s``: the device's own clock; ``temperature_K``: ``None`` if it has no thermometer; ``flags``: words of the
    device ("saturated", "warm").
    """

    operation: str
    currents_uA: Tensor
    valid: Tensor
    time_s: float = 0.0
    temperature_K: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def invalid_share(self) -> float:
        """Share of the numbers that did not come."""
        return 1.0 - float(self.valid.float().mean()) if self.valid.numel() else 0.0

    def mean_uA(self) -> tuple[Tensor, Tensor]:
        """Mean over the valid repeats [n, cols] and how many there were; NaN where there was none."""
        count = self.valid.sum(0)
        total = torch.where(self.valid, self.currents_uA, torch.zeros_like(self.currents_uA)).sum(0)
        return torch.where(count > 0, total / count.clamp_min(1), torch.full_like(total, torch.nan)), count


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Result of the device's own calibration: an artefact to store, and to refuse when it is stale.

    ``residual``: what is left, relative to full scale; ``valid_s``: for how long, on the device's clock.
    """

    identity: str
    time_s: float
    temperature_K: float | None = None
    residual: float | None = None
    valid_s: float | None = None
    values: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Health:
    """How the device is. ``boot``: changes whenever its controller has started anew (volatile state is lost)."""

    ok: bool
    boot: str
    time_s: float = 0.0
    temperature_K: float | None = None
    programmed_tiles: tuple[int, ...] = ()
    dead_rows: tuple[tuple[int, int], ...] = ()
    """(tile, row) of lines known to be dead."""
    dead_cols: tuple[tuple[int, int], ...] = ()
    message: str = ""


@runtime_checkable
class Device(Protocol):
    """An array of tiles that can be programmed and read.

    ``operation`` names a call for ever: a call that comes again under the same name, because its answer was lost, is
    answered from memory where the device keeps one. While a tile holds what an operation wrote, that operation is not
    carried out again.

    Errors: :class:`~mho.errors.TransportError` (try again), :class:`~mho.errors.RangeError` (the caller's mistake),
    :class:`~mho.errors.DeviceFault` (mask, repair or give up).
    """

    def capabilities(self) -> Capabilities:
        """What this device can do."""
        ...

    def program(self, tile: int, targets_uS: Tensor, *, operation: str, mask: Tensor | None = None) -> ProgramReport:
        """Bring the cells of a tile [rows, cols] to ``targets_uS``; only where ``mask`` (bool) is set, if given."""
        ...

    def read(self, tile: int) -> Conductances:
        """Read the conductances of a tile back."""
        ...

    def mvm(self, tile: int, inputs_V: Tensor, *, operation: str, full_scale_uA: float, repeats: int = 1) -> Readout:
        """Currents of all columns for each input vector [n, rows]; ``full_scale_uA``: range of the converter."""
        ...

    def calibrate(self) -> Calibration:
        """Let the device calibrate itself."""
        ...

    def health(self) -> Health:
        """How the device is now."""
        ...

    def close(self) -> None:
        """Let go of the device; calls after it raise :class:`~mho.errors.DeviceFault`."""
        ...


@runtime_checkable
class TimedDevice(Device, Protocol):
    """A device whose clock may be asked to run on (``max_wait_s`` above 0): an eighth call, which not all have."""

    def wait_until(self, time_s: float) -> Health:
        """Answer when the device's clock stands at ``time_s`` or later; at once where it does so already.

        Within ``timeout_s`` of the host's time. :class:`~mho.errors.RangeError`, and nothing happens, for more than
        ``max_wait_s`` from now.
        """
        ...


class NotProgrammed(DeviceFault):
    """The tile holds nothing: it was never programmed, or the device has lost it."""
