"""AchievableUpdates as an optimizer: what stands on cells, what is counted and reported, what is refused."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

import mho
from mho.errors import CheckpointError, HardwareError, InputError, NonFiniteError, TrainingError
from mho.hardware import GenericCell, Hardware, Mapping, PowerStep, PulsedDevice, SoftBounds
from mho.train import AchievableUpdates
from mho.train.pack import pack, unpack

DEVICE = PulsedDevice(
    response=SoftBounds(slope_up=1.25, slope_down=0.75),
    dw_min=0.002,
    c2c=0.2,
    d2d=0.1,
    d2d_asymmetry=0.05,
    d2d_bounds=0.05,
    pulse_energy_pJ=2.0,
)
HW = Hardware(name="pulsed", cell=GenericCell(), mapping=Mapping(scheme="signed"), update=DEVICE)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def train(model: nn.Module, opt: torch.optim.Optimizer, steps: int = 5, start: int = 0) -> None:
    for k in range(start, start + steps):
        generator = torch.Generator().manual_seed(k)
        x, y = torch.randn(16, 6, generator=generator), torch.randint(0, 3, (16,), generator=generator)
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_exact_is_the_plain_optimizer_to_the_bit(kind: type[torch.optim.Optimizer]) -> None:
    plain, wrapped = net(), net()
    train(plain, kind(plain.parameters(), lr=0.01))  # type: ignore[call-arg]
    opt = AchievableUpdates(kind(wrapped.parameters(), lr=0.01), PulsedDevice(w_min=-9, w_max=9), rule="exact")  # type: ignore[call-arg]
    train(wrapped, opt)
    assert same(weights(plain), weights(wrapped))
    report = opt.report()
    assert report.writes == 5 * (48 + 24)
    assert report.pulses == 0
    assert report.energy_uJ is None


def test_only_matrices_stand_on_cells_without_a_model() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.named_parameters(), lr=0.1), DEVICE)
    report = opt.report()
    assert [b.name for b in report.blocks] == ["0.weight", "3.weight"]
    assert report.digital == ("0.bias", "1.weight", "1.bias", "3.bias")
    unnamed = AchievableUpdates(torch.optim.SGD(net().parameters(), lr=0.1), DEVICE).report()
    assert [b.name for b in unnamed.blocks] == ["0.0", "0.4"]


def test_digital_parameters_step_as_in_the_plain_optimizer() -> None:
    plain, wrapped = net(), net()
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.05), steps=1)
    train(wrapped, AchievableUpdates(torch.optim.SGD(wrapped.parameters(), lr=0.05), DEVICE), steps=1)
    for (name, a), b in zip(plain.named_parameters(), wrapped.parameters(), strict=True):
        assert torch.equal(a, b) == (a.dim() < 2), name


def test_the_bound_of_a_layer_is_the_bound_of_the_device() -> None:
    analog = mho.convert(nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 3)), HW, clip_sigma=1.5, where=["0"])
    mho.nn.project_(analog)  # type: ignore[attr-defined]
    nominal = PulsedDevice(dw_min=0.001, w_min=-0.5, w_max=0.8, c2c=0.0)
    opt = AchievableUpdates(torch.optim.SGD(analog.parameters(), lr=0.5), nominal, model=analog)
    (block,) = opt.report().blocks
    bound = float(analog[0].weight_bound)  # type: ignore[index]
    assert block.name == "0.weight"
    assert block.scale == pytest.approx(bound / 0.5)
    assert block.outside == 0
    assert opt.report().digital == ("0.bias", "1.weight", "1.bias")
    before = analog[0].weight.detach().clone()  # type: ignore[index]
    for p in analog.parameters():
        p.grad = torch.full_like(p, 0.01)
    opt.step()
    pulses = (analog[0].weight.detach() - before) / (0.001 * bound / 0.5)  # type: ignore[index]
    inside = before > -0.9 * bound
    assert torch.allclose(pulses[inside], pulses[inside].round(), atol=1e-3)
    assert float(pulses.abs().max()) >= 1.0
    for p in analog.parameters():
        p.grad = torch.full_like(p, -100.0)
    opt.step()
    assert float(analog[0].weight.detach().max()) == bound  # type: ignore[index]


def test_a_bound_a_column_is_a_scale_a_column() -> None:
    hw = HW.replace(mapping=Mapping(scheme="signed", per_column=True), update=PulsedDevice(dw_min=0.01))
    analog = mho.convert(nn.Sequential(nn.Linear(6, 8)), hw, clip_sigma=1.5)
    mho.nn.project_(analog)  # type: ignore[attr-defined]
    layer = analog[0]  # type: ignore[index]
    opt = AchievableUpdates(torch.optim.SGD([layer.weight], lr=1.0), hw, model=analog)
    before = layer.weight.detach().clone()
    layer.weight.grad = 0.02 * before.sign()
    opt.step()
    unit = 0.01 * layer.weight_bound[:, None] / 0.6
    pulses = (layer.weight.detach() - before) / unit
    assert torch.allclose(pulses, pulses.round(), atol=1e-3)
    assert float(pulses.abs().min()) >= 1.0


@pytest.mark.parametrize("rule", ["pulses", "threshold", "exact"])
def test_training_with_every_rule_learns_and_stays_in_bounds(rule: str) -> None:
    device = PulsedDevice(response=SoftBounds(), dw_min=0.002, c2c=0.3, d2d=0.1, write_noise=0.002)
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.3), device, rule=rule)  # type: ignore[arg-type]
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    y = x[:, :3].argmax(1)
    first = float(nn.functional.cross_entropy(model(x), y).detach())
    for _ in range(60):
        opt.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        opt.step()
    assert float(nn.functional.cross_entropy(model(x), y).detach()) < 0.6 * first
    assert float(model[0].weight.detach().abs().max()) <= 0.6  # type: ignore[operator]


def test_every_setting_of_the_device_changes_something() -> None:
    """A setting that changes nothing is a bug."""
    changes = {
        "dw_min": 0.003,
        "w_min": -0.5,
        "w_max": 0.7,
        "c2c": 0.1,
        "d2d": 0.2,
        "d2d_asymmetry": 0.0,
        "d2d_bounds": 0.1,
        "write_noise": 0.01,
        "pulse_limit": 1,
        "response": PowerStep(gamma_up=1.0, gamma_down=1.0),
    }
    base = DEVICE.__dict__
    results = [_trained(DEVICE)] + [_trained(PulsedDevice(**{**base, key: value})) for key, value in changes.items()]
    for i, a in enumerate(results):
        for b in results[:i]:
            assert not same(a, b)
    assert same(_trained(DEVICE), results[0])
    assert {*changes, "pulse_energy_pJ"} == set(base)


def _trained(device: PulsedDevice, **options: object) -> list[torch.Tensor]:
    model = net()
    train(model, AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1), device, **options))  # type: ignore[arg-type]
    return weights(model)


def test_options_and_seed_matter_and_global_randomness_does_not() -> None:
    one = _trained(DEVICE)
    for options in ({"seed": 1}, {"count": "state-aware"}, {"rounding": "nearest"}, {"rule": "exact"}):
        assert not same(one, _trained(DEVICE, **options)), options
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1), DEVICE)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    train(model, opt)
    assert same(one, weights(model))
    assert torch.equal(state, torch.get_rng_state())


def test_counters_and_energy_add_up() -> None:
    device = PulsedDevice(dw_min=0.01, pulse_energy_pJ=2.0, w_min=-1, w_max=1)
    p = nn.Parameter(torch.zeros(2, 2))
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), device)
    assert math.isnan(opt.report().written)
    for _ in range(3):
        p.grad = torch.tensor([[-0.05, 0.0], [0.02, 0.0]])
        opt.step()
    writes, pulses = opt.counters["0.0"]
    assert writes.tolist() == [[3, 0], [3, 0]]
    assert abs(pulses - torch.tensor([[15, 0], [6, 0]])).max() <= 3  # 5.0000001 pulses may be 6
    report = opt.report()
    assert (report.writes, report.pulses, report.steps) == (6, int(pulses.sum()), 3)
    assert report.written == 0.5
    assert report.energy_uJ == pytest.approx(int(pulses.sum()) * 2e-6)
    assert torch.allclose(p.detach()[0, 0], torch.tensor(0.01) * pulses[0, 0], atol=1e-6)


def test_a_cut_train_is_counted() -> None:
    device = PulsedDevice(dw_min=0.01, pulse_limit=4, w_min=-1, w_max=1)
    p = nn.Parameter(torch.zeros(1, 3))
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), device)
    p.grad = torch.tensor([[-0.1005, 0.0195, 0.2005]])
    opt.step()
    assert torch.allclose(p.detach(), torch.tensor([[0.04, -0.02, -0.04]]), atol=0.0101)
    report = opt.report()
    assert report.capped == 2
    assert report.lost_pulses in (22, 23, 24)
    assert "cut by the pulse limit: 2 updates" in str(report)
    assert report.out_of_reach is None and "targets out of reach: not counted" in str(report)  # nominal: none is read
    soft = PulsedDevice(response=SoftBounds(), dw_min=0.01)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=1.0), soft, count="state-aware")
    p.grad = torch.tensor([[-9.0, 0.001, 9.0]])
    opt.step()
    assert opt.report().out_of_reach == 2 and "targets out of reach: 2" in str(opt.report())


def test_report_before_training() -> None:
    report = AchievableUpdates(torch.optim.SGD(net().parameters(), lr=0.1), HW).report()
    facts = report.device
    assert facts.symmetry_point == pytest.approx((1.25 - 0.75) / (2.0 / 0.6))
    assert facts.states == pytest.approx(1.2 / 0.002)
    assert facts.asymmetry[1] == pytest.approx(0.25)
    # The tilt of one standard deviation, to first order: up = 1.25 (1 + t), down = 0.75 (1 - t).
    assert facts.symmetry_point_d2d is not None
    slope = 0.6 * (((1.25 * 1.05 - 0.75 * 0.95) / (1.25 * 1.05 + 0.75 * 0.95)) - 0.25)
    assert facts.symmetry_point_d2d == pytest.approx(slope, rel=0.3)
    text = str(report)
    for word in (
        "soft-bounds",
        "symmetry point 0.15",
        "600 states",
        "0.0",
        "digital: 0.1, 0.2",
        "rule pulses, 0 steps",
    ):
        assert word in text
    even = AchievableUpdates(torch.optim.SGD(net().parameters(), lr=0.1), PulsedDevice()).report()
    assert even.device.symmetry_point is None
    assert "symmetry point none" in str(even)
    assert "not known" in str(even)


def test_state_goes_through_a_checkpoint_to_the_same_bits() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), DEVICE)
    train(model, opt, 3)
    text, tensors = pack(opt.state_dict())
    stored = {k: v.clone() for k, v in tensors.items()}
    middle = copy.deepcopy(model)
    train(model, opt, 4, start=3)
    again = AchievableUpdates(torch.optim.SGD(middle.parameters(), lr=0.7), DEVICE)
    again.load_state_dict(unpack(text, stored))
    assert again.param_groups[0]["lr"] == again.inner.param_groups[0]["lr"] == 0.1
    train(middle, again, 4, start=3)
    assert same(weights(model), weights(middle))
    assert again.report() == opt.report()


def test_cells_come_from_the_state_not_from_the_seed_again() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.named_parameters(), lr=0.1), DEVICE)
    state = copy.deepcopy(opt.state_dict())
    for gain in ("gain_up", "gain_down"):
        state["achievable"]["cells"]["0.weight"]["cells"][gain].zero_()
    opt.load_state_dict(state)
    before = weights(model)
    train(model, opt, 1)
    assert torch.equal(before[0], model[0].weight)  # type: ignore[arg-type]
    assert not torch.equal(before[4], model[3].weight)  # type: ignore[arg-type]


def test_copies_keep_their_cells() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1), DEVICE)
    train(model, opt, 2)
    for twin_model, twin in (copy.deepcopy((model, opt)), pickle.loads(pickle.dumps((model, opt)))):
        train(twin_model, twin, 2, start=2)
        assert twin.report().steps == 4
        copied = weights(twin_model)
    train(model, opt, 2, start=2)
    assert same(copied, weights(model))


def test_schedulers_and_learning_rates_reach_the_inner_optimizer() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1), DEVICE)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, 1, gamma=0.0)
    train(model, opt, 1)
    scheduler.step()
    before = weights(model)
    train(model, opt, 1, start=1)
    assert opt.inner.param_groups[0]["lr"] == 0.0
    assert same(before, weights(model))


def test_closures_work_and_return_the_loss() -> None:
    p = nn.Parameter(torch.full((1, 4), 0.3))
    opt = AchievableUpdates(torch.optim.LBFGS([p], lr=0.5), PulsedDevice(dw_min=0.001))

    def closure() -> torch.Tensor:
        opt.zero_grad()
        loss = (p - 0.1).square().sum()
        loss.backward()
        return loss

    assert float(opt.step(closure).detach()) == pytest.approx(0.16)
    assert float(p.detach().mean()) == pytest.approx(0.1, abs=0.01)
    steps = p.detach() / 0.001
    assert torch.allclose(steps, steps.round(), atol=1e-3)

    def bad() -> torch.Tensor:
        loss = (p * float("nan")).sum()
        loss.backward()
        return loss

    before = p.detach().clone()
    with pytest.raises(NonFiniteError, match="no cell was written"):
        opt.step(bad)
    assert torch.equal(p.detach(), before)


def test_a_step_with_a_gradient_that_is_no_number_writes_nothing() -> None:
    model = net()
    opt = AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), DEVICE)
    train(model, opt, 1)
    before, report, state = weights(model), opt.report(), copy.deepcopy(opt.state_dict())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    next(model.parameters()).grad[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(NonFiniteError, match=r"NaN or infinite; no cell was written\. Fix"):
        opt.step()
    assert same(before, weights(model))
    assert opt.report() == report
    assert pack(opt.state_dict())[0] == pack(state)[0]


def test_weights_outside_their_cells() -> None:
    p = nn.Parameter(torch.tensor([[0.2, 0.9, -0.7]]))
    with pytest.raises(HardwareError, match=r"2 of 3 weights of 0\.0 lie beyond.*Fix: outside='clamp'"):
        AchievableUpdates(torch.optim.SGD([p], lr=0.1), PulsedDevice())
    assert p.tolist()[0][1] == pytest.approx(0.9)
    opt = AchievableUpdates(torch.optim.SGD([p], lr=0.1), PulsedDevice(), outside="clamp")
    assert torch.equal(p.detach(), torch.tensor([[0.2, 0.6, -0.6]]))
    assert opt.report().blocks[0].outside == 2


def test_mistakes_are_named() -> None:
    model = net()
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(HardwareError, match=r"Hardware 'generic'\.update = None.*\[update\]"):
        AchievableUpdates(sgd, mho.load_hardware("generic"))
    with pytest.raises(HardwareError, match=r"write_noise = 0\.0: the threshold is the write noise"):
        AchievableUpdates(sgd, PulsedDevice(), rule="threshold")
    with pytest.raises(InputError, match=r"rule = 'pulse'\. Fix: Did you mean 'pulses'"):
        AchievableUpdates(sgd, PulsedDevice(), rule="pulse")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"count = 'aware'.*'state-aware'"):
        AchievableUpdates(sgd, PulsedDevice(), count="aware")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the model has no analog layer"):
        AchievableUpdates(sgd, PulsedDevice(), model=model)
    with pytest.raises(InputError, match="no parameter of the optimizer stands on a cell"):
        AchievableUpdates(torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1), PulsedDevice())
    with pytest.raises(HardwareError, match="weights of both signs"):
        AchievableUpdates(sgd, PulsedDevice(w_min=0.0))
    half = nn.Parameter(torch.zeros(2, 2, dtype=torch.bfloat16))
    with pytest.raises(InputError, match=r"bfloat16.*Fix: keep weights in float32"):
        AchievableUpdates(torch.optim.SGD([half], lr=0.1), PulsedDevice())
    opt = AchievableUpdates(sgd, PulsedDevice())
    with pytest.raises(TrainingError, match="add it to the inner optimizer"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(2, 2))]})


def test_states_of_others_are_refused() -> None:
    def wrapped(model: nn.Module, device: PulsedDevice = DEVICE, **options: object) -> AchievableUpdates:
        return AchievableUpdates(torch.optim.SGD(model.parameters(), lr=0.1), device, **options)  # type: ignore[arg-type]

    state = wrapped(net()).state_dict()
    with pytest.raises(CheckpointError, match="the state holds no cells"):
        wrapped(net()).load_state_dict(torch.optim.SGD(net().parameters(), lr=0.1).state_dict())
    with pytest.raises(CheckpointError, match="another run: seed was 0 and is 3"):
        wrapped(net(), seed=3).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"device was .*dw_min=0\.002.* and is .*dw_min=0\.001"):
        wrapped(net(), PulsedDevice()).load_state_dict(state)
    with pytest.raises(CheckpointError, match=r"the state has cells .*\(8, 6\)"):
        wrapped(nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 3))).load_state_dict(state)
