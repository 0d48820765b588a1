"""What all messages share: the version of the protocol, and reading bytes that anybody may have sent."""

from typing import TypeVar, cast

from google.protobuf.message import DecodeError, Message

from mho.errors import RangeError
from mho.lab.remote import device_pb2 as pb

SERVICE = "mho.lab.v1.Device"
VERSION = 1

M = TypeVar("M", bound=Message)


def packed(message: Message) -> bytes:
    """The bytes of a message."""
    return bytes(message.SerializeToString())


def parse(kind: type[M], raw: bytes) -> M:
    """The message in ``raw``, of this version of the protocol."""
    try:
        message = kind.FromString(raw)
    except DecodeError as error:
        raise RangeError(
            f"{len(raw)} bytes are no {kind.__name__}: {error}. Fix: encode it by device.proto."
        ) from error
    version = message.version
    if version != VERSION:
        raise RangeError(
            f"{kind.__name__}: version {version} of the protocol, this side speaks {VERSION}. "
            "Fix: install the same version of mho on both sides."
        )
    return cast(M, message)


def ask_message() -> bytes:
    """A question without arguments."""
    return packed(pb.Ask(version=VERSION))


def read_ask(raw: bytes) -> None:
    """A question without arguments."""
    parse(pb.Ask, raw)


def done_message() -> bytes:
    """An answer without content."""
    return packed(pb.Done(version=VERSION))
