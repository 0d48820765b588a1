"""A twin from inputs and outputs alone: effective matrix and offset by least squares, noise from repeats.

    I = M v + offset + noise,   var = read^2 |v|^2 + fixed^2

Nothing tells the gain of a column from its conductances here: M is both, and gains are 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Adc, Hardware, Mapping, Readout, Source, Tile
from mho.lab.columns import Columns
from mho.lab.twin.bits import output_bits
from mho.lab.twin.estimates import Estimate, exactly, root
from mho.lab.twin.tables import PairTable
from mho.lab.twin.twin import Twin, as_float
from mho.physics.converters import levels

HELD_OUT = 5
"""One different input in so many only judges."""
RAIL = 1 - 1e-6


@dataclass(frozen=True, eq=False)
class _Split:
    """Rows that fit and rows that judge; ``group`` [n]: equal inputs have one number."""

    group: Tensor
    judge: Tensor


def fit_pairs(table: PairTable) -> Twin:
    """The twin of a table of pairs. :class:`TwinError` with fewer different inputs than rows + 2.

    Numbers at the rails of the converter, where its range is known, carry no weight.
    """
    x, y = table.inputs_V, table.outputs_uA
    rows, cols = x.shape[1], y.shape[1]
    _, group = torch.unique(x, dim=0, return_inverse=True)
    different = int(group.max()) + 1
    split = _Split(group, group % HELD_OUT == HELD_OUT - 1)
    if int((~split.judge).sum()) < rows + 2 or different - different // HELD_OUT < rows + 2:
        raise TwinError(
            f"pairs: {different} different inputs of {rows} rows. Cause: {rows} conductances and an offset a column "
            f"are unknown. Fix: measure {math.ceil((rows + 2) * HELD_OUT / (HELD_OUT - 1))} different inputs or more."
        )
    weight = torch.ones_like(y) if table.full_scale_uA is None else (y.abs() < RAIL * table.full_scale_uA).double()
    matrix, offset = _least_squares(x[~split.judge], y[~split.judge], weight[~split.judge])
    rest = (y - x @ matrix - offset) * weight
    v_max, g_max = float(x.abs().max()), float(matrix.abs().max())
    estimates, missing = [], list(_NEVER)
    noise = _noise(table, split, weight)
    floor: float | None = None
    if noise is None:
        missing.append("cell.read_noise: no input was repeated. Tell: each input two times or more.")
    else:
        read, fixed, floor = noise
        estimates += [_scaled(read, 1 / g_max, "range"), fixed]
    bits = None
    if table.full_scale_uA is None:
        missing.append("adc.bits: no full_scale_uA in the file. Tell: that column.")
    else:
        bits = output_bits([y / table.full_scale_uA])
        if bits is not None:
            estimates.append(exactly("adc.bits", bits, "bit", "comb of the output codes"))
    judged = rest[split.judge]
    error = float(judged.square().sum() / weight[split.judge].sum())
    share = offset / table.full_scale_uA if table.full_scale_uA is not None else torch.zeros_like(offset)
    hardware = _hardware(table, matrix, v_max, g_max, bits, estimates, share)
    return Twin(
        hardware=hardware,
        columns={0: Columns(torch.ones(cols), share.float())},
        column_errors={0: Columns(torch.full((cols,), torch.nan), torch.full((cols,), torch.nan))},
        estimates=tuple(estimates),
        unidentified=tuple(missing),
        error_over_noise=None if floor is None or floor == 0 else math.sqrt(error / floor),
        matrix_uS={0: as_float(matrix)},
    )


_NEVER = (
    "adc.gain_d2d: the gain of a column and its conductances are one product here, and gains are taken as 1. Tell: "
    "a read-back of the cells.",
    "cell.programming_noise: targets are not in the file. Tell: the same target written several times.",
    "cell.drift_nu: no ages in the file. Tell: the same inputs later.",
    "adc.inl_lsb, dac.bits, wires.wire_ohm: part of the effective matrix and of what it leaves. Tell: mho calibrate.",
)


def _least_squares(x: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """(M [rows, cols], offset [cols]) with weights of 0 or 1 a number."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    if bool((weight > 0).all()):
        solved = torch.linalg.lstsq(design, y).solution
    else:
        solved = torch.stack(
            [
                torch.linalg.lstsq(design * w[:, None], c[:, None] * w[:, None]).solution[:, 0]
                for c, w in zip(y.t(), weight.t(), strict=True)
            ],
            1,
        )
    return solved[:-1], solved[-1]


def _noise(table: PairTable, split: _Split, weight: Tensor) -> tuple[Estimate, Estimate, float] | None:
    """(read noise in uS, fixed noise in uA, mean variance of the repeats that judge) from the spread of repeats."""
    y, group = table.outputs_uA, split.group
    groups = int(group.max()) + 1
    count = torch.zeros(groups, y.shape[1], dtype=torch.float64).index_add_(0, group, weight)
    mean = torch.zeros_like(count).index_add_(0, group, weight * y) / count.clamp_min(1)
    squares = torch.zeros_like(count).index_add_(0, group, weight * (y - mean[group]) ** 2)
    enough = count >= 2
    if not bool(enough.any()):
        return None
    size = (
        torch.zeros(groups, dtype=torch.float64).index_add_(0, group, table.inputs_V.square().sum(1)) / group.bincount()
    )
    n = ((count - 1) * enough).sum(1)
    s = (squares * enough).sum(1)
    read2, fixed2, cov = _line(size[n > 0], n[n > 0], s[n > 0])
    how = f"spread of repeats, {int(n.sum())} degrees of freedom"
    judge = torch.zeros(groups, dtype=torch.bool).index_put_((group[split.judge],), torch.tensor(True))
    used = judge if bool((n[judge] > 0).any()) else torch.ones_like(judge)
    floor = float(s[used].sum() / n[used].sum())
    return (
        root("cell.read_noise", read2, math.sqrt(float(cov[0, 0])), "uS", how),
        root("fixed noise", fixed2, math.sqrt(float(cov[1, 1])), "uA", how),
        floor,
    )


def _line(size: Tensor, n: Tensor, s: Tensor) -> tuple[float, float, Tensor]:
    """var = a |v|^2 + b from sums of squares, weighted by 2 var^2 / n, iterated; a alone where all |v| are alike."""
    spread = float(size.max() - size.min()) > 1e-9 * float(size.max())
    design = torch.stack([size, torch.ones_like(size) * spread], 1)
    var = torch.full_like(size, float(s.sum() / n.sum()))
    found = torch.zeros(2, dtype=torch.float64)
    cov = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(20):
        w = n / (2 * var.clamp_min(1e-30) ** 2)
        cov = torch.linalg.pinv(design.t() @ (w[:, None] * design), hermitian=True)
        found = cov @ (design.t() @ (w * s / n))
        var = (design @ found).clamp_min(1e-3 * float(s.sum() / n.sum()))
    return float(found[0]), float(found[1]), cov


def _scaled(e: Estimate, factor: float, unit: str) -> Estimate:
    return Estimate(e.name, e.value * factor, e.low * factor, e.high * factor, unit, e.how)


def _hardware(
    table: PairTable,
    matrix: Tensor,
    v_max: float,
    g_max: float,
    bits: int | None,
    estimates: list[Estimate],
    share: Tensor,
) -> Hardware:
    by_name = {e.name: e for e in estimates}
    read, fixed = by_name.get("cell.read_noise"), by_name.get("fixed noise")
    scale = table.full_scale_uA
    known = scale is not None and fixed is not None and fixed.sure
    offset_lsb = 0.0 if bits is None else float(share.std()) * levels(bits) if len(share) > 1 else 0.0
    sources = [] if read is None else [_source(read)]
    return Hardware(
        name="twin of measured pairs",
        summary=f"Fitted to {len(table.inputs_V)} pairs; gains are part of the conductances.",
        cell=GenericCell(g_max_uS=g_max, read_noise=0.0 if read is None else read.value),
        mapping=Mapping(scheme="signed" if bool((matrix < 0).any()) else "differential"),
        tile=Tile(rows=matrix.shape[0], cols=matrix.shape[1]),
        adc=Adc(bits=bits, offset_d2d_lsb=offset_lsb),
        output_noise=fixed.value / scale if known and fixed is not None and scale is not None else 0.0,
        readout=Readout(v_read_V=v_max),
        sources=tuple(sources),
    )


def _source(e: Estimate) -> Source:
    return Source(
        key=e.name, cite=f"mho.lab.twin: {e.how}", status="fitted", note=f"95 %: {e.low:.4g} to {e.high:.4g} {e.unit}"
    )
