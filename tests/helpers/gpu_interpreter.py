"""The GPU kernels on a machine without a GPU: Triton's interpreter, on CPU tensors.

Importing this module skips the module that imports it where Triton is not installed. The interpreter is chosen when
Triton is imported, so this import comes before any other use of it in the process.
"""

import os
import sys

import pytest

from mho.crossbar import gpu

if not gpu.available():
    pytest.skip(
        "Triton is not installed: the GPU kernels cannot run, not even interpreted. Way out: pip install 'mho[gpu]'.",
        allow_module_level=True,
    )

_before = os.environ.get("TRITON_INTERPRET")
if "triton" in sys.modules and "mho.crossbar.gpu.tiles" not in sys.modules and _before != "1":
    raise RuntimeError(
        "Triton was imported before its interpreter was asked for. Way out: run tests/crossbar/test_gpu_*.py in a "
        "process of their own, or set TRITON_INTERPRET=1."
    )
os.environ["TRITON_INTERPRET"] = "1"
try:
    import triton
    import triton.experimental.gluon  # imported by the first launch, and only under the same setting
    import triton.language as tl

    from mho.crossbar.gpu import elementwise, launch, numbers, operator, tiles, weights

    @triton.jit
    def philox_words(out, c, k, TIMES: tl.constexpr):  # type: ignore[no-untyped-def]
        """The words of one counter and key, 16 times each: out [4, 16]."""
        at, zero = tl.arange(0, 16), tl.zeros((16,), tl.uint32)
        w = numbers.philox(
            zero + tl.load(c), zero + tl.load(c + 1), zero + tl.load(c + 2), zero + tl.load(c + 3),
            tl.load(k), tl.load(k + 1), TIMES,
        )  # fmt: skip
        for i in tl.static_range(4):
            tl.store(out + 16 * i + at, w[i].to(tl.int32, bitcast=True))

finally:
    if _before is None:
        del os.environ["TRITON_INTERPRET"]

__all__ = ["elementwise", "launch", "numbers", "operator", "philox_words", "tiles", "weights"]
