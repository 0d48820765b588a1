"""One measurement in a process of its own: a job as JSON in the last argument, the answer as JSON on stdout."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, Literal

MEMORY_RUNS = 3


@dataclass(frozen=True)
class Job:
    """``what``: both sides timed in turn, or the peak memory of one side alone."""

    case: str
    what: Literal["time", "digital", "mho"]
    threads: int
    budget_s: float
    minimum_pairs: int

    def dumps(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))


def run_job(job: Job) -> dict[str, Any]:
    """Do the job in this process: the numbers of ``Timings.summary()``, or ``peak_mb`` (1 MB = 10^6 bytes)."""
    import torch

    from mho.bench.cases import build_run
    from mho.bench.memory import peak_bytes
    from mho.bench.timing import interleave

    torch.set_num_threads(job.threads)
    if job.what == "time":
        digital, mho = build_run(job.case, "digital"), build_run(job.case, "mho")
        return interleave(digital, mho, budget_s=job.budget_s, minimum_pairs=job.minimum_pairs).summary()
    run = build_run(job.case, job.what)
    for _ in range(MEMORY_RUNS):
        run()
    return {"peak_mb": peak_bytes() / 1e6}


def main(arguments: list[str]) -> None:
    """Read the job, do it, answer."""
    answer = run_job(Job(**json.loads(arguments[-1])))
    sys.stdout.write(json.dumps(answer) + "\n")
