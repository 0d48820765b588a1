"""Gains of the rows' input converters, from what products leave: resid[n, c] = sum_r v[n, r] G[r, c] e[r] + noise.

    A e = b,   A = (V^T V) * (G G^T) (element by element),   b[r] = sum_n v[n, r] sum_c G[r, c] resid[n, c]

A gain common to all rows is one of all columns, and is left to them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mho.lab.twin.cells import ReadBack
from mho.lab.twin.likelihood import Parameters
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.signals import codes_of, inputs_of, reference_of
from mho.physics.converters import inl_inverse

CLIPPED = 0.02
"""A vector of which a larger share of the columns clips is left out."""
ALIVE = 0.01
"""A row that carries less than this share of the usual current squared is dead."""
SIGNIFICANCE = 1e-6
"""Rows have gains of their own where equal ones would be less probable than this."""


@dataclass(frozen=True, eq=False)
class RowFit:
    """``gain`` [rows], mean 1, and standard errors; ``live``: rows that carry current; ``p_value``: that all are 1."""

    gain: Tensor
    error: Tensor
    live: Tensor
    p_value: float


def fit_rows(data: Measurements, p: Parameters, noise: ReadBack, bits: tuple[int | None, int | None]) -> RowFit:
    """Least squares of the residuals of the pairs of role "fit"."""
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    rows = data.can.rows
    a, b = torch.zeros(rows, rows, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
    squares, count, own = 0.0, 0, torch.zeros(rows, dtype=torch.float64)
    for number, writing in enumerate(data.writings):
        g = reference_of(data, writing)
        vv = torch.zeros(rows, rows, dtype=torch.float64)
        for pair in data.of("fit"):
            if pair.writing != number:
                continue
            code, weight, top = codes_of(pair, bits[1])
            inside = weight * (code.abs() < top)
            good = inside.mean(1) > 1 - CLIPPED
            v = inputs_of(data, pair, bits[0])[good]
            signal = (inl_inverse(code[good].double() / top, float(p.shared[0]), top) - p.offset) / p.gain
            rest = (signal * (pair.full_scale_uA / data.unit_uA) - v @ g) * inside[good]
            vv += v.t() @ v
            b += ((v.t() @ rest) * g).sum(1)
            squares += float(rest.square().sum())
            count += int(inside[good].sum())
        a += vv * (g @ g.t())
        # What the reference's own error does to e: that of one writing is the same in all of its products.
        lever = g.square().sum(1)
        if bool(vv.any()):
            own += (g.square() * noise.variance_of_mean(g.abs(), max(writing.reads, 1))).sum(
                1
            ) / lever.square().clamp_min(1e-12)
    # A dead row has no gain: it is left at 1, without an error.
    live = a.diagonal() > ALIVE * a.diagonal().median()
    inverse, e = torch.zeros_like(a), torch.zeros_like(b)
    index = torch.nonzero(live).flatten()
    inverse[index[:, None], index[None, :]] = torch.linalg.pinv(a[live][:, live], hermitian=True)
    e[live] = inverse[live] @ b
    e[live] -= e[live].mean()
    used = max(1, len({q.writing for q in data.of("fit")}))
    var = inverse.diagonal().clamp_min(0) * (squares / max(count, 1)) + own / used**2
    chi2 = float((e * e / var.clamp_min(1e-20))[live].sum())
    return RowFit(1 + e, var.sqrt(), live, float(stats.chi2.sf(chi2, max(int(live.sum()) - 1, 1))))


def with_row_gain(data: Measurements, gain: Tensor) -> Measurements:
    """The data with read-backs as the products see them: each row times its gain."""

    def scaled(t: Tensor | None) -> Tensor | None:
        return None if t is None else (t.double() * gain[:, None]).float()

    return replace(data, writings=tuple(replace(w, mean_uS=scaled(w.mean_uS)) for w in data.writings))
