"""Whole experiments: what ``mho run`` does from a recipe to a report."""

from importlib import import_module
from typing import Any

__all__ = ["RunSummary", "run_recipe"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("mho.experiments.run"), name)
