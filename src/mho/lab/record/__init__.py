"""Every call to a device written down, and answered again to the same bits without it. See README.md."""

from mho.lab.record.recorder import Recorder
from mho.lab.record.replay import NotRecorded, ReplayDevice

__all__ = ["NotRecorded", "Recorder", "ReplayDevice"]
