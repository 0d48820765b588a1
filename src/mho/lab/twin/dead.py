"""Columns that do not answer, and rows that hold nothing: found, left out of the fit, and named."""

from dataclasses import replace

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.lab.columns import Columns
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.twin import Twin

FEWEST = 8
DEAD = 0.05
"""A row that holds less than this share of what was written is dead."""
SIGMAS = 5.0
"""A slope below so many standard errors is none."""


def silent_columns(data: Measurements) -> Tensor:
    """bool [cols]: the current does not rise with the sum of inputs times conductances, or hardly anything came."""
    cols = data.can.cols
    n, sx, sy, sxx, sxy, syy = (torch.zeros(cols, dtype=torch.float64) for _ in range(6))
    for pair in data.of("fit"):
        target = data.writings[pair.writing].targets_uS.double()
        x = (pair.inputs_V.double() @ target) / pair.full_scale_uA
        for reads in pair.currents_uA.double():
            y = reads / pair.full_scale_uA
            w = (torch.isfinite(y) & (y.abs() < 1)).double()
            y = torch.where(w > 0, y, 0.0)
            n, sx, sy = n + w.sum(0), sx + (w * x).sum(0), sy + y.sum(0)
            sxx, sxy, syy = sxx + (w * x * x).sum(0), sxy + (x * y).sum(0), syy + (y * y).sum(0)
    m = n.clamp_min(1)
    cxx, cxy, cyy = sxx - sx * sx / m, sxy - sx * sy / m, syy - sy * sy / m
    rest = (cyy - cxy * cxy / cxx.clamp_min(1e-30)).clamp_min(0)
    return ~((n > FEWEST) & (cxy > 0) & (cxy * cxy > SIGMAS**2 * cxx * rest / m))


def dead_rows(data: Measurements) -> Tensor:
    """bool [rows]: rows whose read-backs do not follow their targets at all; none where there is no read-back."""
    answered, asked = torch.zeros(data.can.rows, dtype=torch.float64), torch.zeros(data.can.rows, dtype=torch.float64)
    for w in data.writings:
        if w.mean_uS is None:
            return torch.zeros(data.can.rows, dtype=torch.bool)
        target = w.targets_uS.double()
        answered += torch.nan_to_num(w.mean_uS.double() * target).sum(1)
        asked += target.square().sum(1)
    return answered < DEAD * asked


def marked(data: Measurements, rows: Tensor) -> Measurements:
    """The data with the cells of ``rows`` stuck: what they hold is no error of writing."""
    return replace(data, writings=tuple(replace(w, stuck=w.stuck | rows[:, None]) for w in data.writings))


def without(data: Measurements, dead: Tensor) -> Measurements:
    """The data of the columns that live. :class:`TwinError` where none does."""
    live = ~dead
    if not bool(live.any()):
        raise TwinError(
            f"tile {data.tile}: no column answers to its inputs. Cause: outputs in another order, or a tile that is "
            "not connected. Fix: look at the device."
        )

    def cut(t: Tensor | None) -> Tensor | None:
        return None if t is None else t[..., live]

    writings = tuple(
        replace(
            w, targets_uS=w.targets_uS[:, live], stuck=w.stuck[:, live], mean_uS=cut(w.mean_uS), var_uS2=cut(w.var_uS2)
        )
        for w in data.writings
    )
    pairs = tuple(replace(p, currents_uA=p.currents_uA[..., live]) for p in data.pairs)
    ages = tuple(replace(a, mean_uS=a.mean_uS[:, live]) for a in data.ages)
    return replace(data, can=replace(data.can, cols=int(live.sum())), writings=writings, pairs=pairs, ages=ages)


def restored(twin: Twin, dead: Tensor, data: Measurements) -> Twin:
    """The twin with NaN for the columns that were left out, and a word about them."""

    def spread(t: Tensor) -> Tensor:
        whole = torch.full((*t.shape[:-1], len(dead)), torch.nan)
        whole[..., ~dead] = t
        return whole

    def columns(c: Columns) -> Columns:
        return Columns(spread(c.gain), spread(c.offset))

    which = torch.nonzero(dead).flatten().tolist()
    tile = replace(twin.hardware.tile, cols=data.can.cols)
    return replace(
        twin,
        hardware=twin.hardware.replace(tile=tile),
        columns={t: columns(c) for t, c in twin.columns.items()},
        column_errors={t: columns(c) for t, c in twin.column_errors.items()},
        matrix_uS={t: spread(g) for t, g in twin.matrix_uS.items()},
        unidentified=(
            *twin.unidentified,
            f"columns {which[:8]}{' ...' if len(which) > 8 else ''} ({len(which)} of {len(dead)}) do not answer to "
            "their inputs; their gain is NaN. Tell: whether the lines are dead, or the outputs in another order.",
        ),
    )
