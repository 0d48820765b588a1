"""A campaign of 200 cells on a local Ray cluster of two workers, with a worker and the driver killed.

    python benchmarks/campaign_ray.py [--out benchmarks/results/campaign-ray.json]

Twice: once left alone, for what a cell costs besides its work; once with `kill -9` of a worker and of the driver, which
is started again. Each cell puts a small trained network on one virtual chip and classifies 64 images. Needs Ray
(pip install 'mho[ray]'); the cluster is started and stopped here, on ports of its own.
"""

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mho
from mho.bench.machine import describe_machine
from mho.campaign.cells import Cell, Do, Found

ROOT = Path(__file__).parents[1]
WORKERS = 2
LIMIT_S = 600.0
START_S = 120.0
RECIPE = """
name = "tiny"
baselines = []
[data]
subset = 512
batch_size = 64
[network]
model = "mlp"
args = {sizes = [784, 16, 10]}
[train]
epochs = 1
[evaluate]
chips = 2
"""
CAMPAIGN = """
name = "{name}"
runs = ["{run}"]
[evaluate]
hardware = ["generic", "pcm-joshi2020"]
noise_scales = [0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0]
ages = ["25 s", "1 min", "1 hour", "6 hours", "1 day", "1 week", "1 month", "3 months", "1 year", "10 years"]
chips = 1
images = 64
batch_size = 64
"""


def logged_work(log: str) -> Do:
    """The work of `mho sweep`, with a line in ``log`` when a cell begins and when it ends."""
    from mho.campaign.work import campaign_work

    return partial(_logged, log, campaign_work())


def _logged(log: str, do: Do, cell: Cell) -> Found:
    _note(log, f"begin {cell.id}")
    found = do(cell)
    _note(log, f"end {cell.id}")
    return found


def _note(log: str, line: str) -> None:
    with open(log, "ab", buffering=0) as stream:  # One write to a file opened for appending.
        stream.write(f"{line} {os.getpid()}\n".encode())


def drive(folder: Path, name: str, address: str) -> None:
    """One driver: what `mho sweep --ray` does, with work that keeps a log."""
    # Ray's workers must find this module by the name that it has here, not as __main__.
    from campaign_ray import logged_work as work

    from mho.campaign.engine import hire_crew, run_cells
    from mho.campaign.lock import held
    from mho.campaign.plan import plan
    from mho.campaign.settings import load_campaign

    campaign = load_campaign(folder / f"{name}.toml")
    place = folder / name
    with held(place / ".lock", f"campaign {place}"):
        make = partial(hire_crew, partial(work, str(folder / f"{name}.log")), WORKERS, address)
        run_cells(name, plan(campaign, place), place, make)


def environment() -> dict[str, str]:
    paths = [str(Path(mho.__file__).parents[1]), str(ROOT / "benchmarks")]
    # A token of this cluster's own: whoever reaches a cluster's port may run code on it.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    extra = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1"}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **extra}


def start_driver(folder: Path, name: str, address: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--drive", str(folder), name, address]
    return subprocess.Popen(command, env=environment())


def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what}: not within {LIMIT_S:g} s")
        time.sleep(0.02)


def lines(log: Path, word: str) -> list[list[str]]:
    text = log.read_text() if log.exists() else ""
    return [line.split()[1:] for line in text.splitlines() if line.startswith(word)]


def left_alone(folder: Path, address: str) -> dict[str, Any]:
    """Wall time, busy time, and what is between them."""
    from mho.campaign import read_results

    began = time.time()
    if start_driver(folder, "alone", address).wait(LIMIT_S) != 0:
        raise SystemExit("the driver failed")
    ended = time.time()
    rows = read_results(folder / "alone").to_pylist()
    first = min(row["started_at"] for row in rows)
    wall = max(row["started_at"] + row["seconds"] for row in rows) - first
    busy = sum(row["seconds"] for row in rows)
    return {
        "cells": len(rows),
        "done": sum(row["status"] == "done" for row in rows),
        "workers": len({row["worker"] for row in rows}),
        "wall_s": round(wall, 3),
        "busy_s": round(busy, 3),
        "median_cell_ms": round(1000 * float(np.median([row["seconds"] for row in rows])), 2),
        "overhead_ms_a_cell": round(1000 * (WORKERS * wall - busy) / len(rows), 2),
        "start_s": round(first - began, 1),
        "page_and_end_s": round(ended - first - wall, 1),
    }


def with_kills(folder: Path, address: str) -> dict[str, Any]:
    """`kill -9` of a worker after 40 results and of the driver after 90; then a second driver."""
    from mho.campaign import read_results

    parts, log = folder / "kills/parts", folder / "kills.log"

    def results() -> int:
        return len(list(parts.glob("*.parquet")))

    first = start_driver(folder, "kills", address)
    until(lambda: results() >= 40, "40 results")
    victim = int(lines(log, "begin")[-1][1])
    os.kill(victim, signal.SIGKILL)
    until(lambda: results() >= 90, "90 results")
    first.kill()
    first.wait()
    # Ray takes the actors of a dead driver down: their work in hand is lost, not what is on disk.
    kept = {path.stem: path.read_bytes() for path in parts.glob("*.parquet")}
    begun = len(lines(log, "begin"))
    if start_driver(folder, "kills", address).wait(LIMIT_S) != 0:
        raise SystemExit("the second driver failed")
    rows = read_results(folder / "kills").to_pylist()
    ids = [row["id"] for row in rows]
    began = [cell for cell, _ in lines(log, "begin")]
    second = set(began[begun:])
    return {
        "cells": len(ids),
        "distinct": len(set(ids)),
        "done": sum(row["status"] == "done" for row in rows),
        "on_disk_at_the_kill_of_the_driver": len(kept),
        "of_these_begun_again": len(second & set(kept)),
        "begun": len(began),
        "begun_more_than_once": len(began) - len(set(began)),
        "worker_deaths_in_results": sum(row["deaths"] for row in rows),
        "workers": len({row["worker"] for row in rows}),
    }


def agree(folder: Path) -> bool:
    """Whether both campaigns found the same outcome of every image on every chip."""
    from mho.campaign import read_results

    names = ("alone", "kills")
    found = [{row["id"]: row["correct"] for row in read_results(folder / name).to_pylist()} for name in names]
    return found[0] == found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def started_cluster(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A cluster of two cores. On a busy machine Ray's own processes may not start in its time: tried five times."""
    log = folder / "ray.log"
    for attempt in range(5):
        port = free_port()
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--block"]
        command += ["--node-ip-address=127.0.0.1"]
        command += [f"--num-cpus={WORKERS}", "--include-dashboard=false", "--disable-usage-stats"]
        with log.open("wb") as stream:
            cluster = subprocess.Popen(
                [*command, f"--temp-dir={folder / f'ray{attempt}'}"], env=environment(), stdout=stream, stderr=stream
            )
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and cluster.poll() is None:
            if "Ray runtime started" in log.read_text():
                return cluster, f"127.0.0.1:{port}"
            time.sleep(0.2)
        end(cluster)
    raise SystemExit(f"the cluster did not start:\n{log.read_text()[-2000:]}")


def end(cluster: subprocess.Popen[bytes]) -> None:
    """With --block the cluster ends with this process."""
    cluster.terminate()
    try:
        cluster.wait(60)
    except subprocess.TimeoutExpired:
        cluster.kill()
        cluster.wait(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/campaign-ray.json")
    parser.add_argument("--drive", nargs=3, metavar=("FOLDER", "NAME", "ADDRESS"), help="(a driver of this benchmark)")
    given = parser.parse_args()
    if given.drive:
        drive(Path(given.drive[0]), *given.drive[1:])
        return
    import ray  # Here: before a network is trained for nothing.

    from mho.evaluation.atomic import write_atomically
    from mho.experiments import run_recipe
    from mho.train import parse_recipe

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = run_recipe(parse_recipe(RECIPE), out=folder / "runs")
        for name in ("alone", "kills"):
            (folder / f"{name}.toml").write_text(CAMPAIGN.format(name=name, run=run.folder))
        cluster, address = started_cluster(folder)
        try:
            document = {
                "command": "python benchmarks/campaign_ray.py",
                "load_before": os.getloadavg()[0],
                "alone": left_alone(folder, address),
                "kills": with_kills(folder, address),
                "same_outcomes": agree(folder),
                "ray": ray.__version__,
                "machine": describe_machine(),
            }
        finally:
            end(cluster)
    write_atomically(given.out, (json.dumps(document, indent=1) + "\n").encode())
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
