"""Joules that a counter measured: NVML on a GPU, RAPL on a CPU. Never a wall time times a data-sheet wattage.

Both counters see the whole board or package, idle power and neighbours' work too; the answer says which counter it was.
Where there is none, the answer is a sentence that says so.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import torch

from mho.costs.constants import MOST_PACKAGE_W
from mho.errors import InputError

POWERCAP = Path("/sys/class/powercap")
NVML_LIBRARY = "libnvidia-ml.so.1"
NVML_ERRORS = {
    3: " (not supported: energy is counted from Volta on)",
    4: " (no permission)",
    6: " (not found)",
    15: " (the GPU is lost)",
}
"""Of ``nvmlReturn_t`` in NVIDIA's nvml.h."""


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
    """Something that counts joules; ``wraps_s``: the shortest time in which it may start again unnoticed."""

    name: str
    wraps_s: float

    def read_J(self) -> float:
        """Joules since some moment in the past; rises."""
        ...

    def close(self) -> None:
        """Give back what reading needs."""
        ...


@final
class Rapl:
    """All CPU packages of a powercap folder, and their memory where it has a counter of its own.

    Zones ``intel-rapl:N`` whose name is ``package-...`` (AMD's too), and their part ``dram``: cores and uncore are in
    the package already, ``psys`` is the whole platform with the package in it. A counter of microjoules that starts
    again after ``max_energy_range_uj`` is followed if it is read more often than that: :attr:`wraps_s`.
    """

    def __init__(self, folder: Path = POWERCAP) -> None:
        packages = [p for p in sorted(folder.glob("intel-rapl:*")) if _zone_name(p).startswith("package")]
        memories = [p for package in packages for p in sorted(package.glob("intel-rapl:*")) if _zone_name(p) == "dram"]
        if not packages:
            raise OSError(f"no intel-rapl package under {folder}")
        self._zones = [(p / "energy_uj", _number(p / "max_energy_range_uj")) for p in (*packages, *memories)]
        self._last = [_number(file) for file, _ in self._zones]
        self._total_uJ = 0
        self.wraps_s = min(top for _, top in self._zones) * 1e-6 / MOST_PACKAGE_W
        self.name = f"RAPL, {len(packages)} CPU package(s){' and their memory' if memories else ''}"

    def read_J(self) -> float:
        for i, (file, top) in enumerate(self._zones):
            now = _number(file)
            self._total_uJ += now - self._last[i] if now >= self._last[i] else now + top - self._last[i]
            self._last[i] = now
        return self._total_uJ * 1e-6

    def close(self) -> None:
        """Files are closed after each reading."""


def _zone_name(zone: Path) -> str:
    return (zone / "name").read_text().strip()


def _number(file: Path) -> int:
    """A file of one whole number; :class:`OSError` where it cannot be read, with what to do about it."""
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise PermissionError(
            f"{file} may be read by root only, as kernels since 5.10 have it; way out: run as root, or let root "
            f"'chmod a+r {file}'"
        ) from error
    except ValueError as error:
        raise OSError(f"{file} holds no whole number: {error}") from error


class Library(Protocol):
    """The functions of NVML that are called; ``ctypes.CDLL(NVML_LIBRARY)`` is one."""

    nvmlInit_v2: Callable[..., int]
    nvmlShutdown: Callable[..., int]
    nvmlDeviceGetHandleByIndex_v2: Callable[..., int]
    nvmlDeviceGetHandleByUUID: Callable[..., int]
    nvmlDeviceGetTotalEnergyConsumption: Callable[..., int]


@final
class Nvml:
    """The energy counter of one NVIDIA GPU (Volta or later), in mJ since the driver was loaded.

    ``uuid`` (``GPU-...``) where it is known: NVML counts GPUs in the order of the bus, CUDA in one of its own, and only
    those that CUDA_VISIBLE_DEVICES names. ``library``: of another origin than the driver's.
    """

    wraps_s = float("inf")

    def __init__(self, index: int = 0, *, uuid: str | None = None, library: Library | None = None) -> None:
        self._library: Any = ctypes.CDLL(NVML_LIBRARY) if library is None else library
        self._device = ctypes.c_void_p()
        self.name = f"NVML, GPU {index}"
        self._check("nvmlInit_v2", self._library.nvmlInit_v2())
        try:
            self._find(index, uuid)
            self.read_J()
        except (OSError, AttributeError):
            self.close()
            raise

    def _find(self, index: int, uuid: str | None) -> None:
        if uuid is None:
            handle = self._library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._device))
        else:
            handle = self._library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._device))
        self._check("the GPU", handle)

    def read_J(self) -> float:
        found = ctypes.c_ulonglong()
        self._check("energy", self._library.nvmlDeviceGetTotalEnergyConsumption(self._device, ctypes.byref(found)))
        return found.value * 1e-3

    def close(self) -> None:
        """Once a counter: NVML counts how often it was started."""
        self._library.nvmlShutdown()

    @staticmethod
    def _check(what: str, code: int) -> None:
        if code != 0:
            raise OSError(f"NVML answers {what} with error {code}{NVML_ERRORS.get(code, '')}")


def find_counter(device: str) -> Counter | NotMeasured:
    """The counter of ``device`` ("cpu", "cuda", "cuda:1"), or why there is none."""
    kind, _, index = device.partition(":")
    try:
        return Nvml(int(index or 0), uuid=_uuid(int(index or 0))) if kind == "cuda" else Rapl()
    except (OSError, ValueError, AttributeError) as error:
        which = "NVML" if kind == "cuda" else "RAPL"
        return NotMeasured(f"no {which} counter that can be read ({error}).")


def _uuid(index: int) -> str | None:
    """What NVML calls CUDA's device; ``None`` where torch sees no such GPU."""
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return None
    found = str(getattr(torch.cuda.get_device_properties(index), "uuid", ""))
    return None if not found else found if found.startswith(("GPU-", "MIG-")) else f"GPU-{found}"


def measure(
    run: Callable[[], object],
    counter: Counter | NotMeasured,
    *,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured | NotMeasured:
    """J of one ``run()``, which must be done when it returns: it is repeated for ``seconds`` after one run untimed.

    A counter that starts again is read between runs; where one run takes longer than it may take to do so, and where it
    cannot be read any more, the answer is :class:`NotMeasured`.
    """
    if not 0 < seconds < float("inf"):
        raise InputError(f"measure: seconds = {seconds!r}: must be finite and above 0.")
    if isinstance(counter, NotMeasured):
        return counter
    run()
    try:
        return _measured(run, counter, seconds, clock)
    except OSError as error:
        return NotMeasured(f"{counter.name} cannot be read any more ({error}).")


def _measured(
    run: Callable[[], object], counter: Counter, seconds: float, clock: Callable[[], float]
) -> Measured | NotMeasured:
    before, start, runs = counter.read_J(), clock(), 0
    looked = now = start
    while now - start < seconds:
        run()
        runs, now = runs + 1, clock()
        if now - looked > counter.wraps_s:
            return NotMeasured(
                f"{counter.name} may start again within {counter.wraps_s:.3g} s and one run took {now - looked:.3g} s; "
                "way out: fewer inputs."
            )
        if now - looked > counter.wraps_s / 4:
            counter.read_J()
            looked = now
    joules, took = counter.read_J() - before, clock() - start
    if joules <= 0:
        return NotMeasured(f"{counter.name} did not move in {took:.2g} s.")
    return Measured(joules / runs, runs, took, counter.name)
