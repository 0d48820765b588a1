"""Checks of what a device does: names, masks, the product, its noise, tiles that are apart, a clock that waits."""

import contextlib
import math
import time

import torch

from mho.errors import RangeError
from mho.lab.protocol import CellStatus, Health, TimedDevice
from mho.testing.device_answers import only_with, require_alike
from mho.testing.device_bench import SIGMAS, Bench, Check, refused, require, sigma_uA


def program_once(bench: Bench) -> None:
    """Under one name a tile is written once: other targets under it are refused, or not written."""
    first, other = bench.targets_uS("a"), bench.targets_uS("b")
    operation = bench.operation()
    report = bench.program(0, first, operation=operation)
    before, v, full = bench.touched(0, "a")
    again = bench.program(0, first, operation=operation)
    require(again.repeated, "the same operation comes again, and its report does not say repeated")
    if report.achieved_uS is not None and again.achieved_uS is not None:
        same = torch.allclose(
            again.achieved_uS, report.achieved_uS, atol=bench.slack * bench.can.g_max_uS, equal_nan=True
        )
        require(same, "the report of a repeated operation says other conductances")
    bench.agree(before, bench.mvm(0, v, full), v, full, "after a repeated programming the tile answers otherwise")
    with contextlib.suppress(RangeError):
        bench.program(0, other, operation=operation)
    mean, count = bench.mvm(0, v, full).mean_uA()
    require_alike(
        mean[count > 0], (v @ first)[count > 0], "a tile was written twice under one name: what it holds and v g"
    )


def mvm_once(bench: Bench) -> None:
    """The same operation again answers the same, from memory or by a new measurement."""
    bench.program(0, bench.targets_uS("a"))
    v = bench.inputs_V("signature")
    full = bench.full_scale_uA(v, bench.targets_uS("a"))
    operation = bench.operation()
    one, two = (bench.mvm(0, v, full, operation=operation) for _ in range(2))
    bench.agree(one, two, v, full, "the same operation answers otherwise when it comes again")


def masked(bench: Bench) -> None:
    """Only the cells of the mask are written; the others keep their value and are called SKIPPED."""
    only_with(bench.can.partial, "the device writes whole tiles only")
    only_with(bench.can.rows > 1 and bench.can.cols > 1, "a tile of one line has no part")
    first, other = bench.targets_uS("a"), bench.targets_uS("b")
    half = bench.can.rows // 2
    mask = torch.zeros(first.shape, dtype=torch.bool)
    mask[:half, ::2] = True
    now = torch.where(mask, other, first)
    v = bench.inputs_V("signature")
    full = max(bench.full_scale_uA(v, first), bench.full_scale_uA(v, now))
    upper, lower = v.clone(), v.clone()
    upper[:, half:], lower[:, :half] = 0.0, 0.0
    bench.program(0, first)
    before = [bench.mvm(0, x, full) for x in (upper, lower)]
    report = bench.program(0, other, mask)
    skipped, stuck = (report.status == int(s) for s in (CellStatus.SKIPPED, CellStatus.STUCK))
    require(not bool((skipped & mask).any()), "a cell inside the mask is SKIPPED")
    require(bool((skipped | stuck | mask).all()), "a cell outside the mask is neither SKIPPED nor STUCK")
    after = [bench.mvm(0, x, full) for x in (upper, lower)]
    written, written_count = after[0].mean_uA()
    even = (written_count > 0)[:, ::2]
    require_alike(written[:, ::2][even], (upper @ other)[:, ::2][even], "inside the mask, what is multiplied and v g")
    allowed = bench.allowed_uA(before[0], upper, full)
    for what, one, two, cols in (("the rows", before[1], after[1], 1), ("the columns", before[0], after[0], 2)):
        change = (one.mean_uA()[0] - two.mean_uA()[0])[:, cols - 1 :: cols].abs().nan_to_num(0.0)
        require(float(change.max()) <= allowed, f"{what} outside the mask changed by {float(change.max()):.4g} uA")


def linear(bench: Bench) -> None:
    """i(a) + i(b) = i(a + b) within noise, converter and slack."""
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    a, b = bench.inputs_V("a"), bench.inputs_V("b")
    full = max(bench.full_scale_uA(x, targets) for x in (a, b, a + b))
    ones, twos, sums = (bench.mvm(0, x, full) for x in (a, b, a + b))
    rest = ones.mean_uA()[0] + twos.mean_uA()[0] - sums.mean_uA()[0]
    count = max(int(torch.isfinite(rest).sum()), 1)
    noise = 3 * sigma_uA(sums) ** 2 / len(sums.currents_uA) * (1 + SIGMAS * math.sqrt(2 / count))
    bent = bench.slack * _rms(sums.mean_uA()[0])
    allowed = math.sqrt(noise + bench.step_uA(a, full) ** 2 + bent**2)
    found = _rms(rest)
    require(found <= allowed, f"i(a) + i(b) - i(a + b) is {found:.4g} uA (rms), allowed {allowed:.4g}")


def _rms(x: torch.Tensor) -> float:
    return math.sqrt(float(x.double().square().nanmean().nan_to_num(0.0)))


def repeats(bench: Bench) -> None:
    """Repeats of one call differ as much as calls differ: noise is drawn for each."""
    only_with(bench.can.max_repeats > 1, "the device has no repeats")
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    v = bench.inputs_V("signature")
    full = bench.full_scale_uA(v, targets)
    calls = torch.stack([bench.mvm(0, v, full, 1).currents_uA[0] for _ in range(bench.repeats())]).double()
    together = bench.mvm(0, v, full)
    between = float(calls.var(0).nanmean().sqrt().nan_to_num(0.0))
    within = sigma_uA(together)
    enough = together.valid.float().mean() * len(v) * bench.can.cols >= 32
    only_with(bool(enough), "too few outputs to compare noise")
    require(within >= 0.5 * between, f"noise of {within:.4g} uA between repeats, {between:.4g} uA between calls")


def full_scale(bench: Bench) -> None:
    """What is beyond full scale is held at full scale, with its sign."""
    only_with(bench.can.output_bits is not None, "the device has no output converter")
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    v = bench.inputs_V("signature")
    wide = bench.full_scale_uA(v, targets)
    true = bench.mvm(0, v, wide).mean_uA()[0].nan_to_num(0.0)
    narrow = bench.within(float(true.abs().max()) / 3)
    beyond = true.abs() > 1.5 * narrow + bench.step_uA(v, wide)
    only_with(bool(beyond.any()), "the smallest full scale is above the currents of the checks")
    held = bench.mvm(0, v, narrow).currents_uA
    top = narrow * (1 + 1e-4) + bench.step_uA(v[:, :0], narrow)
    most = float(held.abs().nan_to_num(0.0).max())
    require(most <= top, f"{most:.4g} uA at a full scale of {narrow:.4g} uA")
    least = (held * true.sign()).nanmean(0)[beyond].min()
    require(
        float(least) >= 0.8 * narrow, f"beyond a full scale of {narrow:.4g} uA a column answers {float(least):.4g} uA"
    )


def batches(bench: Bench) -> None:
    """A batch is answered as its vectors would be alone, in their order, whatever their layout in memory."""
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    v = bench.inputs_V("signature")
    full = bench.full_scale_uA(v, targets)
    together = bench.mvm(0, v.t().contiguous().t(), full)
    alone = [bench.mvm(0, v[n : n + 1], full) for n in range(min(len(v), 4))]
    for n, one in enumerate(alone):
        apart = (one.mean_uA()[0] - together.mean_uA()[0][n : n + 1]).abs().nan_to_num(0.0)
        allowed = bench.allowed_uA(together, v, full)
        require(float(apart.max()) <= allowed, f"vector {n} answers otherwise alone: {float(apart.max()):.4g} uA apart")


def tiles(bench: Bench) -> None:
    """Writing one tile changes no other, and each answers for itself."""
    only_with(bench.can.tiles > 1, "the device has one tile")
    first, other = bench.targets_uS("a"), bench.targets_uS("b")
    bench.program(0, first)
    before, v, full = bench.touched(0, "a")
    bench.program(1, other)
    bench.agree(before, bench.mvm(0, v, full), v, full, "tile 0 answers otherwise since tile 1 was written")
    mean, count = bench.mvm(1, v, bench.full_scale_uA(v, other)).mean_uA()
    require_alike(mean[count > 0], (v @ other)[count > 0], "what tile 1 multiplies and v g")


def waiting(bench: Bench) -> None:
    """The clock runs on to the time that is asked for, not twice, and not further than max_wait_s; the tile stays."""
    can, device = bench.can, bench.device
    targets = bench.targets_uS("a")
    bench.program(0, targets)
    now_s = device.health().time_s
    if not isinstance(device, TimedDevice):
        require(not can.max_wait_s, "max_wait_s is above 0, and there is no wait_until")
        return
    if not can.max_wait_s:
        refused(lambda: device.wait_until(now_s + 1.0), "a wait, though max_wait_s is 0,")
        return
    until_s = now_s + min(0.1, can.max_wait_s / 2)
    first = device.wait_until(until_s)
    require(isinstance(first, Health), f"wait_until gives a {type(first).__name__}")
    require(first.time_s >= until_s, f"asked to wait until {until_s:.9g} s, the clock stands at {first.time_s:.9g} s")
    require(0 in first.programmed_tiles, f"tile 0 was programmed, programmed_tiles = {first.programmed_tiles}")
    began = time.monotonic()
    again = device.wait_until(until_s).time_s - first.time_s
    own = time.monotonic() - began  # of a clock that runs by itself
    require(again <= own + 1e-9 * until_s, f"a wait that comes again takes another {again:.4g} s of the device's clock")
    for what, ahead_s in (("NaN", math.nan), ("for ever", math.inf), ("beyond max_wait_s", 2 * can.max_wait_s)):
        bad_s = device.health().time_s + ahead_s
        refused(lambda t=bad_s: device.wait_until(t), f"a wait {what}")  # type: ignore[misc]
    far = device.health().time_s - until_s
    require(far < can.max_wait_s, f"a wait that was refused took {far:.4g} s of the device's clock")
    readout, v, _ = bench.touched(0, "a")
    mean, count = readout.mean_uA()
    require_alike(mean[count > 0], (v @ targets)[count > 0], "after a wait, what is multiplied and v g")


CHECKS_OF_PHYSICS: tuple[Check, ...] = (
    program_once,
    mvm_once,
    masked,
    linear,
    repeats,
    full_scale,
    batches,
    tiles,
    waiting,
)
