"""Checks of what a device says: shapes, names, validity; and that it keeps its own tensors."""

import math

import torch

from mho.errors import DeviceError, DeviceFault
from mho.lab.protocol import Calibration, Capabilities, CellStatus, Device, Health, TimedDevice
from mho.testing.device_bench import Bench, Check, Skipped, good_numbers, require

FEW = 8
"""From so many numbers on their mean is taken out before they are compared."""


def capabilities(bench: Bench) -> None:
    """Complete, plausible and constant."""
    can = bench.device.capabilities()
    require(isinstance(bench.device, Device), "a method of the protocol is missing")
    require(isinstance(can, Capabilities), f"capabilities() gives a {type(can).__name__}")
    for key in ("vendor", "model", "serial"):
        require(bool(getattr(can, key)), f"{key} is empty")
    require(can.latency_s < can.timeout_s, f"a typical call of {can.latency_s} s is lost after {can.timeout_s} s")
    bench.program(0, bench.targets_uS("a"))
    bench.touched(0, "a")
    require(bench.device.capabilities() == can, "capabilities change while the device is connected")


def program_report(bench: Bench) -> None:
    """Shapes, known states of cells, achieved values exactly where the device reads back."""
    report = bench.program(0, bench.targets_uS("a"))
    shape = (bench.can.rows, bench.can.cols)
    status = report.status
    require(status.dtype == torch.uint8 and status.device.type == "cpu", f"status is {status.dtype} {status.device}")
    require(tuple(status.shape) == shape, f"status has the shape {list(status.shape)}, expected {list(shape)}")
    known = torch.tensor([int(s) for s in CellStatus], dtype=torch.uint8)
    require(bool(torch.isin(status, known).all()), f"status holds {int(status.max())}, which CellStatus does not know")
    require(not bool((status == int(CellStatus.SKIPPED)).any()), "a cell is skipped though no mask was given")
    require(not report.repeated, "a new operation is called repeated")
    has = report.achieved_uS is not None
    require(
        has == bench.can.read_back, f"achieved_uS is {'given' if has else 'None'}, read_back = {bench.can.read_back}"
    )
    if report.achieved_uS is not None:
        known_cells = status != int(CellStatus.UNKNOWN)
        good_numbers(report.achieved_uS, known_cells | torch.isfinite(report.achieved_uS), shape, "achieved_uS")


def read_answer(bench: Bench) -> None:
    """A read is close to what was written; without read_back it is refused."""
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    if not bench.can.read_back:
        try:
            bench.device.read(0)
        except DeviceError:
            return
        raise AssertionError("read_back is false, and read answers")
    found = bench.read(0)
    require(bool(found.valid.any()), "no cell is valid")
    require_alike(found.g_uS[found.valid], targets[found.valid], "what is read and what was written")


def mvm_answer(bench: Bench) -> None:
    """The current of column c is the sum over rows of v g, in uA."""
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    readout, v, _ = bench.touched(0, "a")
    mean, count = readout.mean_uA()
    good = count > 0
    require(bool(good.any()), "no number is valid")
    require_alike(mean[good], (v @ targets)[good], "what is multiplied and v g")
    again, _, _ = bench.touched(0, "a")
    require(again.time_s >= readout.time_s, f"the clock runs backwards: {readout.time_s} s, then {again.time_s} s")


def require_alike(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    """A correlation of 0.7 at least and a scale between 1/2 and 2: mixed up lines and wrong units are caught."""
    a, b = found.double(), expected.double()
    if len(a) >= FEW:  # of a few numbers the mean takes too much away
        a, b = a - a.mean(), b - b.mean()
    slope = float((a * b).sum() / (b * b).sum())
    correlation = float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-300))
    require(correlation > 0.7, f"{what} have a correlation of {correlation:.3g}; are rows, columns or signs mixed up?")
    require(0.5 < slope < 2.0, f"{what} differ by a factor of {slope:.3g}; is a unit wrong (V, uS, uA)?")


def health(bench: Bench) -> None:
    """A state with a constant boot, and the tiles that were written."""
    tile = unwritten(bench)
    first = bench.device.health()
    bench.program(0, bench.targets_uS("a"))
    second = bench.device.health()
    for state in (first, second):
        require(isinstance(state, Health), f"health() gives a {type(state).__name__}")
        require(bool(state.boot), "boot is empty")
        for lines, count in ((state.dead_rows, bench.can.rows), (state.dead_cols, bench.can.cols)):
            inside = all(0 <= t < bench.can.tiles and 0 <= line < count for t, line in lines)
            require(inside, f"a dead line is outside the tiles: {lines}")
    require(first.boot == second.boot, f"boot changes from {first.boot!r} to {second.boot!r} without a start")
    require(0 in second.programmed_tiles, f"tile 0 was programmed, programmed_tiles = {second.programmed_tiles}")
    require(tile in (None, 0) or tile not in second.programmed_tiles, f"tile {tile} is called programmed and was not")


def unwritten(bench: Bench) -> int | None:
    """The last tile that holds nothing, ``None`` where all do."""
    written = set(bench.device.health().programmed_tiles)
    free = [t for t in range(bench.can.tiles) if t not in written]
    return free[-1] if free else None


def calibrate(bench: Bench) -> None:
    """An artefact with a name and a date; what was programmed stays."""
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    found = bench.device.calibrate()
    require(isinstance(found, Calibration), f"calibrate() gives a {type(found).__name__}")
    require(bool(found.identity), "identity is empty")
    require(math.isfinite(found.time_s), f"time_s = {found.time_s}")
    require(found.residual is None or found.residual >= 0, f"residual = {found.residual} is negative")
    require(found.valid_s is None or found.valid_s > 0, f"valid_s = {found.valid_s}: stale from the beginning")
    readout, v, _ = bench.touched(0, "a")
    mean, count = readout.mean_uA()
    require_alike(mean[count > 0], (v @ targets)[count > 0], "after calibration, what is multiplied and v g")


def close(bench: Bench) -> None:
    """Closing twice is one; every other call after it is a DeviceFault."""
    targets, v = bench.targets_uS("a"), bench.inputs_V("a", 1)
    bench.program(0, targets)
    device = bench.device
    device.close()
    device.close()
    full = bench.within(1.0)
    calls = {
        "capabilities": device.capabilities,
        "program": lambda: device.program(0, targets, operation=bench.operation()),
        "read": lambda: device.read(0),
        "mvm": lambda: device.mvm(0, v, operation=bench.operation(), full_scale_uA=full),
        "calibrate": device.calibrate,
        "health": device.health,
    }
    if isinstance(device, TimedDevice) and bench.can.max_wait_s:
        calls["wait_until"] = lambda: device.wait_until(0.0)
    for name, call in calls.items():
        try:
            call()
        except DeviceFault:
            continue
        except Exception as error:
            raise AssertionError(f"{name} after close raises {type(error).__name__}, expected DeviceFault") from error
        raise AssertionError(f"{name} answers after close, expected DeviceFault")


def tensors_in(bench: Bench) -> None:
    """What is given in is not modified, and changing it afterwards does not change the device."""
    targets, v = bench.targets_uS("a"), bench.inputs_V("signature")
    mask = torch.ones(targets.shape, dtype=torch.bool)
    mask[::2] = False
    given = [targets, v, mask]
    before = [t.clone() for t in given]
    full = bench.full_scale_uA(v, targets)
    bench.program(0, targets)
    first = bench.mvm(0, v, full)
    if bench.can.partial:
        bench.program(0, targets, mask)
    for name, now, then in zip(("targets_uS", "inputs_V", "mask"), given, before, strict=True):
        require(torch.equal(now, then), f"{name} was modified")
    targets.fill_(bench.can.lowest_uS)
    second = bench.mvm(0, v, full)
    expected, count = first.mean_uA()
    require_alike(second.mean_uA()[0][count > 0], expected[count > 0], "after targets_uS was overwritten, two products")


def tensors_out(bench: Bench) -> None:
    """What is given out is the caller's: changing it does not change the device."""
    targets = bench.targets_uS("a")
    operation = bench.operation()
    report = bench.program(0, targets, operation=operation)
    before = None if report.achieved_uS is None else report.achieved_uS.clone()
    first, v, full = bench.touched(0, "a")
    kept = first.currents_uA.clone()
    second = bench.mvm(0, v, full)
    require(torch.equal(first.currents_uA.nan_to_num(), kept.nan_to_num()), "an answer changes with the next call")
    second.currents_uA.zero_()
    report.status.fill_(int(CellStatus.SKIPPED))
    if report.achieved_uS is not None and before is not None:
        report.achieved_uS.fill_(bench.can.lowest_uS)
        found = bench.read(0)
        require_alike(
            found.g_uS[found.valid], targets[found.valid], "after achieved_uS was overwritten, read and target"
        )
        again = bench.program(0, targets, operation=operation).achieved_uS
        if again is not None:
            same = torch.allclose(again, before, equal_nan=True, atol=bench.slack * bench.can.g_max_uS)
            require(same, "a report that was overwritten comes back overwritten")
    third = bench.mvm(0, v, full)
    mean, count = third.mean_uA()
    require_alike(mean[count > 0], (v @ targets)[count > 0], "after the answers were overwritten, the product and v g")


def only_with(condition: bool, reason: str) -> None:
    """Skip a check that the device gives no occasion for."""
    if not condition:
        raise Skipped(reason)


CHECKS_OF_ANSWERS: tuple[Check, ...] = (
    capabilities,
    program_report,
    read_answer,
    mvm_answer,
    health,
    calibrate,
    close,
    tensors_in,
    tensors_out,
)
