"""The folder of an energy-based run says what its networks were trained with: ``--resume`` goes on with that only.

``settings.json`` and ``hardware.toml`` lie in the run's folder and once more in the folder of each seed, for seeds may
run one by one. Keys that no training depends on may change from one start to the next.
"""

import reprlib
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mho.errors import CheckpointError
from mho.evaluation.atomic import write_atomically
from mho.experiments.differences import differences, flat
from mho.experiments.folder import make_folder
from mho.hardware import dump_hardware, load_hardware
from mho.hardware.spec import Hardware

_SETTINGS, _HARDWARE = "settings.json", "hardware.toml"
_NOT_COMPARED = frozenset({"name", "seeds", "hardware"})
"""Of the settings; ``hardware`` names a description, and its content is what counts."""
_NO_PHYSICS = frozenset({"hardware.name", "hardware.summary", "hardware.schema", "hardware.cost", "hardware.sources"})
_TOLD = 8


class RunSettings(BaseModel):
    """Settings of one run. ``EVALUATION``: keys ("chips", "train.on_chips") and whole tables that no training depends
    on; a resumed run may change them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    EVALUATION: ClassVar[frozenset[str]]

    name: str
    seeds: tuple[int, ...]


def begin(folder: Path, settings: RunSettings, hw: Hardware | None, *, resume: bool) -> None:
    """Make ``folder`` and ``folder``/seedN of each seed, and write settings and hardware (``None``: none) into each.

    With ``resume`` everything in them must have been trained with these settings. Without, folders of these seeds that
    were not are removed: a run that is killed before its first checkpoint would go on from that of another one.

    Raises :class:`CheckpointError` before anything is written, naming the keys with old and new values, or the file
    that cannot be read.
    """
    places = [folder / f"seed{seed}" for seed in settings.seeds]
    if resume:
        for place in (folder, *places):
            _refuse_other(place, settings, hw)
    else:
        for place in places:
            described = place if (place / _SETTINGS).is_file() else folder
            if place.is_dir() and not _is_same(described, settings, hw):
                _remove(place)
    for place in (folder, *places):
        make_folder(place)
        if hw is not None:  # the settings come last: where they lie, the hardware does too
            write_atomically(place / _HARDWARE, dump_hardware(hw).encode())
        write_atomically(place / _SETTINGS, (settings.model_dump_json(indent=2) + "\n").encode())


def training_keys(settings: RunSettings, hw: Hardware | None) -> dict[str, Any]:
    """What training depends on, by dotted key: "train.lr", "hardware.cell.read_noise"."""
    found = _without(flat(settings.model_dump(mode="json")), _NOT_COMPARED | settings.EVALUATION)
    if hw is None:
        return found
    return found | _without(flat(tomllib.loads(dump_hardware(hw)), "hardware."), _NO_PHYSICS)


def _without(table: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if not any(f"{name}.".startswith(f"{key}.") for key in keys)}


def _refuse_other(place: Path, settings: RunSettings, hw: Hardware | None) -> None:
    if not (place / _SETTINGS).is_file():
        return
    different = differences(_stored(place, settings, hw), training_keys(settings, hw))
    if different:
        shown = [f"{key} was {_short(old)} and is {_short(new)}" for key, (old, new) in [*different.items()][:_TOLD]]
        more = [f"and {len(different) - _TOLD} keys more"] if len(different) > _TOLD else []
        raise CheckpointError(
            f"{place / _SETTINGS}: belongs to another run: {', '.join((*shown, *more))}. Fix: --resume with the "
            "settings of before, or --out with another folder."
        )


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _is_same(place: Path, settings: RunSettings, hw: Hardware | None) -> bool:
    """Whether ``place`` says that it was trained with these settings."""
    try:
        return _stored(place, settings, hw) == training_keys(settings, hw)
    except CheckpointError:
        return False


def _stored(place: Path, settings: RunSettings, hw: Hardware | None) -> dict[str, Any]:
    """What training of an earlier start depended on. Keys that its version did not have yet have their defaults."""
    path = place / _SETTINGS
    try:
        before = type(settings).model_validate_json(path.read_text(encoding="utf-8"))
        path = place / _HARDWARE
        return training_keys(before, None if hw is None else load_hardware(path))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as that of an earlier start of this run ({type(error).__name__}: "
            f"{' '.join(str(error).split())}). Fix: --out with another folder."
        ) from error


def _remove(place: Path) -> None:
    try:
        shutil.rmtree(place)
    except OSError as error:
        raise CheckpointError(
            f"{place}: is of other settings and cannot be removed: {error.strerror}. Fix: --out with another folder."
        ) from error


__all__ = ["RunSettings", "begin", "training_keys"]
