"""``mho bench speed``: every case in processes of its own, as results and as a document."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mho.bench.cases import BITS, CASES, CHIPS, CLIP_SIGMA, OUTPUT_NOISE, WEIGHT_NOISE, find_case
from mho.bench.machine import describe_machine, usable_cores
from mho.bench.process import MALLOC, run_in_child
from mho.bench.roofline import Peaks, roofline
from mho.bench.timing import WARM_UP_SHARE
from mho.bench.worker import MEMORY_RUNS, Job
from mho.errors import InputError

THREADS = 2
MEMORY_AIM = 1.5
Say = Callable[[str], None]
Kind = Literal["speed", "memory", "scaling"]


@dataclass(frozen=True)
class SpeedSettings:
    """Seconds of timing a case, the fewest pairs of runs whatever they take, and torch's threads."""

    budget_s: float
    minimum_pairs: int
    threads: int


def speed_settings(quick: bool) -> SpeedSettings:
    """2 s and 3 pairs a case (quick), or 15 s and 5 pairs; two threads where there are two cores."""
    threads = min(THREADS, usable_cores())
    return SpeedSettings(2.0, 3, threads) if quick else SpeedSettings(15.0, 5, threads)


def measure_case(name: str, settings: SpeedSettings) -> dict[str, Any]:
    """Time one case in one process, then take the peak memory of each side in a process of its own."""
    case = find_case(name)

    def ask(what: str) -> dict[str, Any]:
        job = Job(name, what, settings.threads, settings.budget_s, settings.minimum_pairs)  # type: ignore[arg-type]
        return run_in_child(job)

    times = {key: _rounded(value) for key, value in ask("time").items()}
    memory = {"peak_mb": ask("mho")["peak_mb"], "digital_peak_mb": ask("digital")["peak_mb"]}
    return {"case": name, **times, **{key: round(value, 1) for key, value in memory.items()}, "aim": case.aim}


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def run_speed(
    cases: Sequence[str] | None = None, quick: bool = False, progress: Say | None = None
) -> list[dict[str, Any]]:
    """Time of mho over time of the same digital torch model, for ``cases`` (None: all of them).

    Each result: ``case``, ``ratio`` (median of the ratios of neighbouring runs), ``ratio_quartiles``,
    ``digital_ms`` and ``mho_ms`` (medians), ``pairs``, ``peak_mb`` and ``digital_peak_mb`` (high-water mark of a
    process that runs this side alone, 10^6 bytes, torch's import included), ``aim`` (a ratio, or None).
    ``progress`` is told what begins. What is timed: :func:`mho.bench.cases.build_run`.

    Raises :class:`InputError` for an unknown case before anything runs, :class:`MhoError` where a process fails.
    """
    names = _chosen(cases)
    settings, results, began = speed_settings(quick), [], time.monotonic()
    for done, name in enumerate(names):
        if progress is not None:
            left = (time.monotonic() - began) / done * (len(names) - done) if done else None
            progress(f"{name} ({done + 1} of {len(names)}{'' if left is None else f', about {left:.0f} s left'})")
        results.append(measure_case(name, settings))
    return results


def run_memory(cases: Sequence[str] | None = None, progress: Say | None = None) -> list[dict[str, Any]]:
    """Peak memory of mho over that of the digital model, each in a process of its own; both with torch's import.

    Each process builds its side of the case and runs it ``MEMORY_RUNS`` times. Each result: ``case``, ``peak_mb``,
    ``digital_peak_mb`` (10^6 bytes), ``ratio``, ``idle_mb`` and ``aim``. ``idle_mb``: that of the digital inference of
    the smallest network (``infer_mlp``); about what is left above it belongs to the case. Raises as :func:`run_speed`.
    """
    names = _chosen(cases)
    settings = speed_settings(quick=True)

    def peak(name: str, side: str) -> float:
        job = Job(name, side, settings.threads, settings.budget_s, settings.minimum_pairs)  # type: ignore[arg-type]
        return float(run_in_child(job)["peak_mb"])

    idle, results = peak("infer_mlp", "digital"), []
    for name in names:
        if progress is not None:
            progress(name)
        ours, digital = peak(name, "mho"), peak(name, "digital")
        row = {"peak_mb": ours, "digital_peak_mb": digital, "ratio": ours / digital, "idle_mb": idle}
        results.append({"case": name, **{key: round(value, 3) for key, value in row.items()}, "aim": MEMORY_AIM})
    return results


def run_scaling(
    cases: Sequence[str] | None = None, quick: bool = False, progress: Say | None = None
) -> list[dict[str, Any]]:
    """The ratio of :func:`run_speed` on 1, 2, 4, ... threads up to the cores of this machine; training by default.

    Each result: ``case``, ``threads``, ``ratio``, ``ratio_quartiles``, ``digital_ms``, ``mho_ms``, ``pairs``.
    """
    base, results = speed_settings(quick), []
    counts = [2**k for k in range(usable_cores().bit_length()) if 2**k <= usable_cores()]
    for name in _chosen(cases if cases is not None else [n for n in CASES if n.startswith("train_")]):
        for threads in counts:
            if progress is not None:
                progress(f"{name}, {threads} threads")
            job = Job(name, "time", threads, base.budget_s, base.minimum_pairs)
            found = {key: _rounded(value) for key, value in run_in_child(job).items()}
            results.append({"case": name, "threads": threads, **found})
    return results


def _chosen(cases: Sequence[str] | None) -> list[str]:
    if cases is None:
        return list(CASES)
    names = list(dict.fromkeys(cases))
    if isinstance(cases, str) or not names:
        raise InputError(f"bench speed: cases = {cases!r}. Way out: a list of names, or None for all of them.")
    for name in names:
        find_case(name)
    return names


def speed_document(
    results: Sequence[dict[str, Any]], quick: bool = False, peaks: Peaks | None = None, kind: Kind = "speed"
) -> dict[str, Any]:
    """What ``--json`` writes: the results of :func:`run_speed`, the machine, and how it was measured.

    ``kind``: "memory" or "scaling" for those of :func:`run_memory` or :func:`run_scaling`. ``peaks``: of this machine;
    with them, what each case counts and the floor under it (:mod:`mho.bench.roofline`).
    """
    cases = {} if peaks is None else {row["case"]: roofline(row["case"], peaks) for row in results}
    return {
        "results": list(results),
        "roofline": None if peaks is None else {"peaks": asdict(peaks), "cases": cases},
        "machine": {**describe_machine(), "load_average": _load()},
        "settings": {
            **_measured_with(results, quick, kind),
            "environment": dict(MALLOC),
            "chips": CHIPS,
            "clip_sigma": CLIP_SIGMA,
            "ranges": "learned",
            "hardware": {
                "dac_bits": BITS,
                "adc_bits": BITS,
                "output_noise": OUTPUT_NOISE,
                "weight_noise": WEIGHT_NOISE,
            },
        },
    }


def _measured_with(results: Sequence[dict[str, Any]], quick: bool, kind: Kind) -> dict[str, Any]:
    """The settings that one kind of benchmark uses: only what is timed has pairs, only what has a peak memory runs."""
    threads = sorted({row["threads"] for row in results}) if kind == "scaling" else speed_settings(quick).threads
    memory = {"threads": threads, "memory_runs": MEMORY_RUNS}
    timing = {
        **asdict(speed_settings(quick)),
        "threads": threads,
        "quick": quick,
        "order": "A B A B, digital first",
        "warm_up_share": WARM_UP_SHARE,
        "garbage_collector": "off while timing",
    }
    return memory if kind == "memory" else timing if kind == "scaling" else {**timing, **memory}


def _load() -> float | None:
    """Running processes over the last minute: above one's own threads, somebody else was timed too."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
