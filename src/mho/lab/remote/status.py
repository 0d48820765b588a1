"""Errors on their way: a status of gRPC with the name of the class, and the same class again on the other side."""

from dataclasses import dataclass
from typing import Any, final

import grpc

from mho.errors import BudgetError, DeviceBusyError, DeviceError, DeviceFault, MhoError, RangeError, TransportError
from mho.lab.protocol import NotProgrammed

ERROR_KEY = "mho-error"
MAX_TEXT = 2000
"""Characters of an error's text: a header has little room, and a text may hold what a client sent."""
_CODES: tuple[tuple[type[DeviceError], Any], ...] = (  # subclasses first
    (NotProgrammed, grpc.StatusCode.FAILED_PRECONDITION),
    (DeviceBusyError, grpc.StatusCode.ABORTED),
    (RangeError, grpc.StatusCode.INVALID_ARGUMENT),
    (TransportError, grpc.StatusCode.UNAVAILABLE),
    (BudgetError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (DeviceFault, grpc.StatusCode.INTERNAL),
)
_NAMED = {kind.__name__: kind for kind, _ in _CODES}
_CALLERS_MISTAKE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


@final
@dataclass(frozen=True)
class Status:
    """``code`` of gRPC, ``kind``: the class of mho.errors, ``text``."""

    code: Any
    kind: str
    text: str


class Refused(Exception):
    """A call is refused with a status that no class of mho.errors implies."""

    def __init__(self, code: Any, kind: type[DeviceError], text: str) -> None:
        super().__init__(text)
        self.status = Status(code, kind.__name__, text)


def status_of(error: Exception) -> Status:
    """How an error of the device or of a check travels. What a driver raises by mistake is a fault of the device."""
    if isinstance(error, Refused):
        return error.status
    for kind, code in _CODES:
        if isinstance(error, kind):
            return Status(code, kind.__name__, str(error)[:MAX_TEXT])
    text = str(error) if isinstance(error, MhoError) else f"the driver raised {type(error).__name__}: {error}"
    return Status(grpc.StatusCode.INTERNAL, DeviceFault.__name__, text[:MAX_TEXT])


def error_of(code: Any, kind: str | None, text: str, where: str) -> DeviceError:
    """The error that a status stands for. Without a class the network is to blame, or the caller, by the code."""
    if kind in _NAMED:
        return _NAMED[kind](f"{where}: {text}")
    name = code.name if code is not None else "no status"
    if code in _CALLERS_MISTAKE:
        return RangeError(f"{where}: {text} ({name}). Fix: is this the address of an mho server?")
    return TransportError(f"{where}: {text} ({name}). Way out: call again; is the server still there?")
