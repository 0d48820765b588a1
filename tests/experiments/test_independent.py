"""A hardware-aware network holds outside this package: its plain weights, judged by a script that knows torch alone."""

import json
import subprocess
import sys

import pytest
import torch

import mho
from mho.hardware import GenericCell, Hardware, Mapping
from mho.models import build
from mho.train import TrainSettings

ETA = 0.15
SCRIPT = """
import json, sys, torch
from torch import nn
weights, x, y = torch.load(sys.argv[1])
net = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
found = []
for chip in range(60):
    torch.manual_seed(chip)
    noisy = {}
    for name, w in weights.items():
        full = w.abs().amax(1, keepdim=True) if w.ndim == 2 else torch.zeros(())
        noisy[name] = w + float(sys.argv[2]) * full * torch.randn(w.shape)
    net.load_state_dict(noisy)
    found.append(100 * (net(x).argmax(-1) == y).float().mean().item())
assert "mho" not in sys.modules
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def setting():
    """A network trained on the hardware, its data, and its accuracy on 60 virtual chips of this package."""
    data = mho.load_dataset("mnist-mini")
    hw = Hardware(name="h", cell=GenericCell(programming_noise=ETA), mapping=Mapping(scheme="signed", per_column=True))
    torch.manual_seed(0)
    net = mho.convert(build("mlp", sizes=[784, 64, 10]), hw, clip_sigma=1.5)
    settings = TrainSettings(epochs=3, weight_decay_bounded=0.0)
    mho.fit(net, data.train_batches(128, subset=6000), recipe=settings)
    images = data.normalise(data.test_x[:1000])
    result = mho.evaluate(net.eval(), [(images, data.test_y[:1000])], chips=60)
    return net, images, data.test_y[:1000], result.accuracy().to_numpy().ravel()


def _outside(setting, place, eta):
    net, images, labels, _ = setting
    weights = mho.to_digital(net).state_dict()
    torch.save((weights, images, labels), place / "plain.pt")
    command = [sys.executable, "-c", SCRIPT, str(place / "plain.pt"), str(eta)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    return torch.tensor(json.loads(done.stdout))


def test_plain_weights_in_a_script_of_torch_alone_have_the_same_mean(setting, tmp_path):
    ours = torch.tensor(setting[3])
    outside = _outside(setting, tmp_path, ETA)
    # Chips are independent draws on both sides: four standard errors of the difference.
    error = float((ours.var() / len(ours) + outside.var() / len(outside)).sqrt())
    assert float(ours.mean()) > 85
    assert abs(float(ours.mean() - outside.mean())) < 4 * error
    louder = _outside(setting, tmp_path, 2 * ETA)
    assert float(ours.mean() - louder.mean()) > 4 * error
