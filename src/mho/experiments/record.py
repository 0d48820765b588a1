"""What a run leaves for tables and plots: every chip, every curve, and what was compared with what."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mho.evaluation.result import Result
from mho.evaluation.robustness import area_under_curve, level_at_loss
from mho.evaluation.statistics import paired_difference
from mho.experiments.facts import NetworkFacts
from mho.experiments.measure import Measured
from mho.hardware import dump_hardware
from mho.hardware.cells import GenericCell
from mho.hardware.spec import Hardware
from mho.train import Recipe, dump_recipe

Entry = dict[str, Any]
_NUMBERS = re.compile(r"\[([^\[\]{}\"]*)\]")


def level_percent(hw: Hardware) -> float | None:
    """Static weight noise, in percent of the range, that a noise scale of 1 stands for; None where it is no number."""
    cell = hw.cell
    plain = isinstance(cell, GenericCell) and not cell.sigma_table and not cell.programming_noise_rel
    return 100.0 * cell.programming_noise if plain and isinstance(cell, GenericCell) else None


def areas(levels: ArrayLike, mean: ArrayLike, *, reference: float, chance: float, level: float | None) -> Entry:
    """``area``: over all levels of a sweep; ``area_to_twice``: from its lowest to ``twice`` the described noise.

    ``level``: that noise in the unit of ``levels``, None where they are multiples of it. A sweep of any hardware has
    its own end, twice the described noise is the same for all. None where the sweep ends below it or begins at it.
    """
    twice, swept = 2.0 * (1.0 if level is None else level), np.asarray(levels, dtype=float)
    spans = bool(swept.min() < twice <= swept.max())

    def area(upto: float | None) -> float:
        return round(area_under_curve(swept, mean, reference=reference, chance=chance, upto=upto), 4)

    return {"area": area(None), "area_to_twice": area(twice) if spans else None, "twice": round(twice, 4)}


def robustness(curve: Result, reference: float, classes: int, level: float | None) -> Entry:
    """Normalised areas under the curve (:func:`areas`) and the noise at one point below the digital network.

    Levels are in percent of the range where that is one number, else multiples of the described noise.
    """
    scales, mean = curve.data["noise_scale"].to_numpy(), _means(curve, "noise_scale")
    levels = scales * (1.0 if level is None else level)
    at = level_at_loss(levels, mean, reference=reference)
    return {
        **areas(levels, mean, reference=reference, chance=100.0 / classes, level=level),
        "noise_at_1_point": None if math.isinf(at) else round(at, 3),
        "levels_to": round(float(levels.max()), 4),
        "unit": "multiple of the described noise" if level is None else "percent of the range",
    }


def _means(result: Result, along: str) -> np.ndarray:
    accuracy = result.accuracy()
    others = {dim: 0 for dim in ("age_s", "noise_scale", "bits") if dim != along}
    values: np.ndarray = accuracy.isel(others).mean(("seed", "chip")).to_numpy()
    return values


def _chips(result: Result, along: str | None = None) -> list[Any]:
    """Accuracy of every chip, [seed][chip], or [point][seed][chip] along a swept label; percent."""
    accuracy = result.accuracy().isel({dim: 0 for dim in ("age_s", "noise_scale", "bits") if dim != along})
    order = ("seed", "chip") if along is None else (along, "seed", "chip")
    nested: list[Any] = np.round(accuracy.transpose(*order).to_numpy(), 4).tolist()
    return nested


def _curve(result: Result, along: str) -> Entry:
    return {along: [float(v) for v in result.data[along].to_numpy()], "accuracy": _chips(result, along)}


def difference(a: Result, b: Result, **point: int) -> Entry:
    """Accuracy of ``a`` minus ``b`` at one point, in points, with the paired hierarchical interval."""
    at = {"age_s": 0, "noise_scale": 0, "bits": 0, **point}
    first, second = (r.data["correct"].isel(at).transpose("seed", "chip", "image").to_numpy() for r in (a, b))
    found = paired_difference(first, second)
    return {"points": round(found.points, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def record_of(
    recipe: Recipe,
    hw: Hardware,
    facts: NetworkFacts,
    measured: Measured,
    summary: Mapping[str, Any],
    classes: int,
) -> Entry:
    """The content of ``record.json``: ``summary`` and, for every network, all chips and all curves.

    ``against_noise_injection``: the hardware-aware network minus plain noise injection at each noise level, paired
    by seed, chip and image.
    """
    digital, level = float(np.mean(measured.digital_accuracy)), level_percent(hw)
    by_name: dict[str, Entry] = {}
    for name, final in measured.final.items():
        entry: Entry = {"chips": _chips(final), "filling": list(facts.filling[name])}
        if name in measured.noise:
            entry["noise"] = _curve(measured.noise[name], "noise_scale")
            if len(entry["noise"]["noise_scale"]) > 1:
                entry["robustness"] = robustness(measured.noise[name], digital, classes, level)
        if name in measured.age:
            entry["age"] = _curve(measured.age[name], "age_s")
        entry["unseen"] = {other: _chips(found[name]) for other, found in measured.unseen.items()}
        by_name[name] = entry
    return {
        "summary": dict(summary),
        "classes": classes,
        "static_noise_percent": level,
        "parameters": facts.parameters,
        "digital": [round(a, 4) for a in measured.digital_accuracy],
        "networks": by_name,
        "against_noise_injection": _against(measured),
        "recipe": dump_recipe(recipe),
        "hardware": dump_hardware(hw),
    }


def _against(measured: Measured) -> Entry | None:
    if "noise_injection" not in measured.final:
        return None
    ours, theirs = measured.final["hardware_aware"], measured.final["noise_injection"]
    found: Entry = {"final": difference(ours, theirs)}
    if "hardware_aware" in measured.noise:
        curves = measured.noise["hardware_aware"], measured.noise["noise_injection"]
        scales = curves[0].data["noise_scale"].to_numpy()
        found["noise"] = [
            {"noise_scale": float(scale), **difference(*curves, noise_scale=place)}
            for place, scale in enumerate(scales)
        ]
    found["unseen"] = {
        name: difference(results["hardware_aware"], results["noise_injection"])
        for name, results in measured.unseen.items()
    }
    return found


def encoded(entry: Entry) -> bytes:
    """As JSON, one line a network's list of chips rather than one a number."""
    text = json.dumps(entry, indent=1)
    return (_NUMBERS.sub(lambda m: "[" + " ".join(m.group(1).split()) + "]", text) + "\n").encode()
