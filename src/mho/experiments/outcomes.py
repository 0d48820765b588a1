"""What a finished run found, read from its files alone: no checkpoint, no data set, no network."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mho.errors import CheckpointError
from mho.experiments.costs import Joules
from mho.experiments.digital import FORMATS
from mho.experiments.facts import NetworkFacts
from mho.experiments.finished import check_finished
from mho.experiments.folder import load_results, read_json
from mho.experiments.measure import Measured
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.train import Recipe, load_recipe


@dataclass(frozen=True)
class Outcomes:
    """One finished run. ``percent``: of the digital network by format, the mean over seeds; ``joules``: without their
    remark, which is in ``sentence``."""

    folder: Path
    recipe: Recipe
    hw: Hardware
    classes: int
    facts: NetworkFacts
    measured: Measured
    percent: Mapping[str, float]
    joules: Joules
    sentence: str
    wall_s: float
    versions: Mapping[str, str]
    command: str

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> "Outcomes":
        """The run in ``folder``: recipe.toml, hardware.toml, summary.json, record.json and results/*.npz.

        Raises :class:`CheckpointError` where one of them is missing, damaged, older than this version can read, or of
        another run than the others.
        """
        place = Path(folder)
        check_finished(place)
        recipe, hw = load_recipe(place / "recipe.toml"), load_hardware(place / "hardware.toml")
        summary, record = (read_json(place / name) for name in ("summary.json", "record.json"))
        try:
            facts = NetworkFacts.read(record)
            measured = _measured(place, recipe, hw, record, summary["images"])
            _check_seeds(place, recipe, facts, summary, measured)
            return cls(
                folder=place,
                recipe=recipe,
                hw=hw,
                classes=int(record["classes"]),
                facts=facts,
                measured=measured,
                percent=_percent(summary, len(facts.seeds)),
                joules=Joules.read(summary["energy"]),
                sentence=str(summary["energy"]["sentence"]),
                wall_s=float(summary["wall_s"]),
                versions=summary["versions"],
                command=str(summary["command"]),
            )
        except KeyError as error:
            raise CheckpointError(
                f"{place}: no {error} in summary.json or record.json; an older version of mho wrote them. Way out: "
                "'mho run --resume' with this one, where its checkpoints are."
            ) from error


def exact(percent: float, images: int, networks: int = 1) -> float:
    """``percent`` of ``images``, a mean over ``networks``, as it was before it was rounded to four digits.

    Networks are right on whole images, so that the nearest share is the one that was rounded (up to 10^6 images).
    """
    seen = images * networks
    return 100.0 * (round(percent * seen / 100.0) / seen)


def _measured(place: Path, recipe: Recipe, hw: Hardware, record: Mapping[str, Any], images: int) -> Measured:
    digital = tuple(exact(percent, images) for percent in record["digital"])
    return load_results(place, recipe, hw, record["networks"], digital)


def _percent(summary: Mapping[str, Any], networks: int) -> dict[str, float]:
    shown = summary["energy"]
    return {name: exact(shown[f"{name}_accuracy"], summary["images"], networks) for name in FORMATS}


def _check_seeds(
    place: Path, recipe: Recipe, facts: NetworkFacts, summary: Mapping[str, Any], measured: Measured
) -> None:
    """Raise :class:`CheckpointError` where a file is of other seeds: a run that began again and did not end."""
    kinds = (measured.final, measured.noise, measured.age, *measured.unseen.values())
    found = [result.data["seed"].to_numpy() for kind in kinds for result in kind.values()]
    others = (facts.seeds, tuple(summary["seeds"]), *(tuple(int(s) for s in np.atleast_1d(seeds)) for seeds in found))
    wrong = next((seeds for seeds in others if seeds != tuple(recipe.seeds)), None)
    if wrong is not None:
        raise CheckpointError(
            f"{place}: its recipe has seeds {_listed(recipe.seeds)}, other files have {_listed(wrong)}: not of one "
            "finished run. Way out: 'mho run --resume' there, or a whole copy of the run's files."
        )


def _listed(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds))
