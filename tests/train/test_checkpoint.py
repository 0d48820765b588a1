"""Checkpoints: same bits back, tied weights, damage, a full disk."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mho.errors import CheckpointError
from mho.train import load_checkpoint, save_checkpoint
from mho.train.pack import pack, unpack


def _trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01, amsgrad=True)
    for _ in range(3):
        net(torch.randn(8, 6)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def _same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


def test_round_trip(tmp_path: Path) -> None:
    net, optimizer = _trained()
    state = {"epoch": 3, "loss": [0.1, float("inf")], "settings": {"lr": 0.3, "name": "x"}}
    save_checkpoint(tmp_path, net, optimizer, state, extra={"rng": torch.get_rng_state()})
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state == {"format": 1, **state}
    assert _same(dict(net.state_dict()), found.weights)
    assert _same(optimizer.state_dict(), found.optimizer)
    assert torch.equal(found.extra["rng"], torch.get_rng_state())
    other, other_optimizer = _trained()
    for p in other.parameters():
        p.data.zero_()
    found.restore(other, other_optimizer)
    assert _same(net.state_dict(), other.state_dict())
    other_optimizer.step()
    assert _same(optimizer.state_dict(), found.optimizer)  # stepping does not write into the checkpoint


def test_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None


def test_pack_keeps_types() -> None:
    tree = {0: {"a": (1, 2.5, None)}, "b": [True, "t", torch.ones(2)], 1: {}}
    assert _same(unpack(*pack(tree)), tree)
    with pytest.raises(CheckpointError, match=r"state\.b\.1 is a set"):
        pack({"b": [1, {2}]})


def test_tied_and_overlapping_weights(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight
            store = torch.arange(6.0)
            self.register_buffer("front", store[:4])
            self.register_buffer("back", store[2:])

    net = Tied()
    save = save_checkpoint(tmp_path, net)
    assert (save / "weights.safetensors").read_bytes().count(b'"dtype"') == 3  # the tied one once
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert _same(dict(net.state_dict()), found.weights)
    other = Tied()
    found.restore(other)
    assert other.head.weight is other.embed.weight
    assert torch.equal(other.head.weight, net.head.weight)


def test_keeps_the_last_two(tmp_path: Path) -> None:
    net, _ = _trained()
    (tmp_path / ".tmp-1").mkdir()
    for step in range(4):
        save_checkpoint(tmp_path, net, state={"step": step})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["LATEST", "save-000003", "save-000004"]
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["step"] == 3


def test_before_latest_moves_the_old_save_counts(tmp_path: Path) -> None:
    net, _ = _trained()
    save_checkpoint(tmp_path, net, state={"step": 1})
    save_checkpoint(tmp_path, net, state={"step": 2})
    (tmp_path / "LATEST").write_text("save-000001\n")  # killed between the rename and LATEST
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["step"] == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "extra.safetensors", "state.toml"])
@pytest.mark.parametrize("damage", ["truncate", "flip", "delete"])
def test_damage_falls_back_with_a_warning(name: str, damage: str, tmp_path: Path) -> None:
    net, optimizer = _trained()
    save_checkpoint(tmp_path, net, optimizer, {"step": 1})
    file = save_checkpoint(tmp_path, net, optimizer, {"step": 2}) / name
    content = bytearray(file.read_bytes())
    if damage == "truncate":
        file.write_bytes(content[:-7])
    elif damage == "flip":
        content[-1] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    with pytest.warns(UserWarning, match=name):
        found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["step"] == 1


def test_all_damaged(tmp_path: Path) -> None:
    net, _ = _trained()
    for _ in range(2):
        (save_checkpoint(tmp_path, net) / "SHA256SUMS").write_text("rubbish")
    with pytest.raises(CheckpointError, match=r"No complete save is left.*Fix"):
        load_checkpoint(tmp_path)


def test_wrong_model_is_named(tmp_path: Path) -> None:
    net, _ = _trained()
    save_checkpoint(tmp_path, net)
    found = load_checkpoint(tmp_path)
    assert found is not None
    with pytest.raises(CheckpointError, match=r"save-000001.*Missing key|Unexpected key"):
        found.restore(nn.Linear(2, 2))


def test_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    net, _ = _trained()
    with pytest.raises(CheckpointError, match=r"file/run: the checkpoint cannot be written"):
        save_checkpoint(tmp_path / "file" / "run", net)


FULL_DISK = """
import resource, sys
from torch import nn
from mho.errors import CheckpointError
from mho.train import save_checkpoint
save_checkpoint(sys.argv[1], nn.Linear(4, 4), state={"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(sys.argv[1], nn.Linear(400, 400), state={"step": 2})
except CheckpointError as error:
    print(error)
    sys.exit(7)
"""


def test_full_disk_keeps_the_old(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7, done.stderr
    assert str(tmp_path) in done.stdout
    assert "free space" in done.stdout
    assert not list(tmp_path.glob(".tmp*"))
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["step"] == 1


def test_object_in_state_dict_is_named(tmp_path: Path) -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

    with pytest.raises(CheckpointError, match="_extra_state"):
        save_checkpoint(tmp_path, Odd(2, 2))
