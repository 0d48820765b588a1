"""A call as a header and tensors, and back; and the name under which a call is found again."""

import hashlib
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from mho import errors
from mho.errors import DeviceFault
from mho.lab.protocol import (
    Calibration,
    Capabilities,
    Conductances,
    Health,
    NotProgrammed,
    ProgramReport,
    Readout,
)
from mho.lab.record.frames import Header

Named = list[tuple[str, Tensor]]
Key = tuple[str, str, str, int]
"""(method, tile or "", operation, ordinal)."""

NAMED = ("program", "mvm")
"""Methods whose calls have a name of their own."""
ANSWERS: dict[str, type[Any]] = {
    "program": ProgramReport,
    "read": Conductances,
    "mvm": Readout,
    "calibrate": Calibration,
    "health": Health,
    "wait": Health,
}
_ERRORS: dict[str, type[Exception]] = {
    c.__name__: c
    for c in (
        errors.DeviceError,
        errors.TransportError,
        errors.DeviceBusyError,
        errors.RangeError,
        errors.DeviceFault,
        errors.BudgetError,
        NotProgrammed,
    )
}


@dataclass(eq=False)
class Places:
    """Names for the calls of one life of a host, in the order in which it makes them.

    ``program`` and ``mvm`` have a name of their own. The others are called by the last operation that was asked for
    before them and their number since: "the second health after mvm 'step 12'". A host that is resumed from a
    checkpoint asks for the operations again that it had asked for after it, so its reads get the same names again.
    """

    last: str = ""
    since: dict[tuple[str, str], int] = field(default_factory=dict)

    def of_operation(self, method: str, operation: str) -> Key:
        """Name of a call that has a name."""
        self.last = f"{method} {operation}"
        self.since.clear()
        return method, "", operation, 0

    def of_order(self, method: str, tile: int | None = None) -> Key:
        """Name of a call that has none."""
        where = "" if tile is None else str(tile)
        ordinal = self.since.get((method, where), 0)
        self.since[method, where] = ordinal + 1
        return method, where, self.last, ordinal


def spoken(key: Key) -> str:
    """The name of a call for people."""
    method, tile, operation, ordinal = key
    if method in NAMED:
        return f"{method} {operation!r}"
    where = f" of tile {tile}" if tile else ""
    return f"{method}{where}, number {ordinal + 1} " + (f"after {operation!r}" if operation else "before any operation")


def digest(tensor: Tensor) -> str:
    """BLAKE2b of dtype, shape and bytes."""
    told = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)} ".encode(), digest_size=16)
    told.update(tensor.detach().contiguous().reshape(-1).numpy().data)
    return told.hexdigest()


def tell(answer: Any) -> tuple[Header, Named]:
    """A dataclass of the protocol as plain values and tensors. A mask that is all true is told by its shape alone."""
    plain: Header = {}
    tensors: Named = []
    ones: Header = {}
    for spec in fields(answer):
        value = getattr(answer, spec.name)
        if not isinstance(value, Tensor):
            plain[spec.name] = value
        elif value.dtype == torch.bool and bool(value.all()):
            ones[spec.name] = list(value.shape)
        else:
            tensors.append((spec.name, value))
    return {"plain": plain, "ones": ones}, tensors


def retell(kind: type[Any], told: Header, tensors: dict[str, Tensor]) -> Any:
    """The inverse of :func:`tell`."""
    ones = {name: torch.ones(shape, dtype=torch.bool) for name, shape in told["ones"].items()}
    plain = {name: _tuples(value) for name, value in told["plain"].items()}
    return kind(**plain, **ones, **tensors)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def capabilities_of(told: Header) -> Capabilities:
    """The capabilities in the header of a life."""
    found: Capabilities = retell(Capabilities, told, {})
    return found


def tell_error(error: Exception) -> Header:
    """Class names, the nearest first, and the text of an error."""
    return {"classes": [c.__name__ for c in type(error).__mro__], "text": str(error)}


def retell_error(told: Header) -> Exception:
    """An error of the same class; of the nearest class that the protocol knows, where a driver raised its own."""
    for name in told["classes"]:
        if name in _ERRORS:
            return _ERRORS[name](told["text"])
    return DeviceFault(f"recorded {told['classes'][0]}: {told['text']}")


def first_difference(name: str, now: Tensor, then: Tensor) -> str:
    """Where and how two inputs differ, "" where they do not. NaN equals NaN."""
    if now.dtype != then.dtype or now.shape != then.shape:
        return f"{name} is {now.dtype} {list(now.shape)}, recorded {then.dtype} {list(then.shape)}"
    differs = (now != then) & ~((now != now) & (then != then))
    count = int(differs.sum())
    if not count:
        return ""
    at = tuple(int(i) for i in differs.nonzero()[0])
    place = ", ".join(map(str, at))
    return f"{name}[{place}] = {now[at].item()!r}, recorded {then[at].item()!r} ({count} of {now.numel()} differ)"
