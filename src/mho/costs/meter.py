"""Joules that a counter measured: NVML on a GPU, RAPL on a CPU. Never a wall time times a data-sheet wattage.

Both counters see the whole board or package, idle power and neighbours' work too; the answer says which counter it was.
Where there is none, the answer is a sentence that says so.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from mho.errors import InputError

POWERCAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"


@final
@dataclass(frozen=True)
class Measured:
    """J a run, over ``runs`` runs in ``seconds`` s, by ``counter``."""

    joules: float
    runs: int
    seconds: float
    counter: str

    def __str__(self) -> str:
        return f"{self.joules:.4g} J, measured by {self.counter} ({self.runs} runs, {self.seconds:.2g} s)"


@final
@dataclass(frozen=True)
class NotMeasured:
    """Why there is no number."""

    reason: str

    def __str__(self) -> str:
        return f"not measured here: {self.reason}"


class Counter(Protocol):
    """Something that counts joules."""

    name: str

    def read_J(self) -> float:
        """Joules since some moment in the past; rises."""
        ...


@final
class Rapl:
    """All CPU packages of a powercap folder; a counter that wraps is followed if it is read often enough."""

    def __init__(self, folder: Path = POWERCAP) -> None:
        packages = sorted(p for p in folder.glob("intel-rapl:*") if p.name.count(":") == 1)
        self._zones = [(p / "energy_uj", int((p / "max_energy_range_uj").read_text())) for p in packages]
        if not self._zones:
            raise OSError(f"no intel-rapl package under {folder}")
        self._last = [self._read(file) for file, _ in self._zones]
        self._total_uJ = 0
        self.name = f"RAPL, {len(self._zones)} CPU package(s)"

    @staticmethod
    def _read(file: Path) -> int:
        return int(file.read_text())

    def read_J(self) -> float:
        for i, (file, top) in enumerate(self._zones):
            now = self._read(file)
            self._total_uJ += now - self._last[i] if now >= self._last[i] else now + top - self._last[i]
            self._last[i] = now
        return self._total_uJ * 1e-6


@final
class Nvml:
    """The energy counter of one NVIDIA GPU (Volta or later), in mJ since the driver was loaded."""

    def __init__(self, index: int = 0) -> None:
        self._library = ctypes.CDLL(NVML_LIBRARY)
        self._device = ctypes.c_void_p()
        self._check(self._library.nvmlInit_v2())
        self._check(self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._device)))
        self.name = f"NVML, GPU {index}"
        self.read_J()

    def read_J(self) -> float:
        found = ctypes.c_ulonglong()
        self._check(self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(found)))
        return found.value * 1e-3

    @staticmethod
    def _check(code: int) -> None:
        if code != 0:
            raise OSError(f"NVML answers with error {code}")


def find_counter(device: str) -> Counter | NotMeasured:
    """The counter of ``device`` ("cpu", "cuda", "cuda:1"), or why there is none."""
    kind, _, index = device.partition(":")
    try:
        return Nvml(int(index or 0)) if kind == "cuda" else Rapl()
    except (OSError, ValueError) as error:
        which = "NVML" if kind == "cuda" else "RAPL"
        return NotMeasured(f"no {which} counter that can be read ({error}).")


def measure(
    run: Callable[[], object],
    counter: Counter | NotMeasured,
    *,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured | NotMeasured:
    """J of one ``run()``, which must be done when it returns: it is repeated for ``seconds`` after one run untimed."""
    if not 0 < seconds < float("inf"):
        raise InputError(f"measure: seconds = {seconds!r}: must be finite and above 0.")
    if isinstance(counter, NotMeasured):
        return counter
    run()
    before, start, runs = counter.read_J(), clock(), 0
    while clock() - start < seconds:
        run()
        runs += 1
    joules, took = counter.read_J() - before, clock() - start
    if joules <= 0:
        return NotMeasured(f"{counter.name} did not move in {took:.2g} s.")
    return Measured(joules / runs, runs, took, counter.name)
