"""Gain and offset of each column, and what columns share, by maximum likelihood.

Scoring with the information of outer products. The matrix is an arrow: 2 x 2 a column, a border for what is shared; its
inverse comes by the Schur complement, so that the work grows with the number of data alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.lab.twin.likelihood import SHARED, Codes, Parameters, log_likelihood, scores

STEPS = 100
CONVERGED = 1e-3
"""A step that gains less than this many nats is the last: it moves no estimate by more than 0.05 standard errors."""
SMALLEST = 2.0**-20
BLOCK = 200_000
"""Data that are evaluated at once: bounds the memory."""


@dataclass(frozen=True, eq=False)
class ColumnFit:
    """``own`` [cols, 2, 2] and ``shared`` [4, 4]: covariances of the estimates (0 for what was held fixed)."""

    parameters: Parameters
    own: Tensor
    shared: Tensor
    log_likelihood: float
    steps: int


def _blocks(data: list[Codes]) -> list[Codes]:
    """The data cut into pieces that fit the memory."""
    cut = []
    for d in data:
        rows = max(1, BLOCK // d.mean.shape[1])
        for k in range(0, len(d.mean), rows):
            s = slice(k, k + rows)
            cut.append(Codes(d.mean[s], d.s0[s], d.s1[s], d.s2[s], d.known[s], d.code[s], d.weight[s], d.levels))
    return cut


def start(data: list[Codes]) -> Parameters:
    """Least squares of the codes that did not clip; read noise from what is left, less the LSB^2 / 12 of rounding.

    :class:`TwinError` where a column answers with a slope that is not above 0.
    """
    n, sm, sy, smm, smy, syy, s0, lsb2 = (torch.zeros(data[0].mean.shape[1], dtype=torch.float64) for _ in range(8))
    for d in data:
        y = d.code.double() / d.levels
        # The cut is on the signal's side too small to matter: only codes at the rail say nothing about the line.
        w = d.weight * (d.code.abs() < d.levels)
        n += w.sum(0)
        sm += (w * d.mean).sum(0)
        sy += (w * y).sum(0)
        smm += (w * d.mean**2).sum(0)
        smy += (w * d.mean * y).sum(0)
        syy += (w * y**2).sum(0)
        s0 += (w * d.s0).sum(0)
        lsb2 += w.sum(0) / d.levels**2
    cxx, cxy, cyy = smm - sm**2 / n, smy - sm * sy / n, syy - sy**2 / n
    gain = cxy / cxx
    rest = (cyy - gain * cxy).clamp_min(0)
    if not bool((torch.isfinite(gain) & (gain > 0)).all()):
        raise TwinError("columns: a current falls with its inputs. Fix: leave out what silent_columns finds.")
    offset = (sy - gain * sm) / n
    per_read = (rest.sum() - (lsb2 / 12).sum()).clamp_min(0.05 * float(rest.sum())) / (gain**2 * s0).sum()
    shared = torch.tensor([0.0, float(per_read.sqrt()), 0.0, 0.0], dtype=torch.float64)
    return Parameters(gain, offset, shared)


def fit_columns(data: list[Codes], free: tuple[str, ...] = SHARED, begin: Parameters | None = None) -> ColumnFit:
    """Maximum likelihood; ``free``: the shared parameters that are fitted, the others stay where they begin."""
    pieces = _blocks(data)
    p = start(data) if begin is None else begin
    keep = torch.tensor([name in free for name in SHARED])
    value = total(pieces, p)
    steps = 0
    for steps in range(1, STEPS + 1):  # noqa: B007 (kept for the report)
        slope_own, slope_shared, a, b, d = _information(pieces, p)
        step_own, step_shared = _solve(a, b, d, slope_own, slope_shared, keep)
        found = _along(pieces, p, step_own, step_shared, value)
        if found is None:
            break
        gained = found[1] - value
        p, value = found
        if gained < CONVERGED:
            break
    _, _, a, b, d = _information(pieces, p)
    own, shared = _covariance(a, b, d, keep)
    return ColumnFit(p, own, shared, value, steps)


def total(pieces: list[Codes], p: Parameters) -> float:
    """Log-likelihood of all data."""
    return sum(float(log_likelihood(d, p).sum()) for d in pieces)


def _information(pieces: list[Codes], p: Parameters) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Slopes [cols, 2], [4] and information [cols, 2, 2], [cols, 2, 4], [4, 4]."""
    cols = len(p.gain)
    shapes = ((cols, 2), (4,), (cols, 2, 2), (cols, 2, 4), (4, 4))
    sums = [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
    for data in pieces:
        s = scores(data, p)
        sums[0] += s.own.sum(0)
        sums[1] += s.shared.sum((0, 1))
        own, flat = s.own.transpose(0, 1), s.shared.transpose(0, 1)
        sums[2] += own.transpose(1, 2) @ own
        sums[3] += own.transpose(1, 2) @ flat
        joint = s.shared.reshape(-1, 4)
        sums[4] += joint.t() @ joint
    return sums[0], sums[1], sums[2], sums[3], sums[4]


def _schur(a: Tensor, b: Tensor, d: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """(A^-1 B [cols, 2, k], inverse of D - sum B^T A^-1 B [k, k]) for the k shared parameters that are free."""
    ab = torch.linalg.solve(a, b[:, :, keep])
    left = d[keep][:, keep] - (b[:, :, keep].transpose(1, 2) @ ab).sum(0)
    # Scales differ by orders of magnitude: the inverse is taken of the matrix with a unit diagonal.
    scale = left.diagonal().clamp_min(1e-300).rsqrt()
    inverse = (
        torch.linalg.pinv(left * scale[:, None] * scale[None, :], hermitian=True) * scale[:, None] * scale[None, :]
    )
    return ab, inverse


def _solve(
    a: Tensor, b: Tensor, d: Tensor, slope_own: Tensor, slope_shared: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    ab, inverse = _schur(a, b, d, keep)
    rest = slope_shared[keep] - (ab.transpose(1, 2) @ slope_own[:, :, None]).sum(0)[:, 0]
    step_shared = torch.zeros(4, dtype=torch.float64)
    step_shared[keep] = inverse @ rest
    step_own = torch.linalg.solve(a, slope_own[:, :, None])[:, :, 0] - ab @ step_shared[keep]
    return step_own, step_shared


def _covariance(a: Tensor, b: Tensor, d: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    ab, inverse = _schur(a, b, d, keep)
    shared = torch.zeros(4, 4, dtype=torch.float64)
    index = torch.nonzero(keep).flatten()
    shared[index[:, None], index[None, :]] = inverse
    return torch.linalg.inv(a) + ab @ inverse @ ab.transpose(1, 2), shared


def _along(
    pieces: list[Codes], p: Parameters, step_own: Tensor, step_shared: Tensor, value: float
) -> tuple[Parameters, float] | None:
    """The first of step, step / 2, step / 4 ... that does not lower the likelihood; ``None``: there is none."""
    size = 1.0
    while size > SMALLEST:
        gain, offset = p.gain + size * step_own[:, 0], p.offset + size * step_own[:, 1]
        if bool((gain > 0).all()):
            try:
                there = Parameters(gain, offset, p.shared + size * step_shared)
                found = total(pieces, there)
            except TwinError:  # A step so long that the converter would fold back.
                found = float("nan")
            if found >= value:
                return there, found
        size /= 2
    return None
