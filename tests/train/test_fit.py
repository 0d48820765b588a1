"""The training loop on tiny problems: it learns, refuses bad steps, and leaves the outside world alone."""

import io
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mho
from mho import nn as analog
from mho.errors import InputError, RecipeError, TrainingError
from mho.hardware import GenericCell, Hardware, Mapping
from mho.train import EpochRecord, Recipe, TrainSettings, fit, load_checkpoint, make_optimizer
from mho.train.step import BufferGuard


class Blobs:
    """Two Gaussian classes; the batches of an epoch depend on the epoch alone."""

    def __init__(self, batches: int = 8, bad: tuple[int, ...] = ()) -> None:
        self.batches, self.bad, self.epoch = batches, bad, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        generator = torch.Generator().manual_seed(self.epoch)
        for index in range(self.batches):
            y = torch.randint(0, 2, (16,), generator=generator)
            x = torch.randn(16, 4, generator=generator) + 2.0 * y[:, None]
            if index in self.bad:
                x[3, 1] = float("nan")
            yield x, y


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def values(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("settings", [TrainSettings(), TrainSettings(optimizer="adamw", lr=0.02, ema_decay=0.9)])
def test_learns(settings: TrainSettings) -> None:
    model = net()
    history = fit(model, Blobs(), recipe=settings, epochs=5)
    x, y = next(iter(Blobs()))
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.9
    assert history.epochs[-1].loss < history.epochs[0].loss
    assert (history.steps, history.refused, len(history.epochs)) == (40, 0, 5)
    assert history.as_dict()["epochs"][2]["epoch"] == 2


def test_equals_a_hand_written_loop() -> None:
    a, b = net(), net()
    optimizer = torch.optim.SGD(b.parameters(), lr=0.05, momentum=0.9)
    fit(
        a,
        Blobs(),
        optimizer=torch.optim.SGD(a.parameters(), lr=0.05, momentum=0.9),
        loss=nn.CrossEntropyLoss(),
        epochs=2,
    )
    for epoch in range(2):
        loader = Blobs()
        loader.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(b(x), y).backward()
            optimizer.step()
    assert same(values(a), values(b))


def test_seed_decides_and_the_callers_generator_is_left_alone() -> None:
    def run(seed: int, drawn: int, **options: object) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.randn(drawn)
        before = torch.get_rng_state()
        fit(model, Blobs(), epochs=2, seed=seed, **options)  # type: ignore[arg-type]
        assert torch.equal(before, torch.get_rng_state())
        return values(model)

    first = run(0, 0)
    assert same(first, run(0, 5))
    assert not same(first, run(1, 0))
    assert same(first, run(0, 0, on_batch=lambda *_: torch.randn(3), on_epoch=lambda *_: torch.randn(3)))


def test_every_setting_changes_the_result() -> None:
    def run(**changes: object) -> dict[str, torch.Tensor]:
        model = net()
        fit(model, Blobs(), recipe=TrainSettings(epochs=2, **changes), teacher=net(3))  # type: ignore[arg-type]
        return values(model)

    base = run()
    for change in (
        {"optimizer": "adamw"},
        {"lr": 0.2},
        {"momentum": 0.5},
        {"weight_decay": 0.1},
        {"schedule": "cosine"},
        {"schedule": "constant"},
        {"label_smoothing": 0.0},
        {"ema_decay": 0.5},
        {"distill": 0.5},
    ):
        assert not same(base, run(**change)), change
    assert not same(run(distill=0.5), run(distill=0.5, distill_T=4.0))


def test_weight_decay_spares_vectors() -> None:
    groups = make_optimizer(net(), TrainSettings(weight_decay=0.1)).param_groups
    assert [(g["weight_decay"], len(g["params"])) for g in groups] == [(0.1, 2), (0.0, 4)]


@pytest.mark.parametrize("bad", [(0,), (2, 3), (7,)])
def test_nan_batch_changes_nothing(bad: tuple[int, ...]) -> None:
    model = net()
    seen: list[dict[str, torch.Tensor]] = []
    losses: list[float | None] = []

    def note(step: int, loss: float | None) -> None:
        seen.append(values(model))
        losses.append(loss)

    start = values(model)
    settings = TrainSettings(epochs=1, schedule="constant", lr=0.05)
    history = fit(model, Blobs(bad=bad), recipe=settings, on_batch=note)
    assert history.refused == history.epochs[0].refused == len(bad)
    for index in range(8):
        before = seen[index - 1] if index else start
        assert same(before, seen[index]) == (index in bad)
        assert (losses[index] is None) == (index in bad)
    assert all(v.isfinite().all() for v in values(model).values())


def test_without_the_guard_batch_norm_would_be_poisoned() -> None:
    model = net().train()
    guard = BufferGuard(model)
    guard.take()
    model(torch.full((4, 4), float("nan")))
    assert model[1].running_mean.isnan().any()
    guard.put_back()
    assert same(values(model), values(net()))


def test_infinite_gradient_is_refused() -> None:
    """sqrt at 0: the loss is finite, its gradient is not."""
    model = net()
    start = values(model)
    with pytest.raises(TrainingError, match=r"4 steps in a row refused .* Fix: look for NaN"):
        fit(model, Blobs(), loss=lambda out, y: (out * 0).sum().sqrt(), epochs=1, refuse_limit=4)
    assert same(start, values(model))


def test_ten_refused_in_a_row_stop_the_run() -> None:
    count: list[int] = []
    with pytest.raises(TrainingError, match="10 steps in a row"):
        fit(net(), Blobs(20, bad=tuple(range(4, 20))), epochs=1, on_batch=lambda step, _: count.append(step))
    assert len(count) == 13


def test_learning_rate_moves_and_comes_back() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    seen: list[float] = []

    def note(*_: object) -> None:
        seen.append(optimizer.param_groups[0]["lr"])

    fit(model, Blobs(), optimizer=optimizer, recipe=TrainSettings(schedule="cosine"), epochs=1, on_batch=note)
    assert seen[0] == 0.5
    assert seen[-1] == pytest.approx(0.0)
    assert seen == sorted(seen, reverse=True)
    assert optimizer.param_groups[0]["lr"] == 0.5
    seen.clear()
    fit(model, Blobs(), optimizer=optimizer, epochs=1, on_batch=note)
    assert seen == [0.5] * 8


def test_noise_ramp_reaches_the_layers_and_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    monkeypatch.setattr(analog, "set_noise_scale", lambda model, scale: scales.append(scale))
    fit(net(), Blobs(), recipe=TrainSettings(epochs=2, noise_scale=1.5, ramp_fraction=0.5))
    assert scales == pytest.approx([1.5 * min(1, s / 8) for s in range(16)] + [1.0])
    scales.clear()
    fit(net(), Blobs(), epochs=1)
    assert scales == []


def test_noise_levels_are_drawn_anew_at_each_step_and_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    scales: list[float] = []
    monkeypatch.setattr(analog, "set_noise_scale", lambda model, scale: scales.append(scale))
    settings = TrainSettings(epochs=2, noise_levels="uniform")
    fit(net(), Blobs(), recipe=settings, seed=3)
    first = scales.copy()
    assert len(set(first[:-1])) == 16 and all(0 <= s < 1.5 for s in first[:-1]) and first[-1] == 1.0
    scales.clear()
    fit(net(), Blobs(), recipe=settings, seed=3)
    assert scales == first


def test_bounded_weights_have_a_decay_of_their_own() -> None:
    model = mho.convert(net(), mho.load_hardware("generic"), clip_sigma=2.0, where=["0"])
    settings = TrainSettings(weight_decay=0.5, weight_decay_bounded=0.25)
    decay = {id(p): g["weight_decay"] for g in make_optimizer(model, settings).param_groups for p in g["params"]}
    assert decay[id(model[0].weight)] == 0.25
    assert {decay[id(p)] for p in model.parameters() if p.ndim < 2} == {0.0}
    others = [p for n, p in model.named_parameters() if p.ndim >= 2 and n != "0.weight"]
    assert others and {decay[id(p)] for p in others} == {0.5}
    same_for_all = make_optimizer(model, TrainSettings(weight_decay=0.5))
    assert {g["weight_decay"] for g in same_for_all.param_groups} == {0.5, 0.0}


def test_censored_noise_loses_its_upper_tail_in_training_only() -> None:
    hw = Hardware(name="h", cell=GenericCell(programming_noise=0.1), mapping=Mapping(scheme="signed"))
    model = mho.convert(nn.Sequential(nn.Linear(64, 64, bias=False)), hw)
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = 1.0

    def errors() -> torch.Tensor:
        model.train()
        seen = model(torch.eye(64)).detach().flatten() / 0.1
        return seen[1:]  # the first is the weight that sets full scale

    analog.set_censoring(model, 1.0)
    cut = errors()
    assert float(cut.max()) == pytest.approx(1.0, rel=1e-5) and float(cut.min()) < -2.5
    assert float((cut > 0.999).float().mean()) == pytest.approx(0.1587, abs=0.03)
    analog.set_censoring(model, None)
    assert float(errors().max()) > 2.5
    with pytest.raises(InputError, match="censoring limit"):
        analog.set_censoring(model, 0.0)


def test_censoring_is_for_the_run_alone() -> None:
    model = mho.convert(net(), mho.load_hardware("generic"))
    seen: list[float | None] = []
    substrate = next(analog.analog_layers(model))[1].substrate
    fit(model, Blobs(), recipe=TrainSettings(epochs=1, censor=1.5), on_batch=lambda *_: seen.append(substrate.censor))
    assert set(seen) == {1.5} and substrate.censor is None


def test_a_loss_with_a_schedule_is_told_how_far_the_run_is() -> None:
    class Scheduled:
        shares: ClassVar[list[float]] = []

        def set_progress(self, share: float) -> None:
            self.shares.append(share)

        def __call__(self, out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(out, y)

    fit(net(), Blobs(), loss=Scheduled(), epochs=2)
    assert Scheduled.shares == pytest.approx([s / 15 for s in range(16)])


def test_projection_follows_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def clamp(model: nn.Module) -> None:
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.1, 0.1)

    monkeypatch.setattr(analog, "project_", clamp)
    model = net()
    fit(model, Blobs(), recipe=TrainSettings(epochs=1, ema_decay=0.9))
    assert all(p.abs().max() <= 0.1 for p in model.parameters())


def test_average_is_what_remains() -> None:
    trail: list[dict[str, torch.Tensor]] = []
    model = net()
    settings = TrainSettings(epochs=1, ema_decay=0.5)
    fit(model, Blobs(), recipe=settings, on_batch=lambda *_: trail.append(values(model)))
    expected = trail[0]["0.weight"].double()
    for step, there in enumerate(trail[1:], 1):
        d = min(0.5, (1 + step) / (10 + step))
        expected = d * expected + (1 - d) * there["0.weight"].double()
    assert torch.allclose(model.state_dict()["0.weight"].double(), expected, atol=1e-6)
    assert torch.equal(model.state_dict()["1.num_batches_tracked"], torch.tensor(8))


def test_loss_that_reads_the_model() -> None:
    class Jacobian:
        def on_model(self, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            x = x.requires_grad_()
            out = model(x)
            (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
            return nn.functional.cross_entropy(out, y) + slope.square().mean()

    history = fit(net(), Blobs(), loss=Jacobian(), epochs=2)
    assert history.loss < history.epochs[0].loss
    with pytest.raises(TrainingError, match="distill"):
        fit(net(), Blobs(), loss=Jacobian(), recipe=TrainSettings(distill=0.5), teacher=net())


def test_any_torch_loader() -> None:
    x = torch.randn(32, 4)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=8, shuffle=True)
    assert fit(net(), loader, epochs=3).steps == 12


def test_callback_may_evaluate() -> None:
    model = net()
    records: list[EpochRecord] = []

    def check(record: EpochRecord) -> None:
        model.eval()
        records.append(record)

    modes: list[bool] = []
    fit(model, Blobs(), epochs=2, on_epoch=check, on_batch=lambda *_: (modes.append(model.training), model.eval()))
    assert all(modes)
    assert [r.epoch for r in records] == [0, 1]
    model.eval()
    fit(model, Blobs(), epochs=1)
    assert not model.training


def test_ctrl_c_saves_a_whole_step_and_resumes(tmp_path: Path) -> None:
    straight, broken = net(), net()
    fit(straight, Blobs(), epochs=2)

    def press(step: int, _: float | None) -> None:
        if step == 11:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(broken, Blobs(), epochs=2, checkpoint=tmp_path, on_batch=press)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = load_checkpoint(tmp_path)
    assert found is not None
    assert found.state["position"]["step"] == 11
    history = fit(broken, Blobs(), epochs=2, checkpoint=tmp_path, resume=True)
    assert history.resumed_at == 11
    assert same(values(straight), values(broken))


class Unsized:
    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return iter(Blobs())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loader": Unsized()}, "no length"),
        ({"loader": Blobs(0)}, "empty"),
        ({"loader": [torch.ones(2)]}, "pairs of tensors"),
        ({"epochs": 0}, "epochs = 0"),
        ({"resume": True}, "checkpoint=FOLDER"),
        ({"checkpoint_every": 0}, "checkpoint_every"),
        ({"recipe": TrainSettings(distill=0.5)}, "no teacher"),
        ({"loss": nn.CrossEntropyLoss(reduction="none")}, r"shape \[16\]"),
        ({"loss": lambda out, y: torch.ones(())}, "does not depend"),
        ({"model": nn.ReLU()}, "no trainable parameter"),
    ],
)
def test_wrong_use_is_answered(options: dict[str, object], words: str) -> None:
    options = {"model": net(), "loader": Blobs(), "epochs": 1, **options}
    with pytest.raises(TrainingError, match=words):
        fit(options.pop("model"), options.pop("loader"), **options)  # type: ignore[arg-type]


def test_recipe_by_name() -> None:
    with pytest.raises(RecipeError, match="hybrid"):
        fit(net(), Blobs(), recipe="hybird")
    bounded = mho.convert(net(), mho.load_hardware("generic"), clip_sigma=1.5)
    assert len(fit(bounded, Blobs(), recipe="hybrid", epochs=1).epochs) == 1
    assert len(fit(net(), Blobs(), recipe=Recipe(name="x", train=TrainSettings(epochs=2))).epochs) == 2


def test_shape_error_is_raised_at_once() -> None:
    model = mho.convert(nn.Linear(5, 2), mho.load_hardware("generic"))
    with pytest.raises((InputError, RuntimeError)):
        fit(model, Blobs(), epochs=1)


def test_nan_batch_on_an_analog_model() -> None:
    model = mho.convert(net(), mho.load_hardware("generic"), clip_sigma=2.0)
    seen = [values(model)]
    settings = TrainSettings(epochs=1, noise_scale=1.2, ramp_fraction=0.5)
    history = fit(model, Blobs(bad=(0, 5)), recipe=settings, on_batch=lambda *_: seen.append(values(model)))
    assert history.refused == 2
    assert [same(a, b) for a, b in pairwise(seen)] == [i in (0, 5) for i in range(8)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_only_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, pipe = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", screen)
    fit(net(), Blobs(), epochs=2, progress=True)
    assert "epoch 2/2" in screen.getvalue()
    assert "16/16" in screen.getvalue()
    monkeypatch.setattr(sys, "stderr", pipe)
    fit(net(), Blobs(), epochs=2, progress=True)
    assert pipe.getvalue() == ""


def test_an_overflow_inside_an_analog_network_is_a_refused_step() -> None:
    """A finite batch so large that a later layer overflows: refused and counted, like a NaN batch."""
    torch.manual_seed(0)
    model = mho.convert(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)), "generic")
    good = torch.randn(16, 4)
    batches = [(good, torch.arange(16) % 3), (good * 3e38, torch.arange(16) % 3)] * 2
    history = fit(model, batches, epochs=1)
    assert history.refused == 2
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
