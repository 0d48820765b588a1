"""The IDX format of MNIST: big-endian; 0, 0, type, dimensions; one 4-byte size each; data in C order.

Source: the description on the MNIST page of Y. LeCun, C. Cortes and C. J. C. Burges. Only type 8
(unsigned byte) is read: no data set here uses another.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from mho.data.checks import Bytes, damaged, require_digest

_UNSIGNED_BYTE = 8
_MOST_DIMENSIONS = 4


def split_idx(content: bytes, where: object, offset: int = 0) -> tuple[Bytes, int]:
    """One IDX array that begins at ``offset`` of ``content``, and the offset just behind it.

    The array is a writable uint8 copy. Raises DataError (naming ``where``) on a wrong magic number or too few bytes.
    """
    head = content[offset : offset + 4]
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _UNSIGNED_BYTE or not 1 <= head[3] <= _MOST_DIMENSIONS:
        raise damaged(where, "an IDX header (00 00 08, then 1 to 4 dimensions)", f"the bytes {head.hex(' ') or 'none'}")
    start = offset + 4 + 4 * head[3]
    if len(content) < start:
        raise damaged(where, f"{head[3]} sizes of 4 bytes after the magic number", f"{len(content) - offset - 4} bytes")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", head[3], offset + 4))
    size = math.prod(shape)
    if len(content) - start < size:
        raise damaged(where, f"{size} bytes of data for the shape {shape}", f"{len(content) - start}")
    return np.frombuffer(content, np.uint8, size, start).reshape(shape).copy(), start + size


def parse_idx(content: bytes, where: object) -> Bytes:
    """The one array of an IDX file; more bytes than its header says are an error too."""
    array, end = split_idx(content, where)
    if end != len(content):
        raise damaged(where, f"{end} bytes for the shape {array.shape}", f"{len(content)}")
    return array


def write_idx(array: Bytes) -> bytes:
    """The IDX bytes of a uint8 array: the inverse of :func:`parse_idx`."""
    head = bytes([0, 0, _UNSIGNED_BYTE, array.ndim])
    return head + np.asarray(array.shape, ">u4").tobytes() + np.ascontiguousarray(array, np.uint8).tobytes()


def read_idx(path: Path, digest: str | None = None) -> Bytes:
    """The array of an IDX file, gzip-compressed when its name ends in ``.gz``.

    ``digest`` ("md5:..." or "sha256:...") is checked over the file as it lies on the disk.
    Raises DataError that names the file for a wrong digest, a truncated or damaged gzip stream or a wrong header.
    """
    content = path.read_bytes()
    if digest is not None:
        require_digest(path, content, digest)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise damaged(path, "a complete gzip file", f"{len(content)} bytes that do not unpack ({error})") from error
    return parse_idx(content, path)
