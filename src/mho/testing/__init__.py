"""Public test tools: laws of noise, conformance of cell models and of devices. Nothing is imported until used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mho.testing.cells import check_cell
    from mho.testing.devices import DeviceReport, check_device
    from mho.testing.statistics import (
        LawCheck,
        assert_independent,
        assert_law,
        assert_power,
        check_law,
        law_holds,
    )

_HOMES = {
    "DeviceReport": "devices",
    "LawCheck": "statistics",
    "assert_independent": "statistics",
    "assert_law": "statistics",
    "assert_power": "statistics",
    "check_cell": "cells",
    "check_device": "devices",
    "check_law": "statistics",
    "law_holds": "statistics",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(f"mho.testing.{home}"), name)


__all__ = [
    "DeviceReport",
    "LawCheck",
    "assert_independent",
    "assert_law",
    "assert_power",
    "check_cell",
    "check_device",
    "check_law",
    "law_holds",
]
