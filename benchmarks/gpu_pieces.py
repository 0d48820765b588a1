"""What ``gpu_operator.py`` needs besides its cases: clocks, parity with ``mvm``, and every kernel alone."""

import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor

DEVICE = "cuda"
SIZE = (8192, 4096, 4096)
"""Batch, outputs, inputs of the linear cases."""
BITS, OUTPUT_NOISE, WEIGHT_NOISE, READ_NOISE = 8, 0.04, 0.04, 0.02
ROUTES = ("fused", "library", "library-narrow")
CONVERTS = ((32, 256, 8), (16, 256, 8), (16, 256, 4), (32, 128, 8), (16, 128, 4))
"""Rows, columns, warps of ``launch.convert``."""
BLOCKS_ONE = ((128, 256, 64, 8, 3), (128, 128, 64, 8, 3))
BLOCKS_TILES = ((128, 128, 64, 8, 3), (64, 128, 64, 4, 4), (128, 64, 64, 4, 4), (64, 256, 64, 8, 3))
"""Rows, columns, depth, warps, stages of the fused product."""
STEP_GROUPS = 4
Run = Callable[[], object]


def hardware(rows: int | None, read_noise: float = 0.0) -> Any:
    """8-bit converters, output and weight noise of 0.04, ``rows`` a tile."""
    from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile

    return Hardware(
        name="bench", cell=GenericCell(programming_noise=WEIGHT_NOISE, read_noise=read_noise),
        mapping=Mapping(scheme="signed"), tile=Tile(rows=rows), dac=Dac(bits=BITS), adc=Adc(bits=BITS),
        output_noise=OUTPUT_NOISE,
    )  # fmt: skip


def tensors(m: int, n: int, k: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, w, bias and dL/dy in bfloat16."""
    torch.manual_seed(0)
    x, w = torch.randn(m, k, device=device).bfloat16(), (0.02 * torch.randn(n, k, device=device)).bfloat16()
    bias, g = torch.randn(n, device=device).bfloat16(), torch.randn(m, n, device=device).bfloat16()
    return x.requires_grad_(), w.requires_grad_(), bias.requires_grad_(), g


def elapsed_ms(run: Run, times: int = 1) -> float:
    """Milliseconds of one of ``times`` runs on the device."""
    start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(times):
        run()
    stop.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(stop)) / times


def host_ms(run: Run) -> float:
    """Milliseconds until Python has launched one run, the device idle before."""
    found = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        found.append(1e3 * (time.perf_counter() - start))
    return median(found)


def rates(m: int, n: int, k: int) -> tuple[float, float]:
    """(ms of torch's product of this size in bfloat16, bytes a millisecond of a copy)."""
    a, b = torch.randn(m, k, device=DEVICE).bfloat16(), torch.randn(k, n, device=DEVICE).bfloat16()
    source = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    product = [elapsed_ms(lambda: a @ b) for _ in range(20)]
    copy = [elapsed_ms(lambda: target.copy_(source)) for _ in range(20)]
    return median(product[5:]), 2 * source.numel() / median(copy[5:])


def kernel_times(run: Run, times: int) -> dict[str, float]:
    """Microseconds a run by kernel, from torch's profiler; the twelve longest, and all together."""
    from torch.profiler import ProfilerActivity, profile

    run()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(times):
            run()
        torch.cuda.synchronize()
    spent = {e.key[:60]: e.self_device_time_total / times for e in seen.key_averages() if e.self_device_time_total}
    longest = sorted(spent.items(), key=lambda item: -item[1])
    return {"all": sum(spent.values()), **dict(longest[:12])}


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What ``run`` finds, or its error."""
    try:
        return run()
    except Exception:  # a route that fails must not hide the others
        return {"error": traceback.format_exc()[-1500:]}


def parity(device: str, size: int, rows: int | None, dtype: torch.dtype, **how: Any) -> dict[str, float]:
    """Shares of outputs and of gradients that differ from ``mvm`` in float32; noise on a weight beside the CPU's."""
    from mho.crossbar import kernels
    from mho.crossbar.array import Array
    from mho.crossbar.gpu import operator, weights
    from mho.crossbar.mvm import mvm
    from mho.crossbar.noise import Counter
    from mho.crossbar.ops import LinearOp

    torch.manual_seed(1)
    op, hw = LinearOp(size, size), hardware(rows, READ_NOISE)
    x, w = torch.randn(size, size, device=device).to(dtype), torch.randn(size, size, device=device).to(dtype)
    read_var, draw = torch.tensor(1e-3, device=device), Counter(7)
    # Two of a hundred outputs are clipped.
    ranges = torch.tensor([3.0, 2.4 * (rows or size) ** 0.5], device=device)
    g = torch.randn(size, size, device=device).to(dtype)
    x, w = x.requires_grad_(), w.requires_grad_()
    y, _ = operator.product(x, Array((w,), (read_var,)), op, hw, draw, ranges, None, **how)
    grads = torch.autograd.grad(y, (x, w), g)
    x32, w32 = x.detach().float().requires_grad_(), w.detach().float().requires_grad_()
    noise = operator.as_noise(draw, x32, op, hw, 1)
    plain, _ = mvm(x32, Array((w32,), (read_var,)), op, hw, noise, input_range=ranges[0], adc_range=ranges[1])
    near = 1e-4 if dtype == torch.float32 else 1e-2
    found = {"outputs": float(((y - plain).abs() > near * plain.abs().max()).float().mean())}
    for name, one, other in zip(("dx", "dw"), grads, torch.autograd.grad(plain, (x32, w32), g.float()), strict=True):
        found[name] = float(((one - other).abs() > 10 * near * other.abs().max()).float().mean())
    noisy = weights.noisy(w.detach().float(), None, torch.tensor(0.1, device=device), Counter(5)).cpu()
    found["weight_noise"] = float((noisy - kernels.add_normal(w.detach().float().cpu(), 0.1, 5)).abs().max())
    return found


def parities(device: str, size: int) -> Iterator[tuple[str, Callable[[], dict[str, float]]]]:
    """By route and dtype: name, what measures it."""
    for dtype in (torch.float32, torch.bfloat16) if device != "cpu" else (torch.float32,):
        kind = str(dtype).removeprefix("torch.")
        for route in ROUTES:
            yield f"{kind} one tile, {route}", lambda d=dtype, r=route: parity(device, size, None, d, route=r)  # type: ignore[misc]
        for way in ("masked", "mended"):
            rows = max(size // 4, 16)
            yield f"{kind} tiles, {way}", lambda d=dtype, b=way, n=rows: parity(device, size, n, d, backward=b)  # type: ignore[misc]


def steps(small: bool) -> Iterator[tuple[str, Run, int]]:
    """Every kernel alone at the size of the linear cases: name, run, bytes that it moves (0: a product)."""
    from mho.crossbar.gpu import launch, shapes, weights
    from mho.crossbar.noise import Counter
    from mho.crossbar.ops import LinearOp

    m, n, k = 256 if small else SIZE[0], *SIZE[1:]
    x, w, bias, g = (t.detach() for t in tensors(m, n, k, DEVICE))
    op, y = LinearOp(k, n), torch.empty(m, n, device=DEVICE, dtype=x.dtype)
    site, top = shapes.site_of(op, x, y), w.abs().max().float()
    used = torch.tensor([4.0, 4.0 * k**0.5 * 0.02], device=DEVICE)
    programs = max(
        shapes.cut(x.numel(), launch.FLAT), *(launch.converts(site, shape)[-1] for shape in CONVERTS),
        *(shapes.cut(m, b[0]) * shapes.cut(n, b[1]) for b in (*BLOCKS_ONE, *BLOCKS_TILES)),
    )  # fmt: skip
    seen = shapes.seen_by(x.device, (programs, programs), (x.numel(), y.numel()), (None, None))
    noise = shapes.Noisy(OUTPUT_NOISE, None, Counter(3))
    sums, narrow = torch.randn(m, n, device=DEVICE), torch.randn(m, n, device=DEVICE).bfloat16()
    masks = torch.full((8, m, n // 8), 255, dtype=torch.uint8, device=DEVICE)
    x_q, inside = launch.drive(x, used, 127, seen.of_input, bits=True)
    assert inside is not None
    size, kept = 2 * m * n, shapes.Kept(torch.empty_like(masks), None, None)
    yield "weight noise", lambda: weights.noisy(w, top, WEIGHT_NOISE * top, Counter(5)), 4 * n * k
    yield "seek", lambda: launch.seek(x, used, 0, None), 0
    yield "drive", lambda: launch.drive(x, used, 127, seen.of_input, bits=True), 4 * m * k + m * k // 8
    yield "product, float32 sums", lambda: launch.library(x, w, op, y, wide=True), 0
    yield "product, bfloat16 sums", lambda: launch.library(x, w, op, y, wide=False), 0
    for cut in CONVERTS:
        for name, a in (("float32", sums), ("bfloat16", narrow)):
            run = partial(
                launch.convert, a, y, bias, used, site, noise, 127, kept, seen.of_output, watch=True, shape=cut
            )
            yield f"convert {cut}, {name} sums", run, a.element_size() * m * n + size + m * n // 8
    yield "settle", lambda: launch.settle(seen, used), 0
    yield "keep, bias sum", lambda: launch.keep(g, masks[:1], 0, site, sums=True), 2 * size + m * n // 8
    yield "bias sum alone, torch", lambda: g.sum(0), size
    yield "dx", lambda: g @ w, 0
    yield "dw", lambda: g.t() @ x_q, 0
    yield "pass_inside", lambda: launch.pass_inside(y, x_q, inside, of_range=False), m * k // 8
    for parts, sizes in ((1, BLOCKS_ONE), (8, BLOCKS_TILES)):
        for shape in sizes:
            blocks = launch.Blocks(*shape)
            run = partial(launch.read, x_q, w, y, bias, used, site, parts, noise, 127, kept, blocks, seen.of_output)
            yield f"read, {parts} tiles, {shape}", partial(run, watch=True), 0
    yield "pull, 8 tiles", lambda: launch.pull(g, w, masks, site, 8, launch.blocks_for(x.dtype, 8)), 0
    yield "outer, 8 tiles", lambda: launch.outer(g, x_q, masks, site, 8, launch.blocks_for(x.dtype, 8)), 0
    few, many = masks.clone(), masks.clone()
    few.view(-1)[:: 1 << 17] = 254  # one output of a million
    many.view(-1)[::8] = 254  # 1.6 %
    into, of_w = torch.zeros(m, k, device=DEVICE, dtype=x.dtype), torch.zeros(n, k, device=DEVICE, dtype=x.dtype)
    for name, bits in (("none", masks), ("1 of 10^6", few), ("1.6 %", many)):
        of_x = partial(launch.mend_inputs, into, g, w, bits, site, 8)
        yield f"mend_inputs, {name} clipped", of_x, masks.numel()
        yield f"mend_weights, {name} clipped", partial(launch.mend_weights, of_w, g, x_q, bits, site, 8), masks.numel()


def measure_steps() -> dict[str, Any]:
    """Milliseconds of every kernel alone, and GB/s where memory bounds it."""
    found: dict[str, Any] = {}
    for name, run, moved in steps(False):

        def one(run: Run = run, moved: int = moved) -> dict[str, Any]:
            run()
            ms = median(elapsed_ms(run, 5) for _ in range(5))
            return {"ms": ms} | ({"GB/s": moved / ms / 1e6} if moved else {})

        found[name] = attempt(one)
        say = found[name].get("error", "").strip().splitlines()[-1:] or [f"{found[name].get('ms', 0):8.4f} ms"]
        print(f"  {name:44s} {say[0]}  {found[name].get('GB/s', 0) or '':.5}", flush=True)
    return found
