"""Which patterns are written and which vectors are sent, so that each parameter shows.

Rows have a level of |g| and a sign, the same in all columns, so that one vector drives all columns alike. A vector
drives each row with +-v_max, in phase with the row's sign with probability (1 + tilt) / 2: the mean current follows the
tilt over the whole range of the converter, while the noise, proportional to the number of driven rows, stays. +-v_max
and 0 are levels of every input converter; other amplitudes are levels of the one that the data sheet names. Vectors
that drive the rows of one level only tell the noise at that level, vectors of few rows (an eighth) at the same full
scale the noise of the readout: one without any would have no width to fit where the readout is quiet. Each writing
shuffles the rows.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple, final

import torch
from torch import Tensor

from mho.errors import TwinError
from mho.hardware.fields import Count, check_fields
from mho.lab.protocol import Capabilities
from mho.physics import converters
from mho.rng import normals, uniforms

TILT_REACH = 1.25
"""The tilt carries the mean current to that share of the full scale."""
RANGE_SIGMAS = 2.0
"""Full scale over the root mean square of the current of random signs."""
SOFTENED = 4
"""One broad vector in so many has another amplitude than v_max."""
SPARSE = 8
"""A sparse vector drives one row in so many."""
LOWEST_LEVEL = 0.2
"""Lowest level of cells without sign: nearer to 0 the law of their error is cut off."""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured on one tile.

    ``writings`` of the test pattern, ``reads`` read-backs of each; ``broad`` vectors on all rows a writing, ``narrow``
    on the rows of each of ``levels`` levels, ``sparse`` on few; ``sweep``: steps of the amplitude; ``held_out`` vectors
    with ``repeats`` on a pattern of another kind, which only judge; ``ages_s``: ages after which cells are read again,
    where the device can wait. ``seed``: of the patterns; ``name``: of the operations, new for each calibration of a
    device.
    """

    name: str
    writings: Count = 3
    reads: Count = 24
    broad: Count = 720
    narrow: Count = 96
    sparse: Count = 96
    sweep: Count = 192
    held_out: Count = 192
    repeats: Count = 8
    levels: Count = 5
    ages_s: tuple[float, ...] = (10.0, 100.0, 1e3, 1e4)
    reads_an_age: Count = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_fields(self)
        if self.reads < 2 or self.repeats < 2:
            raise TwinError(f"Plan: reads = {self.reads}, repeats = {self.repeats}. Fix: 2 or more, to see the noise.")

    @property
    def vectors(self) -> int:
        """Input vectors that it sends, repeats counted."""
        written = self.broad + self.narrow * self.levels + self.sparse
        return self.writings * written + self.sweep + self.held_out * self.repeats + self.reads

    def within(self, vectors: int) -> "Plan":
        """A plan of the same shape that sends about ``vectors`` vectors at most.

        :class:`TwinError` where fewer than a tenth of the usual number are allowed: nothing would be told apart.
        """
        share = vectors / self.vectors
        if share >= 1:
            return self
        if share < 0.1:
            raise TwinError(
                f"budget = {vectors} vectors: a calibration needs {self.vectors // 10} at least, and takes "
                f"{self.vectors}. Fix: allow more."
            )
        cut = {
            key: max(8, int(getattr(self, key) * share)) for key in ("broad", "narrow", "sparse", "sweep", "held_out")
        }
        return replace(self, **cut)  # type: ignore[arg-type]


class Pattern(NamedTuple):
    """Targets of the rows [rows] in units of g_max, and the number of each row's level."""

    row: Tensor
    level: Tensor


def test_pattern(can: Capabilities, plan: Plan, writing: int) -> Pattern:
    """Levels 0 ... g_max with random signs; cells without sign: from a fifth of their range on."""
    order = uniforms((can.rows,), plan.seed, "rows", writing).argsort()
    level = torch.empty(can.rows, dtype=torch.long)
    level[order] = torch.arange(can.rows) % plan.levels
    share = level / max(plan.levels - 1, 1)
    if can.signed:
        sign = uniforms((can.rows,), plan.seed, "signs", writing).sub(0.5).sign()
        return Pattern(share * torch.where(sign == 0, 1.0, sign), level)
    low = can.g_min_uS / can.g_max_uS
    return Pattern(low + (LOWEST_LEVEL + (1 - LOWEST_LEVEL) * share) * (1 - low), level)


def network_pattern(can: Capabilities, plan: Plan) -> Tensor:
    """Targets [rows, cols] as a layer has them, in units of g_max: normal, a third of the range wide, cut at its
    ends."""
    low = can.lowest_uS / can.g_max_uS
    middle, half = (1 + low) / 2, (1 - low) / 2
    return (middle + half / 3 * normals((can.rows, can.cols), plan.seed, "network")).clamp(low, 1.0)


def _signs(pattern: Pattern, driven: Tensor, count: int, full_scale: float, plan: Plan, label: str) -> Tensor:
    """Vectors [count, rows] of -1, 0, 1 in units of v_max: random signs on the rows ``driven`` (bool [rows] or
    [count, rows]), tilted."""
    total = float(torch.where(driven, pattern.row.abs(), 0.0).sum()) / (len(driven) if driven.dim() == 2 else 1)
    top = min(1.0, TILT_REACH * full_scale / total) if total > 0 else 0.0
    tilt = (2 * uniforms((count, 1), plan.seed, label, "tilt") - 1) * top
    rows = len(pattern.row)
    in_phase = (uniforms((count, rows), plan.seed, label) < (1 + tilt) / 2).float() * 2 - 1
    sign = torch.where(pattern.row < 0, -1.0, 1.0)
    return torch.where(driven, in_phase * sign, 0.0)


class Drive(NamedTuple):
    """Vectors [n, rows] in units of v_max, and the full scale in units of v_max g_max at which they are read."""

    inputs: Tensor
    full_scale: float


def softened(x: Tensor, input_bits: int | None, plan: Plan, label: str) -> Tensor:
    """Vectors of which one in :data:`SOFTENED` has an amplitude between a half and 1, a level of the input converter.

    A device without errors has equal sums wherever signs and levels are alike; amplitudes put others between them.
    """
    if input_bits is None:
        return x
    top = converters.levels(input_bits)
    code = top - (uniforms((len(x), 1), plan.seed, label, "amplitude") * (top // 2 + 1)).floor()
    code[torch.arange(len(x)) % SOFTENED > 0] = top
    return x * (code / top)


def drives(can: Capabilities, pattern: Pattern, plan: Plan, writing: int) -> tuple[Drive, Drive]:
    """(broad and sparse, narrow) vectors of one writing, each in random order, to be cut into chunks."""
    everything = torch.ones_like(pattern.row, dtype=torch.bool)
    wide = RANGE_SIGMAS * float(pattern.row.square().sum().sqrt())
    small = wide / plan.levels**0.5
    few = uniforms((plan.sparse, len(pattern.row)), plan.seed, "few", writing) < 1 / SPARSE
    broad = torch.cat(
        [
            softened(
                _signs(pattern, everything, plan.broad, wide, plan, f"broad {writing}"),
                can.input_bits,
                plan,
                f"broad {writing}",
            ),
            _signs(pattern, few, plan.sparse, wide, plan, f"sparse {writing}"),
        ]
    )
    narrow = torch.cat(
        [
            _signs(pattern, pattern.level == k, plan.narrow, small, plan, f"narrow {writing} {k}")
            for k in range(plan.levels)
        ]
    )
    return tuple(
        Drive(x[uniforms((len(x),), plan.seed, "order", writing).argsort()], scale)
        for x, scale in ((broad, wide), (narrow, small))
    )  # type: ignore[return-value]


def amplitude_sweep(pattern: Pattern, plan: Plan) -> Drive:
    """All rows in phase with amplitudes between the levels of any converter: the staircase of the input converter."""
    steps = 2 * uniforms((plan.sweep, 1), plan.seed, "sweep") - 1
    return Drive(steps * torch.where(pattern.row < 0, -1.0, 1.0), 1.5 * float(pattern.row.abs().sum()))


def network_inputs(can: Capabilities, plan: Plan) -> Tensor:
    """Vectors [held_out, rows] as a layer sees them, in units of v_max: half of them signed, half rectified."""
    x = 2 * uniforms((plan.held_out, can.rows), plan.seed, "held out") - 1
    return torch.cat([x[: plan.held_out // 2], x[plan.held_out // 2 :].clamp_min(0)])
