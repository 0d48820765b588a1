"""One self-contained HTML page: ``mho.report("report.html", result)``.

The package itself can be called, because the verb and the room have one name. Nothing heavy is
imported before the first use.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mho.report.api import Item

_PUBLIC = {
    "report": "api",
    "RunData": "run",
    "run_report": "run",
    "Hero": "sections",
    "Stat": "sections",
    "Text": "sections",
    "Table": "sections",
    "Figure": "sections",
    "Details": "sections",
    "Baseline": "series",
    "Curve": "series",
    "DominanceRow": "series",
    "Group": "series",
    "History": "series",
    "accuracy_vs_noise": "figures",
    "accuracy_vs_age": "figures",
    "chip_histogram": "figures",
    "training_curves": "figures",
    "conductance_map": "maps",
    "dominance_bars": "maps",
}
__all__ = list(_PUBLIC)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


class _Report(ModuleType):
    def __call__(self, path: str | os.PathLike[str], *items: "Item") -> Path:
        """See :func:`mho.report.api.report`."""
        from mho.report.api import report

        return report(path, *items)


sys.modules[__name__].__class__ = _Report
