"""Resistive networks: against ngspice, against implicit differentiation, and one training.

python benchmarks/ebm_resistive.py                 # all; writes benchmarks/results/ebm-resistive.json
python benchmarks/ebm_resistive.py --no-training   # seconds
"""

import argparse
import json
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from command import command
from torch import Tensor

from mho.ebm.resistive import (
    Layered,
    Shockley,
    Solver,
    deck,
    ep_gradients,
    implicit_gradients,
    kirchhoff,
    rest,
)
from mho.ebm.resistive.netlist import node_names
from mho.evaluation.atomic import write_atomically
from mho.experiments.ebm.resistive import Settings, run
from mho.experiments.summary import versions
from mho.lab.spice import simulate, version

OUT = Path(__file__).parent / "results" / "ebm-resistive.json"
TIGHT = Solver(tolerance=1e-12)
PLANS = {
    "4 - 5 - 4 - 3, no gain": (Layered(inputs=4, hidden=(5, 4), outputs=3, voltage_gain=1.0), 2.0),
    "4 - 5 - 4 - 3, gain 4 and 1/4": (Layered(inputs=4, hidden=(5, 4), outputs=3), 2.0),
    "4 - 5 - 4 - 3, gain 3 and 2": (Layered(inputs=4, hidden=(5, 4), outputs=3, voltage_gain=3, current_gain=2), 2.0),
    "16 - 32 - 10, gain 4 and 1/4": (Layered(inputs=16, hidden=(32,), outputs=10), 2.0),
    "64 - 64 - 32 - 10, gain 4 and 1/4": (Layered(inputs=64, hidden=(64, 32), outputs=10), 4.0),
}
DIODES = {"1 nA, bias 0.3 V": Shockley(bias_V=0.3), "10 fA": Shockley(saturation_A=1e-14)}
VECTORS = 20


def sample(net: Layered, volts: float) -> tuple[dict[str, Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    g = {name: 1 + 24 * torch.rand(s, dtype=torch.float64, generator=generator) for name, s in net.shapes.items()}
    return g, volts * torch.randn(VECTORS, net.inputs, dtype=torch.float64, generator=generator)


def against_ngspice() -> list[dict[str, Any]]:
    """Largest difference of a node's voltage over the largest one, and our own Kirchhoff residual."""
    rows = []
    for plan, (bare, volts) in PLANS.items():
        for law, diode in DIODES.items():
            net = replace(bare, diode=diode, rail_V=1.0, inner_rail_V=1.0)
            g, x = sample(net, volts)
            began = time.perf_counter()
            found = rest(net, g, x, solver=TIGHT)
            ours_s = time.perf_counter() - began
            began = time.perf_counter()
            plot = simulate(deck(net, g, x))[0]
            spice_s = time.perf_counter() - began
            spice = torch.from_numpy(np.stack([plot[f"v({name})"].real for name in node_names(net)], 1))
            ours = torch.cat(found.states, 1)
            row = {
                "network": plan,
                "diode": law,
                "vectors": VECTORS,
                "relative_difference": float((spice - ours).abs().max() / ours.abs().max()),
                "kirchhoff_residual": float(kirchhoff(net, g, found).max()),
                "sweeps": found.sweeps,
                "ours_s": ours_s,
                "ngspice_s": spice_s,
            }
            rows.append(row)
            print(
                f"{plan:36s} {law:18s} difference {row['relative_difference']:.1e}  Kirchhoff "
                f"{row['kirchhoff_residual']:.1e}  {ours_s * 1e3:.0f} ms, ngspice {spice_s * 1e3:.0f} ms"
            )
    return rows


def gradients() -> list[dict[str, Any]]:
    """Cosine and relative error of EP's gradient against implicit differentiation at falling nudges."""
    rows = []
    bare = PLANS["4 - 5 - 4 - 3, gain 4 and 1/4"][0]
    for law, diode in {"ideal": None, **DIODES}.items():
        net = replace(bare, diode=diode, rail_V=1.0, inner_rail_V=1.0)
        g, x = sample(net, 2.0)
        slope = torch.randn(VECTORS, net.outputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        free = rest(net, g, x, solver=TIGHT)
        true = torch.cat([v.flatten() for v in implicit_gradients(net, g, free, slope).values()])
        for variant in ("centred", "positive", "negative"):
            for nudge in (0.1, 0.03, 0.01, 0.003, 0.001):
                found = ep_gradients(net, g, free, slope, nudge_uW=nudge, variant=variant, solver=TIGHT).gradients
                flat = torch.cat([v.flatten() for v in found.values()])
                row = {
                    "diode": law,
                    "variant": variant,
                    "nudge_uW": nudge,
                    "cosine": float(torch.cosine_similarity(flat, true, dim=0)),
                    "relative_error": float((flat - true).norm() / true.norm()),
                }
                rows.append(row)
                print(
                    f"{law:18s} {variant:9s} nudge {nudge:g} uW: cosine {row['cosine']:.7f}, "
                    f"error {row['relative_error']:.1e}"
                )
    return rows


def training(dataset: str, data_dir: str | None) -> dict[str, Any]:
    """The default run, in a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        found = run(Settings(dataset=dataset), data_dir=data_dir, out=folder, say=print, progress=True)  # type: ignore[arg-type]
        return found.summary


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--no-training", action="store_true")
    arguments.add_argument("--dataset", default="mnist-mini")
    arguments.add_argument("--data-dir", default=None)
    chosen = arguments.parse_args()
    results: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    if shutil.which("ngspice") is None:
        print("ngspice is not installed: the comparison with it is left out (apt-get install ngspice)")
    else:
        results["ngspice"] = {"version": version(), "rows": against_ngspice()}
    results["gradients"] = gradients()
    if not chosen.no_training:
        results["training"] = training(chosen.dataset, chosen.data_dir)
    results["versions"], results["command"] = versions(), command()
    write_atomically(OUT, json.dumps(results, indent=1, allow_nan=False).encode())
    print(f"written: {OUT}")


if __name__ == "__main__":
    main()
