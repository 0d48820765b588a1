"""Answers of a device, as dataclasses of the protocol and as messages: pure functions, no network.

``..._reply`` makes bytes to send; ``read_...`` takes bytes, and compares sizes and shapes with what was asked before a
tensor is made. What cannot be read raises :class:`~mho.errors.RangeError`.
"""

from dataclasses import fields

import torch

from mho.errors import HardwareError, RangeError
from mho.lab.protocol import Calibration, Capabilities, Conductances, Health, ProgramReport, Readout
from mho.lab.remote import device_pb2 as pb
from mho.lab.remote.messages import VERSION, packed, parse
from mho.lab.remote.requests import MvmCall
from mho.lab.remote.tensors import decode, encode

_OF_CAPABILITIES = tuple(f.name for f in fields(Capabilities))


def description_reply(can: Capabilities, message_bytes: int) -> bytes:
    """Capabilities and the largest message that is taken."""
    known = {name: getattr(can, name) for name in _OF_CAPABILITIES if getattr(can, name) is not None}
    return packed(pb.Description(version=VERSION, message_bytes=message_bytes, **known))


def read_description(raw: bytes) -> tuple[Capabilities, int]:
    """Capabilities, and the largest message that the other side takes."""
    message = parse(pb.Description, raw)
    optional = ("input_bits", "output_bits")
    known = {n: getattr(message, n) for n in _OF_CAPABILITIES if n not in optional or message.HasField(n)}
    try:
        return Capabilities(**known), int(message.message_bytes)
    except HardwareError as error:
        raise RangeError(f"capabilities that cannot be: {error}") from error


def program_reply(report: ProgramReport) -> bytes:
    """What programming achieved."""
    message = pb.ProgramReply(
        version=VERSION,
        operation=report.operation,
        status=encode(report.status),
        pulses=report.pulses,
        energy_J=report.energy_J,
        time_s=report.time_s,
        repeated=report.repeated,
    )
    if report.achieved_uS is not None:
        message.achieved_uS.CopyFrom(encode(report.achieved_uS.float()))
    return packed(message)


def read_program(raw: bytes, can: Capabilities) -> ProgramReport:
    """What programming achieved."""
    message = parse(pb.ProgramReply, raw)
    shape = (can.rows, can.cols)
    return ProgramReport(
        operation=message.operation,
        achieved_uS=decode(message.achieved_uS, torch.float32, shape, "achieved_uS")
        if message.HasField("achieved_uS")
        else None,
        status=decode(message.status, torch.uint8, shape, "status"),
        pulses=message.pulses if message.HasField("pulses") else None,
        energy_J=message.energy_J if message.HasField("energy_J") else None,
        time_s=message.time_s,
        repeated=message.repeated,
    )


def as_repeated(raw: bytes) -> bytes:
    """The same answer to programming, marked as one that was given before."""
    message = parse(pb.ProgramReply, raw)
    message.repeated = True
    return packed(message)


def conductances_reply(found: Conductances) -> bytes:
    """Conductances of a tile."""
    message = pb.ReadReply(version=VERSION, g_uS=encode(found.g_uS.float()), valid=encode(found.valid))
    message.time_s = found.time_s
    return packed(message)


def read_conductances(raw: bytes, can: Capabilities) -> Conductances:
    """Conductances of a tile."""
    message = parse(pb.ReadReply, raw)
    shape = (can.rows, can.cols)
    g_uS = decode(message.g_uS, torch.float32, shape, "g_uS")
    return Conductances(g_uS, decode(message.valid, torch.bool, shape, "valid"), message.time_s)


def mvm_reply(readout: Readout) -> bytes:
    """Currents."""
    return packed(
        pb.MvmReply(
            version=VERSION,
            operation=readout.operation,
            currents_uA=encode(readout.currents_uA.float()),
            valid=encode(readout.valid),
            time_s=readout.time_s,
            temperature_K=readout.temperature_K,
            flags=readout.flags,
        )
    )


def read_mvm(raw: bytes, call: MvmCall, can: Capabilities) -> Readout:
    """Currents that answer ``call``."""
    message = parse(pb.MvmReply, raw)
    if message.operation != call.operation:
        raise RangeError(f"an answer to operation {message.operation!r}, asked was {call.operation!r}")
    shape = (call.repeats, len(call.inputs_V), can.cols)
    return Readout(
        operation=message.operation,
        currents_uA=decode(message.currents_uA, torch.float32, shape, "currents_uA"),
        valid=decode(message.valid, torch.bool, shape, "valid"),
        time_s=message.time_s,
        temperature_K=message.temperature_K if message.HasField("temperature_K") else None,
        flags=tuple(message.flags),
    )


def calibration_reply(done: Calibration) -> bytes:
    """What the device's calibration found."""
    return packed(
        pb.CalibrationReply(
            version=VERSION,
            identity=done.identity,
            time_s=done.time_s,
            temperature_K=done.temperature_K,
            residual=done.residual,
            valid_s=done.valid_s,
            values=done.values,
        )
    )


def read_calibration(raw: bytes) -> Calibration:
    """What the device's calibration found."""
    message = parse(pb.CalibrationReply, raw)
    return Calibration(
        identity=message.identity,
        time_s=message.time_s,
        temperature_K=message.temperature_K if message.HasField("temperature_K") else None,
        residual=message.residual if message.HasField("residual") else None,
        valid_s=message.valid_s if message.HasField("valid_s") else None,
        values=dict(message.values),
    )


def health_reply(health: Health) -> bytes:
    """How the device is."""
    return packed(
        pb.HealthReply(
            version=VERSION,
            ok=health.ok,
            boot=health.boot,
            time_s=health.time_s,
            temperature_K=health.temperature_K,
            programmed_tiles=health.programmed_tiles,
            dead_rows=[pb.Line(tile=tile, line=line) for tile, line in health.dead_rows],
            dead_cols=[pb.Line(tile=tile, line=line) for tile, line in health.dead_cols],
            message=health.message,
        )
    )


def read_health(raw: bytes) -> Health:
    """How the device is."""
    message = parse(pb.HealthReply, raw)
    return Health(
        ok=message.ok,
        boot=message.boot,
        time_s=message.time_s,
        temperature_K=message.temperature_K if message.HasField("temperature_K") else None,
        programmed_tiles=tuple(message.programmed_tiles),
        dead_rows=tuple((line.tile, line.line) for line in message.dead_rows),
        dead_cols=tuple((line.tile, line.line) for line in message.dead_cols),
        message=message.message,
    )
