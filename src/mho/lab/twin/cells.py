"""Cells from read-backs: noise of the read-back, programming error, resistance of the wires."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mho.lab.protocol import Capabilities
from mho.lab.twin.estimates import Estimate, normal, positive
from mho.lab.twin.measurements import Writing
from mho.lab.twin.sigma import Groups, SigmaFit, fit_sigma, group
from mho.physics.wires import effective_conductance, first_order_factor

SMALL = 1e-3
"""A conductance, in units of g_max, that is next to none."""
STEP = 0.01
"""Relative step of a numerical slope."""


@dataclass(frozen=True, eq=False)
class ReadBack:
    """Noise of the read-back, units of g_max."""

    const: float
    rel: float

    def variance_of_mean(self, x: Tensor, reads: int) -> Tensor:
        """Variance of the mean of ``reads`` reads at ``x`` = |g| / g_max."""
        return (self.const + self.rel * x) ** 2 / reads


def read_back_noise(can: Capabilities, writings: list[Writing]) -> SigmaFit:
    """Sigma of one read of a cell by the read-back, from the variance of its reads: S = (n - 1) var."""
    x, squares, freedom = [], [], []
    for w in writings:
        assert w.var_uS2 is not None
        good = torch.isfinite(w.var_uS2) & ~w.stuck
        x.append((w.targets_uS[good].abs() / can.g_max_uS).double())
        squares.append((w.reads - 1) * w.var_uS2[good].double() / can.g_max_uS**2)
        freedom.append(torch.full_like(x[-1], w.reads - 1))
    x_all = torch.cat(x)
    data = group(x_all, torch.cat(squares), torch.cat(freedom), torch.zeros_like(x_all))
    return fit_sigma(data, ("read-back const", "read-back rel"), "variance of repeated read-backs")


def programming_groups(can: Capabilities, writings: list[Writing], noise: ReadBack, wire_ohm: float) -> Groups:
    """Squares of (mean of reads - target) before the wires, with the noise of the mean as known variance.

    Wires scale a cell's error as they scale the cell: the difference is divided by the share that arrives.
    """
    x, squares, known = [], [], []
    for w in writings:
        assert w.mean_uS is not None
        share = arriving(can, w, wire_ohm)
        good = torch.isfinite(w.mean_uS) & ~w.stuck
        level = (w.targets_uS[good].abs() / can.g_max_uS).double()
        miss = w.mean_uS.double() / share - w.targets_uS.double()
        x.append(level)
        squares.append((miss[good] / can.g_max_uS) ** 2)
        known.append(noise.variance_of_mean(level, w.reads) / share[good] ** 2)
    x_all = torch.cat(x)
    return group(x_all, torch.cat(squares), torch.ones_like(x_all), torch.cat(known))


def arriving(can: Capabilities, writing: Writing, wire_ohm: float) -> Tensor:
    """Effective over true conductance of each cell, 1 without wires. A cell of 0 is taken as a very small one."""
    target = writing.targets_uS.double().abs()
    if wire_ohm <= 0:
        return torch.ones_like(target)
    target = torch.where(target > 0, target, SMALL * can.g_max_uS)
    return effective_conductance(target, wire_ohm) / target


def wire_resistance(can: Capabilities, writings: list[Writing]) -> Estimate:
    """Ohm a segment, by least squares of the read-back on the target behind its wires, level by level.

    Only the place in the array tells: means over the cells of a level, which may be written too low for other reasons,
    are taken out. At first the model of first order, with its slope at R = 0. Where that excludes 0: Gauss-Newton with
    the exact nodal solution, each step two factorisations. What the other cells' errors do through the wires is second
    order.
    """
    how = "loss of the read-back against the place in the array"
    value, se = _wire_step(writings, 0.0)
    if value - 1.96 * se <= 0:
        return positive(normal("wires.wire_ohm", value, se, "ohm", how))
    # One writing is enough here (its interval is narrow), and the exact solution is what takes the time.
    value = max(value, SMALL / can.g_max_uS)
    for _ in range(12):
        step, se = _wire_step(writings[:1], value)
        value = max(value + step, 0.1 * value)
        if abs(step) < 0.02 * se:
            break
    return positive(normal("wires.wire_ohm", value, se, "ohm", how))


def _wire_step(writings: list[Writing], wire_ohm: float) -> tuple[float, float]:
    """(change of R, its standard error) by one regression around R = ``wire_ohm``."""
    rest, slope = [], []
    for w in writings:
        assert w.mean_uS is not None
        target = w.targets_uS.double().abs()
        if wire_ohm == 0.0:
            there, d = target, (first_order_factor(target, 1.0) - 1.0) * target
        else:
            there = effective_conductance(target, wire_ohm)
            d = (effective_conductance(target, wire_ohm * (1 + STEP)) - there) / (STEP * wire_ohm)
        miss = w.mean_uS.double() * w.targets_uS.double().sign() - there
        good = torch.isfinite(miss) & ~w.stuck & (target > 0)
        for level in torch.unique(target[good]).tolist():
            here = good & (target == level)
            rest.append(miss[here] - miss[here].mean())
            slope.append(d[here] - d[here].mean())
    return _regress(torch.cat(rest), torch.cat(slope)) if rest else (0.0, math.inf)


def _regress(y: Tensor, d: Tensor) -> tuple[float, float]:
    """Least squares of y on d through 0, with a robust (White) standard error."""
    total = float((d * d).sum())
    if total == 0:
        return 0.0, math.inf
    value = float((d * y).sum()) / total
    return value, math.sqrt(float((d * d * (y - value * d) ** 2).sum())) / total


def bias(can: Capabilities, writings: list[Writing], wire_ohm: float) -> Estimate | None:
    """Mean miss of the writing towards larger |g|, units of g_max, at the level where it is the surest; ``None`` where
    no level misses by more than 5 standard errors."""
    worst, found = 5.0, None
    for_all = [(w, arriving(can, w, wire_ohm)) for w in writings]
    for level in torch.unique(torch.cat([w.targets_uS.abs().flatten() for w in writings])).tolist():
        misses = []
        for w, share in for_all:
            assert w.mean_uS is not None
            here = (w.targets_uS.abs() == level) & torch.isfinite(w.mean_uS) & ~w.stuck
            sign = torch.where(w.targets_uS < 0, -1.0, 1.0).double()
            misses.append((((w.mean_uS / share - w.targets_uS) * sign)[here]) / can.g_max_uS)
        miss = torch.cat(misses)
        if level == 0 or len(miss) < 2:
            continue
        se = float(miss.std()) / math.sqrt(len(miss))
        if abs(float(miss.mean())) > worst * se:
            worst = abs(float(miss.mean())) / max(se, 1e-12)
            found = normal("programming bias", float(miss.mean()), se, "g_max", f"read-backs at |g| = {level:.4g} uS")
    return found
