"""The stochastic residual layer: laws, gradients, uses, and how it lives among other modules."""

import copy
import io
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mho
from mho.crossbar.ops import output_shape
from mho.crossbar.variance import output_variance
from mho.errors import ConversionError, HardwareError, InputError, TrainingError
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Neuron, Wires, load_hardware
from mho.nn.stochastic import StochasticResidual, probing
from mho.nn.stochastic_blocks import stochastic_block
from mho.nn.stochastic_law import LayerNoise, perturbed, remainder
from mho.testing.statistics import assert_independent, assert_law, law_holds

N = 100_000
STATIC = Hardware(name="static", mapping=Mapping(scheme="signed"), cell=GenericCell(programming_noise=0.1))
READ = STATIC.replace(name="read", cell=GenericCell(read_noise=0.05))
GENERIC = load_hardware("generic")
FULL = Hardware(
    name="full",
    cell=GenericCell(programming_noise=0.05, read_noise_rel=0.02),
    dac=Dac(bits=8, gain_d2d=0.02),
    adc=Adc(bits=8, enob=6.0, gain_d2d=0.02, offset_d2d_lsb=1.0),
    output_noise=0.01,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def _sigma_w(layer: StochasticResidual, hw: Hardware) -> float:
    assert isinstance(hw.cell, GenericCell)
    return hw.cell.programming_noise * float(layer.inner.weight.detach().abs().max())  # type: ignore[union-attr, operator]


# --- law ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pre", "post"])
def test_fresh_noise_of_the_layer_is_sigma_times_the_norm_of_x(form: Any) -> None:
    layer = StochasticResidual(nn.Linear(6, 1), READ, form=form).train()
    x = torch.randn(1, 6).expand(N, 6)
    sigma = 0.05 * float(layer.inner.weight.detach().abs().max()) * float(x[0].norm())  # type: ignore[union-attr, operator]
    z = layer(x) - layer.inner(x)  # type: ignore[misc]
    assert_law(z, sigma=sigma)
    assert not law_holds(z, sigma=1.05 * sigma)


def test_outputs_is_exact_in_law_for_a_linear_and_one_vector_a_sample() -> None:
    layer = StochasticResidual(nn.Linear(6, 2), STATIC, static="outputs").train()
    x = torch.randn(1, 6).expand(N // 2, 6)
    sigma = _sigma_w(layer, STATIC) * float(x[0].norm())
    z = layer(x) - layer.inner(x)  # type: ignore[misc]
    assert_law(z, sigma=sigma)
    assert not law_holds(1.05 * z, sigma=sigma)
    assert_independent(z[:, 0].detach(), z[:, 1].detach())


def test_weights_are_one_draw_a_pass_shared_by_the_batch() -> None:
    layer = StochasticResidual(nn.Linear(6, 2, bias=False), STATIC).train()
    x = torch.randn(1, 6)
    batch = torch.cat((x, 2 * x))
    errors = torch.stack([layer(batch) - layer.inner(batch) for _ in range(1000)]).detach()  # type: ignore[misc]
    assert torch.allclose(errors[:, 1], 2 * errors[:, 0], atol=1e-5)
    assert_law(errors[:, 0], sigma=_sigma_w(layer, STATIC) * float(x.norm()))


def test_static_noise_of_a_convolution_does_not_average_out_in_a_pool_unless_drawn_wrongly() -> None:
    conv = nn.Conv2d(3, 4, 3, bias=False)
    x = torch.ones(1, 3, 16, 16)
    sigma = STATIC.cell.programming_noise * float(conv.weight.detach().abs().max()) * math.sqrt(27)  # type: ignore[union-attr]
    found = {}
    for static in ("weights", "positions"):
        layer = StochasticResidual(conv, STATIC, static=static).train()  # type: ignore[arg-type]
        with torch.no_grad():
            found[static] = torch.stack([(layer(x) - conv(x)).mean((0, 2, 3)) for _ in range(1000)])
    assert_law(found["weights"], sigma=sigma)
    assert not law_holds(found["weights"], sigma=1.1 * sigma)
    assert not law_holds(found["positions"], sigma=sigma)
    assert float(found["positions"].std()) == pytest.approx(sigma / 14, rel=0.05)


@pytest.mark.parametrize("static", ["weights", "outputs"])
@pytest.mark.parametrize("hw", [FULL, load_hardware("pcm-hermes")], ids=lambda h: h.name)
def test_the_layer_has_the_variance_of_its_hardware(hw: Hardware, static: Any) -> None:
    """Mean square over passes of the error of each output, against output_variance of the crossbar."""
    layer = StochasticResidual(nn.Linear(16, 8), hw, static=static).train()
    x = torch.randn(4, 16)
    with torch.no_grad():
        layer(x)
        layer.eval()
        layer.noise_in_eval = True  # the ranges stay where the first pass put them
        runs = torch.stack([layer(x) for _ in range(600)])
        assert layer.lowering is not None
        expected = output_variance(
            x, layer.inner.weight, layer.lowering.op, hw, input_range=layer.ranges[0], adc_range=layer.ranges[1]  # type: ignore[union-attr, arg-type]
        ).total  # fmt: skip
    ratio = runs.var(0) / expected
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.15)
    assert float((ratio - 1).abs().max()) < 0.5


def test_literal_form_is_relu_plus_eps() -> None:
    layer = StochasticResidual.literal(0.3).train()
    x = torch.randn(N, requires_grad=True)
    r = layer(x)
    assert_law(r - x.relu(), sigma=0.3)
    assert not law_holds(1.05 * (r - x.relu()), sigma=0.3)
    (grad,) = torch.autograd.grad(r.sum(), x)
    assert torch.equal(grad, (x > 0).float())  # constant noise behind the activation adds nothing to dr/dx
    assert torch.equal(layer.eval()(x), x.relu())


def test_eval_is_the_digital_layer_and_noise_in_eval_is_asked_for() -> None:
    for hw in (GENERIC, None):
        layer = StochasticResidual(nn.Linear(6, 6), hw, activation=nn.ReLU(), skip="identity", sigma=0.1).eval()
        x = torch.randn(3, 6)
        assert torch.equal(layer(x), x + layer.inner(x).relu())  # type: ignore[misc]
        layer.noise_in_eval = True
        assert not torch.equal(layer(x), layer(x))


def test_forms_and_skips() -> None:
    inner, x, eps = nn.Linear(4, 4), torch.randn(3, 4), torch.randn(3, 4)
    a = inner(x)
    for form, want in (("pre", (a + 0.5 * eps).relu()), ("post", a.relu() + 0.5 * eps)):
        layer = StochasticResidual(inner, form=form, activation=nn.ReLU(), sigma=0.5).train()  # type: ignore[arg-type]
        assert torch.allclose(layer.respond(x, LayerNoise(fresh=eps)), want, atol=1e-6)
    skip = nn.Linear(4, 2)
    layer = StochasticResidual(nn.Linear(4, 2), skip=skip).train()
    assert torch.allclose(layer(x), skip(x) + layer.inner(x))  # type: ignore[misc]


def test_every_setting_changes_the_output() -> None:
    x = torch.randn(5, 6)

    def run(layer: StochasticResidual, seed: int = 1) -> Tensor:
        torch.manual_seed(seed)
        return layer.train()(x)

    inner = nn.Linear(6, 6)
    plain = {"hw": GENERIC, "activation": nn.ReLU()}
    reference = run(StochasticResidual(inner, **plain))  # type: ignore[arg-type]
    for change in (
        {"hw": FULL}, {"hw": None}, {"form": "post"}, {"activation": None}, {"skip": "identity"}, {"static": "outputs"},
        {"sigma": 0.2}, {"clip_sigma": 1.0},
    ):  # fmt: skip
        assert not torch.equal(run(StochasticResidual(inner, **(plain | change))), reference), change  # type: ignore[arg-type]
    quiet = StochasticResidual(inner, **plain)  # type: ignore[arg-type]
    quiet.noise_scale = 0.0
    assert torch.equal(run(quiet), inner(x).relu())


# --- gradients ------------------------------------------------------------------------------------


NODES, MASS = (torch.tensor(v, dtype=torch.float64) for v in __import__("numpy").polynomial.hermite_e.hermegauss(40))
MASS = MASS / MASS.sum()


def test_gradient_through_s_is_that_of_the_gaussian_expectation() -> None:
    """E exp(c (a + s eps)) = exp(c a + c^2 s^2 / 2): Price's curvature term is part of the gradient."""
    w = torch.randn(3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(3, dtype=torch.float64)

    def moments(w: Tensor) -> tuple[Tensor, Tensor]:
        a = x @ w
        return a, 0.02 + 0.1 * a.square()

    a, s2 = moments(w)
    sampled = (MASS * (0.7 * perturbed(a, s2, NODES)).exp()).sum()
    (found,) = torch.autograd.grad(sampled, w)
    a, s2 = moments(w)
    (exact,) = torch.autograd.grad((0.7 * a + 0.245 * s2).exp(), w)
    assert torch.allclose(found, exact, rtol=1e-10)
    a, s2 = moments(w)
    (mutant,) = torch.autograd.grad((MASS * (0.7 * perturbed(a, s2.detach(), NODES)).exp()).sum(), w)
    assert not torch.allclose(mutant, exact, rtol=1e-2)  # without the path through s it is another gradient


@pytest.mark.parametrize("form", ["pre", "post"])
def test_expected_loss_of_the_layer_and_its_gradient_match_finite_differences(form: Any) -> None:
    """Over quadrature nodes instead of samples: the layer on hardware, its weights and its input."""
    layer = StochasticResidual(nn.Linear(3, 1), READ, form=form, activation=nn.Softplus(), sigma=0.1).double().train()
    with torch.no_grad():
        layer.theta.copy_(torch.tensor([1.0, 0.5, 0.3, 0.2]))
    inner = layer.inner
    assert isinstance(inner, nn.Linear)
    inner.weight.detach()[0, 0] = 3.0  # max|w| is detached: it must not be the weight that moves
    x = torch.randn(1, 3, dtype=torch.float64)

    def loss(x: Tensor, last: Tensor) -> Tensor:
        with torch.no_grad():
            fixed = inner.weight[:, :2].clone()
        weight = torch.cat((fixed, last), 1)
        noise = LayerNoise(fresh=NODES.unsqueeze(1))
        r = torch.func.functional_call(_Respond(layer), {"layer.inner.weight": weight}, (x.expand(40, 3), noise))
        return (MASS.unsqueeze(1) * r.sin()).sum()

    last = inner.weight[:, 2:].detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (x.clone().requires_grad_(), last))


class _Respond(nn.Module):
    def __init__(self, layer: StochasticResidual) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, noise: LayerNoise) -> Tensor:
        return self.layer.respond(x, noise)


def test_remainder_gradcheck_and_its_constant() -> None:
    psi = (torch.ones((), dtype=torch.float64), torch.rand(4, 3, dtype=torch.float64))
    unit2, scales = torch.tensor(0.04, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    theta = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: remainder(psi, t, unit2, scales), (theta,))
    constant = remainder(psi, torch.tensor([1.0, 0.0], dtype=torch.float64), unit2, scales)
    assert torch.allclose(constant, unit2)
    assert bool((remainder(psi, torch.tensor([-9.0, 0.0], dtype=torch.float64), unit2, scales) >= 0).all())


def test_a_silent_input_has_a_finite_gradient() -> None:
    layer = StochasticResidual(nn.Linear(4, 2, bias=False), READ).train()
    x = torch.zeros(3, 4, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


# --- uses -----------------------------------------------------------------------------------------


def test_training_theta_on_the_task_loss_is_refused_and_the_message_names_the_objectives() -> None:
    layer = StochasticResidual(nn.Linear(4, 2), sigma=0.1).train()
    layer.theta.requires_grad_()
    x = torch.randn(3, 4)
    with pytest.raises(TrainingError, match=r"collapses to 0. Way out: .*fit_noise.*BetaNLL.*noise_energy.*likelihood"):
        layer(x)
    with torch.no_grad():
        layer(x)
    layer.eval()(x)
    layer.train().use("train", objective="likelihood")
    layer(x).square().sum().backward()
    assert layer.theta.grad is not None
    assert float(layer.theta.grad[0]) > 0  # this is the collapse
    layer.use("train")
    assert not layer.theta.requires_grad
    layer(x)


def test_a_task_loss_reaches_only_what_the_mode_says() -> None:
    layer, x = StochasticResidual(nn.Linear(4, 2), GENERIC, sigma=0.1, mean_shift=True).train(), torch.randn(3, 4)
    for mode, objective, moved in (("train", None, {"inner.weight", "inner.bias"}),
                                   ("fit", None, {"inner.weight", "inner.bias"}),
                                   ("budget", "energy", {"inner.weight", "inner.bias", "log_level"})):  # fmt: skip
        layer.use(mode, objective=objective)  # type: ignore[arg-type]
        layer.zero_grad()
        layer(x).square().sum().backward()
        assert {n for n, p in layer.named_parameters() if p.grad is not None} == moved
    layer.use("fit").zero_grad()
    layer.law(x).variance.sum().backward()
    assert {n for n, p in layer.named_parameters() if p.grad is not None} == {"theta"}


def test_training_the_level_of_a_budget_without_a_declared_energy_is_refused() -> None:
    layer, x = StochasticResidual(nn.Linear(4, 2)).train().use("budget"), torch.randn(3, 4)
    with pytest.raises(
        TrainingError, match=r"use\('budget'\).*collapses to 0. Way out: .*objective='energy'.*noise_energy"
    ):
        layer(x)
    with torch.no_grad():
        layer(x)
    layer.eval()(x)
    layer.train().use("budget", objective="energy")(x).square().sum().backward()
    assert layer.log_level.grad is not None
    assert float(layer.log_level.grad) > 0  # this is the collapse
    layer.use("budget").log_level.requires_grad_(False)
    layer(x)  # a level that is given and not learned
    with pytest.raises(InputError, match=r"'budget' with objective = 'likelihood'.*Way out"):
        layer.use("budget", objective="likelihood")


def test_budget_mode_replaces_the_remainder_by_its_level() -> None:
    layer = StochasticResidual(nn.Linear(4, 1), sigma=3.0).train().use("budget", objective="energy")
    layer.set_level(0.2)
    x = torch.randn(1, 4).expand(N, 4)
    assert_law(layer(x) - layer.inner(x), sigma=0.2)  # type: ignore[misc]
    assert float(layer.level.detach()) == pytest.approx(0.2)


def test_probe_stands_where_the_noise_enters_and_goes_away() -> None:
    x = torch.randn(3, 4)
    for form in ("pre", "post"):
        layer = StochasticResidual(nn.Linear(4, 4), form=form, activation=nn.ReLU()).eval()  # type: ignore[arg-type]
        a = layer.inner(x)  # type: ignore[misc]
        with probing(layer, lambda base: base + 1.0):
            got = layer(x)
        assert torch.allclose(got, (a + 1).relu() if form == "pre" else a.relu() + 1)
        assert layer.probe is None


# --- on converted networks ------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, hw: Hardware | None = None, sigma: float = 0.0) -> None:
        super().__init__()
        self.block = StochasticResidual(nn.Linear(6, 6), hw, activation=nn.ReLU(), skip="identity", sigma=sigma)
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.block(x))


def test_inspect_lists_the_inner_layer_as_analog_and_theta_as_digital() -> None:
    rows = {r.name: r for r in mho.inspect(Net(GENERIC), GENERIC).rows}
    assert rows["block"].decision == "digital"
    assert rows["block.inner"].decision == "analog"
    assert rows["block.theta"].decision == "digital"
    assert rows["out"].decision == "analog"
    assert not mho.inspect(Net(GENERIC), GENERIC).refused


def test_a_converted_inner_layer_brings_the_physics_and_the_layer_only_the_remainder() -> None:
    x = torch.randn(8, 6)
    quiet = GENERIC.replace(cell=GenericCell(), dac=None, adc=None)
    net = mho.convert(Net(GENERIC), quiet).train()
    # The substrate is noiseless, so the layer is: its own hardware does not act a second time.
    assert torch.allclose(net(x), mho.to_digital(net).eval()(x), atol=1e-5)
    assert "substrate" in repr(net.block)
    noisy = mho.convert(Net(GENERIC, sigma=0.3), quiet).train()
    x = 4 * x
    a = noisy.block.inner(x)
    many = torch.stack([noisy.block.respond(x, noisy.block.draw(x)) for _ in range(2000)]).detach()
    positive = a.detach() > 1.5  # far from the corner of the ReLU
    assert positive.any()
    z = (many - x - a.detach())[:, positive]
    assert_law(z, sigma=0.3)
    assert not law_holds(1.2 * z, sigma=0.3)
    spread = torch.stack([noisy(x) for _ in range(3)])
    assert not torch.equal(spread[0], spread[1])
    mho.nn.set_noise_scale(noisy, 0.0)
    assert torch.equal(noisy(x), noisy(x))


def test_nothing_is_added_on_virtual_chips_and_to_digital_is_the_way_back() -> None:
    x = torch.randn(8, 6)
    torch.manual_seed(3)
    plain = Net()
    loud = copy.deepcopy(plain)
    loud.block.set_sigma(5.0)
    answers = []
    for net in (plain, loud):
        analog = mho.calibrate(mho.convert(net, GENERIC), [x])
        answers.append(mho.fabricate(analog, chips=2, seed=1)(x))
    assert torch.equal(*answers)
    back = mho.to_digital(mho.convert(Net(GENERIC), "generic"))
    assert isinstance(back.block.inner, nn.Linear)
    assert not back.block.on_substrate
    assert not torch.equal(back.train()(x), back(x))  # the layer's own physics acts again


# --- among other modules --------------------------------------------------------------------------


def test_state_dict_deepcopy_and_pickle() -> None:
    x = torch.randn(4, 3, 6, 6)
    layer = stochastic_block(3, 5, load_hardware("pcm-hermes"), kernel=3, stride=2, norm=True, sigma=0.1).train()
    layer(x)
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    other = stochastic_block(3, 5, load_hardware("pcm-hermes"), kernel=3, stride=2, norm=True)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for twin in (other.train(), copy.deepcopy(layer)):
        torch.manual_seed(2)
        want = copy.deepcopy(layer)(x)
        torch.manual_seed(2)
        assert torch.equal(twin(x), want)


@pytest.mark.parametrize("static", ["weights", "positions"])
@pytest.mark.parametrize("hw", [GENERIC, FULL, None], ids=lambda h: getattr(h, "name", "none"))
def test_compiled_forward(hw: Hardware | None, static: Any) -> None:
    if hw is None and static != "weights":
        return
    layer = StochasticResidual(
        nn.Conv2d(2, 4, 3, padding=1), hw, activation=nn.ReLU(), sigma=0.1, static=static
    ).train()  # fmt: skip
    x = torch.randn(2, 2, 5, 5)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y = compiled(x)
    y.square().sum().backward()
    assert not torch.equal(compiled(x), y)
    assert layer.inner.weight.grad.isfinite().all()  # type: ignore[union-attr, operator]
    layer.eval()
    assert torch.allclose(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x), atol=1e-6)


@pytest.mark.parametrize("static", ["weights", "outputs"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes_and_autocast(dtype: torch.dtype, static: Any) -> None:
    layer = StochasticResidual(nn.Linear(6, 6), FULL, activation=nn.ReLU(), skip="identity", sigma=0.1, static=static)
    x = torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer.train()(x)
    assert y.isfinite().all()
    layer = layer.to(dtype)
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    y.float().square().sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())
    assert layer.inner.weight.grad is not None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "conv",
    [nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), nn.Conv2d(4, 6, (3, 2), padding="same", dilation=2),
     nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), nn.Conv3d(4, 6, 2)],
    ids=["1d", "same", "reflect", "3d"],
)  # fmt: skip
def test_every_convolution_has_the_mean_of_torch(conv: Any) -> None:
    x = torch.randn(2, 4, *([6] * len(conv.kernel_size)))
    layer = StochasticResidual(conv, GENERIC, sigma=0.1).train()
    y = layer(x)
    assert y.shape == conv(x).shape == output_shape(layer.lowering.op, layer.lowering.padded(x))  # type: ignore[union-attr]
    layer.noise_scale = 1e-6
    close = layer.respond(x, layer.draw(x)._replace(fresh=torch.zeros_like(y)))
    assert torch.allclose(close, conv(x), atol=1e-4)
    assert torch.allclose(layer.law(x).mean, conv(x), atol=1e-6)


def test_ranges_follow_the_batches_and_zeros_say_nothing() -> None:
    layer = StochasticResidual(nn.Linear(4, 4), GENERIC).train()
    for nothing in (0.0, float("nan"), float("inf")):
        layer(torch.full((2, 4), nothing))
        assert float(layer.ranges[0]) == 0.0
    layer.ranges.zero_()
    x = torch.randn(16, 4)
    layer(x)
    assert float(layer.ranges[0]) == pytest.approx(float(x.abs().max()))
    layer(3 * x)
    assert float(layer.ranges[0]) == pytest.approx(float(x.abs().max()) * 1.1, rel=1e-3)


def test_blocks_learn_through_the_noise() -> None:
    net = nn.Sequential(
        stochastic_block(1, 8, GENERIC, kernel=3, stride=2, norm=True), stochastic_block(8, 8, GENERIC, kernel=3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), stochastic_block(8, 8, GENERIC), nn.Linear(8, 2),
    ).train()  # fmt: skip
    x = torch.randn(64, 1, 8, 8)
    y = (x[:, 0, :4].mean((1, 2)) > x[:, 0, 4:].mean((1, 2))).long()
    x = x + (y.float() * 2 - 1).reshape(-1, 1, 1, 1)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], 0.01)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: StochasticResidual(nn.LSTM(2, 2)), ConversionError, r"inner is a LSTM.*Way out: an nn.Linear"),
        (lambda: StochasticResidual(nn.ConvTranspose2d(2, 2, 2)), ConversionError, r"transposed convolution.*Upsample"),
        (lambda: StochasticResidual(nn.Linear(2, 2), form="mid"), InputError, r"form = 'mid'"),  # type: ignore[arg-type]
        (lambda: StochasticResidual(nn.Linear(2, 2), static="x"), InputError, r"static = 'x'"),  # type: ignore[arg-type]
        (lambda: StochasticResidual(nn.Linear(2, 2), skip=3), InputError, r"skip = 3"),  # type: ignore[arg-type]
        (lambda: StochasticResidual(nn.Linear(2, 2), sigma=-1.0), InputError, r"sigma = -1.0: must be finite"),
        (lambda: StochasticResidual(None, GENERIC), ConversionError, r"hardware without an inner layer.*Way out"),
        (lambda: StochasticResidual(None, mean_shift=True), ConversionError, r"mean_shift.*Way out"),
        (lambda: StochasticResidual(nn.Linear(2, 2), clip_sigma=2.0), ConversionError, r"clip_sigma.*give hw="),
        (lambda: StochasticResidual(nn.Linear(2, 2), GENERIC, clip_sigma=0.0), InputError, r"clip_sigma = 0.0"),
        (lambda: StochasticResidual(nn.Linear(2, 2), static="outputs"), ConversionError, r"static.*give hw="),
        (lambda: StochasticResidual(nn.Conv2d(2, 2, 3), GENERIC, static="outputs"), ConversionError,
         r"one kernel at all positions.*Way out: static='weights'; or static='positions'"),
        (lambda: StochasticResidual(nn.Linear(2, 2), GENERIC.replace(neuron=Neuron())), HardwareError, r"neuron"),
        (lambda: StochasticResidual(nn.Linear(2, 2), Hardware(name="w", wires=Wires(wire_ohm=1.0)), static="outputs"),
         HardwareError, r"wires of 1 ohm"),
        (lambda: StochasticResidual(mho.convert(nn.Linear(2, 2), GENERIC), GENERIC), ConversionError,
         r"is converted.*Way out: hw=None"),
        (lambda: StochasticResidual(nn.Linear(2, 2)).use("fit"), TrainingError, r"no unit yet.*fit_noise"),
        (lambda: StochasticResidual(nn.Linear(2, 2)).use("learn"), InputError, r"mode = 'learn'"),  # type: ignore[arg-type]
        (lambda: StochasticResidual(nn.Linear(2, 2)).use("train", objective="x"), InputError, r"objective = 'x'"),  # type: ignore[arg-type]
        (lambda: StochasticResidual(nn.Linear(2, 2)).set_level(0.0), InputError, r"level = 0.0: .*above 0"),
        (lambda: stochastic_block(2, 2, kernel=2), InputError, r"kernel = 2: must be odd"),
        (lambda: stochastic_block(2, 2, stride=2), InputError, r"stride = 2"),
    ],
)  # fmt: skip
def test_refusals(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_refusals_at_the_input() -> None:
    layer = StochasticResidual(nn.Linear(4, 3), GENERIC, static="outputs", skip="identity").train()
    with pytest.raises(ConversionError, match=r"shape \(2, 5, 4\) holds many vectors a sample.*Way out"):
        layer(torch.randn(2, 5, 4))
    with pytest.raises(InputError, match=r"inner.weight: input of shape \(2, 5\) needs 4 features"):
        layer(torch.randn(2, 5))
    with pytest.raises(InputError, match=r"float64, the weight is torch.float32.*Way out"):
        layer(torch.randn(2, 4, dtype=torch.float64))
    with pytest.raises(InputError, match=r"the skip gives \(2, 4\), the layer \(2, 3\).*Way out"):
        layer(torch.randn(2, 4))
    tokens = StochasticResidual(nn.Linear(4, 4), GENERIC, static="positions").train()
    assert tokens(torch.randn(2, 5, 4)).shape == (2, 5, 4)
