"""Hardware in the loop: devices, policies, twins, training. See README.md of this folder."""

from mho.lab.protocol import (
    Calibration,
    Capabilities,
    CellStatus,
    Conductances,
    Device,
    Health,
    NotProgrammed,
    ProgramReport,
    Readout,
)
from mho.lab.virtual import VirtualDevice

__all__ = [
    "Calibration",
    "Capabilities",
    "CellStatus",
    "Conductances",
    "Device",
    "Health",
    "NotProgrammed",
    "ProgramReport",
    "Readout",
    "VirtualDevice",
]
