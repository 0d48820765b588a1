"""Training by equilibrium propagation: it learns, on chips too, and resumes to the same bits."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mho.data import Dataset, load_dataset
from mho.ebm import (
    Dense,
    Dynamics,
    EqPropLoss,
    HopfieldNet,
    Nudging,
    Relaxation,
    class_scores,
    conv_net,
    dense_net,
    eqprop_gradient,
    eqprop_optimizer,
    evaluate_on_chips,
    fit_eqprop,
    hopfield_resnet13,
    layer_groups,
    written_on_cells,
)
from mho.errors import HardwareError, InputError, TrainingError
from mho.hardware import ConstantStep, GenericCell, Hardware, Mapping, PulsedDevice
from mho.nn.site import bounded_parameters
from mho.train import AchievableUpdates

CHIP = Hardware(
    name="chip",
    cell=GenericCell(programming_noise=0.08, read_noise=0.01),
    mapping=Mapping(scheme="signed", per_column=True),
)
READS = Dynamics(bits=6, settle=6, reads=2)


def digits() -> Dataset:
    data = load_dataset("mnist-mini")
    return replace(data, mean=(0.0,), std=(1.0,))


def loss(hw: Hardware | None = None) -> EqPropLoss:
    how = Relaxation(8, None)
    return EqPropLoss(Nudging("centred", 0.5), free=how, nudged=how, hardware=hw, dynamics=READS if hw else None)


def percent(net: HopfieldNet, data: Dataset) -> float:
    scores, labels = class_scores(net, data.test_batches(500, subset=500))
    return 100 * float((scores.argmax(1) == labels).float().mean())


def same(a: HopfieldNet, b: HopfieldNet) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_it_learns_digits() -> None:
    data, net = digits(), dense_net(units=(64,))
    history = fit_eqprop(net, data.train_batches(20, subset=1000), loss(), epochs=2, lr=5e-3)
    assert history.epochs[-1].loss < 0.6 * history.epochs[0].loss
    assert percent(net, data) > 80


def test_it_learns_on_virtual_chips_and_keeps_its_accuracy_on_others() -> None:
    data, net = digits(), dense_net(units=(64,), bound_sigma=2.5)
    fit_eqprop(net, data.train_batches(20, subset=1000), loss(CHIP), epochs=2, lr=5e-3)
    result = evaluate_on_chips(net, list(data.test_batches(500, subset=500)), CHIP, chips=3, dynamics=READS)
    assert result.data["correct"].shape == (1, 3, 1, 1, 1, 500)
    assert float(result.accuracy().mean()) > 75
    assert float(result.clean_accuracy().mean()) == pytest.approx(percent(net, data))
    for weight, bound in bounded_parameters(net):
        assert float(weight.detach().abs().max()) <= float(bound)


def test_a_broken_run_resumes_to_the_same_bits(tmp_path: Path) -> None:
    data = digits()

    def batches():  # type: ignore[no-untyped-def]
        return data.train_batches(50, seed=1, subset=400)

    whole = dense_net(units=(16,), bound_sigma=3.0)
    fit_eqprop(whole, batches(), loss(CHIP), epochs=3, seed=5)

    def stop(record) -> None:  # type: ignore[no-untyped-def]
        if record.epoch == 1:
            raise KeyboardInterrupt

    broken = dense_net(units=(16,), bound_sigma=3.0)
    with pytest.raises(KeyboardInterrupt):
        fit_eqprop(broken, batches(), loss(CHIP), epochs=3, seed=5, checkpoint=tmp_path, on_epoch=stop)
    again = dense_net(units=(16,), bound_sigma=3.0, seed=99)
    history = fit_eqprop(again, batches(), loss(CHIP), epochs=3, seed=5, checkpoint=tmp_path, resume=True)
    assert history.resumed_at is not None
    assert same(again, whole)


def test_each_step_is_another_chip_and_the_seed_decides_which() -> None:
    data = digits()
    nets = [dense_net(units=(16,)) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        fit_eqprop(net, data.train_batches(50, subset=200), loss(CHIP), epochs=1, seed=seed)
    assert same(nets[0], nets[1])
    assert not same(nets[0], nets[2])


def test_the_gradient_handed_to_fit_is_the_local_one() -> None:
    net, data = dense_net(units=(16,)), digits()
    x, y = next(iter(data.test_batches(20)))
    how = loss()
    how.on_model(net, x, y).backward()
    found = eqprop_gradient(net, x, y, nudging=how.nudging, free=how.free, nudged=how.nudged).gradients
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and torch.equal(parameter.grad, found[name])


def test_rates_of_layers_reach_their_layers() -> None:
    data, net = digits(), dense_net(units=(16,))
    before = [p.detach().clone() for p in net.parameters()]
    fit_eqprop(net, data.train_batches(50, subset=100), loss(), epochs=1, lr=(0.0, 1e-3))
    moved = [not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True)]
    assert moved == [name.startswith("layers.1") for name, _ in net.named_parameters()]


def test_cells_can_write_its_updates() -> None:
    data, net = digits(), dense_net(units=(32,))
    device = PulsedDevice(response=ConstantStep(), dw_min=0.002)
    optimizer = AchievableUpdates(torch.optim.SGD(layer_groups(net, 0.1), momentum=0.9), device, outside="clamp")
    history = fit_eqprop(net, data.train_batches(50, subset=1000), loss(), epochs=2, optimizer=optimizer)
    assert history.epochs[-1].loss < history.epochs[0].loss


def test_a_pulse_is_a_share_of_each_layers_own_full_scale() -> None:
    data, net = digits(), dense_net(units=(16,), bound_sigma=3.0)
    hw = replace(CHIP, update=PulsedDevice(response=ConstantStep(), dw_min=0.01, w_min=-0.5, w_max=0.5))
    optimizer = written_on_cells(net, torch.optim.SGD(layer_groups(net, 0.1)), hw)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    fit_eqprop(net, data.train_batches(50, subset=100), loss(hw), epochs=1, optimizer=optimizer)
    assert sorted(optimizer.counters) == ["layers.0.weight", "layers.1.weight"]
    for name, bound in net.full_scales.items():
        pulses = (dict(net.named_parameters())[name].detach() - before[name]) / (0.02 * bound)  # 0.01 of 0.5
        inside = before[name].abs() < 0.9 * bound
        assert float(pulses.abs().max()) > 0.9
        assert torch.allclose(pulses[inside], pulses[inside].round(), atol=2e-3), name
    assert not torch.equal(net.layers[1].bias.detach(), before["layers.1.bias"])
    with pytest.raises(HardwareError, match="chip: update"):
        written_on_cells(net, optimizer.inner, CHIP)
    with pytest.raises(InputError, match=r"bound_sigma=3\.0"):
        written_on_cells(dense_net(units=(16,)), optimizer.inner, hw)


def test_nesterov_momentum_is_that_of_torch() -> None:
    net = dense_net(units=(4,))
    found = eqprop_optimizer(net, 0.1, "sgd", nesterov=True, weight_decay=0.01)
    assert isinstance(found, torch.optim.SGD) and all(
        g["nesterov"] and g["momentum"] == 0.9 for g in found.param_groups
    )


def test_each_chip_is_told() -> None:
    net, told = dense_net(units=(8,)), []
    images = list(digits().test_batches(50, subset=50))
    at = {"noise_scales": (0.0, 1.0), "ages": ("1 day",), "chips": 2}
    evaluate_on_chips(net, images, CHIP, dynamics=READS, tell=lambda done, total: told.append((done, total)), **at)
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_fresh_reads_do_not_depend_on_the_other_chips() -> None:
    data, net = digits(), dense_net(units=(16,))
    images = list(data.test_batches(100, subset=100))
    two = evaluate_on_chips(net, images, CHIP, chips=2, dynamics=READS).data["correct"].to_numpy()
    three = evaluate_on_chips(net, images, CHIP, chips=3, dynamics=READS).data["correct"].to_numpy()
    assert (two == three[:, :2]).all()


@pytest.mark.parametrize("make", [conv_net, hopfield_resnet13])
def test_convolutional_networks_take_a_step_on_chips(make) -> None:  # type: ignore[no-untyped-def]
    small = {"channels": (4, 6)} if make is conv_net else {"channels": (2, 3, 4, 4)}
    net = make(bound_sigma=3.0, **small)
    before = [p.detach().clone() for p in net.parameters()]
    x, y = torch.rand(4, *net.shapes[0]), torch.tensor([1, 2, 3, 0])
    how = loss(CHIP)
    value = how.on_model(net, x, y)
    value.backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert bool(torch.isfinite(value.detach()))
    assert all(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert net.shapes[-1] == (10,)
    if make is hopfield_resnet13:
        assert sum(name.endswith(("weight", "skip")) for name, _ in net.named_parameters()) == 13


def test_misuse_is_said() -> None:
    data, net = digits(), dense_net(units=(8,))
    with pytest.raises(TrainingError, match="2 layers"):
        fit_eqprop(net, data.train_batches(50, subset=100), loss(), lr=(0.1, 0.1, 0.1))
    with pytest.raises(TrainingError, match="optimizer = 'lion'"):
        fit_eqprop(net, data.train_batches(50, subset=100), loss(), optimizer="lion")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is no HopfieldNet"):
        loss().on_model(torch.nn.Linear(2, 2), torch.ones(1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(InputError, match="bound_sigma"):
        HopfieldNet((4,), (Dense(units=2),), bound_sigma=0.0)
    with pytest.raises(InputError, match="no batch"):
        class_scores(net, [])
