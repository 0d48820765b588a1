"""Of which experiment a finished run is, from what it left in its folder."""

import json
from pathlib import Path

from mho.errors import CheckpointError

ENERGY_BASED = ("eqprop", "resistive", "generate")
"""The experiments of ``mho.experiments.ebm``: each module has ``Settings`` and ``run``."""


_AGAIN = {
    "eqprop": "other keys under [evaluate] of its recipe and 'mho run RECIPE --resume'; or mho.ebm.evaluate_on_chips",
    "resistive": "other chips, noise_scales or ages in its recipe and 'mho run RECIPE --resume'; or "
    "mho.ebm.resistive.evaluate_on_chips",
    "generate": "another test_coupling_error or test_temperature_error in its recipe and 'mho run RECIPE --resume'; or "
    "mho.ebm.generate.generate with a VirtualSampler",
}


def kind_of_run(folder: Path) -> str | None:
    """One of :data:`ENERGY_BASED` where the finished run in ``folder`` is of that experiment, else ``None``."""
    path = folder / "summary.json"
    if not path.is_file() or (folder / "recipe.toml").is_file():
        return None
    summary = json.loads(path.read_text(encoding="utf-8"))
    if summary.get("experiment") in ENERGY_BASED:
        return str(summary["experiment"])
    # Older runs do not say it; each has a part that the others have not.
    marks = {"resistive": "inference", "generate": "energy_an_image"}
    return next((kind for kind, mark in marks.items() if mark in summary), None)


def refuse_energy_based(folder: Path) -> None:
    """Raise :class:`CheckpointError` where ``folder`` holds a run whose networks :mod:`.finished` cannot read back."""
    kind = kind_of_run(folder)
    if kind is not None:
        raise CheckpointError(
            f"{folder}: a run of experiment = {kind!r}, an energy-based model; only the networks of classifiers are "
            f"read back and evaluated again. Way out: 'mho report {folder}' for its numbers; {_AGAIN[kind]}."
        )
