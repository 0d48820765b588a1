"""The floor under a case: operations, bytes and random numbers counted, over what this machine reaches at best.

    floor = max(operations / peak, bytes / bandwidth) + numbers drawn / rate

Operations: those of torch's own counter on the digital network (a backward pass is counted by running it). Bytes: what
must come from memory and go there if every activation stayed in a cache: parameters (read forwards and backwards, read
and written by the optimizer with their gradients), the batch and the output. Random numbers: one for each conversion,
and in training one for each weight; a digital network draws none. The peaks are measured, not looked up: a product of
two 2048 x 2048 matrices, a copy of 256 MB, and the kernel that fills a cached array with normals.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import mho
from mho.bench.cases import CHIPS, Case, convert_for_bench, find_case, network
from mho.crossbar import kernels
from mho.nn.site import analog_layers

PRODUCT, COPIED, DRAWN, REPEATS = 2048, 32 * 2**20, 2**18, 7
PASSES_OVER_PARAMETERS = {"train": 6, "gradient": 3, "infer": 1, "chips": CHIPS}
"""train: read twice, gradient written and read, parameter read and written. gradient: read twice, gradient written."""


@dataclass(frozen=True)
class Counts:
    """What one run of a case does: operations, bytes that must move, normals that mho draws besides."""

    operations: int
    bytes: int
    normals: int


@dataclass(frozen=True)
class Peaks:
    """What the machine reaches at best, a second: operations, bytes, normals."""

    operations_s: float
    bytes_s: float
    normals_s: float


def count(name: str) -> Counts:
    """Operations and bytes of the digital side of case ``name``, and the normals that mho's side draws.

    A lot of chips holds a network each: its bytes are those of all of them. Raises :class:`InputError` for an unknown
    case.
    """
    case = find_case(name)
    torch.manual_seed(0)
    digital, x = network(case.network)
    backward = case.work in ("train", "gradient")
    model = digital.train() if backward else digital.eval()
    x.requires_grad_(case.work == "gradient")
    with FlopCounterMode(display=False) as counter:
        y = model(x)  # with gradients: torch's fused path of eval mode is opaque to its counter
        if backward:
            F.cross_entropy(y, torch.zeros(len(x), dtype=torch.long)).backward()  # type: ignore[no-untyped-call]
    times = CHIPS if case.work == "chips" else 1
    parameters = sum(p.numel() for p in digital.parameters())
    moved = (
        PASSES_OVER_PARAMETERS[case.work] * parameters + x.numel() * (2 if x.requires_grad else 1) + y.numel() * times
    )
    return Counts(counter.get_total_flops() * times, 4 * moved, _normals(case, digital, x.detach(), times))


def _normals(case: Case, digital: nn.Module, x: Tensor, times: int) -> int:
    analog = convert_for_bench(digital, x, case.rows).eval()
    fresh = sum(layer.counts.conversions for layer in mho.energy(analog, x).layers)
    weights = sum(getattr(m, key).numel() for _, m in analog_layers(analog) for key in m.sites)
    return fresh * times + (weights if case.work in ("train", "gradient") else 0)


def measure_peaks(threads: int) -> Peaks:
    """The best of seven runs each on ``threads`` of torch's threads; about two seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.randn(PRODUCT, PRODUCT), torch.randn(PRODUCT, PRODUCT)
        source, target, drawn = torch.ones(COPIED), torch.empty(COPIED), torch.empty(DRAWN)
        return Peaks(
            operations_s=2 * PRODUCT**3 / _best_s(lambda: torch.mm(a, b)),
            bytes_s=2 * source.nbytes / _best_s(lambda: target.copy_(source)),
            normals_s=DRAWN / _best_s(lambda: kernels.normal_(drawn, 1)),
        )
    finally:
        torch.set_num_threads(before)


def _best_s(call: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def floors_ms(counts: Counts, peaks: Peaks) -> tuple[float, float]:
    """The least milliseconds of one run: (digital, mho)."""
    digital = max(counts.operations / peaks.operations_s, counts.bytes / peaks.bytes_s)
    return 1e3 * digital, 1e3 * (digital + counts.normals / peaks.normals_s)


def roofline(name: str, peaks: Peaks) -> dict[str, Any]:
    """Counts and floors of case ``name``, for JSON."""
    counts = count(name)
    digital, ours = floors_ms(counts, peaks)
    return asdict(counts) | {"digital_floor_ms": digital, "mho_floor_ms": ours}


__all__ = ["Counts", "Peaks", "count", "floors_ms", "measure_peaks", "roofline"]
