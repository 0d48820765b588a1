"""Counters of energy: a fake powercap tree, a fake NVML (in Python and as a C library), wrap-around, refusals,
units."""

import ctypes
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from mho.costs import Measured, NotMeasured
from mho.costs.meter import Nvml, Rapl, find_counter, measure
from mho.errors import InputError

near = partial(pytest.approx, rel=1e-9, abs=0.0)


class Fake:
    name = "a fake"

    def __init__(self, watt: float, wraps_s: float = float("inf")) -> None:
        self.watt, self.now, self.wraps_s, self.reads, self.broken_after = watt, 0.0, wraps_s, 0, 10**9

    def clock(self) -> float:
        return self.now

    def read_J(self) -> float:
        self.reads += 1
        if self.reads > self.broken_after:
            raise OSError("the zone is gone")
        return self.watt * self.now

    def taking(self, seconds: float):
        def run() -> None:
            self.now += seconds

        return run


def test_a_counter_is_read_around_many_runs() -> None:
    fake = Fake(watt=4.0)
    found = measure(fake.taking(0.25), fake, seconds=2.0, clock=fake.clock)
    assert isinstance(found, Measured) and found.joules == near(1.0) and found.runs == 8 and found.seconds == near(2.0)
    assert "1 J, measured by a fake (8 runs" in str(found) and fake.reads == 2
    still = measure(fake.taking(0.25), Fake(watt=0.0), seconds=1.0, clock=fake.clock)
    assert isinstance(still, NotMeasured) and "did not move" in str(still)
    with pytest.raises(InputError, match="seconds = 0"):
        measure(fake.taking(1.0), fake, seconds=0)


def test_a_counter_that_starts_again_is_read_often_enough_or_not_believed() -> None:
    often = Fake(watt=1.0, wraps_s=4.0)
    assert isinstance(measure(often.taking(0.25), often, seconds=8.0, clock=often.clock), Measured)
    assert often.reads >= 2 + 5
    seldom = Fake(watt=1.0, wraps_s=4.0)
    found = measure(seldom.taking(5.0), seldom, seconds=2.0, clock=seldom.clock)
    assert isinstance(found, NotMeasured) and "may start again within 4 s and one run took 5 s" in str(found)


def test_a_counter_that_goes_away_is_said() -> None:
    fake = Fake(watt=1.0)
    fake.broken_after = 1
    found = measure(fake.taking(1.0), fake, seconds=2.0, clock=fake.clock)
    assert isinstance(found, NotMeasured) and "cannot be read any more (the zone is gone)" in str(found)


# --- RAPL ------------------------------------------------------------------------------------------------------------


def zone(folder: Path, name: str, energy_uJ: int, top_uJ: int = 1000) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(f"{energy_uJ}\n")
    (folder / "max_energy_range_uj").write_text(f"{top_uJ}\n")
    return folder


def machine(root: Path) -> tuple[Path, Path, Path]:
    """Two packages, the first with cores and memory below it; the whole platform; the first package again by MMIO."""
    first = zone(root / "intel-rapl:0", "package-0", 900)
    second = zone(root / "intel-rapl:1", "package-1", 100)
    memory = zone(first / "intel-rapl:0:1", "dram", 10)
    zone(first / "intel-rapl:0:0", "core", 500)
    zone(root / "intel-rapl:2", "psys", 0, 10**9)
    zone(root / "intel-rapl-mmio:0", "package-0", 900)
    (root / "intel-rapl:0:1").symlink_to(memory)  # as sysfs shows parts beside their packages
    return first, second, memory


def test_rapl_adds_packages_and_memory_once_in_microjoules(tmp_path: Path) -> None:
    first, second, memory = machine(tmp_path)
    rapl = Rapl(tmp_path)
    assert rapl.name == "RAPL, 2 CPU package(s) and their memory"
    before = rapl.read_J()
    for file, uJ in ((first, 950), (second, 120), (memory, 17), (tmp_path / "intel-rapl:2", 10**6)):
        (file / "energy_uj").write_text(str(uJ))
    assert rapl.read_J() - before == near(77e-6)
    (first / "intel-rapl:0:0" / "energy_uj").write_text("999")  # cores are in their package
    assert rapl.read_J() - before == near(77e-6)


def test_rapl_follows_counters_that_wrap_each_by_its_own_range(tmp_path: Path) -> None:
    first, second, memory = machine(tmp_path)
    (second / "max_energy_range_uj").write_text("5000")
    rapl = Rapl(tmp_path)
    before = rapl.read_J()
    (first / "energy_uj").write_text("50")  # 900 -> 1000 = 0 -> 50
    (second / "energy_uj").write_text("40")  # 100 -> 5000 = 0 -> 40
    (memory / "energy_uj").write_text("10")
    assert rapl.read_J() - before == near((150 + 4940) * 1e-6)
    assert rapl.read_J() - before == near(5090e-6)  # still where it was: nothing is counted twice
    assert rapl.wraps_s == near(1000e-6 / 1000.0)  # 1 kW empties the smallest range


def test_a_tree_without_packages_or_with_rubbish_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no intel-rapl package"):
        Rapl(tmp_path / "nowhere")
    zone(tmp_path / "intel-rapl:0", "psys", 1)
    with pytest.raises(OSError, match="no intel-rapl package"):
        Rapl(tmp_path)
    broken = zone(tmp_path / "intel-rapl:1", "package-0", 1)
    (broken / "energy_uj").write_text("many")
    with pytest.raises(OSError, match="holds no whole number"):
        Rapl(tmp_path)


def test_energy_that_only_root_may_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path)
    plain = Path.read_text

    def guarded(self: Path, *args: object, **kwargs: object) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return plain(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", guarded)
    monkeypatch.setattr("mho.costs.meter.Rapl", partial(Rapl, tmp_path))
    found = find_counter("cpu")
    assert isinstance(found, NotMeasured)
    assert "may be read by root only" in str(found) and "chmod a+r" in str(found) and "energy_uj" in str(found)


# --- NVML ------------------------------------------------------------------------------------------------------------


class FakeNvml:
    """Two GPUs that count mJ. CUDA's first is NVML's second."""

    def __init__(self, init: int = 0, energy: int = 0) -> None:
        self.codes = {"init": init, "energy": energy}
        self.mJ = {1: 5_000, 2: 70_000}
        self.asked: list[object] = []
        self.started = 0

    def nvmlInit_v2(self) -> int:
        self.started += self.codes["init"] == 0
        return self.codes["init"]

    def nvmlShutdown(self) -> int:
        self.started -= 1
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: ctypes.c_uint, out: object) -> int:
        self.asked.append(index.value)
        if index.value > 1:
            return 2
        out._obj.value = index.value + 1  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, out: object) -> int:
        self.asked.append(uuid)
        if uuid != b"GPU-second":
            return 6
        out._obj.value = 2  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: ctypes.c_void_p, out: object) -> int:
        out._obj.value = self.mJ[device.value or 0]  # type: ignore[attr-defined]
        return self.codes["energy"]


def test_nvml_counts_millijoules_of_the_gpu_that_is_meant() -> None:
    fake = FakeNvml()
    first, second = Nvml(0, library=fake), Nvml(0, uuid="GPU-second", library=fake)
    assert fake.asked == [0, b"GPU-second"]
    assert (first.read_J(), second.read_J()) == (near(5.0), near(70.0))
    fake.mJ[2] += 1_500
    assert second.read_J() - first.read_J() == near(66.5)
    assert second.wraps_s == float("inf")  # 64 bits of mJ
    assert fake.started == 2
    first.close(), second.close()
    assert fake.started == 0


@pytest.mark.parametrize(
    ("fake", "uuid", "said"),
    [
        (FakeNvml(init=4), None, r"nvmlInit_v2 with error 4 \(no permission\)"),
        (FakeNvml(energy=3), None, r"energy with error 3 \(not supported: energy is counted from Volta on\)"),
        (FakeNvml(energy=15), None, r"error 15 \(the GPU is lost\)"),
        (FakeNvml(energy=77), None, "energy with error 77$"),
        (FakeNvml(), "GPU-other", r"the GPU with error 6 \(not found\)"),
    ],
)
def test_what_nvml_refuses_is_named(fake: FakeNvml, uuid: str | None, said: str) -> None:
    with pytest.raises(OSError, match=said):
        Nvml(0, uuid=uuid, library=fake)
    assert fake.started == 0  # what was started is shut down


STUB = """
static unsigned long long mJ = 123456789012ULL;
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) { *device = (void *)(0x7f0000000000UL + index);
return index > 1 ? 2 : 0; } int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) { *device = (void
*)0x7f0000000001UL; return uuid[0] == 'G' ? 0 : 6; } int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long
long *out) { *out = mJ; mJ += 2500; return (unsigned long)device < 0x7f0000000000UL ? 2 : 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_pointers_and_64_bits_pass_through_a_library_of_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, library = tmp_path / "stub.c", tmp_path / "libnvidia-ml.so.1"
    source.write_text(STUB)
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    monkeypatch.setattr("mho.costs.meter.NVML_LIBRARY", str(library))
    found = find_counter("cuda:1")
    assert isinstance(found, Nvml) and found.name == "NVML, GPU 1"
    assert found.read_J() == near(123456789.012 + 2.5) and found.read_J() == near(123456789.012 + 5.0)
    assert "error 2" in str(find_counter("cuda:2"))


def test_a_library_without_the_functions_is_no_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mho.costs.meter.NVML_LIBRARY", None)  # the process itself: it opens, and holds no NVML
    assert "no NVML counter that can be read" in str(find_counter("cuda"))
