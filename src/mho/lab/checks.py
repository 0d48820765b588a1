"""Hard limits, enforced above every driver: what a device must not be asked is refused before anything is sent."""

import math

import torch
from torch import Tensor

from mho.errors import RangeError
from mho.lab.protocol import Capabilities

SLACK = 1e-6
"""Relative slack of a limit, for numbers that were rounded on their way."""


def _finite(t: Tensor, what: str) -> None:
    if not t.dtype.is_floating_point:
        raise RangeError(f"{what}: dtype {t.dtype}. Fix: give floating-point numbers in the unit of the name.")
    if not bool(torch.isfinite(t).all()):
        bad = int((~torch.isfinite(t)).sum())
        raise RangeError(f"{what}: {bad} of {t.numel()} numbers are NaN or infinite. Fix: nothing was sent; mend them.")


def _within(t: Tensor, low: float, high: float, what: str, fix: str) -> None:
    slack = SLACK * max(abs(low), abs(high))
    if t.numel() and (float(t.min()) < low - slack or float(t.max()) > high + slack):
        raise RangeError(
            f"{what}: {float(t.min()):.6g} to {float(t.max()):.6g}, allowed {low:.6g} to {high:.6g}. Fix: {fix}."
        )


def tile_number(can: Capabilities, tile: int) -> None:
    """Refuse a tile that the device does not have."""
    if isinstance(tile, bool) or not isinstance(tile, int) or not 0 <= tile < can.tiles:
        raise RangeError(f"tile = {tile!r}: the device has tiles 0 to {can.tiles - 1}. Fix: use one of them.")


def program(can: Capabilities, tile: int, targets_uS: Tensor, mask: Tensor | None) -> None:
    """Refuse targets of the wrong shape, not finite, or outside the range of the cells."""
    tile_number(can, tile)
    if tuple(targets_uS.shape) != (can.rows, can.cols):
        raise RangeError(
            f"targets_uS: shape {list(targets_uS.shape)}, the tile has [{can.rows}, {can.cols}]. Fix: pad, or cut."
        )
    _finite(targets_uS, "targets_uS")
    _within(targets_uS, can.lowest_uS, can.g_max_uS, "targets_uS", "scale the weights to the range of the cells")
    if mask is None:
        return
    if not can.partial:
        raise RangeError("mask: this device writes whole tiles only. Fix: leave mask out.")
    if mask.dtype != torch.bool or mask.shape != targets_uS.shape:
        raise RangeError(f"mask: {mask.dtype} {list(mask.shape)}. Fix: bool of the shape of targets_uS.")


def mvm(can: Capabilities, tile: int, inputs_V: Tensor, full_scale_uA: float, repeats: int) -> None:
    """Refuse inputs of the wrong shape, not finite, beyond v_max; a full scale or repeats that do not exist."""
    tile_number(can, tile)
    if inputs_V.dim() != 2 or inputs_V.shape[1] != can.rows:
        raise RangeError(f"inputs_V: shape {list(inputs_V.shape)}, expected [n, {can.rows}]. Fix: pad, or cut.")
    if not 1 <= len(inputs_V) <= can.max_batch:
        raise RangeError(f"inputs_V: {len(inputs_V)} vectors, allowed 1 to {can.max_batch}. Fix: send them in chunks.")
    _finite(inputs_V, "inputs_V")
    _within(inputs_V, -can.v_max_V, can.v_max_V, "inputs_V", "scale the inputs to the range of the converter")
    if not can.i_min_uA * (1 - SLACK) <= full_scale_uA <= can.i_max_uA * (1 + SLACK):
        raise RangeError(
            f"full_scale_uA = {full_scale_uA!r}: allowed {can.i_min_uA:.6g} to {can.i_max_uA:.6g}. Fix: choose within."
        )
    if isinstance(repeats, bool) or not isinstance(repeats, int) or not 1 <= repeats <= can.max_repeats:
        raise RangeError(f"repeats = {repeats!r}: allowed 1 to {can.max_repeats}. Fix: choose within, or call again.")


def waits(can: Capabilities, time_s: float) -> None:
    """Refuse a wait of a device that cannot be asked to, and a time that is none."""
    if not can.max_wait_s:
        raise RangeError(
            f"wait: the clock of {can.vendor} {can.model} cannot be asked to run (max_wait_s = 0). Fix: let time pass."
        )
    if not math.isfinite(time_s):
        raise RangeError(f"wait: {time_s!r} s is no time. Fix: give seconds of the device's clock.")


def wait(can: Capabilities, now_s: float, until_s: float) -> None:
    """Refuse what :func:`waits` refuses, and more than ``max_wait_s`` from ``now_s``; a time that is past is none."""
    waits(can, until_s)
    if until_s - now_s > can.max_wait_s * (1 + SLACK):
        raise RangeError(
            f"wait: {until_s - now_s:.6g} s from now, allowed {can.max_wait_s:.6g} in one call. Fix: wait in parts."
        )
