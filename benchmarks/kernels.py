"""Time the CPU kernels beside their torch expressions: nanoseconds an element, best of several short runs.

python benchmarks/kernels.py [--elements 1048576] [--threads 2] [--repeats 30]
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from mho.crossbar import kernels


def best_ns(call: Callable[[], object], elements: int, repeats: int) -> float:
    """The shortest of ``repeats`` runs, in ns an element: the other users of the machine are not the kernel's cost."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return min(times[3:]) / elements


def cases(n: int) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """Name -> (kernel, torch)."""
    pixels, outputs = 64, 16
    batch = max(n // (pixels * outputs), 1)
    x, out = torch.randn(batch * pixels * outputs), torch.empty(batch * pixels * outputs)
    rails, grad = torch.empty_like(x, dtype=torch.int8), torch.randn_like(x)
    rows, row_map = torch.rand(x.numel() // outputs, 1), torch.rand(batch, pixels)

    def adc_in_torch(s: float | torch.Tensor) -> torch.Tensor:
        v = x.view(batch, outputs, pixels) + s * torch.randn(batch, outputs, pixels)
        v.abs().max(), v.square().sum(), v.abs() <= 2.0
        return torch.round((v * (127 / 2.0)).clamp(-127, 127)) * (2.0 / 127)

    def quantize_in_torch() -> torch.Tensor:
        x.abs().max(), x.square().sum()
        return torch.round((x * (127 / 2.0)).clamp(-127, 127)) * (2.0 / 127)

    return {
        "normal_": (lambda: kernels.normal_(out, 1), lambda: out.normal_()),
        "add_normal": (lambda: kernels.add_normal(x, 0.1, 1, out), lambda: x + 0.1 * torch.randn_like(x)),
        "absmax_sumsq": (lambda: kernels.absmax_sumsq(x), lambda: (x.abs().max(), x.square().sum())),
        "quantize": (lambda: kernels.quantize(x, 2.0, 127, out), quantize_in_torch),
        "adc_": (lambda: kernels.adc_(out, 0.1, 1, 2.0, 127, rails=rails), lambda: adc_in_torch(0.1)),
        "adc_ [A, P] map": (
            lambda: kernels.adc_(out, 0.1, 1, 2.0, 127, sigma_map=row_map, rails=rails),
            lambda: adc_in_torch(torch.sqrt(row_map.square() + 0.01)[:, None]),
        ),
        "adc_ rows map": (
            lambda: kernels.adc_(out, 0.1, 1, 2.0, 127, sigma_map=rows, rails=rails),
            lambda: adc_in_torch(torch.sqrt(row_map.square() + 0.01)[:, None]),
        ),
        "adc_ no noise": (lambda: kernels.adc_(out, 0.0, 1, 2.0, 127, rails=rails), lambda: adc_in_torch(0.0)),
        "unclipped": (lambda: kernels.unclipped(grad, rails, out), lambda: grad * (rails == 0)),
        "pass_inside_": (
            lambda: kernels.pass_inside_(grad, x, 2.0),
            lambda: (torch.where(x.abs() <= 2.0, grad, 0.0), torch.where(x.abs() > 2.0, grad * x.sign(), 0.0).sum()),
        ),
    }


def beside_matmul(repeats: int) -> tuple[float, float, float]:
    """Microseconds of a matmul, of add_normal, and of the two in turn: equal sums mean that no threads fight."""
    a, w = torch.randn(256, 512), torch.randn(512, 1024)
    y = torch.empty(256, 1024)

    def both() -> None:
        torch.mm(a, w, out=y)
        kernels.add_normal(y, 0.1, 1, y)

    one = best_ns(lambda: torch.mm(a, w, out=y), 1000, repeats)
    other = best_ns(lambda: kernels.add_normal(y, 0.1, 1, y), 1000, repeats)
    return one, other, best_ns(both, 1000, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--elements", type=int, default=1 << 20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(kernels.status())
    start = time.perf_counter()
    code = "import torch, time; t = time.perf_counter(); import mho.crossbar.kernels as k; u = time.perf_counter();"
    code += "k.available(); print(f'import {1e3 * (u - t):.1f} ms, load {1e3 * (time.perf_counter() - u):.1f} ms')"
    subprocess.run([sys.executable, "-c", code], check=True)
    print(f"a process that imports torch and the kernels: {time.perf_counter() - start:.2f} s")
    print(f"{options.elements} elements, {options.threads} threads      kernel     torch   ns an element")
    for name, (kernel, plain) in cases(options.elements).items():
        ours = best_ns(kernel, options.elements, options.repeats)
        theirs = best_ns(plain, options.elements, options.repeats)
        print(f"{name:<34}{ours:10.3f}{theirs:10.3f}")
    small = torch.empty(256)
    print(f"one call on 256 elements: {best_ns(lambda: kernels.normal_(small, 1), 1000, 200):.1f} us")
    print("matmul, add_normal, both in turn: {:.0f}, {:.0f}, {:.0f} us".format(*beside_matmul(options.repeats * 3)))


if __name__ == "__main__":
    main()
