"""What the numbers of a run need of its networks, as plain data: made once from them, or read from ``record.json``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from mho.crossbar.array import full_scale, mean_abs_conductance_uS
from mho.experiments.networks import Networks
from mho.nn.site import BOUND, analog_layers

Filling = dict[str, float]


@torch.no_grad()
def filling(network: nn.Module) -> Filling:
    """How a converted network fills its conductance range, over all its weights.

    ``rho``: root mean square of w / full scale (a layer's signal-to-noise ratio is (rho / eta)^2).
    ``mean_conductance_uS``: mean |g| of a cell, to which the array's power is proportional.
    """
    squares, conductance, count = 0.0, 0.0, 0
    for _, layer in analog_layers(network):
        for key, site in layer.sites.items():
            w, bound = getattr(layer, key), getattr(layer, key + BOUND, None)
            share = (w / full_scale(w, site.hw, bound)).clamp(-1, 1)
            squares += float(share.double().square().sum())
            conductance += mean_abs_conductance_uS(w, site.hw, bound) * w.numel()
            count += w.numel()
    return {"rho": round(math.sqrt(squares / count), 4), "mean_conductance_uS": round(conductance / count, 4)}


@dataclass(frozen=True)
class NetworkFacts:
    """Of the networks of some training seeds. ``parameters``: of one network. ``filling``: by the name on chips, one
    entry a seed. ``refused``: steps that training refused, by the name in training, summed over seeds."""

    seeds: tuple[int, ...]
    parameters: int
    filling: Mapping[str, Sequence[Filling]]
    refused: Mapping[str, int]

    @classmethod
    def of(cls, networks: Sequence[Networks]) -> "NetworkFacts":
        """Of trained networks, one entry a seed."""
        by_seed, trained = [n.on_chips() for n in networks], [n.trained() for n in networks]
        return cls(
            seeds=tuple(n.seed for n in networks),
            parameters=sum(p.numel() for p in networks[0].digital.network.parameters()),
            filling={name: [filling(found[name]) for found in by_seed] for name in by_seed[0]},
            refused={name: sum(found[name].history.refused for found in trained) for name in trained[0]},
        )

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> "NetworkFacts":
        """Of a finished run, from the content of its ``record.json``."""
        summary = record["summary"]
        return cls(
            seeds=tuple(summary["seeds"]),
            parameters=int(record["parameters"]),
            filling={name: entry["filling"] for name, entry in record["networks"].items()},
            refused=summary["refused_steps"],
        )

    @classmethod
    def joined(cls, several: Sequence["NetworkFacts"]) -> "NetworkFacts":
        """Of all seeds of ``several``, whose networks are alike, in this order."""
        first = several[0]
        return cls(
            seeds=tuple(seed for facts in several for seed in facts.seeds),
            parameters=first.parameters,
            filling={name: [entry for facts in several for entry in facts.filling[name]] for name in first.filling},
            refused={name: sum(facts.refused[name] for facts in several) for name in first.refused},
        )
