"""The numbers of a run as data (summary.json) and as the page's content."""

import platform
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

import mho
from mho.chips import fabricate
from mho.crossbar.array import to_conductances
from mho.evaluation.result import Result
from mho.experiments.costs import RunCosts
from mho.experiments.facts import NetworkFacts
from mho.experiments.measure import Measured
from mho.experiments.networks import Networks
from mho.hardware.spec import Hardware
from mho.nn.site import analog_layers
from mho.physics.dominance import dominance
from mho.reporting.run import RunData
from mho.reporting.series import Curve, Group, History
from mho.train import Recipe, dump_recipe

NAMES = {
    "digital_on_chips": "Digital network",
    "digital_quantized": "Quantised network",
    "noise_injection": "Noise injection",
    "hardware_aware": "Hardware-aware network",
}

TRAINED = {
    "digital": NAMES["digital_on_chips"],
    "quantized": NAMES["digital_quantized"],
    "noise_injection": NAMES["noise_injection"],
    "hardware_aware": NAMES["hardware_aware"],
}


def versions() -> dict[str, str]:
    """What the numbers depend on."""
    return {
        "mho": mho.__version__,
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def summarize(
    recipe: Recipe,
    facts: NetworkFacts,
    measured: Measured,
    costs: RunCosts,
    *,
    wall_s: float,
    made_with: Mapping[str, str],
    command: str,
) -> dict[str, Any]:
    """The content of ``summary.json``; accuracies in percent, ``chips`` for each training seed.

    ``made_with``: :func:`versions` of what measured.
    """
    entries = {name: result.numbers() for name, result in measured.final.items()}
    accuracies = measured.digital_accuracy
    digital: dict[str, Any] = {"accuracy": round(float(np.mean(accuracies)), 4)}
    if len(accuracies) > 1:
        digital["by_seed"] = [round(a, 4) for a in accuracies]
    return {
        "name": recipe.name,
        "hardware": recipe.hardware,
        "seeds": list(facts.seeds),
        "digital": digital,
        **{name: _rounded(entry) for name, entry in entries.items()},
        "images": int(measured.final["hardware_aware"].data.sizes["image"]),
        "refused_steps": dict(facts.refused),
        "wall_s": round(wall_s, 1),
        "versions": dict(made_with),
        "command": command,
        "energy": costs.numbers(),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    if isinstance(value, Mapping):
        return {k: _rounded(v) for k, v in value.items()}
    return value


def page_of(recipe: Recipe, measured: Measured, summary: dict[str, Any]) -> RunData:
    """What the report of a run shows of its numbers."""
    return RunData(
        name=recipe.name,
        hardware=recipe.hardware,
        summary=summary,
        curves_noise=tuple(_curve(NAMES[n], r, "noise_scale") for n, r in measured.noise.items()) or None,
        curves_age=tuple(_curve(NAMES[n], r, "age_s") for n, r in measured.age.items()) or None,
        age_caption=f"The same networks on chips of {measured.age_hardware}, with global drift compensation.",
        histogram=tuple(Group(NAMES[n], r.accuracy().to_numpy().ravel()) for n, r in measured.final.items()),
        recipe_toml=dump_recipe(recipe),
        versions=summary["versions"],
        seeds=tuple(summary["seeds"]),
        command=summary["command"],
        wall_s=summary["wall_s"],
        equal_accuracy=summary["energy"]["sentence"],
    )


def with_networks(page: RunData, hw: Hardware, networks: Networks) -> RunData:
    """``page`` with what only networks can show, here those of one seed: training curves, conductances, dominance."""
    layer, cells = conductances(networks.hardware_aware.network, hw)
    return replace(
        page,
        training=tuple(
            History(name, np.arange(1, len(h.epochs) + 1), np.array([e.loss for e in h.epochs]))
            for name, h in ((TRAINED[key], trained.history) for key, trained in networks.trained().items())
            if all(np.isfinite(e.loss) for e in h.epochs)
        ),
        conductance_uS=cells,
        conductance_layer=layer,
        dominance=tuple(
            (row.source, row.level_dB, row.note) for row in dominance(hw, *_largest(networks.digital_on_hardware))
        ),
    )


def _curve(name: str, result: Result, along: str) -> Curve:
    accuracy = result.accuracy().sortby(along)
    others = {dim: 0 for dim in ("age_s", "noise_scale", "bits") if dim != along}
    values = accuracy.isel(others).transpose(along, "seed", "chip").to_numpy()
    return Curve(name, accuracy[along].to_numpy(), values.reshape(len(values), -1))


def _largest(network: nn.Module) -> tuple[int, int]:
    """(rows, columns) of the largest weight matrix of a converted network."""
    sizes = [
        (site.op.rows, getattr(layer, key).shape[0])
        for _, layer in analog_layers(network)
        for key, site in layer.sites.items()
    ]
    return max(sizes, key=lambda size: size[0] * size[1])


def conductances(network: nn.Module, hw: Hardware) -> tuple[str, np.ndarray]:
    """(name, conductance matrix in uS, rows x columns) of the largest layer on the first chip."""
    lot = fabricate(network, 1, 0, hardware=hw)
    best, found = "", np.zeros((1, 1))
    for _, layer in analog_layers(lot.model):
        for site in layer.sites.values():
            weight = lot.substrate.arrays[site.name][0].weights[0].detach()
            if weight.numel() > found.size:
                target = weight / weight.abs().max().clamp_min(1e-12)
                g = to_conductances(target.clamp(-1, 1), site.hw)
                best, found = f"{site.name} (first chip)", g[0].flatten(1).t().numpy()
    return best, found
