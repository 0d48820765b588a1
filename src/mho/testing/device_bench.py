"""What the checks of a device share: patterns, calls whose answers are checked, and the size of chance."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mho.errors import RangeError
from mho.lab.protocol import Conductances, Device, ProgramReport, Readout
from mho.rng import normals, uniforms

REPEATS = 8
VECTORS = 24
SIGMAS = 6.0


class Skipped(Exception):
    """The device gives no occasion for a check; the text says why."""


def require(condition: bool, what: str) -> None:
    """``AssertionError`` with ``what`` unless the condition holds."""
    if not condition:
        raise AssertionError(what)


class Bench:
    """One fresh device under test."""

    def __init__(self, device: Device, run: str, slack: float) -> None:
        self.device = device
        self.can = device.capabilities()
        self.name = f"{self.can.vendor} {self.can.model} {self.can.serial}"
        self.slack = slack
        self._run = run
        self._calls = 0

    def operation(self) -> str:
        """A name that no call had before."""
        self._calls += 1
        return f"{self._run}/{self._calls}"

    def targets_uS(self, label: str) -> Tensor:
        """A pattern [rows, cols] over the whole range of the cells."""
        chance = uniforms((self.can.rows, self.can.cols), "check_device", "targets", label)
        return self.can.lowest_uS + (self.can.g_max_uS - self.can.lowest_uS) * chance

    def inputs_V(self, label: str, count: int = VECTORS) -> Tensor:
        """Input vectors [n, rows] within half the range, so that two may be added; no more than fit a batch."""
        count = max(1, min(count, self.can.max_batch))
        return (
            (normals((count, self.can.rows), "check_device", "inputs", label) / 3).clamp(-1, 1) * self.can.v_max_V / 2
        )

    def full_scale_uA(self, inputs_V: Tensor, targets_uS: Tensor) -> float:
        """Half as much again as the largest current expected, within what the converter has."""
        return self.within(1.5 * float((inputs_V @ targets_uS).abs().max()))

    def within(self, full_scale_uA: float) -> float:
        """The nearest full scale that the converter has."""
        return min(max(full_scale_uA, self.can.i_min_uA), self.can.i_max_uA)

    def repeats(self) -> int:
        """How many repeats the checks ask for."""
        return min(REPEATS, self.can.max_repeats)

    def program(self, tile: int, targets_uS: Tensor, mask: Tensor | None = None, operation: str = "") -> ProgramReport:
        """Write, and check the report."""
        name = operation or self.operation()
        report = self.device.program(tile, targets_uS, operation=name, mask=mask)
        require(report.operation == name, f"the report of {name!r} calls itself {report.operation!r}")
        return report

    def mvm(
        self, tile: int, inputs_V: Tensor, full_scale_uA: float, repeats: int | None = None, operation: str = ""
    ) -> Readout:
        """Multiply, and check the readout."""
        name = operation or self.operation()
        count = self.repeats() if repeats is None else repeats
        readout = self.device.mvm(tile, inputs_V, operation=name, full_scale_uA=full_scale_uA, repeats=count)
        require(readout.operation == name, f"the readout of {name!r} calls itself {readout.operation!r}")
        good_numbers(readout.currents_uA, readout.valid, (count, len(inputs_V), self.can.cols), "currents_uA")
        return readout

    def read(self, tile: int) -> Conductances:
        """Read back, and check what comes."""
        found = self.device.read(tile)
        good_numbers(found.g_uS, found.valid, (self.can.rows, self.can.cols), "g_uS")
        return found

    def step_uA(self, inputs_V: Tensor, full_scale_uA: float) -> float:
        """One step of the output converter and one of the input converters, as currents."""
        out: float = 0.0 if self.can.output_bits is None else 2 * full_scale_uA / float(2**self.can.output_bits - 1)
        if self.can.input_bits is None:
            return out
        volt = 2 * self.can.v_max_V / float(2**self.can.input_bits - 1)
        return out + volt * self.can.g_max_uS * math.sqrt(inputs_V.shape[1])

    def agree(self, one: Readout, other: Readout, inputs_V: Tensor, full_scale_uA: float, what: str) -> None:
        """The means of two readouts differ by noise, a converter's step and the slack at most."""
        a, b = one.mean_uA()[0], other.mean_uA()[0]
        allowed = self.allowed_uA(one, inputs_V, full_scale_uA)
        worst = float((a - b).abs().nan_to_num(0.0).max())
        require(worst <= allowed, f"{what}: {worst:.4g} uA apart, allowed {allowed:.4g}")

    def allowed_uA(self, readout: Readout, inputs_V: Tensor, full_scale_uA: float) -> float:
        """How far two means of such readouts may lie apart."""
        noise = SIGMAS * math.sqrt(2 / len(readout.currents_uA)) * sigma_uA(readout)
        peak = float(readout.mean_uA()[0].abs().nan_to_num(0.0).max())
        return noise + self.step_uA(inputs_V, full_scale_uA) + self.slack * peak

    def touched(self, tile: int, pattern: str) -> tuple[Readout, Tensor, float]:
        """The answer of a tile to the inputs by which the checks know it again."""
        v = self.inputs_V("signature")
        full = self.full_scale_uA(v, self.targets_uS(pattern))
        return self.mvm(tile, v, full), v, full


Check = Callable[[Bench], None]


def good_numbers(values: Tensor, valid: Tensor, shape: tuple[int, ...], what: str) -> None:
    """float32 on the CPU, of this shape; what is valid is finite, what is not valid is NaN."""
    require(values.dtype == torch.float32 and values.device.type == "cpu", f"{what} is {values.dtype} {values.device}")
    require(tuple(values.shape) == shape, f"{what} has the shape {list(values.shape)}, expected {list(shape)}")
    require(valid.dtype == torch.bool and valid.shape == values.shape, f"valid of {what} is no mask of its shape")
    require(not values.requires_grad, f"{what} carries a gradient")
    require(bool(torch.isfinite(values[valid]).all()), f"{what}: a number that is called valid is NaN or infinite")
    require(
        bool(torch.isnan(values[~valid]).all()), f"{what}: a number that is not valid was filled in; it must be NaN"
    )


def sigma_uA(readout: Readout) -> float:
    """Standard deviation between repeats, over all outputs; 0 for a single repeat."""
    if len(readout.currents_uA) < 2:
        return 0.0
    return float(readout.currents_uA.double().var(0).nanmean().sqrt().nan_to_num(0.0))


def refused(call: Callable[[], object], what: str) -> None:
    """The call must raise RangeError, and say something."""
    try:
        call()
    except RangeError as error:
        require(len(str(error)) > 0, f"{what} is refused without a word")
        return
    except Exception as error:
        raise AssertionError(f"{what} raises {type(error).__name__} ({error}), expected RangeError") from error
    raise AssertionError(f"{what} is accepted, expected RangeError")
