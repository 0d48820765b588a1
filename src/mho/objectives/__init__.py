"""Losses that know the hardware: see README.md of this folder. Names are loaded on first use."""

from importlib import import_module
from typing import Any

_HOME = {
    "PhysicsInformedLoss": "mho.objectives.loss",
    "Teacher": "mho.objectives.distillation",
    # What a stochastic layer is fitted and budgeted with.
    "BetaNLL": "mho.objectives.heteroscedastic",
    "OnlineNoise": "mho.objectives.heteroscedastic",
    "fit_noise": "mho.objectives.heteroscedastic",
    "budget_objective": "mho.objectives.budget",
    "noise_budget": "mho.objectives.budget",
    "noise_curvature": "mho.objectives.budget",
    "noise_energy": "mho.objectives.budget",
}

__all__ = [
    "BetaNLL",
    "OnlineNoise",
    "PhysicsInformedLoss",
    "Teacher",
    "budget_objective",
    "fit_noise",
    "noise_budget",
    "noise_curvature",
    "noise_energy",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mho.objectives' has no attribute {name!r}; it has {', '.join(_HOME)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
