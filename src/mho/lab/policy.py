"""How patient a session is, and what it may spend."""

import time
from dataclasses import dataclass
from typing import Annotated, final

from annotated_types import Ge

from mho.errors import BudgetError
from mho.hardware.fields import Count, Fraction, NonNegative, Positive, check_fields

Whole = Annotated[int, Ge(0)]


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Time-outs, retries and the circuit breaker of a :class:`~mho.lab.session.Session`.

    ``timeout_s``: of one call (``None``: the device's own ``capabilities().timeout_s``). ``retries``: of a call whose
    answer did not come, the k-th after a pause of min(backoff_s * backoff_factor^k, backoff_max_s).
    ``breaker_failures`` failures in a row open the breaker: from then on only health is asked, each
    ``breaker_pause_s``, until the device answers or ``give_up_s`` have passed. ``max_invalid``: share of an answer's
    numbers that may be missing before it is asked for again (``retries`` times); what is missing at last stays NaN
    and is counted.
    """

    timeout_s: Positive | None = None
    retries: Whole = 5
    backoff_s: NonNegative = 0.02
    backoff_factor: Positive = 2.0
    backoff_max_s: Positive = 2.0
    breaker_failures: Count = 8
    breaker_pause_s: Positive = 0.5
    give_up_s: NonNegative = 60.0
    max_invalid: Fraction = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def pause_s(self, attempt: int) -> float:
        """Pause after the failure of ``attempt`` (from 0)."""
        return min(self.backoff_s * self.backoff_factor**attempt, self.backoff_max_s)


@final
class Budget:
    """Device calls, vectors and seconds that a run may use; ``None``: without limit.

    A device call is what is sent, retries included: silicon wears and machines are booked by what is really done.
    """

    def __init__(self, *, calls: int | None = None, vectors: int | None = None, seconds: float | None = None) -> None:
        self.limits = {"calls": calls, "vectors": vectors, "seconds": seconds}
        self.programs = 0
        self.mvms = 0
        self.others = 0
        self.vectors = 0
        self.device_s = 0.0
        self._began = time.monotonic()

    @property
    def calls(self) -> int:
        """Calls that were sent."""
        return self.programs + self.mvms + self.others

    def take(self, kind: str, vectors: int = 0) -> None:
        """Account for one call before it is sent. Raises :class:`BudgetError` where it is no longer allowed."""
        asked = {
            "calls": self.calls + 1,
            "vectors": self.vectors + vectors,
            "seconds": time.monotonic() - self._began,
        }
        for name, limit in self.limits.items():
            if limit is not None and asked[name] > limit:
                raise BudgetError(
                    f"budget: {name} = {asked[name]:.6g} would exceed {limit:.6g}. Nothing was sent. "
                    f"Way out: a larger Budget({name}=...), larger batches, or fewer repeats."
                )
        if kind == "program":
            self.programs += 1
        elif kind == "mvm":
            self.mvms += 1
        else:
            self.others += 1
        self.vectors += vectors

    def spent(self, seconds: float) -> None:
        """Add the time that a call took."""
        self.device_s += seconds

    def summary(self) -> dict[str, float]:
        """Numbers for a report."""
        return {
            "programs": self.programs,
            "mvms": self.mvms,
            "other_calls": self.others,
            "vectors": self.vectors,
            "device_s": round(self.device_s, 3),
            "wall_s": round(time.monotonic() - self._began, 3),
        }
