"""One tool in its own environment: ``python worker.py TOOL THREADS CLOCK``, then one case a line on standard input.

Each answer is one line of JSON: ``{"tool", "version", "torch"}`` when it has started; for a case ``{"s": seconds}`` of
one run, or ``{"error": ...}``. The first question about a case builds it. It ends with its input.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from statistics import median

SLICE_S = 0.1
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""Time as on the wall, or processor time of all threads of this process."""


def seconds(run: Callable[[], object], least_s: float, clock: Callable[[], float]) -> float:
    """The median time of one run, after one that is not timed; short runs are repeated until ``least_s`` have passed.

    The first run wakes threads and fills the caches that other tools used meanwhile.
    """
    run()
    times: list[float] = []
    while sum(times) < least_s:
        began = clock()
        run()
        times.append(clock() - began)
    return median(times)


def main(tool: str, threads: int, clock: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a tool prints goes to standard error, not among the answers
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import torch
    from networks import CASES, network
    from tools import PACKAGES, TOOLS

    torch.set_num_threads(threads)
    try:
        number = version(PACKAGES[tool])
    except PackageNotFoundError:
        number = "not installed as a package"
    answers.write(json.dumps({"tool": tool, "version": number, "torch": torch.__version__}) + "\n")
    runs: dict = {}
    gc.disable()
    for line in sys.stdin:
        case = line.strip()
        try:
            if case not in runs:
                name, training = CASES[case]
                runs[case] = TOOLS[tool](*network(name), training)
                gc.collect()
            answer = {"s": seconds(runs[case], SLICE_S, CLOCKS[clock])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
