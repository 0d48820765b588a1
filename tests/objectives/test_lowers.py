"""Each term, switched on alone, lowers its own measure against the task alone: short runs on real digits."""

import copy
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mho
from mho.hardware import Adc, GenericCell, Hardware, Mapping, Neuron, PulsedDevice, SoftBounds
from mho.models import build
from mho.objectives import PhysicsInformedLoss

DEVICE = PulsedDevice(response=SoftBounds())
HW = Hardware(
    name="small",
    cell=GenericCell(programming_noise=0.03, bits=4),
    mapping=Mapping(),
    adc=Adc(bits=8, range_sigma=2.5),
    neuron=Neuron(gain_neg=0.5, low=-0.4, high=0.8, soft=True),
)
TERMS: dict[str, tuple[float, dict[str, Any], float]] = {
    # weight, other arguments, most that may be left of the measure
    "jacobian": (0.3, {}, 0.8),
    "jacobian exact": (0.3, {"jacobian_estimator": "exact"}, 0.8),
    "jacobian margin": (1.0, {"jacobian_estimator": "margin"}, 0.8),
    "jacobian margin l1": (0.03, {"jacobian_estimator": "margin", "jacobian_norm": "l1"}, 0.8),
    "margin_noise": (30.0, {}, 0.6),
    "levels": (3.0, {}, 0.6),
    "range_filling": (10.0, {"range_target": 0.8}, 0.2),
    "neuron": (0.3, {}, 0.8),
    "asymmetry": (1.0, {"device": DEVICE}, 0.5),
    "power": (3.0, {}, 0.6),
}


@cache
def _data() -> tuple[list[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]:
    data = mho.load_dataset("mnist-mini")
    train = [batch for _, batch in zip(range(25), data.train_batches(64, seed=0), strict=False)]
    return train, next(iter(data.test_batches(300)))


@cache
def _start() -> nn.Module:
    torch.manual_seed(0)
    return mho.convert(build("mlp", sizes=[784, 24, 10]), HW, clip_sigma=3.0)


def _trained(loss: PhysicsInformedLoss) -> nn.Module:
    model = copy.deepcopy(_start())
    mho.fit(model, _data()[0], loss=loss, epochs=2, seed=1, optimizer=torch.optim.Adam(model.parameters(), lr=4e-3))
    return model.eval()


@cache
def _plain() -> nn.Module:
    return _trained(PhysicsInformedLoss())


def _accuracy(model: nn.Module) -> float:
    x, y = _data()[1]
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


@pytest.mark.parametrize("case", TERMS)
def test_a_term_lowers_what_it_measures(case: str) -> None:
    weight, options, left = TERMS[case]
    name = case.split()[0]
    loss = PhysicsInformedLoss(**{name: weight}, levels_schedule="constant", **options)
    # Random directions would blur the comparison.
    measure = PhysicsInformedLoss(**{name: weight}, **{"jacobian_estimator": "exact", **options})
    x, y = _data()[1]
    without = float(measure.terms(_plain(), x, y)[name])
    model = _trained(loss)
    with_term = float(measure.terms(model, x, y)[name])
    assert with_term < left * without, f"{case}: {without:.4g} -> {with_term:.4g}"
    # It has not got there by giving up the task.
    assert _accuracy(model) > 0.7, _accuracy(model)
