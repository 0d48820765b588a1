"""The file of a recording: a magic line, then frames, each written in one piece at the end of the file.

    file   = b"MHOREC1\\n" frame*
    frame  = head header check payload check
    head   = "FRAM", u32 length of header, u64 length of payload, u32 CRC-32 of these 16 bytes     (20 bytes)
    header = JSON, UTF-8;  payload = tensors, raw, little-endian, one behind the other
    check  = u32 CRC-32 of the part before it

All integers are little-endian. A process that is killed leaves at most one torn frame at the end. It is told from
damage by the head: a torn frame says how long it wanted to be. The number after ``MHOREC`` is the version.
"""

import json
import math
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from mho.errors import DataError

MAGIC = b"MHOREC1\n"
_HEAD = struct.Struct("<4sIQI")
_CHECK = struct.Struct("<I")
_MARK = b"FRAM"
_DTYPES = ("float32", "float64", "bool", "uint8", "int32", "int64")
"""What a recording holds; torch and numpy call them the same."""

Header = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """Where a frame lies: ``offset`` of its head, lengths of header and payload, and the header itself."""

    offset: int
    header_bytes: int
    payload_bytes: int
    header: Header

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + _HEAD.size + self.header_bytes + self.payload_bytes + 2 * _CHECK.size


def pack(header: Header, tensors: Sequence[tuple[str, Tensor]]) -> bytes:
    """One frame. ``header`` gets the key ``tensors``: name, dtype and shape of each.

    Raises :class:`DataError` for a dtype that a recording does not hold.
    """
    told, parts = [], []
    for name, tensor in tensors:
        dtype = str(tensor.dtype).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise DataError(f"{name}: a recording holds no {dtype}. Fix: one of {', '.join(_DTYPES)}.")
        told.append([name, dtype, list(tensor.shape)])
        array = tensor.detach().cpu().contiguous().numpy()
        parts.append(array.astype(array.dtype.newbyteorder("<"), copy=False).data.cast("B") if array.size else b"")
    text = json.dumps({**header, "tensors": told}, separators=(",", ":")).encode()
    payload = b"".join(parts)
    head = struct.pack("<4sIQ", _MARK, len(text), len(payload))
    return b"".join(piece + _CHECK.pack(zlib.crc32(piece)) for piece in (head, text, payload))


def scan(stream: BinaryIO, path: str) -> Iterator[Frame]:
    """Every whole frame in order, without reading payloads; a torn one at the end is left out.

    The caller sees it: the last frame's ``end`` (or ``len(MAGIC)``) is then less than the size of the file. Raises
    :class:`DataError` that names the byte where the file is no recording, of another version, or damaged.
    """
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    magic = stream.read(len(MAGIC))
    if len(magic) < len(MAGIC) and MAGIC.startswith(magic):
        return
    if magic != MAGIC:
        kind = f"version {magic[6:7].decode(errors='replace')}" if magic.startswith(b"MHOREC") else "no recording"
        raise DataError(f"{path}: {kind}; this package reads version 1. Fix: give a file that Recorder wrote.")
    at = len(MAGIC)
    while (frame := frame_at(stream, at, size, path)) is not None:
        yield frame
        at = frame.end


def frame_at(stream: BinaryIO, at: int, size: int, path: str) -> Frame | None:
    """The frame whose head is at byte ``at`` of ``size``, without its payload; ``None`` where it is torn."""
    if size - at < _HEAD.size:
        return None
    stream.seek(at)
    head = stream.read(_HEAD.size)
    mark, header_bytes, payload_bytes, check = _HEAD.unpack(head)
    if mark != _MARK or check != zlib.crc32(head[:16]):
        raise _damaged(path, at, "the head of a frame")
    end = at + _HEAD.size + header_bytes + payload_bytes + 2 * _CHECK.size
    if end > size:
        return None
    text = _piece(stream, header_bytes)
    if end == size and (text is None or _piece(stream, payload_bytes) is None):
        return None  # the last frame: its space was there, its bytes had not all arrived (loss of power)
    if text is None:
        raise _damaged(path, at, "a header")
    return Frame(at, header_bytes, payload_bytes, json.loads(text))


def _piece(stream: BinaryIO, count: int) -> bytearray | None:
    """So many bytes and their check; ``None`` where they do not agree."""
    piece = bytearray(count)
    whole = stream.readinto(piece) == count  # type: ignore[attr-defined]
    return piece if whole and stream.read(_CHECK.size) == _CHECK.pack(zlib.crc32(piece)) else None


def load(stream: BinaryIO, frame: Frame, path: str) -> dict[str, Tensor]:
    """The tensors of a frame, by name. Raises :class:`DataError` where its check sum is wrong."""
    stream.seek(frame.offset + _HEAD.size + frame.header_bytes + _CHECK.size)
    payload = _piece(stream, frame.payload_bytes)
    if payload is None:
        raise _damaged(path, frame.offset, "the tensors of a frame")
    found, at = {}, 0
    for name, dtype, shape in frame.header["tensors"]:
        kind = np.dtype(dtype)
        count = math.prod(shape)
        array = np.frombuffer(payload, kind.newbyteorder("<"), count, at) if count else np.zeros(0, kind)
        found[name] = torch.from_numpy(array.astype(kind).reshape(shape))
        at += array.nbytes
    return found


def _damaged(path: str, at: int, what: str) -> DataError:
    return DataError(
        f"{path}: damaged at byte {at} ({what}). What lies before is whole. "
        f"Way out: get the file again, or keep its first {at} bytes (truncate -s {at})."
    )
