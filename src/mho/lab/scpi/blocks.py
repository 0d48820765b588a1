"""Arrays as IEEE 488.2 definite-length blocks: ``#``, one digit n, n digits of the length, so many bytes.

``#3100`` is followed by 100 bytes. Source: IEEE Std 488.2-1992, 7.7.6 and 8.7.9. A block of indefinite length
(``#0``) ends with the message and has no length to check; it is refused.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mho.errors import RangeError, TransportError

ByteOrder = Literal["big", "little"]
_KINDS: dict[ByteOrder, str] = {"big": ">f4", "little": "<f4"}
MOST_DIGITS = 9


def encode_block(payload: bytes) -> bytes:
    """The block of ``payload``. Raises :class:`RangeError` beyond 999,999,999 bytes."""
    length = str(len(payload))
    if len(length) > MOST_DIGITS:
        raise RangeError(f"a block of {len(payload)} bytes: its length has more than 9 digits. Fix: send it in parts.")
    return f"#{len(length)}{length}".encode() + payload


def read_block(read: Callable[[int], bytes], most_bytes: int) -> bytes:
    """The payload of the block that ``read(count)`` gives, piece by piece; nothing behind it is read.

    Raises :class:`TransportError` for anything else than a definite-length block of at most ``most_bytes``, before
    the payload is asked for.
    """
    start = _exactly(read, 2)
    if start[:1] != b"#" or not start[1:].isdigit():
        raise _malformed(start, "a block starts with # and a digit")
    digits = int(start[1:])
    if digits == 0:
        raise _malformed(start, "a block of indefinite length cannot be checked")
    length = _exactly(read, digits)
    if not length.isdigit():
        raise _malformed(start + length, f"{digits} digits of a length were announced")
    if int(length) > most_bytes:
        raise _malformed(start + length, f"at most {most_bytes} bytes were asked for")
    return _exactly(read, int(length))


def encode_floats(values: Tensor, order: ByteOrder) -> bytes:
    """The block of a tensor as 32-bit floats (``FORMat REAL,32``)."""
    return encode_block(values.detach().float().contiguous().numpy().astype(_KINDS[order]).tobytes())


def decode_floats(payload: bytes, count: int, order: ByteOrder) -> Tensor:
    """``count`` 32-bit floats as a float32 tensor. Raises :class:`TransportError` for another number of bytes."""
    if len(payload) != 4 * count:
        raise TransportError(
            f"a block of {len(payload)} bytes, expected {count} floats of 4 bytes. Fix: check the data format and the "
            "channels of the layout; try again."
        )
    return torch.from_numpy(np.frombuffer(payload, _KINDS[order]).astype(np.float32))


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    piece = read(count) if count else b""
    if len(piece) != count:
        raise TransportError(f"a block broke off: {len(piece)} of {count} bytes came. Fix: try again.")
    return piece


def _malformed(found: bytes, why: str) -> TransportError:
    return TransportError(f"no block but {found[:32]!r}: {why}. Fix: set the instrument's data format; try again.")
