"""Checks of what a device must refuse, and that nothing has changed when it did."""

import math
from collections.abc import Callable

import torch

from mho.lab.protocol import NotProgrammed
from mho.testing.device_answers import only_with, unwritten
from mho.testing.device_bench import Bench, Check, refused, require

LARGEST_BATCH_NUMBERS = 50_000_000
"""A batch that is too large by one is sent up to so many numbers (200 MB)."""


def program_limits(bench: Bench) -> None:
    """Tiles, shapes, conductances and masks out of range."""
    can, device = bench.can, bench.device
    good = bench.targets_uS("a")
    bench.program(0, good)
    before, v, full = bench.touched(0, "a")
    span = can.g_max_uS - can.lowest_uS
    other = bench.targets_uS("b")
    high, low = other.clone(), other.clone()
    high[-1, -1] = can.g_max_uS + 0.1 * span
    low[0, 0] = can.lowest_uS - 0.1 * span
    half = torch.zeros(good.shape, dtype=torch.bool)
    bad: dict[str, tuple[int, torch.Tensor, torch.Tensor | None]] = {
        "tile -1": (-1, other, None),
        f"tile {can.tiles}": (can.tiles, other, None),
        "a row too many": (0, torch.cat([other, other[:1]]), None),
        "a column too few": (0, other[:, :-1], None),
        "targets of one dimension": (0, other.reshape(-1), None),
        "a conductance above the range": (0, high, None),
        "a conductance below the range": (0, low, None),
        "integer targets": (0, other.to(torch.int64), None),
        "a mask of another shape": (0, other, half[:, :-1]),
        "a mask of numbers": (0, other, half.float()),
    }
    if not can.partial:
        bad["a mask, though partial is false"] = (0, other, half)
    for what, (tile, targets, mask) in bad.items():
        refused(lambda t=tile, g=targets, m=mask: device.program(t, g, operation=bench.operation(), mask=m), what)  # type: ignore[misc]
    after = bench.mvm(0, v, full)
    bench.agree(before, after, v, full, "after refused programming the tile answers otherwise")


def mvm_limits(bench: Bench) -> None:
    """Tiles, shapes, voltages, ranges and repeats out of range."""
    can, device = bench.can, bench.device
    bench.program(0, bench.targets_uS("a"))
    before, v, full = bench.touched(0, "a")
    loud = v.clone()
    loud[-1, -1] = 1.1 * can.v_max_V
    bad: dict[str, tuple[int, torch.Tensor, float, int]] = {
        "tile -1": (-1, v, full, 1),
        f"tile {can.tiles}": (can.tiles, v, full, 1),
        "an input too many": (0, torch.cat([v, v[:, :1]], 1), full, 1),
        "one vector without a batch axis": (0, v[0], full, 1),
        "an empty batch": (0, v[:0], full, 1),
        "a voltage above v_max_V": (0, loud, full, 1),
        "a voltage below -v_max_V": (0, -loud, full, 1),
        "integer inputs": (0, v.to(torch.int64), full, 1),
        "full scale 0": (0, v, 0.0, 1),
        "a full scale below i_min_uA": (0, v, 0.9 * can.i_min_uA, 1),
        "a full scale above i_max_uA": (0, v, 1.1 * can.i_max_uA, 1),
        "repeats = 0": (0, v, full, 0),
        "too many repeats": (0, v[:1], full, can.max_repeats + 1),
    }
    if (can.max_batch + 1) * can.rows <= LARGEST_BATCH_NUMBERS:
        bad["a batch too large"] = (0, torch.zeros(can.max_batch + 1, can.rows), full, 1)
    for what, (tile, x, scale, repeats) in bad.items():
        refused(_mvm(bench, tile, x, scale, repeats), what)
    require(can == device.capabilities(), "capabilities changed after refused calls")
    bench.agree(before, bench.mvm(0, v, full), v, full, "after refused calls the tile answers otherwise")


def _mvm(bench: Bench, tile: int, x: torch.Tensor, scale: float, repeats: int) -> Callable[[], object]:
    return lambda: bench.device.mvm(tile, x, operation=bench.operation(), full_scale_uA=scale, repeats=repeats)


def not_a_number(bench: Bench) -> None:
    """NaN and infinity are refused wherever numbers are given."""
    bench.program(0, bench.targets_uS("a"))
    before, v, full = bench.touched(0, "a")
    for value in (math.nan, math.inf, -math.inf):
        targets, x = bench.targets_uS("b"), v.clone()
        targets[0, -1] = value
        x[-1, 0] = value
        refused(lambda g=targets: bench.device.program(0, g, operation=bench.operation()), f"a target of {value}")  # type: ignore[misc]
        refused(_mvm(bench, 0, x, full, 1), f"an input of {value}")
        refused(_mvm(bench, 0, v, value, 1), f"a full scale of {value}")
    bench.agree(before, bench.mvm(0, v, full), v, full, "after refused NaN the tile answers otherwise")


def not_programmed(bench: Bench) -> None:
    """A tile that holds nothing says so, instead of answering with numbers."""
    tile = unwritten(bench)
    only_with(tile is not None, "health() says that every tile holds something already")
    assert tile is not None
    v = bench.inputs_V("a", 1)
    calls: dict[str, Callable[[], object]] = {"mvm": _mvm(bench, tile, v, bench.within(1.0), 1)}
    if bench.can.read_back:
        calls["read"] = lambda: bench.device.read(tile)
    for name, call in calls.items():
        try:
            call()
        except NotProgrammed:
            continue
        except Exception as error:
            raise AssertionError(f"{name} of an empty tile raises {type(error).__name__} ({error})") from error
        raise AssertionError(f"{name} of tile {tile}, which holds nothing, answers; expected NotProgrammed")


CHECKS_OF_REFUSALS: tuple[Check, ...] = (program_limits, mvm_limits, not_a_number, not_programmed)
