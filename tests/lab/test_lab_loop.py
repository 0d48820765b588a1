"""Networks on devices: placement, products, gradients, training, deployment."""

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from lab_devices import HIDDEN, QUIET, SHEET, Scripted
from torch import nn

import mho
from mho.crossbar.ops import ConvOp, LinearOp
from mho.errors import ConversionError, NonFiniteError, RangeError
from mho.hardware import GenericCell, Mapping
from mho.lab import (
    DryRun,
    FeedbackAlignment,
    NodePerturbation,
    OnDevice,
    Session,
    Spsa,
    VirtualDevice,
    deploy,
    find_dead_lines,
    fit_affine,
    fit_in_the_loop,
    fit_layer_by_layer,
    fit_low_rank,
    place,
    recalibrate_norms,
    samples_needed,
)
from mho.lab.chip_twin import ChipTwin
from mho.lab.columns import Columns, ColumnStream
from mho.lab.gradient import EstimatedLoss, gradient_cosine
from mho.lab.protocol import CellStatus
from mho.lab.vectors import from_vectors, matrix, to_vectors
from mho.nn.site import analog_layers, substituted
from mho.train import TrainSettings

LOSS = partial(F.cross_entropy, reduction="none")


def dense(seed: int = 0, sizes: tuple[int, ...] = (20, 12, 3)) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def clouds(n: int = 96, classes: int = 3, inputs: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Well-separated Gaussian clouds."""
    g = torch.Generator().manual_seed(1)
    centres = torch.randn(classes, inputs, generator=g)
    y = torch.arange(n) % classes
    return centres[y] + 0.5 * torch.randn(n, inputs, generator=g), y


def converted(hardware=SHEET, network: nn.Module | None = None) -> nn.Module:
    analog = mho.convert(network or dense(), hardware)
    return mho.calibrate(analog, [clouds()[0]]).eval()


def test_a_quiet_device_gives_the_products_of_the_digital_network() -> None:
    net, x = dense(), clouds()[0]
    out = deploy(mho.convert(net, QUIET), VirtualDevice(QUIET, 1))(x)
    assert torch.allclose(out, net(x), atol=1e-4)


def test_cells_of_one_sign_take_two_columns_an_output() -> None:
    net, x = dense(), clouds()[0]
    analog = mho.convert(net, QUIET)
    can = replace(VirtualDevice(QUIET, 1).capabilities(), signed=False, g_min_uS=1.0)
    placement = place(analog, can)
    first = placement.patches["0.weight"]
    assert [(p.inputs, p.outputs) for p in first[:3]] == [((0, 10), (0, 4)), ((0, 10), (4, 8)), ((0, 10), (8, 12))]
    out = deploy(analog, DryRun(can))(x)
    assert torch.allclose(out, net(x), atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"dilation": 2, "padding": (0, 2)}])
def test_convolutions_are_driven_vector_by_vector(settings: dict) -> None:
    conv = nn.Conv2d(3, 5, (3, 2), **settings)
    op = mho.convert(nn.Sequential(conv), QUIET)[0].sites["weight"].op
    assert isinstance(op, ConvOp)
    x = torch.randn(2, 3, 9, 8)
    y = from_vectors(to_vectors(x, op) @ matrix(conv.weight), x, op)
    assert torch.allclose(y, op.apply(x, conv.weight, None), atol=1e-5)
    # sixteen rows a tile: the eighteen rows of the kernel lie on two of them
    out = deploy(mho.convert(nn.Sequential(conv), QUIET), VirtualDevice(QUIET, 1))(x)
    assert torch.allclose(out, conv(x), atol=1e-4)


def test_leading_dimensions_of_a_linear_layer_are_kept() -> None:
    x = torch.randn(2, 4, 6)
    op = LinearOp(6, 3)
    w = torch.randn(3, 6)
    assert torch.allclose(from_vectors(to_vectors(x, op) @ matrix(w), x, op), x @ w.t(), atol=1e-6)


def test_what_does_not_fit_is_refused_with_the_number_of_tiles() -> None:
    with pytest.raises(RangeError, match=r"needs 5 tiles of 16 x 8, the device has 4"):
        place(mho.convert(dense(), QUIET), VirtualDevice(QUIET, 1, tiles=4).capabilities())
    with pytest.raises(ConversionError, match="2 groups"):
        place(mho.convert(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), QUIET), VirtualDevice(QUIET).capabilities())
    with pytest.raises(ConversionError, match="no analog layer"):
        place(dense(), VirtualDevice(QUIET).capabilities())
    by_column = QUIET.replace(mapping=Mapping(scheme="signed", per_column=True))
    with pytest.raises(ConversionError, match="per_column"):
        deploy(mho.convert(dense(), by_column), VirtualDevice(QUIET))


def test_dead_lines_are_left_out_and_the_network_does_not_notice() -> None:
    net, x = dense(), clouds()[0]

    def script(called: str, number: int):
        def change(answer):
            currents = answer.currents_uA.clone()
            currents[..., 2] = 1.0
            return replace(answer, currents_uA=currents)

        return change if called == "mvm" else None

    device = Scripted(script, QUIET)
    session = Session(device)
    dead = find_dead_lines(session, tuple(range(8)), log=session.log)
    assert dead == {tile: (frozenset(), frozenset({2})) for tile in range(8)}
    assert session.log.counts["dead line"] == 8
    analog = mho.convert(net, QUIET)
    assert torch.allclose(deploy(analog, session, dead=dead)(x), net(x), atol=1e-4)
    assert not torch.allclose(deploy(analog, session)(x), net(x), atol=1e-2)


def test_a_dead_row_is_found_and_a_healthy_device_has_none() -> None:
    healthy = VirtualDevice(HIDDEN, 3)
    assert find_dead_lines(healthy, (0, 1)) == {}

    device = Scripted(lambda called, number: None, SHEET)
    honest = device.inner.mvm
    device.inner.mvm = lambda tile, v, **kw: honest(  # type: ignore[method-assign]
        tile, torch.where(torch.arange(16) == 7, 0.0, v), **kw
    )
    assert find_dead_lines(device, (0,)) == {0: (frozenset({7}), frozenset())}


def test_the_value_is_the_devices_and_the_gradient_the_models() -> None:
    analog, (x, _) = converted(), clouds()
    session = Session(VirtualDevice(HIDDEN, 2))
    placement = place(analog, session.capabilities())
    name, layer = next(analog_layers(analog))
    assert name == "0"
    leaf = x.clone().requires_grad_(True)
    layer.substrate = OnDevice(session, placement)
    y = layer(leaf)
    with torch.no_grad():
        assert torch.equal(y, layer(x))
    y.sum().backward()
    assert torch.allclose(leaf.grad, torch.ones(96, 12) @ layer.weight, atol=1e-5)
    # through a twin that knows a gain of 2 the same value has twice the gradient
    doubled = {tile: Columns(2 * torch.ones(8), torch.zeros(8)) for tile in placement.tiles}
    sheet = HIDDEN.replace(cell=GenericCell(), adc=replace(HIDDEN.adc, bits=12), dac=None)
    layer.substrate = OnDevice(session, placement, twin=ChipTwin(sheet, placement, doubled))
    layer.weight_ranges[1] *= 10  # nothing clips
    twice = x.clone().requires_grad_(True)
    layer(twice).sum().backward()
    assert torch.allclose(twice.grad, 2 * leaf.grad, atol=1e-4)


def test_the_twin_with_the_true_columns_computes_what_the_device_does() -> None:
    hw = HIDDEN.replace(cell=GenericCell())
    analog, (x, _) = converted(hw), clouds()
    device = VirtualDevice(hw, 2)
    placement = place(analog, device.capabilities())
    truth = {}
    for tile in placement.tiles:
        device.program(tile, torch.zeros(16, 8), operation="zero")
        draws = device._tiles.get(tile).draws
        gain = 1 + hw.adc.gain_d2d * draws.adc_gain[0]
        truth[tile] = Columns(gain, hw.adc.offset_d2d_lsb * draws.adc_offset[0] / 127)
    with torch.no_grad(), substituted(analog, lambda _: OnDevice(device, placement)):
        measured = analog(x)
    with torch.no_grad(), substituted(analog, lambda _: ChipTwin(hw, placement, truth)):
        known = analog(x)
    with torch.no_grad(), substituted(analog, lambda _: ChipTwin(hw, placement, {})):
        ignorant = analog(x)
    assert float((known - measured).abs().max()) < 0.05
    assert float((ignorant - measured).abs().max()) > 0.2


def test_columns_are_learned_from_the_stream() -> None:
    g = torch.Generator().manual_seed(0)
    gain, offset = 1 + 0.2 * torch.randn(8, generator=g), 0.05 * torch.randn(8, generator=g)
    gain[7], offset[7] = 1.0, 0.0
    stream = ColumnStream()
    for _ in range(30):
        i = 0.6 * torch.rand(64, 8, generator=g) - 0.3
        i[:, 7] = 0.0  # never driven
        measured = gain * (i + 0.02 * torch.randn(64, 8, generator=g)) + offset
        measured[0, 0] = float("nan")
        measured[1, 1] = 1.0  # saturated
        stream.add(3, i, measured)
    found = stream.columns()[3]
    assert torch.allclose(found.gain, gain, atol=0.01)
    assert torch.allclose(found.offset, offset, atol=0.002)


def test_missing_numbers_skip_the_step_and_nothing_else() -> None:
    def script(called: str, number: int):
        def lose(answer):
            return replace(answer, currents_uA=answer.currents_uA * float("nan"))

        return lose if called == "mvm" and 20 <= number < 60 else None

    analog, (x, y) = converted(), clouds()
    device = Scripted(script)
    result = fit_in_the_loop(
        analog, device, [(x, y)], recipe=TrainSettings(epochs=20, lr=0.05), policy=mho.lab.Policy(retries=1)
    )
    assert result.history.refused >= 1
    assert result.events["skipped"] == result.history.refused
    assert all(bool(torch.isfinite(p).all()) for p in analog.parameters())
    with pytest.raises(NonFiniteError, match=r"0.weight: \d+ of \d+ outputs of the device did not come"):
        deploy(analog, Scripted(lambda called, n: script("mvm", 20) if called == "mvm" else None))(x)


@pytest.mark.parametrize("gradient", ["physics-aware", "straight-through", FeedbackAlignment(), NodePerturbation()])
def test_training_in_the_loop_lowers_the_loss_on_the_device(gradient) -> None:
    analog, (x, y) = converted(), clouds()
    device = VirtualDevice(HIDDEN, 4)
    before = float(LOSS(deploy(analog, device)(x), y).mean())
    said: list[str] = []
    result = fit_in_the_loop(
        analog,
        device,
        [(x, y)] * 10,
        gradient=gradient,
        recipe=TrainSettings(epochs=4, lr=0.05, label_smoothing=0.0),
        say=said.append,
    )
    after = float(LOSS(deploy(analog, device)(x), y).mean())
    assert after < 0.7 * before
    assert result.budget["programs"] >= 40 * 5
    assert len(said) == 4
    # afterwards it is an ordinary converted network again
    assert analog.train()(x).requires_grad


def test_spsa_descends_too() -> None:
    analog, (x, y) = converted(SHEET, dense(sizes=(20, 3))), clouds()
    device = VirtualDevice(QUIET.replace(tile=replace(QUIET.tile, rows=20)), 4)
    before = float(LOSS(deploy(analog, device)(x), y).mean())
    fit_in_the_loop(
        analog, device, [(x, y)] * 60, gradient=Spsa(samples=2), recipe=TrainSettings(epochs=1, lr=0.02, momentum=0.5)
    )
    assert float(LOSS(deploy(analog, device)(x), y).mean()) < 0.8 * before


def exact_slopes(network: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(LOSS(network(x), y).mean(), list(network.parameters()))
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize(
    # n draws of SPSA on d weights leave a cosine of about sqrt(n / (n + d)): 0.76 here
    ("how", "draws", "least"),
    [(Spsa(step=0.01), 400, 0.70), (NodePerturbation(step=0.01), 400, 0.95)],
)
def test_estimates_tend_to_the_true_gradient(how, draws: int, least: float) -> None:
    net, (x, y) = dense(), clouds(24)
    analog = mho.convert(net, "ideal")
    total = torch.zeros(sum(p.numel() for p in net.parameters()))
    analog.requires_grad_(True)
    loss = EstimatedLoss(LOSS, how, seed=3)
    for step in range(draws):
        loss.set_progress(step / draws)
        value = loss.on_model(analog, x, y)
        total += torch.cat([g.flatten() for g in torch.autograd.grad(value, list(analog.parameters()))])
    true = exact_slopes(net, x, y)
    assert float(F.cosine_similarity(total, true, 0)) > least
    # unbiased: the length is right, too
    assert float((total @ true / (true @ true)).detach()) / draws == pytest.approx(1.0, abs=0.2)
    assert float(value.detach()) == pytest.approx(float(LOSS(net(x), y).mean().detach()), rel=0.05)


def test_feedback_alignment_trains_the_last_layer_exactly() -> None:
    net, (x, y) = dense(), clouds(24)
    analog = mho.convert(net, "ideal")
    value = EstimatedLoss(LOSS, FeedbackAlignment()).on_model(analog, x, y)
    found = torch.autograd.grad(value, list(analog.parameters()))
    true = torch.autograd.grad(LOSS(net(x), y).mean(), list(net.parameters()))
    assert torch.allclose(found[2], true[2], atol=1e-6)
    assert not torch.allclose(found[0], true[0], atol=1e-3)


def test_the_cosine_tells_a_right_gradient_from_a_wrong_one() -> None:
    analog, (x, y) = converted(QUIET), clouds(48)
    device = VirtualDevice(QUIET, 1)
    placement = place(analog, device.capabilities())
    with substituted(analog, lambda _: OnDevice(device, placement)):
        right, _ = gradient_cosine(analog, LOSS, x, y, step=0.05)

    class Blind:
        simulated = True

        def mvm(self, site, x, weight, *rest):
            return x @ torch.flip(weight, (0,)).t()

    with substituted(analog, lambda _: OnDevice(device, placement, twin=Blind())):
        wrong, _ = gradient_cosine(analog, LOSS, x, y, step=0.05)
    assert right > 0.99
    assert wrong < 0.5


def test_deployment_reports_the_errors_of_cells_and_rewrites_lower_them() -> None:
    analog = converted(SHEET)
    once = deploy(analog, VirtualDevice(SHEET, 6)).errors()
    assert {e.site for e in once} == {"0.weight", "2.weight"}
    assert once[0].error_uS.shape == (10, 6)
    # writing 3 %, reading back 1 %, of 25 uS
    rms = float(torch.cat([e.error_uS.flatten() for e in once]).square().mean().sqrt())
    assert rms == pytest.approx(25 * (0.03**2 + 0.01**2) ** 0.5, rel=0.15)
    verified = deploy(analog, VirtualDevice(SHEET, 6), rewrites=8, tolerance=0.02).errors()
    assert max(float(e.error_uS.abs().max()) for e in verified) < 25 * 0.10
    assert sum(e.rms_uS for e in verified) < 0.7 * sum(e.rms_uS for e in once)


def test_known_columns_and_affine_corrections_repair_a_deviating_chip() -> None:
    hw = HIDDEN.replace(cell=GenericCell())
    analog, (x, _) = converted(hw), clouds()
    wanted = analog(x).detach()

    def error(deployed) -> float:
        return float((deployed(x) - wanted).square().mean().sqrt())

    plain = deploy(analog, VirtualDevice(hw, 2))
    repaired = deploy(analog, VirtualDevice(hw, 2))
    fit_affine(repaired, analog, clouds(64)[0])
    assert error(repaired) < 0.4 * error(plain)
    stuck = CellStatus.STUCK
    assert all(int((e.status == stuck).sum()) == 0 for e in repaired.errors())


def test_another_salt_is_another_read() -> None:
    analog, (x, _) = converted(SHEET), clouds()
    deployed = deploy(analog, VirtualDevice(SHEET, 6))
    first = deployed(x)
    assert torch.equal(deployed(x), first)
    assert not torch.equal(deployed.again("second")(x), first)
    assert not deployed.train().training


def test_the_model_that_is_deployed_is_not_touched() -> None:
    analog = converted(SHEET)
    before = copy.deepcopy(analog.state_dict())
    deployed = deploy(analog, VirtualDevice(SHEET, 6))
    assert all(torch.equal(v, before[k]) for k, v in analog.state_dict().items())
    assert next(analog_layers(analog))[1].substrate is not deployed.substrate


@pytest.mark.parametrize("gradient", ["straight-through", "physics-aware"])
@pytest.mark.parametrize("watch", [None, mho.lab.WatchPolicy(every=1, tolerance=0.01)])
def test_a_resumed_run_asks_for_the_same_operations(tmp_path, gradient: str, watch) -> None:
    """Stopped after an epoch and resumed: the same weights as without the break, and nothing asked under a new name."""
    (x, y), start = clouds(), converted()

    def run(epochs: int, folder: str, device, resume: bool = False) -> nn.Module:
        analog = copy.deepcopy(start)
        fit_in_the_loop(
            analog,
            device,
            [(x[:48], y[:48]), (x[48:], y[48:])],
            gradient=gradient,
            watch=watch,
            recipe=TrainSettings(epochs=2, lr=0.05, schedule="constant"),
            epochs=epochs,
            checkpoint=tmp_path / folder,
            resume=resume,
        )
        return analog

    whole = run(2, "whole", VirtualDevice(HIDDEN, 4))
    names: list[str] = []

    class Noting:
        def __init__(self) -> None:
            self.inner = VirtualDevice(HIDDEN, 4)

        def __getattr__(self, name: str):
            return getattr(self.inner, name)

        def mvm(self, tile, v, *, operation, **kw):
            names.append(operation)
            return self.inner.mvm(tile, v, operation=operation, **kw)

    class Dies(Exception):
        pass

    device = Noting()
    analog = copy.deepcopy(start)

    def stop(text: str) -> None:
        raise Dies

    with pytest.raises(Dies):
        fit_in_the_loop(
            analog,
            device,
            [(x[:48], y[:48]), (x[48:], y[48:])],
            gradient=gradient,
            watch=watch,
            recipe=TrainSettings(epochs=2, lr=0.05, schedule="constant"),
            checkpoint=tmp_path / "broken",
            checkpoint_every=1,
            say=stop,
        )
    again = run(2, "broken", Noting(), resume=True)
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(set(names)) == len(names)


def test_layers_go_to_the_device_one_after_the_other_and_are_written_once() -> None:
    analog, (x, y) = converted(), clouds()
    device = VirtualDevice(HIDDEN, 4)
    before = float(LOSS(deploy(analog, device)(x), y).mean())
    first = next(analog_layers(analog))[1].weight.clone()
    log = mho.lab.EventLog()
    result = fit_layer_by_layer(
        analog, device, [(x, y)] * 10, recipe=TrainSettings(epochs=3, lr=0.05), log=log, say=lambda text: None
    )
    assert torch.equal(next(analog_layers(analog))[1].weight, first)
    assert result.budget["programs"] == 4  # the first layer's tiles
    assert all(p.requires_grad for p in analog.parameters())
    assert float(LOSS(deploy(analog, device)(x), y).mean()) < 0.8 * before


def test_a_low_rank_path_repairs_what_an_affine_one_cannot() -> None:
    """A column that answers for its neighbour: no gain of its own mends that."""

    def crossed(called: str, number: int):
        def change(answer):
            currents = answer.currents_uA.clone()
            currents[..., 0] = currents[..., 1]
            return replace(answer, currents_uA=currents)

        return change if called == "mvm" else None

    net = nn.Sequential(nn.Linear(16, 6))
    analog = mho.convert(net, QUIET).eval()
    g = torch.Generator().manual_seed(0)
    x, new = torch.randn(200, 16, generator=g), torch.randn(100, 16, generator=g)
    wanted = net(new).detach()

    def repaired(repair) -> float:
        deployed = deploy(analog, Scripted(crossed, QUIET))
        repair(deployed)
        return float((deployed(new) - wanted).square().mean().sqrt())

    affine = repaired(lambda d: fit_affine(d, analog, x))
    path = repaired(lambda d: fit_low_rank(d, analog, x, rank=1, ridge=1e-6))
    both = repaired(lambda d: (fit_affine(d, analog, x), fit_low_rank(d, analog, x, rank=1, ridge=1e-6)))
    assert affine > 0.1
    assert path < 0.01
    assert both < 0.03
    with pytest.raises(mho.errors.InputError, match="rank = 0"):
        repaired(lambda d: fit_low_rank(d, analog, x, rank=0))


def test_more_samples_repair_better_and_norms_are_reestimated() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 6), nn.BatchNorm1d(6))
    net[1].momentum = None
    x = torch.randn(256, 16)
    net(x)
    skewed = HIDDEN.replace(adc=replace(HIDDEN.adc, offset_d2d_lsb=20.0))
    analog = mho.convert(net.eval(), SHEET)
    mho.calibrate(analog, [x]).eval()
    wanted = analog(x[128:]).detach()

    def error(deployed) -> float:
        return -float((deployed(x[128:]) - wanted).square().mean().sqrt())

    def again():
        return deploy(analog, VirtualDevice(skewed, 7))

    found = samples_needed(again, lambda d, some: recalibrate_norms(d, [some]), error, x[:128], (8, 32, 128))
    assert found[8] < found[32] < found[128]
    assert error(again()) < found[128]
    with pytest.raises(mho.errors.InputError, match="x has 8"):
        samples_needed(again, lambda d, some: None, error, x[:8], (16,))
    with pytest.raises(mho.errors.InputError, match="no batch norm"):
        recalibrate_norms(deploy(converted(), VirtualDevice(SHEET)), [x])


def test_an_unknown_gradient_is_refused_and_not_taken_for_another() -> None:
    with pytest.raises(RangeError, match=r"'physics_aware'.*'physics-aware', 'straight-through'"):
        fit_in_the_loop(converted(), VirtualDevice(SHEET), [clouds()], gradient="physics_aware")


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_a_twin_is_cut_where_the_device_is(kind: str) -> None:
    """Around dead rows, and between the channels of a kernel: gains of its blocks belong to the same rows."""
    torch.manual_seed(0)
    net: nn.Module = nn.Linear(40, 5) if kind == "linear" else nn.Conv2d(5, 4, (3, 2))
    x = torch.randn(8, 40) if kind == "linear" else torch.randn(4, 5, 6, 5)
    hw = HIDDEN.replace(cell=GenericCell())
    analog = mho.calibrate(mho.convert(nn.Sequential(net), hw), [x]).eval()
    device = VirtualDevice(hw, 2)
    dead = {tile: (frozenset({1, 5}), frozenset()) for tile in range(16)}
    placement = place(analog, device.capabilities(), dead=dead)
    blocks = [p.inputs for p in placement.patches["0.weight"]]
    assert blocks == ([(0, 13), (13, 27), (27, 40)] if kind == "linear" else [(0, 12), (12, 18), (18, 30)])
    learned = mho.lab.measure_columns(device, placement.tiles, writings=2)
    device = VirtualDevice(hw, 2)
    with torch.no_grad(), substituted(analog, lambda _: OnDevice(device, placement)):
        measured = analog(x)
    with torch.no_grad(), substituted(analog, lambda _: ChipTwin(hw, placement, learned)):
        known = analog(x)
    with torch.no_grad(), substituted(analog, lambda _: ChipTwin(hw, placement, {})):
        ignorant = analog(x)
    assert float((known - measured).abs().mean()) < 0.3 * float((ignorant - measured).abs().mean())
