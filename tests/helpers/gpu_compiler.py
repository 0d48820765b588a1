"""Compile the GPU kernels for a real architecture on a machine without a GPU; run as a script.

python gpu_compiler.py 90 linear|convolution|weights

The product runs on CPU tensors with every launch replaced by a compilation for the arguments it got (the results are
meaningless). Prints one JSON line a kernel: name, bytes of shared memory, which instructions it has, and
how often normals go from thread to thread.
"""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mho.crossbar.array import program
from mho.crossbar.gpu import elementwise, launch, mends, operator, tiles
from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.uint8: "*u8"}
KERNELS = (
    "seek", "settle", "drive", "pass_inside", "add_normal", "fill_fresh", "read", "convert", "slopes", "pull", "outer",
    "keep", "mend_inputs", "mend_weights",
)  # fmt: skip
OPTIONS = ("num_warps", "num_stages")
MOVED = re.compile(r"convert_layout .*x2x(?:f32|i64),")
"""A tensor of normals that goes from thread to thread through shared memory."""


class Compiling:
    """Stands for a kernel: a launch compiles it."""

    def __init__(self, kernel: Any, architecture: int) -> None:
        self.kernel, self.architecture = kernel, architecture

    def __getitem__(self, grid: object) -> Callable[..., None]:
        return self.compile

    def compile(self, *args: object, **named: object) -> None:
        names: list[str] = self.kernel.arg_names
        values = dict(zip(names, args, strict=False)) | {k: v for k, v in named.items() if k not in OPTIONS}
        signature, constants, attributes = {}, {}, {}
        for i, name in enumerate(names):
            value = values[name]
            if isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
                attributes[(i,)] = [["tt.divisibility", 16]]
            elif isinstance(value, float):
                signature[name] = "fp32"
            elif (name.isupper() and len(name) > 1) or value is None or (value == 1 and not name.startswith("seed")):
                signature[name], constants[(i,)] = "constexpr", value
            else:
                signature[name] = "i32"
                if isinstance(value, int) and value % 16 == 0 and not name.startswith("seed"):
                    attributes[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(fn=self.kernel, signature=signature, constexprs=constants, attrs=attributes)
        options = {k: v for k, v in named.items() if k in OPTIONS}
        found = triton.compile(source, target=GPUTarget("cuda", self.architecture, 32), options=options)
        code = found.asm["ptx"]
        print(
            json.dumps(
                {
                    "kernel": self.kernel.__name__,
                    "shared": found.metadata.shared,
                    "tensor_cores": "wgmma" in code or "mma.sync" in code,
                    "loads_ahead": "cp.async" in code,
                    "normals_moved": len(MOVED.findall(found.asm["ttgir"])),
                }
            ),
            flush=True,
        )


def main(architecture: int, what: str) -> None:
    for module in (tiles, elementwise, mends):
        for name in KERNELS:
            if hasattr(module, name) and module.__name__ == getattr(module, name).__module__:
                setattr(module, name, Compiling(getattr(module, name), architecture))
    launch.precision = lambda x: "ieee"
    launch.compiled = lambda x: True
    if what == "weights":
        launch.add_normal(torch.zeros(4096), torch.tensor(1.0), torch.tensor(0.1), Counter(3))
        launch.fresh_normals(Counter(3), 2, LinearOp(64, 64), torch.empty(64, 64))
        return
    hw = Hardware(
        name="noisy", cell=GenericCell(read_noise=0.02), mapping=Mapping(scheme="signed"), tile=Tile(rows=512),
        dac=Dac(bits=8), adc=Adc(bits=8), output_noise=0.01,
    )  # fmt: skip
    if what == "linear":
        op: Op = LinearOp(1024, 512)
        x, w = torch.zeros(256, 1024).bfloat16(), torch.zeros(512, 1024).bfloat16()
    else:
        op = ConvOp(64, 64, (3, 3), (1, 1), (1, 1), (1, 1), 1)
        x, w = torch.zeros(2, 64, 16, 16), torch.zeros(64, 64, 3, 3)
    x.requires_grad_()
    w.requires_grad_()
    ranges = torch.ones(2, requires_grad=True)

    def go(rows: int | None, **how: Any) -> None:
        tiled = replace(hw, tile=Tile(rows=rows))
        y, _ = operator.product(x, program(w, op, tiled, None), op, tiled, Counter(3), ranges, None, **how)
        y.sum().backward()

    go(512)
    go(512, backward="masked")
    go(None, route="library")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
