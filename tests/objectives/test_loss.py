"""The loss as a whole: arguments, table, closed form, which passes it makes, and training with it."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_networks import NOISY, Digits, calibrated, mlp
from torch import Tensor, nn

import mho
from mho.errors import ConversionError, HardwareError, InputError, RecipeError
from mho.hardware import Adc, GenericCell, Hardware, Mapping, Neuron, PulsedDevice, SoftBounds, load_hardware
from mho.nn.site import analog_layers
from mho.objectives import PhysicsInformedLoss, jacobian
from mho.train.step import ModelLoss

DEVICE = PulsedDevice(response=SoftBounds(slope_up=1.2))
EVERYTHING = Hardware(
    name="everything",
    cell=GenericCell(programming_noise=0.05, bits=4),
    mapping=Mapping(scheme="signed"),
    adc=Adc(bits=8, range_sigma=2.5),
    neuron=Neuron(gain_neg=0.5, low=-0.4, high=0.8, soft=True),
)
ALL_ON = {
    "jacobian": 1e-3,
    "margin_noise": 1e-2,
    "levels": 1e-2,
    "range_filling": 1e-2,
    "neuron": 1e-2,
    "asymmetry": 1e-3,
    "power": 1e-2,
}


def _digits(hw: Hardware = EVERYTHING, **options: object) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    x, y = torch.randn(6, 1, 6, 6), torch.arange(6) % 5
    return calibrated(Digits().eval(), hw, x, clip_sigma=2.5, **options), x, y


# Arguments


@pytest.mark.parametrize("name", ALL_ON)
@pytest.mark.parametrize("value", [-1e-3, float("nan"), float("inf"), "1", True])
def test_impossible_weights_are_refused(name: str, value: object) -> None:
    with pytest.raises(RecipeError, match=rf"PhysicsInformedLoss: {name} = .*Fix: a finite weight >= 0"):
        PhysicsInformedLoss(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "crossentropy"}, r"task = 'crossentropy' is unknown. Did you mean 'cross_entropy'\?"),
        ({"task": 3}, r"task = 3. Fix: 'cross_entropy' or 'mse' or a function"),
        ({"jacobian_estimator": "exakt"}, r"jacobian_estimator = 'exakt' is unknown. Did you mean 'exact'\?"),
        ({"neuron_line": "straight"}, r"neuron_line = 'straight' is unknown. "),
        ({"jacobian_norm": "L2"}, r"jacobian_norm = 'L2' is unknown. "),
        ({"jacobian_norm": "l1"}, r"unbiased for squares only. Fix: jacobian_estimator = 'margin'"),
        ({"projections": 0}, r"projections = 0. Fix: a whole number, at least 1"),
        ({"projections": 1.5}, r"projections = 1.5. Fix"),
        ({"range_target": 1.2}, r"range_target = 1.2. Fix: above 0, at most 1"),
        ({"levels_schedule": "linaer"}, r"levels_schedule = 'linaer' is unknown. Did you mean 'linear'"),
        ({"levels_schedule": 1.0}, r"levels_schedule = 1.0. Fix: 'constant' or 'linear' or 'late' or a function"),
        ({"label_smoothing": 1.0}, r"label_smoothing = 1.0. Fix: at least 0 and below 1"),
        ({"task": "mse", "label_smoothing": 0.1}, r"label_smoothing = 0.1 with task = 'mse'.*Fix: task = 'cross"),
    ],
)  # fmt: skip
def test_impossible_arguments_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        PhysicsInformedLoss(**arguments)


def test_progress_is_a_share_and_a_schedule_is_checked_when_used() -> None:
    loss = PhysicsInformedLoss(levels=1.0, levels_schedule=lambda share: -share)
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(RecipeError, match=r"progress = .*Fix: the share of steps done, 0 to 1"):
            loss.set_progress(share)
    model, x, y = _digits()
    with pytest.raises(RecipeError, match=r"levels_schedule\(1\) = -1.0. Fix: a finite factor >= 0"):
        loss.on_model(model, x, y)


@pytest.mark.parametrize("name", [n for n in ALL_ON if n != "jacobian"])
def test_a_digital_network_has_no_property_of_hardware(name: str) -> None:
    loss = PhysicsInformedLoss(device=DEVICE, **{name: 1.0})  # type: ignore[arg-type]
    with pytest.raises(ConversionError, match=rf"{name!r} is a property of one. Way out: mho.convert.*, or {name} = 0"):
        loss.on_model(mlp(), torch.randn(3, 6), torch.arange(3))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("levels", "no bit depth in the hardware"),
        ("neuron", "no analog neuron in the hardware"),
        ("asymmetry", "conv.weight: asymmetry needs to know"),
    ],
)
def test_hardware_that_lacks_what_a_term_needs(name: str, message: str) -> None:
    model, x, y = _digits(NOISY)
    with pytest.raises(HardwareError, match=message):
        PhysicsInformedLoss(**{name: 1.0}).on_model(model, x, y)  # type: ignore[arg-type]


def test_inputs_that_have_no_slope() -> None:
    model = nn.Sequential(nn.Embedding(5, 6), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(InputError, match=r"the input is torch.int64, and df/dx needs real numbers. Fix: x.float\(\)"):
        PhysicsInformedLoss(jacobian=1.0).on_model(model, torch.zeros(2, 2, dtype=torch.long), torch.arange(2))
    with pytest.raises(InputError, match=r"outputs of shape \(4,\) have no batch of vectors. Fix: \[batch, outputs\]"):
        PhysicsInformedLoss("mse", jacobian=1.0).on_model(nn.Flatten(0), torch.randn(4), torch.zeros(4))


def test_a_noisy_backward_pass_has_no_second_derivative() -> None:
    model, x, y = _digits(backward="noisy")
    loss = PhysicsInformedLoss(jacobian=1.0)
    loss.on_model(model, x, y)  # in eval mode nothing is noisy
    with pytest.raises(ConversionError, match=r"conv.weight: jacobian differentiates the backward.*backward='ideal'"):
        loss.on_model(model.train(), x, y)


def test_a_compiled_network_cannot_be_looked_into() -> None:
    model, x, y = _digits()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="PhysicsInformedLoss cannot look into a compiled network"):
        PhysicsInformedLoss(margin_noise=1.0).on_model(compiled, x, y)
    torch._dynamo.reset()


# What it is


def test_it_is_what_fit_asks_for() -> None:
    assert isinstance(PhysicsInformedLoss(), ModelLoss)


def test_the_table_lists_every_term_with_weight_unit_and_cost() -> None:
    text = PhysicsInformedLoss(jacobian=1e-3, projections=3, levels=1e-4).describe()
    lines = {line.split()[0]: line for line in text.splitlines()}
    assert list(lines) == ["term", "task", *ALL_ON]
    assert "3 backward with a graph" in lines["jacobian"] and "0.001" in lines["jacobian"]
    assert "off" in lines["power"] and "uW a cell" in lines["power"]
    assert "level step^2" in lines["levels"] and "weights only" in lines["levels"]
    margin = PhysicsInformedLoss(jacobian=1.0, jacobian_estimator="margin", jacobian_norm="l1").describe()
    assert "sum |dm/dx| (margin)" in margin and "(logit/input)" in margin


def test_a_symmetric_line_asks_more_of_a_neuron_with_unequal_gains_alone() -> None:
    model, x, y = _digits()
    own = PhysicsInformedLoss(neuron=1.0).terms(model, x, y)["neuron"]
    symmetric = PhysicsInformedLoss(neuron=1.0, neuron_line="symmetric")
    assert float(symmetric.terms(model, x, y)["neuron"]) > 1.5 * float(own)
    assert "symmetric line" in symmetric.describe()
    equal, x, y = _digits(EVERYTHING.replace(neuron=Neuron(low=-0.4, high=0.8, soft=True)))
    found = (PhysicsInformedLoss(neuron=1.0, neuron_line=line).terms(equal, x, y)["neuron"]
             for line in ("own", "symmetric"))  # type: ignore[arg-type]  # fmt: skip
    torch.testing.assert_close(*found)


def test_without_terms_it_is_the_task() -> None:
    model, x, y = _digits()
    torch.testing.assert_close(PhysicsInformedLoss().on_model(model, x, y), F.cross_entropy(model(x), y))
    smooth = PhysicsInformedLoss(label_smoothing=0.1).on_model(model, x, y)
    torch.testing.assert_close(smooth, F.cross_entropy(model(x), y, label_smoothing=0.1))
    own = PhysicsInformedLoss(lambda outputs, target: outputs[target].sum())
    torch.testing.assert_close(own.on_model(model, x, y), model(x)[y].sum())


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    model, x, y = _digits()
    loss = PhysicsInformedLoss(device=DEVICE, jacobian_estimator="exact", **ALL_ON)  # type: ignore[arg-type]
    loss.set_progress(0.5)
    values = loss.terms(model, x, y)
    assert set(values) == {"task", *ALL_ON}
    assert all(v.shape == () and not v.requires_grad and float(v) > 0 for v in values.values())
    factors = {**ALL_ON, "task": 1.0, "levels": 0.5 * ALL_ON["levels"]}
    torch.testing.assert_close(loss.on_model(model, x, y), sum(factors[k] * v for k, v in values.items()))


def test_a_term_that_is_off_costs_nothing_and_one_alone_is_reported_alone() -> None:
    model, x, y = _digits()
    for name, weight in ALL_ON.items():
        loss = PhysicsInformedLoss(device=DEVICE, **{name: weight})  # type: ignore[arg-type]
        passes = []
        handle = model.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        assert set(loss.terms(model, x, y)) == {"task", name}
        handle.remove()
        assert len(passes) == 1


def test_terms_do_not_need_a_graph_of_the_caller() -> None:
    model, x, y = _digits()
    loss = PhysicsInformedLoss(device=DEVICE, jacobian_estimator="margin", **ALL_ON)  # type: ignore[arg-type]
    with torch.no_grad():
        quiet = loss.terms(model, x, y)
    torch.testing.assert_close(quiet, loss.terms(model, x, y))
    assert not x.requires_grad


def test_random_directions_follow_torchs_seed() -> None:
    model, x, y = _digits()
    loss, values = PhysicsInformedLoss(jacobian=1.0), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        values.append(float(loss.terms(model, x, y)["jacobian"]))
    assert values[0] == values[1] != values[2]


# The formula 1/N sum [ 1/2 (y - f)^2 + lam |df/dx| ]


def test_closed_form_on_a_linear_network() -> None:
    torch.manual_seed(0)
    net = nn.Linear(7, 1).double()
    x, y = torch.randn(9, 7, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    w = net.weight.detach()
    error = net(x).detach() - y
    data_slope = (error.T @ x) / 9
    for norm, size, slope in (("l1", w.abs().sum(), w.sign()), ("l2", w.square().sum(), 2 * w)):
        loss = PhysicsInformedLoss.input_sensitivity(0.3, norm=norm)  # type: ignore[arg-type]
        value = loss.on_model(net, x, y)
        wanted = 0.5 * error.square().mean() + 0.3 * size
        torch.testing.assert_close(value.detach(), wanted, rtol=0, atol=10 * jacobian.SMOOTHING)
        (found,) = torch.autograd.grad(value, net.weight)
        torch.testing.assert_close(found, data_slope + 0.3 * slope, rtol=0, atol=1e-6)


def test_closed_form_sums_over_outputs() -> None:
    net = nn.Linear(4, 3).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    found = PhysicsInformedLoss.input_sensitivity(0.7).terms(net, x, y)
    torch.testing.assert_close(found["jacobian"], net.weight.detach().abs().sum(), rtol=0, atol=1e-4)
    torch.testing.assert_close(found["task"], 0.5 * (net(x).detach() - y).square().sum(1).mean())


# Training


def _batches(count: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(3)
    return [(torch.randn(16, 1, 6, 6, generator=g), torch.randint(5, (16,), generator=g)) for _ in range(count)]


@pytest.mark.parametrize("ranges", ["calibrated", "learned"])
def test_fit_runs_with_every_term_on(ranges: str) -> None:
    torch.manual_seed(0)
    model = mho.convert(Digits(), EVERYTHING, clip_sigma=2.5, ranges=ranges)  # type: ignore[arg-type]
    before = copy.deepcopy(model.state_dict())
    history = mho.fit(model, _batches(4), loss=PhysicsInformedLoss(device=DEVICE, **ALL_ON), epochs=2)  # type: ignore[arg-type]
    assert (history.steps, history.refused) == (8, 0)
    assert all(bool(torch.isfinite(v).all()) for v in model.state_dict().values())
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(layer.substrate.simulated for _, layer in analog_layers(model))


@pytest.mark.parametrize("name", ["pcm-hermes", "reram-wan2022", "photonic-mzi", "sram-charge", "flash-sonos"])
def test_steps_on_the_hardware_of_the_presets(name: str) -> None:
    torch.manual_seed(0)
    hw = load_hardware(name)
    model = mho.convert(Digits(), hw).train()
    levels = 1e-2 if hw.cell.bits or hw.mapping.bits_per_slice else 0.0
    loss = PhysicsInformedLoss(jacobian=1e-3, margin_noise=1e-3, levels=levels, range_filling=1e-2, power=1e-2)
    for x, y in _batches(2):
        loss.on_model(model, x, y).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    start = mho.convert(Digits(), EVERYTHING, clip_sigma=2.5)
    loss = PhysicsInformedLoss(jacobian=1e-2, margin_noise=1e-2)

    def run(model: nn.Module, **options: object) -> list[Tensor]:
        mho.fit(model, _batches(3), loss=loss, epochs=2, seed=1, **options)  # type: ignore[arg-type]
        return list(model.state_dict().values())

    whole = run(copy.deepcopy(start))

    def stop(step: int, value: float | None) -> None:
        if step == 4:
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run(copy.deepcopy(start), checkpoint=tmp_path, checkpoint_every=1, on_batch=stop)
    again = run(copy.deepcopy(start), checkpoint=tmp_path, resume=True)
    torch.testing.assert_close(again, whole, rtol=0, atol=0)


def test_the_room_names_what_it_has() -> None:
    import mho.objectives as room

    assert set(room.__all__) <= set(dir(room))
    assert all(getattr(room, name).__name__ == name for name in room.__all__)
    with pytest.raises(AttributeError, match=r"module 'mho.objectives' has no attribute 'Loss'; it has .*BetaNLL"):
        _ = room.Loss
