"""Chips beside one another, each on one core: the numbers of one after the other."""

import gc
import weakref

import pytest
import torch
from small_networks import NOISY, Digits, calibrated, mlp
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import mho
from mho.chips.workers import SMALL_BYTES, on_workers, one_core_each, replica
from mho.hardware import GenericCell

X = torch.randn(5, 6, generator=torch.Generator().manual_seed(9))
HW = NOISY.replace(cell=GenericCell(programming_noise=0.1, drift_nu=0.05, read_noise=0.02))


@pytest.fixture(autouse=True)
def _two_threads() -> object:
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def _close(a: Tensor, b: Tensor, hw_lsb: float = 2e-6) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=hw_lsb)


@torch.no_grad()
def test_workers_compute_what_one_after_the_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    model = calibrated(mlp(), HW, X)
    beside, after = (mho.fabricate(model, chips=7, seed=3).compensated() for _ in range(2))
    assert one_core_each(beside.model, 0, [X])
    found = [beside(X) for _ in range(3)]
    monkeypatch.setattr("mho.chips.lot.one_core_each", lambda *given: False)
    assert all(_close(a, after(X)) for a in found)
    assert not torch.equal(found[0], found[1])


@torch.no_grad()
def test_batch_norm_of_each_chip_goes_with_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mho.chips.workers.STATELESS", ("torch", "mho", Digits.__module__.partition(".")[0]))
    x = torch.randn(16, 1, 6, 6)
    model = calibrated(Digits(), HW, x)
    beside, after = (mho.fabricate(model, chips=5, seed=3).recalibrated([x]) for _ in range(2))
    assert one_core_each(beside.model, 0, [x])
    found = beside(x)
    monkeypatch.setattr("mho.chips.lot.one_core_each", lambda *given: False)
    assert _close(found, after(x))
    assert torch.equal(model.norm.running_mean, torch.zeros(4))


def test_all_cores_for_one_chip_where_it_might_matter() -> None:
    model = mho.fabricate(calibrated(mlp(), HW, X), chips=4).model
    assert not one_core_each(model, 0, [X])  # gradients
    with torch.no_grad():
        assert one_core_each(model, 0, [X])
        assert not one_core_each(model, SMALL_BYTES + 1, [X])
        assert not one_core_each(model, 0, [X.to("meta")])
        assert not one_core_each(nn.Sequential(model, Digits()), 0, [X])  # a module from elsewhere
        with torch.autocast("cpu"):
            assert not one_core_each(model, 0, [X])
        with FlopCounterMode(display=False):
            assert not one_core_each(model, 0, [X])
        handle = model.register_forward_hook(lambda *given: None)
        assert not one_core_each(model, 0, [X])
        handle.remove()
        torch.set_num_threads(1)
        assert not one_core_each(model, 0, [X])


@torch.no_grad()
@pytest.mark.parametrize("blocks", [[(0, 5)], [(0, 1), (1, 5)], [(0, 4), (4, 5)]])
@pytest.mark.parametrize("share", [0.0, 1.0, 9.0])
def test_blocks_and_memory_do_not_change_a_bit(blocks: list[tuple[int, int]], share: float) -> None:
    torch.manual_seed(0)
    digital, x = nn.Sequential(nn.Linear(300, 64), nn.ReLU(), nn.Linear(64, 10)), torch.randn(64, 300)
    model = calibrated(digital, HW, x)
    whole = mho.fabricate(model, chips=5, seed=3)
    budget = int(share * whole.substrate.arrays.chip_bytes)
    found = []
    for first, stop in blocks:
        lot = mho.fabricate(model, chips=stop, seed=3, first=first, memory_bytes=budget)
        lot.one_of_many = True
        found.append(lot(x))
    assert torch.equal(torch.cat(found), whole(x))


def test_a_replica_shares_tensors_and_keeps_what_is_assigned_to_it() -> None:
    shared = nn.Linear(6, 6)
    net = nn.Sequential(shared, nn.BatchNorm1d(6), shared).eval()
    twin = replica(net)
    assert twin[0] is twin[2]
    assert twin[0] is not net[0]
    assert twin[0].weight is net[0].weight
    twin[1].running_mean = torch.ones(6)
    twin[0].seen = 1
    assert torch.equal(net[1].running_mean, torch.zeros(6))
    assert not hasattr(net[0], "seen")
    assert torch.equal(replica(net)(X), net(X))


def test_an_error_ends_all_workers_and_threads_are_as_before() -> None:
    done: list[int] = []

    def run(worker: int, chip: int) -> int:
        assert torch.get_num_threads() == 1
        if chip == 3:
            raise ValueError("chip 3")
        done.append(chip)
        return chip

    with pytest.raises(ValueError, match="chip 3"):
        on_workers(run, 1000, 2)
    assert len(done) < 1000
    assert torch.get_num_threads() == 2
    assert on_workers(lambda worker, chip: 2 * chip, 9, 2) == [2 * c for c in range(9)]
    with torch.inference_mode():
        assert all(on_workers(lambda worker, chip: torch.is_inference_mode_enabled(), 4, 2))


@torch.no_grad()
def test_no_cycle_keeps_the_arrays_of_a_lot() -> None:
    lot = mho.fabricate(calibrated(mlp(), HW, X), chips=3)
    gone: list[bool] = []
    weakref.finalize(lot.substrate.arrays.array(next(iter(lot.substrate.arrays)), 1).weights[0], gone.append, True)
    gc.collect()
    gc.disable()
    try:
        lot(X)
        del lot
        assert gone
    finally:
        gc.enable()
