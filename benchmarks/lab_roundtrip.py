"""A served chip beside the same chip in process: time of one mvm over loopback, and of large batches as a stream.

python benchmarks/lab_roundtrip.py [--hardware pcm-hermes] [--side 256] [--batch 256] [--pairs 60] [--threads 1]
    [--out benchmarks/results/lab-roundtrip.json]

The server is a process of its own. Calls alternate, in process and over the network; the ratio is that of neighbours,
so that a machine that slows down for a while slows both.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import mho
from mho.hardware import load_hardware
from mho.lab import VirtualDevice
from mho.lab.remote import RemoteDevice
from mho.rng import uniforms

SEED = 7
SERVER = """
import sys, torch
from mho.hardware import load_hardware
from mho.lab import VirtualDevice
from mho.lab.remote import serve
torch.set_num_threads(int(sys.argv[4]))
side = int(sys.argv[3])
device = VirtualDevice(load_hardware(sys.argv[1]), int(sys.argv[2]), tiles=1, rows=side, cols=side)
serve(device, "127.0.0.1:0", ready=lambda address: print(address, flush=True))
"""


def quartiles(values: list[float]) -> dict[str, float]:
    """Median and quartiles, four digits."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": float(f"{median:.4g}"), "q1": float(f"{low:.4g}"), "q3": float(f"{high:.4g}")}


def compare(near: VirtualDevice, far: RemoteDevice, batch: int, repeats: int, pairs: int, rows: int) -> dict[str, Any]:
    """Time ``pairs`` pairs of calls; the answers of the first are compared where one message holds the batch."""
    can = near.capabilities()
    x = (2 * uniforms((batch, rows), "roundtrip", batch) - 1) * can.v_max_V
    scale = can.i_max_uA / 8
    times: dict[str, list[float]] = {"near": [], "far": []}
    for k in range(pairs + 3):
        order = ("near", "far") if k % 2 else ("far", "near")
        answers = {}
        for side in order:
            device = near if side == "near" else far
            start = time.perf_counter()
            name = f"{batch}/{repeats}/{k}"
            answers[side] = device.mvm(0, x, operation=name, full_scale_uA=scale, repeats=repeats)
            times[side].append(1e3 * (time.perf_counter() - start))
    equal = torch.equal(answers["near"].currents_uA, answers["far"].currents_uA)
    near_ms, far_ms = times["near"][3:], times["far"][3:]
    return {
        "batch": batch,
        "repeats": repeats,
        "pairs": pairs,
        "in_process_ms": quartiles(near_ms),
        "loopback_ms": quartiles(far_ms),
        "ratio": quartiles([b / a for a, b in zip(near_ms, far_ms, strict=True)]),
        "same_bits": equal,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hardware", default="pcm-hermes")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--pairs", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    side = options.side
    near = VirtualDevice(load_hardware(options.hardware), SEED, tiles=1, rows=side, cols=side)
    arguments = [options.hardware, str(SEED), str(side), str(options.threads)]
    environment = {**os.environ, "PYTHONPATH": str(Path(mho.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    ) as server:
        try:
            assert server.stdout is not None
            with RemoteDevice(server.stdout.readline().strip()) as far:
                targets = (2 * uniforms((side, side), "roundtrip", "targets") - 1) * near.capabilities().g_max_uS
                for device in (near, far):
                    device.program(0, targets, operation="p")
                cases = [
                    compare(near, far, batch, repeats, options.pairs, side)
                    for batch, repeats in ((1, 1), (options.batch, 1), (options.batch, 8), (4096, 1))
                ]
        finally:
            server.terminate()
    document = {
        "command": shlex.join(["python", *sys.argv]),
        "hardware": options.hardware,
        "tile": [side, side],
        "threads": options.threads,
        "load_average": round(os.getloadavg()[0], 2),
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cases": cases,
    }
    for case in cases:
        print(
            f"batch {case['batch']:>5} x {case['repeats']}: in process {case['in_process_ms']['median']:.3g} ms, "
            f"loopback {case['loopback_ms']['median']:.3g} ms, ratio {case['ratio']['median']:.3g} "
            f"({case['ratio']['q1']:.3g} to {case['ratio']['q3']:.3g})"
        )
    if options.out is not None:
        options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
