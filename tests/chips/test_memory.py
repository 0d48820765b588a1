"""More chips than memory: the same numbers whatever fits, and never more arrays than that at once."""

import copy
import logging
import pickle
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import NOISY, Digits, calibrated, mlp
from torch import Tensor, nn

import mho
from mho.chips import Chips, lot, memory
from mho.chips.memory import array_bytes, at_most_bytes, available_bytes, budget_bytes, size_text
from mho.chips.shelf import Shelf
from mho.crossbar.array import Array
from mho.crossbar.ops import LinearOp
from mho.errors import InputError
from mho.evaluation.result import Result
from mho.hardware import GenericCell, Hardware, Readout, load_hardware
from mho.nn import analog_layers
from mho.nn.site import Site

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(9))
HW = NOISY.replace(cell=GenericCell(programming_noise=0.1, drift_nu=0.05, drift_nu_d2d=0.02, read_noise=0.02))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


class Census:
    """Counts the bytes of arrays that were programmed and are still alive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.most = self.made = 0
        self._real = lot.fabricate_array
        monkeypatch.setattr(lot, "fabricate_array", self._counted)

    def _counted(self, *args) -> Array:
        array = self._real(*args)
        self.made += 1
        for t in (*array.weights, *(array.read_var or ())):
            size = t.untyped_storage().nbytes()
            self.now += size
            weakref.finalize(t, self._gone, size)
        self.most = max(self.most, self.now)
        return array

    def _gone(self, size: int) -> None:
        self.now -= size


def _lot(memory_bytes: int | None, chips: int = 5, **given) -> Chips:
    torch.manual_seed(0)
    return mho.fabricate(calibrated(mlp(), HW, X), chips=chips, seed=7, memory_bytes=memory_bytes, **given)


def _chip_bytes() -> int:
    return _lot(None).substrate.arrays.chip_bytes


def test_a_chips_bytes_are_those_of_its_tensors() -> None:
    found = _lot(None)
    arrays = [found.substrate.arrays[name][2] for name in found.substrate.arrays]
    tensors = [t for a in arrays for t in (*a.weights, *(a.read_var or ()))]
    copies = [a.weights[0] for a in arrays]  # the layout that a reader keeps of each matrix
    assert _chip_bytes() == sum(t.untyped_storage().nbytes() for t in (*tensors, *copies))
    assert array_bytes(Array(weights=(X, X))) == X.untyped_storage().nbytes()
    assert array_bytes(Array(weights=(X, X.t())), shared=(X,)) == 0


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 1.5, 2.0, 3.7, 5.0])
def test_any_memory_gives_the_same_numbers(share: float) -> None:
    whole, small = _lot(None), _lot(int(share * _chip_bytes()))
    assert small.chips_at_once == min(int(share), 5)
    for _ in range(2):  # two passes: fresh noise goes on alike, dropped arrays come back
        assert torch.equal(whole(X), small(X))
    assert torch.equal(whole.aged("1 day")(X), small.aged("1 day")(X))
    assert torch.equal(whole.aged("1 day").compensated()(X), small.aged("1 day").compensated()(X))
    assert [whole.run(c, X).tolist() for c in (3, 0, 3, 1)] == [small.run(c, X).tolist() for c in (3, 0, 3, 1)]


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 2.5])
def test_recalibrated_and_recurrent_networks_need_no_more_memory(share: float) -> None:
    x = torch.randn(16, 1, 6, 6)
    model = calibrated(Digits(), HW, x)
    whole = mho.fabricate(model, chips=3, seed=7)
    small = mho.fabricate(model, chips=3, seed=7, memory_bytes=int(share * whole.substrate.arrays.chip_bytes))
    assert torch.equal(whole.recalibrated([x])(x), small.recalibrated([x])(x))
    steps = torch.randn(7, 3, 6)
    net = mho.convert(nn.LSTM(6, 4, 2), HW).train()
    net(steps)
    whole = mho.fabricate(net, chips=3, seed=7)
    small = mho.fabricate(net, chips=3, seed=7, memory_bytes=int(share * whole.substrate.arrays.chip_bytes))
    assert torch.equal(whole(steps)[0], small(steps)[0])


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 2.5])
def test_arrays_never_take_more_than_the_budget_and_one_array(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = int(share * _chip_bytes())
    largest = max(array_bytes(_lot(None).substrate.arrays[name][0]) for name in _lot(None).substrate.arrays)
    census = Census(monkeypatch)
    small = _lot(budget, chips=20)
    for _ in range(2):
        small(X)
    assert census.made > 20
    assert census.most <= budget + 2 * largest  # one kept by the read in hand, one being made
    before = census.most
    small.compensated()(X)
    assert census.most <= max(before, budget + 3 * largest)


def test_kept_chips_are_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census(monkeypatch)
    small = _lot(3 * _chip_bytes(), chips=5)
    layers = len(small.substrate.arrays)
    small(X)
    first, census.made = census.made, 0
    small(X)
    assert first > 0
    assert census.made == 2 * layers  # 0, 1 and 4 are still there
    whole = _lot(5 * _chip_bytes(), chips=5)
    census.made = 0
    whole(X)
    whole.compensated()
    assert census.made == 5 * layers  # those at time 0; the arrays of now are shared


def test_ideal_arrays_take_nothing() -> None:
    ideal = mho.fabricate(mho.convert(mlp(), "ideal"), chips=3, memory_bytes=0)
    assert ideal.substrate.arrays.chip_bytes == 0
    assert ideal.chips_at_once == 3


def test_a_lot_travels_with_what_it_needs_to_make_arrays() -> None:
    small = _lot(_chip_bytes())
    for twin in (pickle.loads(pickle.dumps(small)), copy.deepcopy(small)):
        assert torch.equal(twin(X), _lot(None)(X))


def test_tracing_a_chip_that_is_not_there_is_a_clear_error() -> None:
    small = _lot(0)
    with pytest.raises(InputError, match=r"chip 0 is not in memory \(0 of 5 chips fit\).*Way out"):
        torch.func.vmap(lambda x: small.run(0, x))(X.unsqueeze(0))


def test_the_log_says_how_many(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mho.chips.lot"):
        _lot(2 * _chip_bytes())
    assert "2 of 5 chips at a time" in caplog.text
    with pytest.raises(InputError, match="memory_bytes = -1"):
        _lot(-1)
    assert size_text(12) == "12 bytes"


# --- what is free ---------------------------------------------------------------------------------


def test_free_memory_is_what_the_system_and_the_group_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, group = tmp_path / "meminfo", tmp_path / "group"
    info.write_text("MemTotal: 9 kB\nMemAvailable:    7000 kB\n", encoding="ascii")
    group.mkdir()
    monkeypatch.setattr(memory, "_MEMINFO", info)
    monkeypatch.setattr(memory, "_CGROUP", group)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "none")
    cpu = torch.device("cpu")
    assert available_bytes(cpu) == 7_168_000
    for name, text in (("memory.max", "max"), ("memory.current", "5000000"), ("memory.stat", "inactive_file 100")):
        (group / name).write_text(text, encoding="ascii")
    assert available_bytes(cpu) == 7_168_000
    (group / "memory.max").write_text("6000000", encoding="ascii")
    assert available_bytes(cpu) == 1_000_100
    assert budget_bytes(None, cpu) == 500_050
    info.unlink()
    (group / "memory.max").unlink()
    assert available_bytes(cpu) is None
    assert budget_bytes(None, cpu) is None
    assert available_bytes(torch.device("meta")) is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_least_that_a_group_on_the_way_up_leaves_counts(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    top, idle = (tmp_path, "inactive_file") if version == 2 else (tmp_path / "memory", "total_inactive_file")
    no_limit = "max" if version == 2 else str(2**63 - 4096)
    own = tmp_path / "own"
    own.write_text("0::/a/b\n" if version == 2 else "5:cpu,cpuacct:/x\n4:memory:/a/b\n0::/\n", encoding="ascii")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "none")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", own)

    def limit(group: str, most: str, used: int) -> None:
        (top / group).mkdir(parents=True, exist_ok=True)
        for name, text in ((names[0], most), (names[1], str(used)), ("memory.stat", f"{idle} 7\n")):
            (top / group / name).write_text(text, encoding="ascii")

    cpu = torch.device("cpu")
    assert available_bytes(cpu) is None
    limit("a/b", "9000", 1000)
    assert available_bytes(cpu) == 8007
    limit("a", "5000", 2000)
    assert available_bytes(cpu) == 3007
    limit("a/b", no_limit, 1000)
    assert available_bytes(cpu) == 3007
    limit("other", "10", 0)
    assert available_bytes(cpu) == 3007


def test_a_share_of_what_is_free_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    size = _chip_bytes()
    monkeypatch.setattr(memory, "available_bytes", lambda device: 5 * size)
    assert _lot(None).chips_at_once == 2
    assert torch.equal(_lot(None)(X), _lot(10 * size)(X))


@pytest.mark.parametrize("preset", ["generic", "pcm-hermes", "reram-wan2022", "pcm-joshi2020"])
def test_the_estimate_is_never_less_than_what_is_taken(preset: str) -> None:
    hw = load_hardware(preset).replace(readout=Readout(thermal=True, fano=1.0, t_read_s=1e-7, v_read_V=0.2))
    found = mho.fabricate(mho.convert(mlp(), hw), chips=1, seed=1)
    most = sum(
        at_most_bytes(site.hw, getattr(layer, key), site.op)
        for _, layer in analog_layers(found.model)
        for key, site in layer.sites.items()
    )
    assert 0 < found.substrate.arrays.chip_bytes <= most


# --- evaluation in blocks -------------------------------------------------------------------------


def _evaluated(model: nn.Module, memory_bytes: int | None, chips: int = 6, **given) -> Result:
    y = torch.arange(5) % 3
    return mho.evaluate(model, [(X, y)], chips=chips, seed=3, memory_bytes=memory_bytes, **given)


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0, 2.0, 4.5])
def test_blocks_that_fit_have_the_outcomes_of_one_block(share: float) -> None:
    model = calibrated(mlp(), HW, X)
    sweep = {"ages": ("1 s", "1 day"), "noise_scales": (0.5, 4.0), "compensate": True}
    whole = _evaluated(model, None, **sweep)
    small = _evaluated(model, int(share * _chip_bytes()), **sweep)
    assert np.array_equal(whole.data["correct"].to_numpy(), small.data["correct"].to_numpy())
    assert whole.data.attrs["chips_at_once"] == 6
    assert small.data.attrs["chips_at_once"] == int(share)


def test_an_evaluation_of_more_chips_than_memory_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    model, budget = calibrated(mlp(), HW, X), 3 * _chip_bytes()
    census = Census(monkeypatch)
    found = _evaluated(model, budget, chips=20, ages=("1 s", "1 day"), compensate=True)
    assert found.chips == 20
    assert census.most <= budget + _chip_bytes()
    assert 20 * _chip_bytes() > 2 * census.most


def test_compensation_of_a_chip_does_not_depend_on_where_its_lot_begins() -> None:
    whole, late = _lot(None).aged("1 year").compensated(), _lot(None, first=3).aged("1 year").compensated()
    for name, gains in whole.substrate.gains.items():
        assert late.substrate.gains[name] == gains[3:]


def test_a_shelf_is_a_mapping_of_rows() -> None:
    site = Site("x", LinearOp(6, 5), Hardware(name="ideal"))
    made: list[tuple[str, int]] = []

    def make(place: Site, weight: Tensor, bound: Tensor | None, seed: int) -> Array:
        made.append((place.name, seed))
        return Array(weights=(weight.clone(),))

    shelf = Shelf({"a": (site, X, None)}, (5, 6, 7), make, None)
    assert len(shelf) == 1
    assert list(shelf) == ["a"]
    assert len(shelf["a"]) == 3
    assert len(shelf["a"][1:]) == 2
    assert shelf["a"][-1] is shelf["a"][2]
    assert made == [("x", 5), ("x", 6), ("x", 7)]
    with pytest.raises(IndexError, match="chip 3 of 3"):
        shelf["a"][3]
    with pytest.raises(KeyError):
        shelf["b"]
