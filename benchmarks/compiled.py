"""What torch.compile is worth: a training step and an inference, eager and compiled, with the seconds of compiling.

    python benchmarks/compiled.py [--networks mlp transformer] [--threads 2]

Compiled by Inductor; mho also with ``torch._inductor.config.fallback_random``, which calls torch's own generator in
place of Inductor's. Each contender is timed in turn with the others, one run each (A B C A B C ...). Writes
benchmarks/results/compiled.json.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from command import command
from torch import nn

from mho.bench.cases import convert_for_bench, infer_run, network, train_run
from mho.bench.machine import describe_machine
from mho.evaluation.atomic import write_atomically

RESULTS = Path(__file__).parent / "results" / "compiled.json"
CONTENDERS = {
    "digital": (False, None),
    "digital, compiled": (False, False),
    "mho": (True, None),
    "mho, compiled": (True, False),
    "mho, compiled, fallback_random": (True, True),
}


def prepared(name: str, work: str, analog: bool, fallback: bool | None) -> tuple[Callable[[], object], float | None]:
    """One run as a call, and the seconds that its first one took where it compiles (``fallback``: None, eager)."""
    torch.manual_seed(0)
    digital, x = network(name)
    target = torch.randint(0, 10, (len(x),))
    model: nn.Module = convert_for_bench(digital, x, None) if analog else digital
    model.train(work == "train")
    if fallback is not None:
        torch._dynamo.reset()
        torch._inductor.config.fallback_random = fallback  # type: ignore[attr-defined]
        model = torch.compile(model)  # type: ignore[assignment]
    run = train_run(model, x, target) if work == "train" else infer_run(model, x, 1)
    began = time.perf_counter()
    run()
    return run, None if fallback is None else time.perf_counter() - began


def timed(runs: dict[str, Callable[[], object]], budget_s: float) -> dict[str, float]:
    """Median milliseconds of each, by turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + budget_s
    turn = 0
    while time.perf_counter() < end or turn < 6:
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:  # the first turn warms up
                times[name].append(time.perf_counter() - began)
        turn += 1
    return {name: 1e3 * statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["mlp", "transformer"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=10.0, help="seconds of timing a row")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for name in options.networks:
        for work in ("train", "infer"):
            made = {key: prepared(name, work, *how) for key, how in CONTENDERS.items()}
            found = timed({key: run for key, (run, _) in made.items()}, options.budget)
            rows.append({"network": name, "work": work, "ms": found, "compile_s": {k: s for k, (_, s) in made.items()}})
            print(json.dumps(rows[-1]), flush=True)
    record = {"command": command(), "machine": describe_machine(), "threads": options.threads, "rows": rows}
    record["load_average"] = round(os.getloadavg()[0], 2)
    write_atomically(RESULTS, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
