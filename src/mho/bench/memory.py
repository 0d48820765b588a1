"""The high-water mark of a process's memory."""

import sys
from pathlib import Path

from mho.errors import MhoError

_STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most bytes of RAM that this process has ever held (resident set).

    On Linux ``VmHWM`` of /proc/self/status: ``ru_maxrss`` there begins at the size of the process that started
    this one (the kernel carries it over exec), which can be far more than this one ever used. Elsewhere
    ``ru_maxrss``. Raises :class:`MhoError` where the system has neither.
    """
    if sys.platform == "linux":
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError as error:
        raise MhoError(
            f"peak memory: {sys.platform} has neither /proc/self/status nor getrusage, so it cannot be measured. "
            "Way out: run the benchmark on Linux or macOS."
        ) from error
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
