"""Measurements of energy-based runs, kept in the folders of their seeds: ``--resume`` makes none a second time."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator
from torch import nn

from mho.evaluation.atomic import write_atomically
from mho.evaluation.result import Result
from mho.experiments.kept import fingerprint, keep
from mho.units import seconds


def _checked(age: str) -> str:
    seconds(age)
    return age


Ages = tuple[Annotated[str, AfterValidator(_checked)], ...]
"""Ages of chips as people write them: ("25 s", "1 day")."""


def kept_result(
    place: Path,
    what: str,
    network: nn.Module,
    conditions: Mapping[str, Any],
    resume: bool,
    measure: Callable[[], Result],
) -> Result:
    """The measurement ``what`` of ``network`` under ``conditions`` (what JSON can hold), from ``place``/measured.

    It is made where it is not there, or without ``resume``, and kept in place of older ones of the same name.
    """
    path = place / "measured" / f"{what}-{fingerprint(network, conditions)}.npz"
    if resume and path.is_file():
        return Result.load(path)
    return keep(path, measure())


def kept_number(
    place: Path, what: str, conditions: Mapping[str, Any], resume: bool, measure: Callable[[], float]
) -> float:
    """The same for one number that follows from ``conditions`` alone."""
    path = place / "measured" / f"{what}-{fingerprint(nn.Identity(), conditions)}.json"
    if resume and path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8")))
    found = measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    for old in path.parent.glob(f"{what}-*.json"):
        old.unlink(missing_ok=True)
    write_atomically(path, json.dumps(found).encode())
    return found


__all__ = ["Ages", "kept_number", "kept_result"]
