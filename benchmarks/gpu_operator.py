"""The GPU kernels beside plain torch: ratios, parity, and the share of the roofline.

    python benchmarks/gpu_operator.py            # on a machine with a CUDA GPU; about 3 minutes
    python benchmarks/gpu_operator.py --tiny     # anywhere: every kernel once under Triton's interpreter, no timing

Writes benchmarks/results/gpu-operator.json. Linear 4096 x 4096 at batch 8192 in bfloat16, forward and backward, on
one tile and on tiles of 512 rows, and a training step of a transformer of 125 M parameters. Both sides run in turn and
are timed by the device's own clock; a ratio is the median of the ratios of neighbouring runs.

Roofline: operations of the three products over the rate of torch's own product of this size, and bytes that must move
over the rate of a copy, both measured here. The floor is the larger of the two; the share is floor over time.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RESULT = Path(__file__).parent / "results" / "gpu-operator.json"
AIMS = {"linear one tile": 1.15, "linear tiles of 512": 1.3, "transformer": 1.2}
BITS, OUTPUT_NOISE, WEIGHT_NOISE, READ_NOISE = 8, 0.04, 0.04, 0.02

Run = Callable[[], object]


def hardware(rows: int | None, read_noise: float = 0.0) -> Any:
    """8-bit converters, output and weight noise of 0.04, ``rows`` a tile."""
    from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile

    return Hardware(
        name="bench", cell=GenericCell(programming_noise=WEIGHT_NOISE, read_noise=read_noise),
        mapping=Mapping(scheme="signed"), tile=Tile(rows=rows), dac=Dac(bits=BITS), adc=Adc(bits=BITS),
        output_noise=OUTPUT_NOISE,
    )  # fmt: skip


def digital_run(x: Tensor, w: Tensor, bias: Tensor, g: Tensor) -> Run:
    """Forward and backward of a digital layer."""
    return lambda: torch.autograd.grad(F.linear(x, w, bias), (x, w, bias), g)


def kernel_run(x: Tensor, w: Tensor, bias: Tensor, g: Tensor, rows: int | None, read_noise: float) -> Run:
    """The same through the kernels alone: noise on the weight, the fused product, its backward pass."""
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
        y, _ = operator.product(x, Array((noisy,), read_var), op, hw, Counter(2 * step + 1), ranges, bias)
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


def elapsed_ms(run: Run) -> float:
    """Milliseconds of one run on the device."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop))


def compare(digital: Run, analog: Run, pairs: int) -> dict[str, Any]:
    """Medians and the ratio of two runs in turn."""
    for _ in range(3):
        digital(), analog()
    times = [(elapsed_ms(digital), elapsed_ms(analog)) for _ in range(pairs)]
    ratios = sorted(b / a for a, b in times)
    return {
        "ratio": median(ratios),
        "ratio_quartiles": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        "digital_ms": median(a for a, _ in times),
        "mho_ms": median(b for _, b in times),
        "pairs": pairs,
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


def rates(m: int, n: int, k: int) -> tuple[float, float]:
    """(ms of torch's product of this size in bfloat16, bytes a millisecond of a copy)."""
    a, b = torch.randn(m, k, device="cuda").bfloat16(), torch.randn(k, n, device="cuda").bfloat16()
    source = torch.empty(1 << 28, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    product = [elapsed_ms(lambda: a @ b) for _ in range(20)]
    copy = [elapsed_ms(lambda: target.copy_(source)) for _ in range(20)]
    return median(product[5:]), 2 * source.numel() / median(copy[5:])


def tensors(m: int, n: int, k: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, w, bias and dL/dy in bfloat16."""
    torch.manual_seed(0)
    x, w = torch.randn(m, k, device=device).bfloat16(), (0.02 * torch.randn(n, k, device=device)).bfloat16()
    bias, g = torch.randn(n, device=device).bfloat16(), torch.randn(m, n, device=device).bfloat16()
    return x.requires_grad_(), w.requires_grad_(), bias.requires_grad_(), g


def parity(device: str, size: int) -> dict[str, float]:
    """Shares of outputs and of gradients that differ from ``mvm`` in float32; noise on a weight beside the CPU's."""
    from mho.crossbar import kernels
    from mho.crossbar.array import Array
    from mho.crossbar.gpu import operator, weights
    from mho.crossbar.mvm import mvm
    from mho.crossbar.noise import Counter
    from mho.crossbar.ops import LinearOp

    torch.manual_seed(1)
    op, hw = LinearOp(size, size), hardware(max(size // 4, 16), READ_NOISE)
    x, w = torch.randn(size, size, device=device).requires_grad_(), torch.randn(size, size, device=device)
    w.requires_grad_()
    array = Array((w,), (torch.tensor(1e-3, device=device),))
    ranges, draw = torch.tensor([3.0, 3.0 * size**0.5], device=device), Counter(7)
    y, _ = operator.product(x, array, op, hw, draw, ranges, None)
    noise = operator.as_noise(draw, x, op, hw, 1)
    plain, _ = mvm(x, array, op, hw, noise, input_range=ranges[0], adc_range=ranges[1])
    found = {"outputs": float(((y - plain).abs() > 1e-4 * plain.abs().max()).float().mean())}
    pairs = zip(torch.autograd.grad(y.sum(), (x, w)), torch.autograd.grad(plain.sum(), (x, w)), strict=True)
    for name, (one, other) in zip(("dx", "dw"), pairs, strict=True):
        found[name] = float(((one - other).abs() > 1e-3 * other.abs().max()).float().mean())
    noisy = weights.noisy(w.detach(), None, torch.tensor(0.1, device=device), Counter(5)).cpu()
    found["weight_noise"] = float((noisy - kernels.add_normal(w.detach().cpu(), 0.1, 5)).abs().max())
    return found


def measure(pairs: int) -> dict[str, Any]:
    """Everything, on the GPU."""
    from mho.nn.conversion import convert

    m, n, k = 8192, 4096, 4096
    x, w, bias, g = tensors(m, n, k, "cuda")
    product_ms, bytes_per_ms = rates(m, n, k)
    digital, found = digital_run(x, w, bias, g), {}
    for name, rows, read in (
        ("linear one tile", None, 0.0),
        ("linear tiles of 512", 512, 0.0),
        ("linear tiles of 512, read noise", 512, READ_NOISE),
    ):
        floor = floor_ms(m, n, k, k // (rows or k), 2, product_ms, bytes_per_ms)
        kernels = compare(digital, kernel_run(x, w, bias, g, rows, read), pairs)
        layer = convert(nn.Linear(k, n).cuda().bfloat16(), hardware(rows, read))
        whole = compare(digital, layer_run(layer, x, g), pairs)
        share = floor["floor_ms"] / kernels["mho_ms"]
        found[name] = {**whole, "kernels": kernels, "roofline": {**floor, "share": share}, "aim": AIMS.get(name)}
    torch.manual_seed(0)
    model = Transformer(12, 768, 12, 50257, 512).cuda().bfloat16()
    ids = torch.randint(0, 50257, (16, 512), device="cuda")
    analog = convert(model, hardware(None), digital=["tokens"])
    step = compare(step_run(model, ids), step_run(analog, ids), max(pairs // 2, 5))
    found["transformer"] = {
        **step,
        "parameters": sum(p.numel() for p in model.parameters()),
        "aim": AIMS["transformer"],
    }
    return found


def tiny() -> dict[str, Any]:
    """Every path once, too small to mean anything, without a clock."""
    m, n, k = 32, 32, 64
    x, w, bias, g = tensors(m, n, k, "cpu")
    found: dict[str, Any] = {}
    for rows, read in ((None, 0.0), (16, 0.0), (16, READ_NOISE)):
        grads = kernel_run(x, w, bias, g, rows, read)()
        assert isinstance(grads, tuple) and all(t.isfinite().all() for t in grads)
        found[f"tiles {rows}, read noise {read}"] = floor_ms(m, n, k, k // (rows or k), 2, 1.0, 1e6)
    digital_run(x, w, bias, g)()
    model = Transformer(1, 16, 2, 32, 8)
    step_run(model, torch.randint(0, 32, (2, 8)))()
    from mho.nn.conversion import convert

    step_run(convert(model, hardware(None), digital=["tokens"]), torch.randint(0, 32, (2, 8)))()
    layer_run(convert(nn.Linear(k, n), hardware(16)), x.detach().float().requires_grad_(), g.float())()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="no GPU: run the code once under Triton's interpreter")
    parser.add_argument("--pairs", type=int, default=30, help="timed pairs of runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="where the JSON goes (not written by --tiny)")
    args = parser.parse_args()
    if args.tiny:
        os.environ["TRITON_INTERPRET"] = "1"
        print(json.dumps({"parity": parity("cpu", 32), "cases": tiny()}, indent=1))
        return
    if not torch.cuda.is_available():
        sys.exit("gpu_operator.py: no CUDA device. Way out: run it on a machine with one, or with --tiny.")
    import triton

    from mho.bench.machine import describe_machine

    result = {
        "machine": {**describe_machine(), "gpu": torch.cuda.get_device_name(), "triton": triton.__version__},
        "command": "python benchmarks/gpu_operator.py",
        "parity": parity("cuda", 512),
        "cases": measure(args.pairs),
    }
    for name, case in result["cases"].items():
        share = case["roofline"]["share"] if "roofline" in case else float("nan")
        print(f"{name:34s} ratio {case['ratio']:.3f} (aim {case['aim']}), share of the roofline {share:.2f}")
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
