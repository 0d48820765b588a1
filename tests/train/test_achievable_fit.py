"""AchievableUpdates inside mho.fit: the same bits after a break, refused steps, and few writes at no cost."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import mho
from mho.errors import CheckpointError
from mho.hardware import GenericCell, Hardware, Mapping, PulsedDevice, SoftBounds
from mho.models import build
from mho.train import AchievableUpdates, TrainSettings, fit

DEVICE = PulsedDevice(response=SoftBounds(), dw_min=0.002, c2c=0.2, d2d=0.1, d2d_bounds=0.05, write_noise=0.002)
HW = Hardware(name="pulsed", cell=GenericCell(programming_noise=0.02), mapping=Mapping(scheme="signed"), update=DEVICE)


class Blobs:
    """Two Gaussian classes; one batch may hold a NaN."""

    def __init__(self, bad: int | None = None) -> None:
        self.bad, self.epoch = bad, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.epoch)
        for index in range(8):
            y = torch.randint(0, 2, (16,), generator=generator)
            x = torch.randn(16, 4, generator=generator) + 2.0 * y[:, None]
            if index == self.bad:
                x[3, 1] = float("nan")
            yield x, y


class Stop(Exception):
    pass


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return mho.convert(model, HW, clip_sigma=2.0)


def wrapped(model: nn.Module, rule: str, **options: object) -> AchievableUpdates:
    inner = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    return AchievableUpdates(inner, HW, model=model, rule=rule, outside="clamp", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["pulses", "threshold", "exact"])
def test_resume_gives_the_same_bits(rule: str, tmp_path: Path) -> None:
    def run(folder: str, seed: int, stop: int | None) -> tuple[nn.Module, AchievableUpdates]:
        model = network(seed)
        opt = wrapped(model, rule)

        def watch(step: int, loss: float | None) -> None:
            if step == stop:
                raise Stop

        fit(
            model,
            Blobs(bad=5),
            recipe=TrainSettings(epochs=3, lr=0.05, ema_decay=None),
            optimizer=opt,
            checkpoint=tmp_path / folder,
            checkpoint_every=5,
            resume=True,
            on_batch=watch,
        )
        return model, opt

    whole, one = run("whole", 0, None)
    with pytest.raises(Stop):
        run("broken", 0, 13)
    # Another start: every bit must come from the checkpoint.
    resumed, two = run("broken", 1, None)
    a, b = whole.state_dict(), resumed.state_dict()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert one.report().writes == two.report().writes > 0
    assert all(torch.equal(one.counters[k].pulses, two.counters[k].pulses) for k in one.counters)
    assert one.report().steps == 3 * 7


def test_another_device_does_not_resume(tmp_path: Path) -> None:
    model = network()
    fit(model, Blobs(), epochs=1, optimizer=wrapped(model, "pulses"), checkpoint=tmp_path)
    again = wrapped(model, "threshold")
    with pytest.raises(CheckpointError, match="rule was 'pulses' and is 'threshold'"):
        fit(model, Blobs(), epochs=1, optimizer=again, checkpoint=tmp_path, resume=True)


def test_a_refused_step_writes_nothing() -> None:
    class OnlyNan(Blobs):
        def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            yield from ((x * float("nan"), y) for x, y in super().__iter__())

    model = network()
    opt = wrapped(model, "pulses")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    history = fit(model, OnlyNan(), epochs=1, optimizer=opt)
    assert history.refused == 8
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert (opt.report().steps, opt.report().writes) == (0, 0)


def test_the_loop_never_clips_what_the_cells_reached() -> None:
    """The bound of a layer is the bound of its cells, so that mho.fit's projection has nothing left to do."""
    model = network()
    opt = wrapped(model, "pulses")
    fit(model, Blobs(), epochs=2, optimizer=opt)
    before = [p.detach().clone() for p in model.parameters()]
    mho.nn.project_(model)  # type: ignore[attr-defined]
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def accuracy(model: nn.Module, data: object) -> float:
    model.eval()
    right = count = 0
    with torch.no_grad():
        for x, y in data:  # type: ignore[attr-defined]
            right += int((model(x).argmax(1) == y).sum())
            count += len(y)
    return 100.0 * right / count


@pytest.mark.slow
def test_threshold_writes_under_one_percent_at_no_cost_in_accuracy() -> None:
    data = mho.load_dataset("mnist-mini")
    found = {}
    for rule in ("exact", "threshold"):
        torch.manual_seed(0)
        model = build("lenet", width=8)
        device = PulsedDevice(w_min=-1.0, w_max=1.0, write_noise=0.01)
        inner = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
        opt = AchievableUpdates(inner, device, rule=rule)  # type: ignore[arg-type]
        fit(model, data.train_batches(128, seed=0), recipe=TrainSettings(epochs=6, lr=0.005), optimizer=opt)
        found[rule] = accuracy(model, data.test_batches(500)), opt.report().written
    assert found["exact"][1] > 0.9
    assert found["threshold"][1] < 0.01
    assert found["threshold"][0] > found["exact"][0] - 1.0
