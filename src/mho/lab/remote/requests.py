"""Questions to a device, as dataclasses and as messages: pure functions, no network.

``..._message`` makes bytes to send; ``read_...`` takes bytes that anybody may have sent, and compares sizes and shapes
with what the device has before a tensor is made. What cannot be read raises :class:`~mho.errors.RangeError`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mho.errors import RangeError
from mho.lab.protocol import Capabilities
from mho.lab.remote import device_pb2 as pb
from mho.lab.remote.messages import VERSION, packed, parse
from mho.lab.remote.tensors import decode, encode

MAX_NAME = 1024
"""Characters of the name of an operation."""


@dataclass(frozen=True, eq=False)
class ProgramCall:
    """What :meth:`Device.program` is asked for. ``expects``: the operation believed to be on the tile, "" is any."""

    tile: int
    operation: str
    targets_uS: Tensor
    mask: Tensor | None
    expects: str = ""


@dataclass(frozen=True, eq=False)
class ReadCall:
    """What :meth:`Device.read` is asked for."""

    tile: int
    expects: str = ""


@dataclass(frozen=True, eq=False)
class MvmCall:
    """What :meth:`Device.mvm` is asked for."""

    tile: int
    operation: str
    inputs_V: Tensor
    full_scale_uA: float
    repeats: int
    expects: str = ""


def _name(operation: str) -> str:
    if not 0 < len(operation) <= MAX_NAME:
        raise RangeError(f"operation: {len(operation)} characters, allowed 1 to {MAX_NAME}. Fix: give it a short name.")
    return operation


def program_message(call: ProgramCall) -> bytes:
    """A request to program."""
    message = pb.ProgramRequest(version=VERSION, tile=call.tile, operation=call.operation, expects=call.expects)
    message.targets_uS.CopyFrom(encode(call.targets_uS.float()))
    if call.mask is not None:
        message.mask.CopyFrom(encode(call.mask))
    return packed(message)


def read_program(raw: bytes, can: Capabilities) -> ProgramCall:
    """A request to program, of the shape of the device's tiles."""
    message = parse(pb.ProgramRequest, raw)
    shape = (can.rows, can.cols)
    targets = decode(message.targets_uS, torch.float32, shape, "targets_uS")
    mask = decode(message.mask, torch.bool, shape, "mask") if message.HasField("mask") else None
    return ProgramCall(message.tile, _name(message.operation), targets, mask, message.expects)


def read_message(call: ReadCall) -> bytes:
    """A request to read a tile back."""
    return packed(pb.ReadRequest(version=VERSION, tile=call.tile, expects=call.expects))


def read_read(raw: bytes) -> ReadCall:
    """A request to read a tile back."""
    message = parse(pb.ReadRequest, raw)
    return ReadCall(message.tile, message.expects)


def wait_message(until_s: float) -> bytes:
    """A request to let the clock run on."""
    return packed(pb.WaitRequest(version=VERSION, until_s=until_s))


def read_wait(raw: bytes) -> float:
    """A request to let the clock run on: until when."""
    return float(parse(pb.WaitRequest, raw).until_s)


def mvm_message(call: MvmCall) -> bytes:
    """A request to multiply."""
    return packed(
        pb.MvmRequest(
            version=VERSION,
            tile=call.tile,
            operation=call.operation,
            inputs_V=encode(call.inputs_V.float()),
            full_scale_uA=call.full_scale_uA,
            repeats=call.repeats,
            expects=call.expects,
        )
    )


def read_mvm(raw: bytes, can: Capabilities) -> MvmCall:
    """A request to multiply, of the rows of the device's tiles."""
    message = parse(pb.MvmRequest, raw)
    inputs = decode(message.inputs_V, torch.float32, (None, can.rows), "inputs_V")
    scale, repeats = message.full_scale_uA, message.repeats
    return MvmCall(message.tile, _name(message.operation), inputs, scale, repeats, message.expects)
