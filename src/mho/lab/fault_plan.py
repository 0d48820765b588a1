"""Which faults, how often and how strong; what chance makes of a call; what a fault makes of its numbers.

Sampling is :func:`draw`; the rest are pure functions. The device that meets them is :mod:`mho.lab.faults`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mho.hardware.fields import Count, Fraction, NonNegative, check_fields, contradiction
from mho.rng import derive_seed, uniforms

Lines = tuple[tuple[int, int], ...]
"""(tile, number of the line)."""

KINDS = (
    "delay",
    "drop_before",
    "drop_after",
    "duplicate",
    "disconnect",
    "short",
    "nan_flagged",
    "nan_silent",
    "gain_step",
    "stuck_row",
    "stuck_col",
)
"""Every fault with a rate. A call may meet several at once."""


@dataclass(frozen=True, kw_only=True)
class FaultPlan:
    """Which faults, how often, how strong. A rate is the share of calls that meet the fault, 0 to 1.

    On any call: ``delay`` (the answer comes ``delay_s`` late), ``drop_before`` (lost on the way there: not carried
    out), ``drop_after`` (lost on the way back: carried out), ``duplicate`` (carried out twice, the first answer
    counts), ``disconnect`` (this call and the next ``disconnect_calls`` - 1 fail).

    On calls that answer with numbers (``mvm``, ``read``, ``program``): ``short`` (the last ``short_share`` of the
    vectors, or rows of a tile, do not come: NaN, not valid), ``nan_flagged`` and ``nan_silent`` (a share
    ``nan_share`` of the numbers is NaN; a silent one still says that it is valid).

    On ``mvm``, for good: ``gain_step`` (all currents times 1 + ``gain_step_rel`` from then on), ``stuck_row`` (one
    more row is driven with ``stuck_V`` whatever is asked), ``stuck_col`` (one more column answers ``stuck_uA``);
    ``stuck_rows`` and ``stuck_cols`` are stuck from the beginning. ``drift_per_call``: the gain falls as
    exp(-drift_per_call k) with the number k of multiplications since the last calibration. Calibration mends
    gain and drift, not lines.

    Raises :class:`~mho.errors.HardwareError` for a rate outside 0 to 1 or a number that does not exist.
    """

    delay: Fraction = 0.0
    delay_s: NonNegative = 0.1
    drop_before: Fraction = 0.0
    drop_after: Fraction = 0.0
    duplicate: Fraction = 0.0
    disconnect: Fraction = 0.0
    disconnect_calls: Count = 3
    short: Fraction = 0.0
    short_share: Fraction = 0.5
    nan_flagged: Fraction = 0.0
    nan_silent: Fraction = 0.0
    nan_share: Fraction = 0.01
    gain_step: Fraction = 0.0
    gain_step_rel: float = 0.1
    drift_per_call: NonNegative = 0.0
    stuck_row: Fraction = 0.0
    stuck_V: float = 0.0
    stuck_col: Fraction = 0.0
    stuck_uA: float = 0.0
    stuck_rows: Lines = ()
    stuck_cols: Lines = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.gain_step_rel <= -1.0:
            raise contradiction(self, "gain_step_rel", self.gain_step_rel, "leaves no gain", "raise it above -1")

    @classmethod
    def uniform(cls, rate: float, *, delay_s: float = 0.1) -> "FaultPlan":
        """``rate`` of the calls in all, spread evenly over delay, both drops, duplicate, short and flagged NaN."""
        each = rate / 6
        return cls(
            delay=each,
            delay_s=delay_s,
            drop_before=each,
            drop_after=each,
            duplicate=each,
            short=each,
            nan_flagged=each,
        )


@dataclass(frozen=True)
class Fault:
    """One fault that was injected: into which call, and what (``detail``: amount, with its unit)."""

    kind: str
    method: str
    operation: str
    attempt: int
    detail: str = ""


@dataclass(frozen=True)
class Draws:
    """What chance says about one call. Sampling ends here."""

    kinds: frozenset[str]
    seed: int


def draw(plan: FaultPlan, seed: int, method: str, operation: str, attempt: int) -> Draws:
    """Chance for one call; nothing else decides about it."""
    own = derive_seed(seed, "fault", method, operation, attempt)
    chance = uniforms((len(KINDS),), own, "kinds").tolist()
    return Draws(frozenset(k for k, u in zip(KINDS, chance, strict=True) if u < getattr(plan, k)), own)


def pick(count: int, seed: int, label: str) -> int:
    """One of ``count`` lines."""
    return min(int(float(uniforms((1,), seed, label)) * count), count - 1)


def cut_short(values: Tensor, valid: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """The last ``share`` of the second last axis, at least one, becomes NaN and not valid."""
    count = values.shape[-2]
    lost = min(count, max(1, round(count * share)))
    gone = (torch.arange(count) >= count - lost).unsqueeze(-1).expand_as(values)
    return values.masked_fill(gone, torch.nan), valid & ~gone


def put_nan(values: Tensor, valid: Tensor, chance: Tensor, share: float, *, flagged: bool) -> tuple[Tensor, Tensor]:
    """NaN where ``chance`` (uniforms of the shape of ``values``) is below ``share``; at least in one number."""
    hit = (chance < share) | (chance == chance.min())
    return values.masked_fill(hit, torch.nan), valid & ~hit if flagged else valid


def amplify(currents_uA: Tensor, gain: float, full_scale_uA: float) -> tuple[Tensor, bool]:
    """gain * i, held at the full scale of the converter; the second: whether any was held."""
    if gain == 1.0:
        return currents_uA, False
    grown = currents_uA * gain
    held = bool((grown.abs() > full_scale_uA).any())
    return grown.clamp(-full_scale_uA, full_scale_uA), held


def drive(inputs_V: Tensor, rows: list[int], v_V: float) -> Tensor:
    """The inputs that reach the array: stuck rows are driven with ``v_V``. A wrong shape is left to the device."""
    if not rows or inputs_V.dim() != 2 or inputs_V.shape[1] <= rows[-1]:
        return inputs_V
    driven = inputs_V.clone()
    driven[:, rows] = v_V
    return driven


def stick(currents_uA: Tensor, valid: Tensor, cols: list[int], i_uA: float) -> Tensor:
    """Stuck columns answer ``i_uA`` where they answer at all."""
    if not cols:
        return currents_uA
    stuck = currents_uA.clone()
    stuck[..., cols] = i_uA
    return stuck.masked_fill(~valid, torch.nan)


def read_through(g_uS: Tensor, rows: list[int], cols: list[int], v_V: float, i_uA: float, v_max_V: float) -> Tensor:
    """What a read at ``v_max_V`` a row makes of a tile with stuck lines.

    A stuck row s is driven with ``v_V`` during every read: g'[r] = g[r] + sum_s g[s] v / v_max, and its own read is
    that sum alone. A stuck column reads i / v_max everywhere.
    """
    seen = g_uS.clone()
    if rows:
        leak = g_uS[rows].sum(0) * (v_V / v_max_V)
        seen = seen + leak
        seen[rows] = leak
    if cols:
        seen[:, cols] = i_uA / v_max_V
    return seen
