"""The GPU kernels beside plain torch: ratios by route, time by kernel, parity, and the share of the roofline.

    python benchmarks/gpu_operator.py             # on a machine with a CUDA GPU; under 100 seconds
    python benchmarks/gpu_operator.py --quick     # 5 pairs, no transformer
    python benchmarks/gpu_operator.py --tiny      # anywhere: every kernel once under Triton's interpreter, no timing

Prints as it goes and writes benchmarks/results/gpu-operator.json after every case. Linear 4096 x 4096 at batch 8192 in
bfloat16, forward and backward, on one tile and on tiles of 512 rows, and a training step of a transformer of 124 M
parameters. Both sides run in turn, several runs at a time, and are timed by the device's own clock; a ratio is the
median of the ratios of neighbouring runs. ``host_ms``: what Python needs to launch one run; where it is above the
device's time the machine waits for Python.

Names: "fused", "library" and "library-narrow" are who multiplies (``mho.crossbar.gpu.launch``), "masked" and "mended"
how tiles go back; "layer" is the converted layer as a user gets it. "no check": without the test of each product
for NaN that training makes, which waits for the device. Every kernel alone comes last.

Each case first runs once, small, in a process of its own: that compiles its kernels, all cases at once, and a case that
fails there is reported with its error and left out.

Roofline: operations of the three products over the rate of torch's own product of this size, and bytes that must move
over the rate of a copy, both measured here. The floor is the larger of the two; the share is floor over time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest import mock

import torch
from gpu_pieces import (
    DEVICE,
    READ_NOISE,
    ROUTES,
    SIZE,
    STEP_GROUPS,
    WEIGHT_NOISE,
    Run,
    attempt,
    elapsed_ms,
    hardware,
    host_ms,
    kernel_times,
    measure_steps,
    parities,
    rates,
    steps,
    tensors,
)
from torch import Tensor, nn
from torch.nn import functional as F

ONE_TILE, TILES, STEP = 1.15, 1.3, 1.2  # aims
RESULT = Path(__file__).parent / "results" / "gpu-operator.json"


def digital_run(x: Tensor, w: Tensor, bias: Tensor, g: Tensor) -> Run:
    """Forward and backward of a digital layer."""
    return lambda: torch.autograd.grad(F.linear(x, w, bias), (x, w, bias), g)


def kernel_run(x: Tensor, w: Tensor, bias: Tensor, g: Tensor, rows: int | None, read_noise: float, **how: Any) -> Run:
    """The same through the kernels alone: noise on the weight, the fused product, its backward pass.

    ``how``: route and backward, as ``operator.product`` takes them.
    """
    from mho.crossbar.array import Array
    from mho.crossbar.gpu import operator, weights
    from mho.crossbar.noise import Counter
    from mho.crossbar.ops import LinearOp

    op, hw = LinearOp(w.shape[1], w.shape[0]), hardware(rows, read_noise)
    ranges = torch.tensor([4.0, 4.0 * w.shape[1] ** 0.5 * 0.02], device=x.device)
    top = w.detach().abs().max().float()
    read_var = ((read_noise * top) ** 2,) if read_noise else None
    step = 0

    def run() -> object:
        nonlocal step
        step += 1
        noisy = weights.noisy(w, top, WEIGHT_NOISE * top, Counter(2 * step))
        y, _ = operator.product(x, Array((noisy,), read_var), op, hw, Counter(2 * step + 1), ranges, bias, **how)
        return torch.autograd.grad(y, (x, w, bias), g)

    return run


def layer_run(layer: nn.Module, x: Tensor, g: Tensor) -> Run:
    """Forward and backward of a layer, as inside a network."""
    layer.train()
    inputs = (x, *(p for p in layer.parameters() if p.requires_grad))
    return lambda: torch.autograd.grad(layer(x), inputs, g, allow_unused=True)


class Transformer(nn.Module):
    """A decoder of 12 layers, d 768, 12 heads, feed-forward 3072, 50,257 tokens: 124 M parameters, tied embedding."""

    def __init__(self, layers: int, width: int, heads: int, tokens: int, length: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.tokens, self.places = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length), persistent=False)

    def forward(self, ids: Tensor) -> Tensor:
        """``[batch, length]`` to logits ``[batch, length, tokens]``; embeddings and the head are digital."""
        x = self.tokens(ids) + self.places.weight
        mask: Tensor = self.mask.to(x.dtype)  # type: ignore[assignment, operator]
        return F.linear(self.blocks(x, mask=mask, is_causal=True), self.tokens.weight)


def step_run(model: nn.Module, ids: Tensor) -> Run:
    """One training step."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(ids).flatten(0, 1).float(), ids.flatten()).backward()
        optimizer.step()

    return step


def compare(digital: Run, analog: Run, pairs: int, times: int) -> dict[str, Any]:
    """Medians and the ratio of two runs in turn."""
    for _ in range(3):
        digital(), analog()
    found = [(elapsed_ms(digital, times), elapsed_ms(analog, times)) for _ in range(pairs)]
    ratios = sorted(b / a for a, b in found)
    return {
        "ratio": median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "digital_ms": median(a for a, _ in found),
        "mho_ms": median(b for _, b in found),
        "digital_host_ms": host_ms(digital),
        "mho_host_ms": host_ms(analog),
        "pairs": pairs,
        "runs_a_pair": times,
    }


def floor_ms(m: int, n: int, k: int, parts: int, size: int, product_ms: float, bytes_per_ms: float) -> dict[str, Any]:
    """What forward and backward cannot beat: three products, and each tensor moved once.

    x, w and its noisy copy, y, dL/dy twice (for x and w), dx, dw, and a bit an output and part.
    """
    moved = size * (2 * m * k + 5 * n * k + 3 * m * n + m * k) + parts * m * n // 8
    arithmetic, memory = 3 * product_ms, moved / bytes_per_ms
    return {
        "operations": 6 * m * n * k, "bytes": moved, "arithmetic_ms": arithmetic, "memory_ms": memory,
        "floor_ms": max(arithmetic, memory), "normals": parts * m * n + n * k,
    }  # fmt: skip


class Case(NamedTuple):
    """What is compared. ``make(small)``: the digital run and ours; ``times``: runs a timed pair."""

    make: Callable[[bool], tuple[Run, Run]]
    aim: float
    times: int
    parts: int | None = None  # of the linear cases, which have a roofline


def linear_case(rows: int | None, read: float, **how: Any) -> Case:
    def make(small: bool) -> tuple[Run, Run]:
        data = tensors(256 if small else SIZE[0], *SIZE[1:], DEVICE)
        return digital_run(*data), kernel_run(*data, rows, read, **how)

    return Case(make, TILES if rows else ONE_TILE, 4, SIZE[2] // (rows or SIZE[2]))


def layer_case(rows: int | None, read: float = 0.0) -> Case:
    def make(small: bool) -> tuple[Run, Run]:
        from mho.nn.conversion import convert

        m, n, k = SIZE
        x, w, bias, g = tensors(256 if small else m, n, k, DEVICE)
        layer = convert(nn.Linear(k, n).to(DEVICE).bfloat16(), hardware(rows, read))
        return digital_run(x, w, bias, g), layer_run(layer, x, g)

    return Case(make, TILES if rows else ONE_TILE, 4)


def transformer_case(route: str | None, checked: bool) -> Case:
    """``route``: for all products in place of the rule's; ``checked``: with the test for NaN."""

    def make(small: bool) -> tuple[Run, Run]:
        from mho.crossbar.gpu import launch
        from mho.nn import surrogate
        from mho.nn.conversion import convert

        torch.manual_seed(0)
        model = Transformer(1 if small else 12, 768, 12, 50257, 512).to(DEVICE).bfloat16()
        ids = torch.randint(0, 50257, (1 if small else 16, 512), device=DEVICE)
        digital, analog = step_run(model, ids), step_run(convert(model, hardware(None), digital=["tokens"]), ids)

        def run() -> None:
            with ExitStack() as stack:
                if route is not None:
                    stack.enter_context(mock.patch.object(launch, "route_for", return_value=route))
                if not checked:
                    stack.enter_context(mock.patch.object(surrogate, "refuse_nonfinite"))
                analog()

        return digital, run

    return Case(make, STEP, 2)


CASES: dict[str, Case] = {
    **{f"linear one tile, {route}": linear_case(None, 0.0, route=route) for route in ROUTES},
    "linear one tile, layer": layer_case(None),
    **{f"linear tiles of 512, {way}": linear_case(512, 0.0, backward=way) for way in ("masked", "mended")},
    "linear tiles of 512, layer": layer_case(512),
    "linear tiles of 512, read noise, mended": linear_case(512, READ_NOISE, backward="mended"),
    "transformer": transformer_case(None, True),
    "transformer, no check": transformer_case(None, False),
    "transformer, library, no check": transformer_case("library", False),
    "transformer, fused, no check": transformer_case("fused", False),
}


def warm(name: str) -> None:
    """One case once, small: compiles its kernels."""
    if name.startswith("parity"):
        for _, measure in parities(DEVICE, 512):
            measure()
    elif name.startswith("steps"):
        for i, (_, run, _) in enumerate(steps(True)):
            if i % STEP_GROUPS == int(name.split()[1]):
                run()
    else:
        for run in CASES[name].make(True):
            run()
    torch.cuda.synchronize()


def warm_all(names: list[str]) -> dict[str, str]:
    """Every name in a process of its own, all at once; errors by name."""
    found = {
        name: subprocess.Popen(
            [sys.executable, __file__, "--warm", name], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for name in names
    }
    errors = {}
    for name, process in found.items():
        try:
            _, said = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            said = process.communicate()[1] + "\nno end within 120 s"
        if process.returncode:
            errors[name] = said[-1500:]
    return errors


def measure(name: str, case: Case, pairs: int, rate: tuple[float, float]) -> dict[str, Any]:
    """One case, on the GPU."""
    digital, analog = case.make(False)
    found = compare(digital, analog, pairs, case.times) | {"aim": case.aim}
    if case.parts is not None:
        floor = floor_ms(*SIZE, case.parts, 2, *rate)
        found["roofline"] = {**floor, "share": floor["floor_ms"] / found["mho_ms"]}
    found["kernels_us"] = attempt(lambda: kernel_times(analog, 3))
    return found


def tiny() -> dict[str, Any]:
    """Every path once, too small to mean anything, without a clock."""
    m, n, k = 32, 32, 64
    x, w, bias, g = tensors(m, n, k, "cpu")
    found: dict[str, Any] = {}
    cases: list[tuple[int | None, float, dict[str, str]]] = [(None, 0.0, {"route": r}) for r in ROUTES]
    cases += [(16, 0.0, {"backward": "masked"}), (16, READ_NOISE, {"backward": "mended"})]
    for rows, read, how in cases:
        grads = kernel_run(x, w, bias, g, rows, read, **how)()
        assert isinstance(grads, tuple) and all(t.isfinite().all() for t in grads)
        found[f"tiles {rows}, read noise {read}, {how}"] = floor_ms(m, n, k, k // (rows or k), 2, 1.0, 1e6)
    digital_run(x, w, bias, g)()
    model = Transformer(1, 16, 2, 32, 8)
    step_run(model, torch.randint(0, 32, (2, 8)))()
    from mho.nn.conversion import convert

    step_run(convert(model, hardware(None), digital=["tokens"]), torch.randint(0, 32, (2, 8)))()
    layer_run(convert(nn.Linear(k, n), hardware(16)), x.detach().float().requires_grad_(), g.float())()
    return found


def run_all(pairs: int, quick: bool, out: Path) -> None:
    """Everything, on the GPU; what is known is written after every case."""
    import triton

    from mho.bench.machine import describe_machine

    began = time.perf_counter()
    cases = {name: case for name, case in CASES.items() if not (quick and name.startswith("transformer"))}
    machine = {**describe_machine(), "gpu": torch.cuda.get_device_name(), "triton": triton.__version__}
    print(f"{machine['gpu']}, torch {torch.__version__}, triton {triton.__version__}; compiling ...", flush=True)
    groups = [f"steps {i}" for i in range(STEP_GROUPS)]
    errors = warm_all([*cases, "parity", *groups])
    for name, error in errors.items():
        print(f"FAILED while small: {name}\n{error}", flush=True)
    result: dict[str, Any] = {"machine": machine, "command": "python benchmarks/gpu_operator.py", "failed": errors}

    def note(section: str, name: str, found: dict[str, Any]) -> None:
        result.setdefault(section, {})[name] = found
        result["seconds"] = time.perf_counter() - began
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    print(f"{time.perf_counter() - began:5.1f} s; parity: shares that differ from mvm in float32", flush=True)
    for name, compute in parities(DEVICE, 512) if "parity" not in errors else ():
        found = attempt(compute)
        note("parity", name, found)
        print(f"  {name:44s} {found}", flush=True)
    rate = rates(*SIZE)
    result["product_ms"], result["copy_GB/s"] = rate[0], rate[1] / 1e6
    print(f"{time.perf_counter() - began:5.1f} s; product {rate[0]:.3f} ms, copy {rate[1] / 1e6:.0f} GB/s", flush=True)
    for name, case in cases.items():
        if name in errors:
            continue
        found = attempt(lambda name=name, case=case: measure(name, case, pairs, rate))  # type: ignore[misc]
        torch.cuda.empty_cache()
        note("cases", name, found)
        if "error" in found:
            print(f"FAILED: {name}\n{found['error']}", flush=True)
            continue
        share = f"{found['roofline']['share']:.2f}" if "roofline" in found else "-"
        print(
            f"{name:40s} ratio {found['ratio']:.3f} (aim {found['aim']}), {found['digital_ms']:.3f} -> "
            f"{found['mho_ms']:.3f} ms, host {found['digital_host_ms']:.2f} -> {found['mho_host_ms']:.2f} ms, "
            f"roofline {share}",
            flush=True,
        )
        for kernel, us in found["kernels_us"].items():
            print(f"    {us.splitlines()[-1] if isinstance(us, str) else f'{us:9.1f} us'}  {kernel}", flush=True)
    print(f"{time.perf_counter() - began:5.1f} s; every kernel alone", flush=True)
    if not all(group in errors for group in groups):
        note("steps", "all", attempt(measure_steps))
    print(f"{time.perf_counter() - began:5.1f} s; written: {out}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="no GPU: run the code once under Triton's interpreter")
    parser.add_argument("--pairs", type=int, default=15, help="timed pairs of runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes (not written by --tiny)")
    parser.add_argument("--quick", action="store_true", help="5 pairs, no transformer")
    parser.add_argument("--warm", metavar="CASE", help="run one case once, small (what compiles the kernels)")
    args = parser.parse_args()
    if args.tiny:
        os.environ["TRITON_INTERPRET"] = "1"
        found = {"parity": {name: run() for name, run in parities("cpu", 32)}, "cases": tiny()}
        print(json.dumps(found, indent=1))
        return
    if not torch.cuda.is_available():
        sys.exit("gpu_operator.py: no CUDA device. Way out: run it on a machine with one, or with --tiny.")
    if args.warm:
        warm(args.warm)
        return
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run_all(5 if args.quick else args.pairs, args.quick, args.out)


if __name__ == "__main__":
    main()
