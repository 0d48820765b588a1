"""Physical constants (exact SI, 2019 redefinition) and durations as people write them."""

import re

BOLTZMANN_J_PER_K = 1.380649e-23
ELEMENTARY_CHARGE_C = 1.602176634e-19
PLANCK_J_S = 6.62607015e-34

_SECONDS = {
    "ns": 1e-9,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
    "minute": 60.0,
    "h": 3600.0,
    "hour": 3600.0,
    "day": 86400.0,
    "d": 86400.0,
    "week": 604800.0,
    "month": 2629800.0,
    "year": 31557600.0,
    "y": 31557600.0,
}
_DURATION = re.compile(r"\s*([0-9.eE+-]+)\s*([a-zA-Z]*)\s*")


def seconds(duration: float | str) -> float:
    """``"1 day"`` -> 86400.0; a number is taken as seconds. Units: ns to year (365.25 days).

    Raises ``ValueError`` for an unknown unit or a negative or non-finite time.
    """
    if isinstance(duration, str):
        match = _DURATION.fullmatch(duration)
        if match is None:
            raise ValueError(f"duration {duration!r} is not a number with a unit; write e.g. '25 s', '1 day'")
        number, unit = match.groups()
        unit = unit or "s"
        factor = _SECONDS.get(unit) or _SECONDS.get(unit.removesuffix("s"))
        if factor is None:
            raise ValueError(f"duration {duration!r}: unknown unit {unit!r}; known: {', '.join(_SECONDS)}")
        try:
            value = float(number) * factor
        except ValueError:
            raise ValueError(f"duration {duration!r}: {number!r} is not a number") from None
    else:
        value = float(duration)
    if not 0 <= value < float("inf"):
        raise ValueError(f"duration {duration!r} must be finite and not negative")
    return value


def duration_text(t_s: float) -> str:
    """The shortest usual spelling: 86400.0 -> ``"1 day"``."""
    for name in ("year", "month", "day", "hour", "min"):
        count = t_s / _SECONDS[name]
        if count >= 0.999:
            short = f"{count:.3g}"
            plural = "s" if short != "1" and name != "min" else ""
            return f"{short} {name}{plural}"
    return f"{t_s:.3g} s"
