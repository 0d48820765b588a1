"""Soft bounds from trains of pulses on cells that were read after each.

    up:   g_k = hi - (hi - s) q_up^k,      down:   g_k = lo + (s - lo) q_down^k,      step = (1 - q) (bound - g)

A train is a run of pulses of one direction on one cell; s, its start, is a free number of each. Bound and q are those
of a cell: the bound is linear, q is found by a search. Whole curves are fitted, not steps, so that noise of the reads
(which enters a step and its place with opposite signs) does not bias q. The nominal cell is the mean of the cells.
Source of the law: Rasch et al. 2021 (arXiv:2104.02184).
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.hardware.update import PulsedDevice, SoftBounds
from mho.lab.twin.estimates import Z95, Estimate
from mho.lab.twin.tables import PulseTable

SHORTEST = 4
FEWEST_CELLS = 3
SEARCH = 80


@dataclass(frozen=True, eq=False)
class Train:
    """Conductances [1 + pulses] of a train, its start first."""

    cell: int
    up: bool
    g_uS: Tensor


@final
@dataclass(frozen=True, eq=False)
class PulseFit:
    """``device``: the response in units where g = middle + half w, w in [-1, 1]; bounds in uS; estimates."""

    device: PulsedDevice
    g_low_uS: float
    g_high_uS: float
    estimates: tuple[Estimate, ...]
    unidentified: tuple[str, ...]


def trains(table: PulseTable) -> list[Train]:
    """Cut a table into trains; the last conductance before a train is its start, so that a first train without a row of
    direction 0 starts at its first pulse."""
    found: list[Train] = []
    for cell in torch.unique(table.cell).tolist():
        here = torch.nonzero(table.cell == cell).flatten()
        run: list[float] = []
        up: bool | None = None
        for k in here.tolist():
            g = float(table.g_uS[k])
            now = None if bool(table.start[k]) else bool(table.up[k])
            if now is None or now != up:
                if up is not None and len(run) > SHORTEST:
                    found.append(Train(cell, up, torch.tensor(run, dtype=torch.float64)))
                run = run[-1:] if now is not None else []
                up = now
            run.append(g)
        if up is not None and len(run) > SHORTEST:
            found.append(Train(cell, up, torch.tensor(run, dtype=torch.float64)))
    return found


@dataclass(frozen=True)
class _Curve:
    """One direction of one cell: its bound (uS) and b = 1 - q, the step over the distance to the bound."""

    bound_uS: float
    b: float


def fit_pulses(table: PulseTable) -> PulseFit:
    """Fit :class:`SoftBounds` with cycle-to-cycle and device-to-device spread to trains on three cells or more.

    Intervals are those of the mean over cells (t law). :class:`TwinError` with fewer cells that have a train of
    :data:`SHORTEST` pulses in both directions, and where steps do not shrink towards a bound (another response).
    """
    by_cell: dict[int, list[Train]] = {}
    for t in trains(table):
        by_cell.setdefault(t.cell, []).append(t)
    cells = [c for c in by_cell.values() if any(t.up for t in c) and any(not t.up for t in c)]
    if len(cells) < FEWEST_CELLS:
        raise TwinError(
            f"pulses: {len(cells)} cells with a train of {SHORTEST} pulses or more both up (1) and down (-1). Fix: "
            f"measure {FEWEST_CELLS} cells at least."
        )
    ups, downs = ([_curve([t for t in c if t.up is up]) for c in cells] for up in (True, False))
    hi = _mean("update.g_high_uS", [c.bound_uS for c in ups], "uS")
    lo = _mean("update.g_low_uS", [c.bound_uS for c in downs], "uS")
    if not lo.value < hi.value:
        raise TwinError(
            f"pulses: bounds {lo.value:.4g} (down) and {hi.value:.4g} uS (up) cross. Fix: look at the signs of "
            "direction."
        )
    b_up = _mean("update.step_up", [c.b for c in ups], "half range")
    b_down = _mean("update.step_down", [c.b for c in downs], "half range")
    c2c = _mean("update.c2c", [_c2c(c, up, down) for c, up, down in zip(cells, ups, downs, strict=True)], "1")
    d2d = _d2d([c.b / b_up.value for c in ups], [c.b / b_down.value for c in downs])
    step = math.sqrt(b_up.value * b_down.value)
    device = PulsedDevice(
        response=SoftBounds(slope_up=b_up.value / step, slope_down=b_down.value / step),
        dw_min=step,
        w_min=-1.0,
        w_max=1.0,
        c2c=c2c.value,
        d2d=d2d.value if d2d.sure else 0.0,
    )
    missing = ("update.write_noise: reads and writes are one number here. Tell: repeated reads without pulses.",)
    return PulseFit(device, lo.value, hi.value, (hi, lo, b_up, b_down, c2c, d2d), missing)


def _mean(name: str, values: list[float], unit: str) -> Estimate:
    """Mean over cells with its t interval."""
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    t = torch.tensor(values, dtype=torch.float64)
    half = float(stats.t.ppf(0.975, len(t) - 1)) * float(t.std()) / math.sqrt(len(t))
    return Estimate(
        name, float(t.mean()), float(t.mean()) - half, float(t.mean()) + half, unit, f"mean of {len(t)} cells"
    )


def _curve(some: list[Train]) -> _Curve:
    """Trains of one direction of a cell: golden section in ln(1 - q), the linear part solved exactly."""

    def bound_and_error(ln_b: float) -> tuple[float, float]:
        q = 1 - math.exp(ln_b)
        xx = xy = yy = 0.0
        for t in some:
            k = torch.arange(len(t.g_uS), dtype=torch.float64)
            power = q**k
            # The start of each train is eliminated: what is left of the bound's column and of g beside q^k.
            norm = float(power @ power)
            x, y = (1 - power), t.g_uS
            x, y = x - power * (float(power @ x) / norm), y - power * (float(power @ y) / norm)
            xx, xy, yy = xx + float(x @ x), xy + float(x @ y), yy + float(y @ y)
        return xy / xx, yy - xy * xy / xx

    low, high = math.log(1e-6), math.log(0.9)
    grid = [low + (high - low) * k / SEARCH for k in range(SEARCH + 1)]
    at = min(range(len(grid)), key=lambda k: bound_and_error(grid[k])[1])
    if at in (0, SEARCH):
        raise TwinError(
            "pulses: steps do not shrink towards a bound. Cause: another response than soft bounds, or trains too "
            "short. Fix: longer trains, or describe [update.response] by hand."
        )
    a, b = grid[at - 1], grid[at + 1]
    golden = (math.sqrt(5) - 1) / 2
    for _ in range(40):
        c, d = b - golden * (b - a), a + golden * (b - a)
        if bound_and_error(c)[1] < bound_and_error(d)[1]:
            b = d
        else:
            a = c
    return _Curve(bound_and_error((a + b) / 2)[0], math.exp((a + b) / 2))


def _c2c(cell: list[Train], up: _Curve, down: _Curve) -> float:
    """sqrt [ sum (e_k^2 + 2 e_k e_k+1) / sum step^2 ], e = measured step - the step expected where the cell stood.

    Noise of a read enters two neighbouring steps with opposite signs, and cancels in the bracket.
    """
    top = bottom = 0.0
    for t in cell:
        curve = up if t.up else down
        expected = curve.b * (curve.bound_uS - t.g_uS[:-1])
        e = t.g_uS.diff() - expected
        top += float(e @ e + 2 * len(e) / (len(e) - 1) * (e[:-1] @ e[1:]))
        bottom += float(expected @ expected)
    return math.sqrt(max(top / bottom, 0.0))


def _d2d(up: list[float], down: list[float]) -> Estimate:
    """Spread of the cells' step sizes: the covariance of their relative sizes up and down.

    Both hold the cell's own size, and errors of their own, which a covariance does not see. Asymmetry lowers it.
    """
    x, y = torch.tensor(up, dtype=torch.float64) - 1, torch.tensor(down, dtype=torch.float64) - 1
    n = len(x)
    x, y = x - x.mean(), y - y.mean()
    both = float(x @ y) / (n - 1)
    se = math.sqrt((float(x @ x) * float(y @ y) / (n - 1) ** 2 + both**2) / (n - 1))
    values = [math.sqrt(max(v, 0.0)) for v in (both, both - Z95 * se, both + Z95 * se)]
    return Estimate("update.d2d", values[0], values[1], values[2], "1", f"covariance of up and down over {n} cells")
