"""Plain torch, mho and every peer that is installed, on the same networks, in turn within one run.

    python benchmarks/peers/compare.py                          # environments in .peers/
    python benchmarks/peers/compare.py --env lightning=/path/to/venv --rounds 30 --json benchmarks/results/peers.json

Every tool is a process of its own that waits while the others run. In each round all tools run a case in turn, torch
first (worker.py says how); a ratio is a tool's time over torch's in the same round. A tool whose run fails, or takes
more than ten minutes, is left out of that case with its message.
"""

import argparse
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from command import command
from networks import BITS, CASES, CLIP_SIGMA, OUTPUT_NOISE, WEIGHT_NOISE

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = {
    "lightning": "lightning", "aihwkit_torch": "aihwkit", "aihwkit_cpp": "aihwkit", "crosssim": "crosssim",
}  # fmt: skip
LIMIT_S = 600.0
PAUSE_S = 0.05
"""Before each question: threads of the tool before (OpenMP, BLAS) spin for a while after their last product."""


class Worker:
    """A tool's process."""

    def __init__(self, tool: str, python: str, threads: int, clock: str) -> None:
        from mho.bench.process import child_environment

        environment = child_environment(threads)
        if python != sys.executable:
            environment.pop("PYTHONPATH", None)
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed by close; a pipe that nobody reads fills up)
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), tool, str(threads), clock],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment,
        )  # fmt: skip

    def answer(self) -> dict:
        """The next line of the process, or the last words of one that ended or did not answer."""
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
        if not ready:
            self.process.kill()
            return {"error": f"no answer within {LIMIT_S:.0f} s"}
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        self.said.seek(0)
        said = self.said.read().strip().splitlines()
        return {"error": said[-1] if said else f"ended with {self.process.wait()}"}

    def ask(self, case: str) -> dict:
        time.sleep(PAUSE_S)
        try:
            self.process.stdin.write(case + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        return self.answer()

    def close(self) -> None:
        try:
            self.process.communicate(timeout=30)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self.process.kill()
        self.said.close()


def found_tools(folder: Path, named: list[str]) -> dict[str, str]:
    """The Python of each tool that there is an environment for; torch and mho: this one."""
    tools = {"torch": sys.executable, "mho": sys.executable}
    given = dict(text.split("=", 1) for text in named)
    for tool, environment in ENVIRONMENTS.items():
        home = Path(given.get(tool, given.get(environment, folder / environment)))
        python = home / "bin" / "python"
        if python.exists():
            tools[tool] = str(python)
        elif tool in given or environment in given:
            raise SystemExit(
                f"compare: {home} has no bin/python. Way out: --env {environment}=FOLDER of an environment."
            )
    return tools


def summary(times: list[float], torch_times: list[float]) -> dict:
    """Medians with quartiles of seconds (as ms) and of the ratios to torch of the same rounds."""
    ratios = [t / d for t, d in zip(times, torch_times, strict=True)]

    def quartiles(values: list[float], scale: float) -> list[float]:
        low, _, high = quantiles(values, n=4, method="inclusive")
        return [round(scale * low, 4), round(scale * high, 4)]

    return {
        "ms": round(1e3 * median(times), 4), "ms_quartiles": quartiles(times, 1e3),
        "ratio": round(median(ratios), 4), "ratio_quartiles": quartiles(ratios, 1.0), "rounds": len(times),
    }  # fmt: skip


def compare(workers: dict[str, Worker], cases: list[str], rounds: int) -> dict:
    """Results by case and tool."""
    results: dict = {}
    for case in cases:
        times: dict[str, list[float]] = {tool: [] for tool in workers}
        failed: dict[str, str] = {}
        for number in range(rounds + 1):
            for tool, worker in workers.items():
                if tool in failed:
                    continue
                said = worker.ask(case)
                if "error" in said:
                    failed[tool] = said["error"]
                elif number:  # the first round fills caches
                    times[tool].append(said["s"])
        results[case] = {
            tool: {"failed": failed[tool]} if tool in failed else summary(times[tool], times["torch"])
            for tool in workers
        }
        for tool, row in results[case].items():
            told = row.get("failed") or f"{row['ms']:9.2f} ms  {row['ratio']:6.2f} x  {row['ratio_quartiles']}"
            print(f"{case:15} {tool:14} {told}", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", action="append", default=[], metavar="NAME=FOLDER", help="an environment of a peer")
    parser.add_argument("--folder", type=Path, default=Path(".peers"), help="where environments are looked for")
    parser.add_argument("--case", action="append", choices=list(CASES), help="may be repeated; default: all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                        help="cpu: processor time, for a machine that others use; with --threads 1")  # fmt: skip
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.clock == "cpu" and given.threads != 1:
        raise SystemExit("compare: processor time adds up over threads, also those that wait. Way out: --threads 1.")
    if given.rounds < 2:
        raise SystemExit("compare: quartiles need two rounds or more. Way out: --rounds 20.")
    from mho.bench.machine import describe_machine

    started = {tool: Worker(tool, python, given.threads, given.clock)
               for tool, python in found_tools(given.folder, given.env).items()}  # fmt: skip
    versions, missing = {}, {}
    for tool, worker in started.items():
        hello = worker.answer()
        (missing if "error" in hello else versions)[tool] = hello
    try:
        workers = {tool: worker for tool, worker in started.items() if tool in versions}
        results = compare(workers, given.case or list(CASES), given.rounds)
    finally:
        for worker in started.values():
            worker.close()
    document = {
        "command": command(),
        "results": results,
        "versions": versions,
        "did_not_start": {tool: said["error"] for tool, said in missing.items()},
        "no_environment": sorted(set(ENVIRONMENTS) - set(started)),
        "settings": {
            "rounds": given.rounds, "threads": given.threads, "clock": given.clock, "order": "all in turn, torch first",
            "bits": BITS, "output_noise": OUTPUT_NOISE, "weight_noise": WEIGHT_NOISE, "clip_sigma": CLIP_SIGMA,
        },
        "machine": {**describe_machine(), "load_average": round(os.getloadavg()[0], 2)},
    }  # fmt: skip
    if given.json:
        given.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: document[key] for key in ("did_not_start", "no_environment")}))


if __name__ == "__main__":
    main()
