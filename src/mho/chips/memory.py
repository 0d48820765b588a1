"""How many chips fit: the memory that is free on a device, the share of it that arrays may take, what they take."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from mho.crossbar.array import Array
from mho.crossbar.noise import parts
from mho.crossbar.ops import Op
from mho.errors import InputError
from mho.hardware.spec import Hardware

SHARE = 0.5
"""Of the free memory, for the arrays of a lot: the rest is for programming them, activations and everybody else."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def available_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken on ``device``; ``None`` where the system does not say.

    CUDA: what the driver has free and what torch has reserved without using it. CPU (Linux): ``MemAvailable`` of
    /proc/meminfo, or what the limits of the process's control group and of those above it leave, whichever is least.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    known = [value for value in (_meminfo(_MEMINFO), *map(_cgroup, _groups())) if value is not None]
    return min(known, default=None)


def _meminfo(path: Path) -> int | None:
    if not path.exists():
        return None
    for line in path.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _groups() -> list[Path]:
    """The folders of this process's control groups for memory, each with all above it.

    A line of /proc/self/cgroup is "0::/path" in version 2, "4:memory:/path" in version 1, whose controllers are
    mounted apart. In a container the path may be one outside it: its own group is then what is mounted on top.
    """
    lines = _OWN_GROUPS.read_text(encoding="utf-8").splitlines() if _OWN_GROUPS.exists() else []
    found = [_CGROUP]
    for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
        if controllers and "memory" not in controllers.split(","):
            continue
        top = _CGROUP / "memory" if controllers else _CGROUP
        inside = Path(path.lstrip("/"))
        found += [top / group for group in (inside, *inside.parents)]
    return found


def _cgroup(folder: Path) -> int | None:
    """What the limit of one control group leaves; pages of files that nobody uses can be taken back."""
    names = ("memory.max", "memory.current", "inactive_file")
    if not (folder / names[0]).exists():  # version 1, which writes "no limit" as a number near 2^63
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    try:
        limit = (folder / names[0]).read_text(encoding="ascii").strip()
        used = int((folder / names[1]).read_text(encoding="ascii"))
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    idle = next((int(line.split()[1]) for line in lines if line.startswith(f"{names[2]} ")), 0)
    return max(int(limit) - used + idle, 0)


def budget_bytes(memory_bytes: int | None, device: torch.device) -> int | None:
    """The bytes that the arrays of a lot may take: ``memory_bytes``, or :data:`SHARE` of what is free on ``device``.

    ``None``: no limit, for nothing is known. Raises :class:`InputError` for a number that is not whole or negative.
    """
    if memory_bytes is not None:
        if isinstance(memory_bytes, bool) or not isinstance(memory_bytes, int) or memory_bytes < 0:
            raise InputError(
                f"chips: memory_bytes = {memory_bytes!r}: must be a whole number of bytes, 0 or more (0: keep no "
                "array). Way out: leave it out for a share of what is free."
            )
        return memory_bytes
    free = available_bytes(device)
    return None if free is None else int(SHARE * free)


def array_bytes(array: Array, shared: Iterable[Tensor] = ()) -> int:
    """Bytes of the storages behind an array, each counted once and those behind ``shared`` (the weight) not at all."""
    counted = {t.untyped_storage().data_ptr() for t in shared}
    total = 0
    for t in _tensors(array):
        storage = t.untyped_storage()
        if storage.data_ptr() not in counted:
            counted.add(storage.data_ptr())
            total += storage.nbytes()
    return total


def at_most_bytes(hw: Hardware, weight: Tensor, op: Op) -> int:
    """More than any array of ``weight`` takes with what is kept to read it, without programming one.

    A slice has a weight, and at most a read variance and a shot weight of its shape; what is static in the periphery
    is at most one number a row, and six a part and column; a matrix has a second copy (:mod:`mho.crossbar.packed`).
    """
    periphery = op.rows + 6 * parts(op, hw) * len(weight)
    copies = 3 * hw.mapping.slices + 1
    return weight.element_size() * (copies * weight.numel() + periphery) + 8 * periphery


def _tensors(array: Array) -> Iterable[Tensor]:
    for field in array:
        if isinstance(field, Tensor):
            yield field
        elif field is not None:
            yield from field


def size_text(count: int) -> str:
    """Bytes for a person.

    >>> size_text(2_100_000)
    '2.1 MB'
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


__all__ = ["SHARE", "array_bytes", "at_most_bytes", "available_bytes", "budget_bytes", "size_text"]
