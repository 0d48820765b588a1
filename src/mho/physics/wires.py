"""Wire resistance: an array of ohmic cells with resistive lines is exactly a different weight matrix.

The circuit: row i is driven at its left end, column j is sensed by a virtual ground at its
bottom, every segment between neighbouring cells, the one from the driver to the first cell and the one
from the last cell to the ground have ``wire_ohm``. All rows are driven, none floats. Rows are
numbered from the top, columns from the left.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mho import ste
from mho.errors import InputError
from mho.hardware.spec import Wires

_RIGHT_SIDES = 64
"""Right-hand sides solved at once: bounds the memory of a 256 x 256 tile to some 70 MB."""


class WireError(NamedTuple):
    """Shares, not percent. ``*_loss``: 1 - sum(G_eff) / sum(G); ``rms`` and ``worst`` cell: of max(G_eff)."""

    exact_loss: float
    first_order_loss: float
    rms: float
    worst: float


@lru_cache(maxsize=8)
def _links(rows: int, cols: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Wire segments of a rows x cols array: (node, node) of each, and the degree of every node.

    Row-line node (i, j) is i * cols + j, column-line nodes follow. The degree counts also the
    segments to the driver and to the ground.
    """
    line = np.arange(rows * cols).reshape(rows, cols)
    below = line + rows * cols
    one = np.concatenate([line[:, :-1].ravel(), below[:-1].ravel()])
    two = np.concatenate([line[:, 1:].ravel(), below[1:].ravel()])
    degree = np.bincount(np.concatenate([one, two]), minlength=2 * rows * cols).astype(np.float64)
    degree[line[:, 0]] += 1.0
    degree[below[-1]] += 1.0
    return one, two, degree


def _nodal_matrix(load: npt.NDArray[np.float64]) -> Any:
    """Symmetric nodal matrix (CSC) in units of the segment's conductance; load = wire_ohm * G."""
    from scipy import sparse  # type: ignore[import-untyped,unused-ignore]

    rows, cols = load.shape
    cells = load.ravel()
    one, two, degree = _links(rows, cols)
    line = np.arange(cells.size)
    column = line + cells.size
    every = np.arange(2 * cells.size)
    i = np.concatenate([every, one, two, line, column])
    j = np.concatenate([every, two, one, column, line])
    wire = np.full(one.size, -1.0)
    value = np.concatenate([degree + np.concatenate([cells, cells]), wire, wire, -cells, -cells])
    return sparse.csc_matrix((value, (i, j)), shape=(every.size, every.size))


def _solve_tile(g_S: npt.NDArray[np.float64], wire_ohm: float) -> npt.NDArray[np.float64]:
    """G_eff of one tile: one factorisation, then a solve for each line of the shorter side.

    G_eff[i, j] is the current into the ground of column j for 1 V on row i. The matrix is symmetric, so
    sending 1 V into the ground ends and looking at the drivers (adjoint) gives the same numbers.
    """
    from scipy.sparse.linalg import splu  # type: ignore[import-untyped,unused-ignore]

    rows, cols = g_S.shape
    cells = rows * cols
    drivers = np.arange(rows) * cols
    grounds = cells + (rows - 1) * cols + np.arange(cols)
    sources, sinks = (drivers, grounds) if rows <= cols else (grounds, drivers)
    # The matrix is a symmetric M-matrix: no pivoting is needed, and none keeps the fill low.
    factors = splu(
        _nodal_matrix(wire_ohm * g_S),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )
    found = np.empty((sources.size, sinks.size))
    for start in range(0, sources.size, _RIGHT_SIDES):
        some = sources[start : start + _RIGHT_SIDES]
        right = np.zeros((2 * cells, some.size))
        right[some, np.arange(some.size)] = 1.0
        found[start : start + some.size] = factors.solve(right)[sinks].T
    return (found if rows <= cols else found.T) / wire_ohm


def port_conductance(g_uS: Tensor, wire_ohm: float) -> Tensor:
    """Conductance [cols] (uS) seen from the ground end of each column of a tile [rows, cols], all drivers at 0 V.

    Y_jj = y (1 - [A^-1]_jj), y = 1 / wire_ohm, A: the nodal matrix in units of y. By Nyquist's theorem the thermal
    noise of the column's current is 4 k T Y_jj B, exactly. sum_i G_eff[i, j] lies below it: detours over other
    columns, whose grounds are at 0 V too, carry no signal but make noise (0.9 % of sigma on average for 64 x 64 cells
    and 1 ohm). Without wires it is the sum of the column. :class:`InputError` for what is no such tile.
    """
    from scipy.sparse.linalg import splu

    _check(g_uS, wire_ohm)
    if g_uS.ndim != 2:
        raise InputError(f"wires: g_uS has shape {tuple(g_uS.shape)}. Fix: one tile [rows, cols].")
    if wire_ohm == 0.0:
        return g_uS.sum(0)
    rows, cols = g_uS.shape
    grounds = rows * cols + (rows - 1) * cols + np.arange(cols)
    factors = splu(_nodal_matrix(wire_ohm * 1e-6 * g_uS.detach().double().cpu().numpy()))
    right = np.zeros((2 * rows * cols, cols))
    right[grounds, np.arange(cols)] = 1.0
    inverse = factors.solve(right)[grounds, np.arange(cols)]
    return torch.from_numpy((1.0 - inverse) / wire_ohm * 1e6).to(g_uS.device, g_uS.dtype)


def _check(g_uS: Tensor, wire_ohm: float) -> None:
    if g_uS.ndim < 2 or not g_uS.dtype.is_floating_point:
        raise InputError(f"wires: g_uS has shape {tuple(g_uS.shape)}, {g_uS.dtype}. Fix: a real [..., rows, cols].")
    if not 0.0 <= wire_ohm < float("inf"):
        raise InputError(f"wires: wire_ohm = {wire_ohm!r} must be finite and at least 0. Fix: check wires.wire_ohm.")


@torch.library.custom_op("mho::effective_conductance", mutates_args=())
def _solve(g_uS: Tensor, wire_ohm: float) -> Tensor:
    rows, cols = g_uS.shape[-2:]
    tiles = g_uS.detach().to("cpu", torch.float64).reshape(-1, rows, cols).numpy() * 1e-6
    if not (np.isfinite(tiles).all() and (tiles >= 0.0).all()):
        raise InputError(
            "wires: g_uS has a negative, infinite or NaN conductance. Cause: the nodal equations need passive "
            "cells. Fix: map the weights with scheme 'differential' or 'offset', and solve each array by itself."
        )
    solved = np.stack([_solve_tile(tile, wire_ohm) for tile in tiles]) if tiles.size else tiles
    return torch.from_numpy(solved * 1e6).reshape(g_uS.shape).to(g_uS.device, g_uS.dtype)


@_solve.register_fake
def _(g_uS: Tensor, wire_ohm: float) -> Tensor:
    return torch.empty_like(g_uS)


@_solve.register_vmap
def _(info: Any, in_dims: tuple[int | None, None], g_uS: Tensor, wire_ohm: float) -> tuple[Tensor, int]:
    return _solve(g_uS.movedim(in_dims[0] or 0, 0), wire_ohm), 0


def effective_conductance(g_uS: Tensor, wire_ohm: float) -> Tensor:
    """Exact G_eff with I_j = sum_i V_i G_eff[i, j], of arrays [..., R, C] (uS in, uS out, same dtype).

    Kirchhoff's current law at all 2 R C nodes, in float64, by one sparse factorisation a tile; leading
    dimensions are solved one after the other. Valid for ohmic cells with every row driven.
    About 0.1 s for 64 x 64, 0.5 s for 128 x 128, 5 s for 256 x 256. No gradient: see :func:`with_wires`.
    wire_ohm = 0 returns ``g_uS``. :class:`InputError` for negative or non-finite conductances.
    """
    _check(g_uS, wire_ohm)
    return g_uS if wire_ohm == 0.0 else torch.as_tensor(_solve(g_uS, wire_ohm))


def _shares(count: int, g_uS: Tensor, *, from_end: bool) -> Tensor:
    """min(i, k), counted in segments from the driver, or from the ground (``from_end``)."""
    n = torch.arange(1, count + 1, dtype=g_uS.dtype, device=g_uS.device)
    n = n.flip(0) if from_end else n
    return torch.minimum(n[:, None], n[None, :])


def first_order_factor(g_uS: Tensor, wire_ohm: float) -> Tensor:
    """T_ij = 1 - R sum_k min(i, k) G_kj - R sum_l min(j, l) G_il, dimensionless, [..., R, C].

    i and k are counted in segments from the ground of the column, j and l from the driver of the row;
    the first sum is the column's drop, the second the row's. First order in R G: good while the
    loss is a few percent (:func:`first_order_error` states it), below the exact value beyond, and even
    negative; it is not clipped. Differentiable.
    """
    _check(g_uS, wire_ohm)
    rows, cols = g_uS.shape[-2:]
    drop = _shares(rows, g_uS, from_end=True) @ g_uS + g_uS @ _shares(cols, g_uS, from_end=False)
    return 1.0 - (wire_ohm * 1e-6) * drop


def first_order(g_uS: Tensor, wire_ohm: float) -> Tensor:
    """G_ij T_ij (uS) with :func:`first_order_factor`: the cheap approximation of G_eff."""
    return g_uS * first_order_factor(g_uS, wire_ohm)


def first_order_error(g_uS: Tensor, wire_ohm: float) -> WireError:
    """What the first-order approximation is worth for these arrays, against the exact solution.

    Errors are shares of the largest exact conductance: a cell near 0 uS gets its current from detours over
    other lines (second order), which no factor can describe. :class:`InputError` when all are 0.
    """
    g = g_uS.detach().double()
    total = float(g.sum())
    if not total > 0.0:
        raise InputError("wires: all conductances are 0, no current to lose. Fix: give a programmed array.")
    exact, cheap = effective_conductance(g, wire_ohm), first_order(g, wire_ohm)
    error = (cheap - exact) / exact.max()
    return WireError(
        exact_loss=1.0 - float(exact.sum()) / total,
        first_order_loss=1.0 - float(cheap.sum()) / total,
        rms=float(error.square().mean().sqrt()),
        worst=float(error.abs().max()),
    )


def with_wires(g_uS: Tensor, wires: Wires | None) -> Tensor:
    """The effective conductances [..., R, C] (uS) under ``wires``; ``None`` or 0 ohm: ``g_uS`` itself.

    ``model="exact"``: exact forward; the gradient goes straight through, cell by cell, times
    min(G_eff / G, 1). What a cell does to the others of its lines is left out, and the bound keeps cells
    near 0 uS, whose current comes over other lines, from a gradient without limit (at 0: 1).
    ``model="first_order"``: the approximation with its own exact gradient.
    A differential pair is two arrays: call it for each.
    """
    if wires is None or wires.wire_ohm == 0.0:
        return g_uS
    if wires.model == "first_order":
        return first_order(g_uS, wires.wire_ohm)
    fixed = g_uS.detach()
    exact = effective_conductance(fixed, wires.wire_ohm)
    idle = fixed == 0
    ratio = torch.where(idle, 1.0, exact / torch.where(idle, 1.0, fixed)).clamp(max=1.0)
    return ste.straight_through(exact, ratio * g_uS)
