"""Start a worker with a pinned allocator and a fixed number of threads."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mho.bench.worker import Job
from mho.errors import MhoError

# glibc gives large blocks back to the kernel and faults them in again at each call, by thresholds that move with
# the history of the process: fixed, so that two runs of the benchmark mean the same. 32 MiB is the most that every
# glibc accepts for the first. Other C libraries ignore them.
MALLOC = MappingProxyType(
    {
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(2**30),
        "MALLOC_TOP_PAD_": str(64 * 2**20),
    }
)
_START = (
    "import sys; root = sys.argv[1]; root in sys.path or sys.path.insert(0, root); "
    "from mho.bench.worker import main; main(sys.argv)"
)
STARTING_S = 300.0


def child_environment(threads: int) -> dict[str, str]:
    """This process's environment with the allocator's thresholds and the number of threads pinned."""
    count = str(threads)
    return {**os.environ, **MALLOC, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count}


def run_in_child(job: Job) -> dict[str, Any]:
    """The answer of a worker to ``job``. Raises :class:`MhoError` with its last words if it fails or hangs."""
    root = str(Path(__file__).parents[2])
    limit_s = STARTING_S + 20 * job.budget_s
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _START, root, job.dumps()],
            env=child_environment(job.threads),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise MhoError(
            f"bench speed: case {job.case!r} ({job.what}) was not done after {limit_s:.0f} s and was stopped. "
            "Way out: --case with a smaller case, or a machine with less other work."
        ) from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-5:]
        cause = f"signal {-done.returncode} (9: often no memory left)" if done.returncode < 0 else "an error"
        raise MhoError(
            f"bench speed: case {job.case!r} ({job.what}) ended with {cause}:\n"
            + "\n".join(f"  {line}" for line in said)
            + "\nWay out: leave the case out with --case, or report the lines above."
        )
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
