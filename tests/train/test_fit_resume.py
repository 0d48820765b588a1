"""kill -9 and resume: the same bits as a run that was left alone."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mho.errors import CheckpointError
from mho.train import TrainSettings, fit, load_checkpoint

# A tiny network with every kind of state: dropout (generator), batch norm (buffers), momentum, average,
# schedule, a NaN batch, a loader whose order comes from torch's generator.
SCRIPT = """
import os, signal, sys
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
import mho
from mho.train import TrainSettings, fit

folder, kind, kill_at, every = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
torch.manual_seed(0)
x = torch.randn(96, 6)
x[17, 2] = float("nan")
y = (x[:, 0] > 0).long()
net = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(0.2), nn.Linear(12, 2))
if kind == "analog":
    net = mho.convert(net, mho.load_hardware("generic"), clip_sigma=2.0)
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
settings = TrainSettings(epochs=4, optimizer="adamw" if kind == "adamw" else "sgd", lr=0.05, ema_decay=0.9,
                         noise_scale=1.2, ramp_fraction=0.4)

def kill(step, loss):
    if step == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)

history = fit(net, loader, recipe=settings, seed=3, checkpoint=folder, checkpoint_every=every or None, resume=True,
              on_batch=kill)
torch.save({"net": net.state_dict(), "losses": [e.loss for e in history.epochs], "refused": history.refused,
            "resumed": history.resumed_at or 0}, folder + "/result.pt")
"""


def run(folder: Path, kind: str, kill_at: int, every: int) -> int:
    arguments = [sys.executable, "-c", SCRIPT, str(folder), kind, str(kill_at), str(every)]
    done = subprocess.run(
        arguments, check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.mark.parametrize(
    ("kind", "kills", "every", "resumed"),
    [("sgd", [29], 0, 24), ("adamw", [5, 20], 4, 16), ("analog", [29], 5, 25)],
)
def test_same_bits_after_kill(kind: str, kills: list[int], every: int, resumed: int, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(whole, kind, 0, 0) == 0
    for at in kills:
        assert run(broken, kind, at, every) == -signal.SIGKILL
        assert not (broken / "result.pt").exists()
    assert run(broken, kind, 0, every) == 0
    a, b = torch.load(whole / "result.pt"), torch.load(broken / "result.pt")
    assert b["resumed"] == resumed
    assert a["refused"] == b["refused"] == 4
    assert a["losses"] == b["losses"]
    assert a["net"].keys() == b["net"].keys()
    different = [name for name in a["net"] if not torch.equal(a["net"][name], b["net"][name])]
    assert not different


def _small() -> tuple[nn.Module, DataLoader[tuple[torch.Tensor, ...]]]:
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    return nn.Linear(4, 2), DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8)


def test_resume_of_a_finished_run_is_the_same_network(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=2, ema_decay=0.8)
    first, loader = _small()
    fit(first, loader, recipe=settings, checkpoint=tmp_path)
    again, _ = _small()
    history = fit(again, loader, recipe=settings, checkpoint=tmp_path, resume=True)
    assert torch.equal(first.weight, again.weight)  # type: ignore[arg-type]
    assert len(history.epochs) == 2


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    model, loader = _small()
    fit(model, loader, epochs=1, checkpoint=tmp_path)
    with pytest.raises(CheckpointError, match=r"another run: lr was 0\.1 and is 0\.2, seed was 0 and is 4"):
        fit(model, loader, recipe=TrainSettings(epochs=1, lr=0.2), seed=4, checkpoint=tmp_path, resume=True)


def test_a_fresh_run_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    model, loader = _small()
    fit(model, loader, epochs=3, checkpoint=tmp_path)
    fit(model, loader, epochs=1, seed=1, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("save-*"))) == 1
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["run"]["seed"] == 1
