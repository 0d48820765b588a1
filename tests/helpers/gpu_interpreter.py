"""The GPU kernels on a machine without a GPU: Triton's interpreter, on CPU tensors.

Importing this module skips the module that imports it where Triton is not installed. The interpreter is chosen when
Triton is imported, so this import comes before any other use of it in the process.

On a machine with a GPU ``MHO_TEST_DEVICE=cuda pytest tests/crossbar/test_gpu_[no]*.py`` runs the same tests on it, with
compiled kernels.
"""

import os
import sys
from collections.abc import Iterator

import pytest
import torch

from mho.crossbar import gpu

DEVICE = os.environ.get("MHO_TEST_DEVICE", "cpu")
"""Where the tests put their tensors."""
WANTED = "1" if DEVICE == "cpu" else "0"

if not gpu.available():
    pytest.skip(
        "Triton is not installed: the GPU kernels cannot run, not even interpreted. Way out: pip install 'mho[gpu]'.",
        allow_module_level=True,
    )

_before = os.environ.get("TRITON_INTERPRET")
if "triton" in sys.modules and "mho.crossbar.gpu.tiles" not in sys.modules and _before != WANTED:
    raise RuntimeError(
        "Triton was imported before its interpreter was chosen. Way out: run tests/crossbar/test_gpu_*.py in a "
        f"process of their own, or set TRITON_INTERPRET={WANTED}."
    )
os.environ["TRITON_INTERPRET"] = WANTED
try:
    import triton
    import triton.experimental.gluon  # imported by the first launch, and only under the same setting
    import triton.language as tl

    from mho.crossbar.gpu import elementwise, launch, numbers, operator, shapes, tiles, weights

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


@pytest.fixture(autouse=True)
def on_device() -> Iterator[None]:
    """Within a test new tensors are on ``DEVICE``, and products of float32 are not cut short."""
    if DEVICE == "cpu":
        yield
        return
    with torch.device(DEVICE), torch.backends.cudnn.flags(allow_tf32=False):
        yield


__all__ = [
    "DEVICE", "elementwise", "launch", "numbers", "on_device", "operator", "philox_words", "shapes", "tiles", "weights",
]  # fmt: skip
