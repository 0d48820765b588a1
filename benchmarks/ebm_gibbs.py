"""Block Gibbs sampling beside thrml: spin updates a second on the same lattice, the same couplings, the same cores.

    python3 -m venv thrml-env && thrml-env/bin/pip install thrml
    python benchmarks/ebm_gibbs.py --peer-python thrml-env/bin/python [--cores 0,1] [--repeats 7] [--out FILE]

One process a tool, both alive and pinned to the same cores, run in turn (A B A B): while one samples, the other waits
for a line on its standard input. Compilation, graph and start are not timed; a run is the same number of
sweeps for both. Rates are of wall-clock time and of processor time (which the other users of a machine disturb less).
Both tools' mean energy a spin after the runs is in the result: the same law has the same energy.

thrml is used as its examples do: ``sample_states`` under ``jit`` of ``vmap`` over the chains, one block a colour.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = (
    # height and width, neighbours, chains
    (64, 8, 32),
    (64, 12, 32),
    (64, 12, 256),
    (128, 16, 64),
)
Sample = Callable[[int, int], None]
"""(sweeps, seed): advance all chains."""


def mho_sampler(case: dict[str, Any], threads: int) -> tuple[Sample, Callable[[], Any], str]:
    """(sample, spins as an array, version)."""
    import torch

    import mho
    from mho.ebm.spins import BlockGibbs, available, sparse_graph

    torch.set_num_threads(threads)
    graph = sparse_graph(len(case["biases"]), torch.from_numpy(case["edges"]), torch.from_numpy(case["colours"]))
    couplings, biases = torch.from_numpy(case["couplings"]), torch.from_numpy(case["biases"])
    sampler = BlockGibbs(graph)
    state = [torch.from_numpy(case["spins"])]

    def sample(sweeps: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        state[0] = sampler.run(state[0], couplings, biases, 1.0, sweeps, generator=generator)

    return (
        sample,
        lambda: state[0].numpy(),
        f"mho {mho.__version__}, torch {torch.__version__}, {'compiled' if available() else 'plain torch'}",
    )


def thrml_sampler(case: dict[str, Any], threads: int) -> tuple[Sample, Callable[[], Any], str]:
    """The same with thrml; jax takes its number of threads from the cores it may use."""
    from importlib.metadata import version

    import jax
    import jax.numpy as jnp
    import numpy as np
    from thrml import Block, SamplingSchedule, SpinNode, sample_states
    from thrml.models import IsingEBM, IsingSamplingProgram

    nodes = [SpinNode() for _ in case["biases"]]
    edges = [(nodes[a], nodes[b]) for a, b in case["edges"]]
    model = IsingEBM(nodes, edges, jnp.asarray(case["biases"]), jnp.asarray(case["couplings"]), jnp.array(1.0))
    groups = [np.flatnonzero(case["colours"] == c) for c in range(int(case["colours"].max()) + 1)]
    blocks = [Block([nodes[i] for i in group]) for group in groups]
    program = IsingSamplingProgram(model, blocks, [])
    state = [[jnp.asarray(case["spins"][:, group] > 0) for group in groups]]
    compiled: dict[int, Any] = {}

    def sample(sweeps: int, seed: int) -> None:
        if sweeps not in compiled:
            schedule = SamplingSchedule(n_warmup=sweeps, n_samples=1, steps_per_sample=1)
            compiled[sweeps] = jax.jit(
                jax.vmap(lambda key, start: sample_states(key, program, schedule, start, [], blocks))
            )
        keys = jax.random.split(jax.random.key(seed), case["spins"].shape[0])
        state[0] = [block[:, 0] for block in jax.block_until_ready(compiled[sweeps](keys, state[0]))]

    def spins() -> Any:
        out = np.empty(case["spins"].shape, np.int8)
        for group, block in zip(groups, state[0], strict=True):
            out[:, group] = np.asarray(block) * 2 - 1
        return out

    return sample, spins, f"thrml {version('thrml')}, jax {jax.__version__}"


def worker(tool: str, path: str, updates: float, cores: list[int]) -> None:
    """Answer lines: a first one when ready, then one a request; each a JSON object."""
    os.sched_setaffinity(0, cores)
    import numpy as np

    with np.load(path) as stored:
        case = {name: stored[name] for name in stored.files}
    sample, spins, version = {"mho": mho_sampler, "thrml": thrml_sampler}[tool](case, len(cores))

    def timed(sweeps: int, seed: int) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), time.process_time()
        sample(sweeps, seed)
        return time.perf_counter() - wall, time.process_time() - cpu

    sweeps = math.ceil(updates / case["spins"].size)
    for seed in range(2):  # compiles, and fills the caches
        timed(sweeps, seed)
    print(json.dumps({"version": version, "sweeps": sweeps}), flush=True)
    for number, line in enumerate(sys.stdin):
        if line.strip() == "energy":
            s = spins().astype(np.float64)
            a, b = case["edges"].T
            energies = -((s[:, a] * s[:, b]) @ case["couplings"] + s @ case["biases"]) / s.shape[1]
            error = float(energies.std(ddof=1) / len(energies) ** 0.5)
            print(json.dumps({"energy_a_spin": float(energies.mean()), "standard_error": error}), flush=True)
            continue
        wall, cpu = timed(sweeps, 4 + number)
        print(json.dumps({"wall_s": wall, "cpu_s": cpu}), flush=True)


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def run_case(side: int, neighbours: int, chains: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both tools on one lattice, in turn."""
    import numpy as np

    from mho import rng
    from mho.ebm.spins import lattice, random_spins

    graph = lattice(side, side, neighbours)
    couplings = rng.normals((graph.n_edges,), 0, "benchmark", "couplings") / neighbours**0.5 * 0.5
    biases = 0.1 * rng.normals((graph.nodes,), 0, "benchmark", "biases")
    spins = random_spins(chains, graph, rng.stream(0, "benchmark", "spins"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npz"
        arrays = {
            "edges": graph.edges,
            "colours": graph.colours,
            "couplings": couplings,
            "biases": biases,
            "spins": spins,
        }
        np.savez(path, **{name: value.numpy() for name, value in arrays.items()})
        tail = [
            str(Path(__file__).resolve()),
            "--case",
            str(path),
            "--updates",
            str(options.updates),
            "--cores",
            options.cores,
        ]
        pythons = {"mho": sys.executable, "thrml": options.peer_python}
        running: dict[str, subprocess.Popen[str]] = {}
        try:
            found: dict[str, Any] = {}
            for tool, python in pythons.items():
                running[tool] = subprocess.Popen(
                    [python, *tail, "--worker", tool], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                found[tool] = _answer(running[tool], None)
            runs: dict[str, list[dict[str, float]]] = {tool: [] for tool in running}
            for _ in range(options.repeats):
                for tool, process in running.items():
                    runs[tool].append(_answer(process, "run"))
            for tool, process in running.items():
                found[tool] |= _answer(process, "energy")
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    for tool, timings in runs.items():
        # a call of thrml with n_warmup = n updates every spin n times, then reads the state
        updates = found[tool]["sweeps"] * chains * graph.nodes
        for name, key in (("updates_a_second", "wall_s"), ("updates_a_cpu_second", "cpu_s")):
            found[tool][name] = spread([updates / t[key] for t in timings])
            found[tool][name]["runs"] = [updates / t[key] for t in timings]
    pairs = {
        name: spread([a / b for a, b in zip(found["mho"][name]["runs"], found["thrml"][name]["runs"], strict=True)])
        for name in ("updates_a_second", "updates_a_cpu_second")
    }
    return {
        "side": side,
        "neighbours": neighbours,
        "chains": chains,
        "edges": graph.n_edges,
        **found,
        "mho_over_thrml": pairs,
    }


def _answer(process: "subprocess.Popen[str]", request: str | None) -> Any:
    assert process.stdin is not None and process.stdout is not None
    if request is not None:
        process.stdin.write(request + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{process.args}: ended with {process.wait()} and no answer; its error is above.")
    return json.loads(line)


def main() -> None:
    """Run the cases, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the python of an environment with thrml")
    parser.add_argument("--cores", default="0,1", help="processors that both tools are pinned to")
    parser.add_argument("--updates", type=float, default=4e7, help="spin updates of one run, the same for both tools")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the cases, from 0")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ebm-gibbs.json")
    parser.add_argument("--worker", choices=("mho", "thrml"), help=argparse.SUPPRESS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.case, options.updates, [int(core) for core in options.cores.split(",")])
        return
    if not options.peer_python:
        parser.error("--peer-python: where is the python with thrml? The first lines of --help say how to make one.")
    from mho.bench.machine import describe_machine

    cases = []
    for index, (side, neighbours, chains) in enumerate(CASES):
        if options.only is not None and index not in options.only:
            continue
        before = os.getloadavg()[0]
        case = run_case(side, neighbours, chains, options) | {"load_before": before, "load_after": os.getloadavg()[0]}
        cases.append(case)
        rates = {tool: case[tool]["updates_a_second"]["median"] / 1e6 for tool in ("mho", "thrml")}
        ratio = case["mho_over_thrml"]["updates_a_second"]
        print(
            f"{side} x {side}, {neighbours} neighbours, {chains} chains: "
            f"mho {rates['mho']:.0f}, thrml {rates['thrml']:.1f} million updates/s; "
            f"ratio {ratio['median']:.1f} ({ratio['quartile_1']:.1f} to {ratio['quartile_3']:.1f}); "
            f"energy a spin {case['mho']['energy_a_spin']:.4f} and {case['thrml']['energy_a_spin']:.4f} "
            f"+- {case['thrml']['standard_error']:.4f}",
            flush=True,
        )
    document = {
        "command": "python benchmarks/ebm_gibbs.py "
        + " ".join(f"--{k} {getattr(options, k)}" for k in ("cores", "updates", "repeats")),
        "machine": describe_machine(),
        "cores": options.cores,
        "cases": cases,
    }
    options.out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
