"""Broken cells and broken lines. Uniforms in, masks and conductances out."""

import torch
from torch import Tensor

from mho.errors import InputError
from mho.hardware.spec import Faults


def stuck_masks(u: Tensor, faults: Faults) -> tuple[Tensor, Tensor]:
    """(stuck on, stuck off), bool masks of the shape of ``u``, which is uniform on [0, 1).

    u < stuck_on; stuck_on <= u < stuck_on + stuck_off. A cell is never both, and a larger share keeps
    every stuck-on cell of a smaller one (common random numbers).
    """
    on = u < faults.stuck_on
    return on, (u < faults.stuck_on + faults.stuck_off) & ~on


def stuck(g_uS: Tensor, u: Tensor, faults: Faults, g_min: float, g_max: float) -> Tensor:
    """Conductances (uS) with stuck cells at ``g_max`` (on) or ``g_min`` (off); the others as they are.

    ``u``: uniforms on [0, 1) of the shape of ``g_uS`` (a fault belongs to a cell: never broadcast). Apply it after
    programming and ageing, and again to nothing: a stuck cell neither drifts nor is rewritten. Gradient
    1 to healthy cells, 0 to stuck ones. :class:`InputError` when the shapes differ.
    """
    if u.shape != g_uS.shape:
        raise InputError(
            f"faults.stuck: u has shape {tuple(u.shape)} and g_uS {tuple(g_uS.shape)}. "
            "Cause: each cell needs a draw of its own. Fix: draw u of the shape of g_uS."
        )
    on, off = stuck_masks(u, faults)
    return torch.where(on, g_max, torch.where(off, g_min, g_uS))


def alive_lines(u_rows: Tensor, u_cols: Tensor, faults: Faults) -> Tensor:
    """Bool mask [..., R, C] of the cells whose row and column both work.

    ``u_rows`` [..., R], ``u_cols`` [..., C]: uniforms on [0, 1); a line is dead where u < its share.
    """
    return (u_rows >= faults.dead_rows).unsqueeze(-1) & (u_cols >= faults.dead_cols).unsqueeze(-2)


def dead_lines(g_uS: Tensor, u_rows: Tensor, u_cols: Tensor, faults: Faults) -> Tensor:
    """Conductances [..., R, C] (uS; rows are inputs) with dead lines open: their cells carry no current, 0 uS.

    Dead beats stuck: apply it last. Gradient 1 to cells on working lines, 0 to the others.
    :class:`InputError` when the uniforms do not fit the rows and columns.
    """
    rows, cols = g_uS.shape[-2:]
    if u_rows.shape[-1:] != (rows,) or u_cols.shape[-1:] != (cols,):
        raise InputError(
            f"faults.dead_lines: u_rows {tuple(u_rows.shape)} and u_cols {tuple(u_cols.shape)} for an array of "
            f"{rows} x {cols}. Cause: one draw a line is needed. Fix: u_rows [..., {rows}], u_cols [..., {cols}]."
        )
    return torch.where(alive_lines(u_rows, u_cols, faults), g_uS, 0.0)
