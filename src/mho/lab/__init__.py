"""Hardware in the loop: devices, policies, twins, training. See README.md of this folder."""

from mho.lab.clock import wait, wait_until
from mho.lab.columns import Columns, ColumnStream
from mho.lab.connect import connect
from mho.lab.correction import fit_affine, fit_low_rank, recalibrate_norms, samples_needed
from mho.lab.deploy import CellErrors, Deployed, deploy
from mho.lab.dry import DryRun
from mho.lab.faults import FaultPlan, FaultyDevice
from mho.lab.gradient import FeedbackAlignment, NodePerturbation, Spsa, gradient_cosine
from mho.lab.lines import find_dead_lines, measure_columns
from mho.lab.log import Event, EventLog
from mho.lab.placement import Placement, place
from mho.lab.policy import Budget, Policy
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
    TimedDevice,
)
from mho.lab.record import Recorder, ReplayDevice
from mho.lab.session import Session
from mho.lab.substrate import Correction, OnDevice
from mho.lab.training import LoopResult, fit_in_the_loop, fit_layer_by_layer
from mho.lab.twin import Twin, column_response, fit_twin, load_twin, merged, read_measurements
from mho.lab.virtual import VirtualDevice
from mho.lab.watch import Watch, WatchPolicy

__all__ = [
    "Budget",
    "Calibration",
    "Capabilities",
    "CellErrors",
    "CellStatus",
    "ColumnStream",
    "Columns",
    "Conductances",
    "Correction",
    "Deployed",
    "Device",
    "DryRun",
    "Event",
    "EventLog",
    "FaultPlan",
    "FaultyDevice",
    "FeedbackAlignment",
    "Health",
    "LoopResult",
    "NodePerturbation",
    "NotProgrammed",
    "OnDevice",
    "Placement",
    "Policy",
    "ProgramReport",
    "Readout",
    "Recorder",
    "ReplayDevice",
    "Session",
    "Spsa",
    "TimedDevice",
    "Twin",
    "VirtualDevice",
    "Watch",
    "WatchPolicy",
    "column_response",
    "connect",
    "deploy",
    "find_dead_lines",
    "fit_affine",
    "fit_in_the_loop",
    "fit_layer_by_layer",
    "fit_low_rank",
    "fit_twin",
    "gradient_cosine",
    "load_twin",
    "measure_columns",
    "merged",
    "place",
    "read_measurements",
    "recalibrate_norms",
    "samples_needed",
    "wait",
    "wait_until",
]
