"""DDP and FSDP2 over two processes: the loss of one, noise of each rank's own, going on with another number of
ranks, accumulated gradients, bfloat16, activation checkpointing."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import distributed_gradients as gradients
import distributed_training as case
import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

import mho
from mho.errors import CheckpointError, TrainingError
from mho.train.distributed import load_sharded, save_sharded, seed_ranks

LAST = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("distributed")
    torch.multiprocessing.spawn(case.pair, (str(place),), nprocs=2)
    return place


@pytest.fixture(scope="module")
def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"told{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"gradients{rank}.pt", weights_only=False) for rank in range(2)]


def alone(seed: int) -> float:
    """Mean loss of the last steps of one process with the whole batch."""
    network = case.start()
    seed_ranks(seed)
    return mean(case.train(network, case.optimizer_of(network), 0, 1)[-LAST:])


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_two_processes_reach_the_loss_of_one(told: list[dict[str, Any]], engine: str) -> None:
    by_seed = [alone(seed) for seed in range(6)]
    reached = mean(mean(rank[engine][-LAST:]) for rank in told)
    untrained = mean(rank[engine][0] for rank in told)
    assert abs(reached - mean(by_seed)) < 5 * stdev(by_seed) + 0.01
    assert reached < 0.7 * untrained


def test_each_rank_trains_on_chips_of_its_own(told: list[dict[str, Any]]) -> None:
    assert None not in told[0]["chips"]
    assert set(told[0]["chips"]).isdisjoint(told[1]["chips"])


def test_a_run_goes_on_with_as_many_or_fewer_processes(folder: Path, told: list[dict[str, Any]]) -> None:
    reached = mean(mean(rank["fsdp"][-LAST:]) for rank in told)
    assert [rank["step"] for rank in told] == [case.STEPS] * 2
    assert mean(mean(rank["on two"]) for rank in told) < reached + 0.15
    network = case.start()
    optimizer = case.optimizer_of(network)
    assert load_sharded(folder / "at-the-end", network, optimizer) == case.STEPS
    seed_ranks(7, case.STEPS)
    assert mean(case.train(network, optimizer, 0, 1, first=case.STEPS - 5)) < reached + 0.15
    assert all(bool((m.weight_ranges > 0).all()) for m in (network[0], network[2]))  # type: ignore[index]


def test_a_checkpoint_is_the_whole_state(tmp_path: Path) -> None:
    network = case.start()
    optimizer = case.optimizer_of(network)
    case.train(network, optimizer, 0, 1, first=case.STEPS - 3)
    save_sharded(tmp_path / "here", network, optimizer, step=3)
    other = case.start()
    again = case.optimizer_of(other)
    assert load_sharded(tmp_path / "here", other, again) == 3
    for (key, value), read in zip(network.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(value, read), key
    momenta = [[s["momentum_buffer"] for s in o.state_dict()["state"].values()] for o in (optimizer, again)]
    assert all(torch.equal(a, b) for a, b in zip(*momenta, strict=True))


def test_a_kill_during_a_save_leaves_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = case.start()
    optimizer = case.optimizer_of(network)
    (tmp_path / "notes").write_text("mine")
    save_sharded(tmp_path, network, optimizer, step=1)
    for step in (2, 3):  # each takes the place of the one before
        before = network[0].weight.detach().clone()  # type: ignore[index]
        network[0].weight.data += 1  # type: ignore[index]
        with monkeypatch.context() as killed:
            killed.setattr(dcp, "save", _written_and_killed)
            with pytest.raises(KeyboardInterrupt):
                save_sharded(tmp_path, network, optimizer, step=step)
        read = case.start()
        assert load_sharded(tmp_path, read, case.optimizer_of(read)) == step - 1
        assert torch.equal(read[0].weight, before)  # type: ignore[index]
        save_sharded(tmp_path, network, optimizer, step=step)
        assert load_sharded(tmp_path, read, case.optimizer_of(read)) == step
        assert torch.equal(read[0].weight, network[0].weight)  # type: ignore[index]
        assert len(list(tmp_path.glob("**/.metadata"))) == 1
    assert (tmp_path / "notes").read_text() == "mine"


def _written_and_killed(state: dict[str, Any], checkpoint_id: str, save: Any = dcp.save) -> None:
    save(state, checkpoint_id=checkpoint_id)
    raise KeyboardInterrupt


def test_each_rank_clamps_its_shard_to_the_bounds_of_its_rows(folder: Path) -> None:
    network = case.bounded()
    free, whole = network[0].weight.detach().clone(), case.projected(network)  # type: ignore[index]
    assert (whole != free).float().mean() > 0.5
    for rank in range(2):
        assert torch.equal(torch.load(folder / f"projected{rank}.pt"), whole)


@pytest.mark.parametrize("engine", ["ddp", "fsdp"])
def test_accumulated_gradients_are_the_mean_over_micro_batches_each_on_its_own_chip(
    found: list[dict[str, Any]], engine: str
) -> None:
    parts = [part for rank in found for part in rank["one by one"]]
    assert len(parts) == 2 * gradients.PARTS
    for rank in found:
        accumulated = rank[engine]["accumulated"]
        assert accumulated.keys() == parts[0].keys()
        for name, grad in accumulated.items():
            each = torch.stack([part[name] for part in parts])
            error = 1e-6 * float(each.norm())
            assert torch.allclose(grad, each.mean(0), rtol=0, atol=error), name
    chips = [chip for rank in found for chip in rank[engine]["chips"]]
    assert len(set(chips)) == len(chips) == 2 * gradients.PARTS


@pytest.mark.parametrize("engine", gradients.ENGINES)
def test_activation_checkpointing_repeats_the_noise_to_the_bit(found: list[dict[str, Any]], engine: str) -> None:
    for rank in found:
        (chips, plain), (same_chips, checkpointed) = rank[engine]["plain"], rank[engine]["checkpointed"]
        assert chips == same_chips
        assert plain.keys() == checkpointed.keys() == rank["one by one"][0].keys()
        assert all(bool(grad.any()) and torch.equal(grad, checkpointed[name]) for name, grad in plain.items())


@pytest.mark.parametrize("engine", ["ddp bf16", "fsdp bf16"])
def test_bfloat16_trains_and_keeps_float32_parameters(found: list[dict[str, Any]], engine: str) -> None:
    full = mean(mean(rank["ddp"]["trained"][0][-5:]) for rank in found)
    for rank in found:
        losses, held, output = rank[engine]["trained"]
        assert output == torch.bfloat16
        assert held == {torch.float32}  # parameters, gradients, momenta
        assert all(0 <= loss < 2 for loss in losses)
        assert mean(losses[-5:]) < 2 * full < losses[0] / 4


@pytest.mark.parametrize("kind", ["static", "fresh"])
@pytest.mark.parametrize("engine", ["ddp bf16", "fsdp bf16"])
def test_bfloat16_keeps_the_law_of_the_noise(found: list[dict[str, Any]], engine: str, kind: str) -> None:
    for rank in found:
        y, exact = rank[engine]["read"][kind], rank["ddp"]["read"][kind]
        assert not torch.equal(y, exact)
        assert abs(float((y.var(0).mean() / exact.var(0).mean()).sqrt()) - 1) < 0.03
        both = torch.stack(((y - y.mean(0)).flatten(), (exact - exact.mean(0)).flatten()))
        assert torch.corrcoef(both)[0, 1] > 0.98  # the same draws, rounded


def test_the_seed_of_a_rank_is_a_function_of_seed_and_step() -> None:
    assert seed_ranks(3) == seed_ranks(3) != seed_ranks(4)
    assert seed_ranks(3, 5) != seed_ranks(3)
    with pytest.raises(TrainingError, match="seed = -1"):
        seed_ranks(-1)


def test_what_is_no_checkpoint_of_this_network_is_refused(tmp_path: Path) -> None:
    network = case.start()
    with pytest.raises(CheckpointError, match="no sharded checkpoint"):
        load_sharded(tmp_path, network, case.optimizer_of(network))
    save_sharded(tmp_path / "here", network, case.optimizer_of(network), step=0)
    other = mho.convert(nn.Sequential(nn.Linear(12, 33), nn.ReLU(), nn.Linear(33, 4)), "generic")
    with pytest.raises(CheckpointError, match="does not fit this network"):
        load_sharded(tmp_path / "here", other, case.optimizer_of(other))
