"""Campaigns: hardware x recipe x seed x noise x age, on many cores. See README.md of this folder."""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Campaign": "settings",
    "CampaignError": "errors",
    "CampaignRun": "engine",
    "Cell": "cells",
    "EvaluateGrid": "settings",
    "Found": "cells",
    "Labels": "cells",
    "Progress": "progress",
    "dump_campaign": "settings",
    "load_campaign": "settings",
    "parse_campaign": "settings",
    "read_results": "store",
    "run_campaign": "run",
    "run_cells": "engine",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
