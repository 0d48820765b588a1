"""ngspice beside this package's wires and thermal noise, and what a call of the ngspice device costs.

python benchmarks/spice_referee.py [--wires 0.35 1 5 50] [--vectors 8] [--repeats 3] [--seed 0]
    [--out benchmarks/results/spice-referee.json]

Conductances are uniform on 1 to 25 uS, inputs on 0 to 0.2 V (all of one sign, so that each current can be judged by
its own size). ``wire_off_1_percent``: the same comparison with a wire 1 % off, which must be seen. Needs ngspice.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import mho
from mho.lab.spice import SpiceDevice, noise_density, solve_columns, version
from mho.physics.thermal import johnson_sigma_A
from mho.physics.wires import effective_conductance, port_conductance
from mho.rng import uniforms

SIDE = 64
NOISE_TILES = ((64, 64, 0.0), (64, 16, 0.0), (16, 10, 1.0), (64, 16, 1.0), (64, 64, 1.0))
"""Rows, columns, wire_ohm."""
CALLS = ((64, 16, 32, 1.0), (64, 16, 64, 1.0), (16, 10, 32, 1.0), (16, 10, 64, 1.0), (64, 16, 64, 0.0))
"""Rows, columns, vectors, wire_ohm."""


def tile(rows: int, cols: int, seed: int) -> Tensor:
    return 1.0 + 24.0 * uniforms((rows, cols), seed, "g", rows, cols).double()


def worst(got: Tensor, expected: Tensor) -> float:
    return float((got / expected - 1.0).abs().max())


def wires_row(ohm: float, vectors: int, seed: int) -> dict[str, Any]:
    """Largest relative difference of any column current of a 64 x 64 tile."""
    g = tile(SIDE, SIDE, seed)
    x = 0.2 * uniforms((vectors, SIDE), seed, "x").double()
    start = time.perf_counter()
    found = solve_columns(g, x, wire_ohm=ohm)
    seconds = time.perf_counter() - start
    exact = effective_conductance(g, ohm)
    return {
        "rows": SIDE,
        "cols": SIDE,
        "wire_ohm": ohm,
        "vectors": vectors,
        "current_lost_percent": 100.0 * float(1.0 - exact.sum() / g.sum()),
        "worst_relative_difference": worst(found, x @ exact),
        "wire_off_1_percent": worst(found, x @ effective_conductance(g, 1.01 * ohm)),
        "ngspice_s": seconds,
    }


def noise_row(rows: int, cols: int, ohm: float, seed: int) -> dict[str, Any]:
    """Largest relative difference of sigma: ``.noise`` over sqrt(4 k T Y) and over sqrt(4 k T sum(G_eff)).

    Y: conductance seen from the column's ground; the sum is what virtual chips take.
    """
    g = tile(rows, cols, seed)
    start = time.perf_counter()
    found = noise_density(g, wire_ohm=ohm, timeout_s=1800.0).sqrt()
    seconds = time.perf_counter() - start
    exact, usual = (
        johnson_sigma_A(each * 1e-6, 1.0, 300.0)
        for each in (port_conductance(g, ohm), effective_conductance(g, ohm).sum(0))
    )
    return {
        "rows": rows,
        "cols": cols,
        "wire_ohm": ohm,
        "worst_relative_difference_of_sigma": worst(found, exact),
        "with_the_sum_of_effective_conductances": worst(found, usual),
        "ngspice_s": seconds,
    }


def call_row(rows: int, cols: int, vectors: int, ohm: float, repeats: int, seed: int) -> dict[str, Any]:
    """Median ms of a call of signed cells, each after a programming as in training; the first of a state with noise."""
    targets = (25.0 * (2.0 * uniforms((rows, cols), seed, "w") - 1.0)).float()
    x = (0.4 * uniforms((vectors, rows), seed, "v") - 0.2).float()
    taken: dict[str, list[float]] = {"each": [], "superposition": [], "with_noise": []}
    for name, times in taken.items():
        device = SpiceDevice(
            rows,
            cols,
            g_max_uS=25.0,
            v_max_V=0.2,
            signed=True,
            wire_ohm=ohm,
            noise=name == "with_noise",
            solve="superposition" if name == "superposition" else "each",
            seed=seed,
        )
        for k in range(repeats):
            start = time.perf_counter()
            device.program(0, targets, operation=f"w{k}")
            device.mvm(0, x, operation=f"x{k}", full_scale_uA=rows * 5.0)
            times.append(1e3 * (time.perf_counter() - start))
    medians = {f"{name}_ms": statistics.median(times) for name, times in taken.items()}
    return {"rows": rows, "cols": cols, "vectors": vectors, "wire_ohm": ohm, "signed": True, **medians}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wires", nargs="+", type=float, default=[0.35, 1.0, 5.0, 50.0])
    parser.add_argument("--vectors", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/spice-referee.json"))
    options = parser.parse_args()
    report: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "seed": options.seed,
        "versions": {
            "mho": mho.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
            "ngspice": version(),
        },
        "load_average": os.getloadavg()[0],
        "wires": [wires_row(ohm, options.vectors, options.seed) for ohm in options.wires],
        "noise": [noise_row(*case, options.seed) for case in NOISE_TILES],
        "calls": [call_row(*case, options.repeats, options.seed) for case in CALLS],
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    for part in ("wires", "noise", "calls"):
        print(part)
        for row in report[part]:
            print("  " + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))


if __name__ == "__main__":
    main()
