"""The kernels compile for real architectures, and the benchmark runs in small: each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mho.crossbar import fused, gpu

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(not gpu.available(), reason="Triton is not installed (pip install 'mho[gpu]')")


def _run(*command: str) -> str:
    # Each script chooses by itself; under the interpreter that the tests ask for nothing would be compiled.
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=ROOT, timeout=280, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["80", "90"])
@pytest.mark.parametrize(
    ("what", "products"), [("linear", {"read", "pull", "outer"}), ("convolution", set()), ("weights", set())]
)
def test_kernels_compile(architecture: str, what: str, products: set[str]) -> None:
    lines = [json.loads(line) for line in _run("tests/helpers/gpu_compiler.py", architecture, what).splitlines()]
    assert lines
    # bfloat16 products use the tensor cores, and their loads run ahead; nothing outgrows a multiprocessor.
    fast = {line["kernel"] for line in lines if line["tensor_cores"] and line["loads_ahead"]}
    assert products <= fast
    # On 8.0 Triton 3.7 moves the normals of read noise between threads all the same.
    if what == "linear" and architecture == "90":
        assert not any(line["normals_moved"] for line in lines if line["kernel"] == "read")
    assert all(line["shared"] <= 163 * 1024 for line in lines)


@needs_triton
@pytest.mark.slow
def test_the_benchmark_runs_in_small() -> None:
    found = json.loads(_run("benchmarks/gpu_operator.py", "--tiny"))
    assert len(found["parity"]) == len(found["cases"]) == 5  # three routes of one tile, two ways back of tiles
    for case in found["parity"].values():
        assert max(case["outputs"], case["dx"], case["dw"]) <= 0.01 and case["weight_noise"] == 0.0


def test_the_package_imports_without_triton() -> None:
    code = "import sys, mho.crossbar.fused, mho.crossbar.gpu; assert 'triton' not in sys.modules"
    assert _run("-c", code) == ""
    assert fused.gpu is gpu
