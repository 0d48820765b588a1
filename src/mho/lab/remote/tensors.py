"""Tensors as raw bytes with dtype and shape. Everything is checked before anything is allocated; never a pickle."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mho.errors import RangeError
from mho.lab.remote import device_pb2 as pb

MAX_DIMS = 4
_WIRE: dict[torch.dtype, tuple[pb.Tensor.Dtype, np.dtype[Any]]] = {
    torch.float32: (pb.Tensor.FLOAT32, np.dtype("<f4")),
    torch.uint8: (pb.Tensor.UINT8, np.dtype("u1")),
    torch.bool: (pb.Tensor.BOOL, np.dtype("u1")),
}
_NAMES = {number: dtype for dtype, (number, _) in _WIRE.items()}


def encode(t: Tensor) -> pb.Tensor:
    """A float32, uint8 or bool tensor as a message, little-endian, the last index fastest."""
    number, wire = _WIRE[t.dtype]
    array = t.detach().cpu().contiguous().numpy()
    return pb.Tensor(dtype=number, shape=list(t.shape), data=array.astype(wire, copy=False).tobytes())


def decode(message: pb.Tensor, dtype: torch.dtype, shape: tuple[int | None, ...], what: str) -> Tensor:
    """The tensor of a message, which must have this dtype and shape (``None``: any length).

    Raises :class:`~mho.errors.RangeError` where dtype, shape and number of bytes do not fit together, and for a
    bool that is neither 0 nor 1. NaN and infinity pass: the limits of a device are checked elsewhere.
    """
    found = _NAMES.get(message.dtype)
    if found != dtype:
        raise RangeError(f"{what}: dtype number {message.dtype}, expected {dtype}. Fix: encode it as {dtype}.")
    dims = len(message.shape)
    sizes = tuple(message.shape) if dims <= MAX_DIMS else ()
    if dims != len(shape) or any(want is not None and want != got for want, got in zip(shape, sizes, strict=True)):
        said = list(sizes) if dims <= MAX_DIMS else f"of {dims} dimensions"
        wanted = ", ".join("n" if n is None else str(n) for n in shape)
        raise RangeError(f"{what}: shape {said}, expected [{wanted}]. Fix: pad, or cut.")
    wire = _WIRE[dtype][1]
    need = math.prod(sizes) * wire.itemsize
    if len(message.data) != need:
        raise RangeError(
            f"{what}: {len(message.data)} bytes, shape {list(sizes)} of {dtype} needs {need}. Fix: resend."
        )
    array = np.frombuffer(message.data, wire).reshape(sizes)
    if dtype != torch.bool:
        # A copy: bytes cannot be written to, and torch has one order of bytes only.
        return torch.from_numpy(array.astype(wire.newbyteorder("=")))
    if need and int(array.max()) > 1:
        raise RangeError(f"{what}: a bool of {int(array.max())}. Fix: one byte each, 0 or 1.")
    return torch.from_numpy(array.astype(np.bool_))
