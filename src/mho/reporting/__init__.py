"""One self-contained HTML page: ``mho.report("report.html", result)``.

Nothing heavy is imported before the first use.
"""

import importlib
from typing import Any

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
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
