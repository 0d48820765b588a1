"""What a ratio depends on besides the code: processor, threads, versions."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

from mho import __version__
from mho.crossbar import kernels

_CPUINFO = Path("/proc/cpuinfo")


def usable_cores() -> int:
    """Cores that this process may run on (a container may be allowed fewer than there are)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor_name() -> str:
    """The processor's name as Linux gives it, else what Python knows, else "unknown"."""
    if _CPUINFO.exists():
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def describe_machine() -> dict[str, Any]:
    """Processor, cores, operating system, C library, versions, and whether mho's compiled kernels run."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "simd": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "mho": __version__,
        "kernels": "compiled" if kernels.available() else "reference",
    }
