"""mho: train neural networks for noisy analog hardware, prove them on many virtual chips, count joules.

The public names are loaded on first use, so that ``import mho`` costs little more than torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "load_hardware": "mho.hardware",
    "Hardware": "mho.hardware",
    "inspect": "mho.nn.conversion",
    "convert": "mho.nn.conversion",
    "to_digital": "mho.nn.conversion",
    "calibrate": "mho.nn.conversion",
    "fabricate": "mho.chips",
    "evaluate": "mho.evaluation.run",
    "fit": "mho.train",
    "PhysicsInformedLoss": "mho.objectives.loss",
    "forecast": "mho.moments",
    "energy": "mho.costs",
    "allocate": "mho.allocation",
    "load_dataset": "mho.data",
    "report": "mho.reporting.api",
}

_ROOMS = frozenset(
    {
        "allocation", "campaign", "chips", "costs", "crossbar", "data", "ebm", "errors", "evaluation", "experiments",
        "hardware", "lab", "models", "moments", "nn", "objectives", "physics", "reporting", "rng", "testing", "train",
        "units",
    }
)  # fmt: skip
"""Rooms that are used by their own name: ``mho.lab.connect``, ``mho.train.AchievableUpdates``."""

__all__ = ["__version__", *_HOME, *sorted(_ROOMS)]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"mho.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'mho' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME, *_ROOMS])
