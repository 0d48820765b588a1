"""Equilibrium propagation: MNIST figures over seeds and chips, gradients against implicit differentiation, and speed.

    python benchmarks/ebm_eqprop.py mnist --data-dir DIR --recipe ebm-eqprop-mnist --seeds 0 1 2
    python benchmarks/ebm_eqprop.py gradient
    python benchmarks/ebm_eqprop.py speed --peer DIR     # DIR: a checkout of rain-neuromorphics/energy-based-learning

``mnist`` runs the recipe (``--resume`` goes on) and keeps its summary. ``gradient``: cosine and relative error of each
variant against the nudge. ``speed``: sweeps a second of the free phase of a 784-512-10 network, batch 100, ours and, in
the same process and by turns, the peer's own minimizer on a model with the same weights. Each writes
benchmarks/results/ebm-eqprop-PART.json.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from command import command
from torch import Tensor

from mho.ebm import (
    Clip,
    Conv,
    Dense,
    HopfieldNet,
    Identity,
    Nudging,
    Relaxation,
    Sigmoid,
    clamp,
    eqprop_gradient,
    implicit_gradient,
)
from mho.evaluation.atomic import write_atomically
from mho.experiments.kinds import run_any
from mho.experiments.summary import versions
from mho.rng import uniforms

RESULTS = Path(__file__).parent / "results"


def mnist(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's summary."""
    found = run_any(
        options.recipe, data_dir=options.data_dir, out=options.out, seeds=tuple(options.seeds), resume=options.resume,
        say=print,
    )  # fmt: skip
    return found.summary


def gradient(options: argparse.Namespace) -> dict[str, Any]:
    """Cosine and relative error by network, variant and nudge, in float64."""
    smooth, wide, tight = Sigmoid(), Clip(-1.0, 2.0), Relaxation(4000, 1e-11, 10)
    nets = {
        "dense, clipped": HopfieldNet((6,), (Dense(units=12), Dense(units=3, activation=wide)), gain=0.8),
        "dense, smooth": HopfieldNet(
            (6,), (Dense(units=12, activation=smooth), Dense(units=3, activation=Identity())), gain=0.8
        ),
        "convolutional, clipped": HopfieldNet(
            (2, 6, 6),
            (Conv(channels=3, pool="average"), Conv(channels=4, padding=0), Dense(units=3, activation=wide)),
            gain=0.8,
        ),
        "convolutional, smooth": HopfieldNet(
            (2, 6, 6), (Conv(channels=3, activation=smooth), Dense(units=3, activation=Identity())), gain=0.8
        ),
    }
    nudges = (0.3, 0.1, 0.03, 0.01, 0.003)
    found: dict[str, Any] = {"nudges": nudges}
    for name, net in nets.items():
        net.double()
        x, y = uniforms((8, *net.shapes[0]), 0, "x").double(), torch.arange(8) % 3
        true = _flat(implicit_gradient(net, x, y, free=tight))
        variants = ("positive", "negative", "centred", *(("holomorphic",) if "smooth" in name else ()))
        found[name] = {}
        for variant in variants:
            rows = []
            for nudge in nudges:
                how = Nudging(variant, nudge, 4)  # type: ignore[arg-type]
                ours = _flat(eqprop_gradient(net, x, y, nudging=how, free=tight).gradients)
                rows.append(
                    {
                        "cosine": float(torch.nn.functional.cosine_similarity(ours, true, 0)),
                        "error": float((ours - true).norm() / true.norm()),
                    }
                )
            found[name][variant] = rows
    return found


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradients[name].flatten() for name in sorted(gradients)])


def speed(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a free phase of ``--sweeps`` sweeps, by turns, median of ``--rounds``."""
    torch.set_num_threads(options.threads)
    net = HopfieldNet((1, 28, 28), (Dense(units=512), Dense(units=10, activation=Identity())), gain=0.7)
    x, how = uniforms((100, 1, 28, 28), 0, "x"), Relaxation(options.sweeps, None)

    @torch.no_grad()
    def ours() -> Tensor:
        return clamp(net, x).run(net.initial(x), how, "free phase").states[-1]

    contenders = {"mho": ours}
    if options.peer is not None:
        contenders["energy-based-learning"] = _peer(options.peer, net, x, options.sweeps)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    answers = {}
    for turn in range(options.rounds + 1):
        for name, relaxed in contenders.items():
            start = time.perf_counter()
            answers[name] = relaxed()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - start)
    found: dict[str, Any] = {
        "network": "784-512-10",
        "batch": 100,
        "sweeps": options.sweeps,
        "threads": options.threads,
        "median_s": {name: statistics.median(seconds) for name, seconds in times.items()},
        "all_s": times,
    }
    if "energy-based-learning" in answers:
        found["largest_difference"] = float((answers["mho"] - answers["energy-based-learning"]).abs().max())
        found["times_as_fast"] = found["median_s"]["energy-based-learning"] / found["median_s"]["mho"]
    return found


def _peer(folder: str, net: HopfieldNet, x: Tensor, sweeps: int) -> Any:
    """The peer's own network and minimizer with our weights: its public interface, nothing of its code."""
    sys.path.insert(0, folder)
    from model.function.network import Network  # type: ignore[import-not-found]
    from model.hopfield.minimizer import FixedPointMinimizer  # type: ignore[import-not-found]
    from model.hopfield.network import DeepHopfieldEnergy  # type: ignore[import-not-found]

    energy = DeepHopfieldEnergy([(1, 28, 28), (512,), (10,)], [0.7, 0.7])
    energy.set_device("cpu")
    weights = {tuple(p.state.shape): p for p in energy.params() if p.state.dim() > 1}
    for parameter in energy.params():
        parameter.state = torch.zeros_like(parameter.state)
    for shape, parameter in weights.items():
        for ours in (net.layers[0].weight, net.layers[1].weight):
            if parameter.state.numel() == ours.numel():
                parameter.state = ours.detach().t().reshape(shape).contiguous()
    network = Network(energy)
    minimizer = FixedPointMinimizer(energy, network.free_layers(), num_iterations=sweeps, mode="asynchronous")

    @torch.no_grad()
    def relaxed() -> Tensor:
        network.set_input(x, reset=True)
        minimizer.compute_equilibrium()
        return energy.layers()[-1].state

    return relaxed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("mnist", "gradient", "speed"))
    parser.add_argument("--data-dir")
    parser.add_argument("--recipe", default="ebm-eqprop-mnist")
    parser.add_argument("--out", default="runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--peer")
    parser.add_argument("--sweeps", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    found = {"mnist": mnist, "gradient": gradient, "speed": speed}[options.part](options)
    record = {"versions": versions(), "command": command(), options.part: found}
    name = options.recipe if options.part == "mnist" else f"ebm-eqprop-{options.part}"
    RESULTS.mkdir(exist_ok=True)
    write_atomically(RESULTS / f"{name}.json", (json.dumps(record, indent=2) + "\n").encode())
    print(json.dumps({k: v for k, v in found.items() if k != "all_s"}, indent=2))


if __name__ == "__main__":
    main()
