"""Margin variance against per-sample autograd, against Monte Carlo as a law, and against virtual chips."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from small_networks import NOISY, Digits, calibrated, mlp
from torch import Tensor, nn

import mho
from mho.crossbar.ops import ConvOp, LinearOp
from mho.errors import HardwareError, InputError
from mho.hardware import Adc, GenericCell, Hardware, Mapping, Neuron, Tile, load_hardware
from mho.objectives.margin_noise import margin_variance, patches, quadratic, sample_gradient
from mho.objectives.observe import observed
from mho.objectives.tasks import class_margin
from mho.objectives.weights import analog_weights
from mho.testing.statistics import assert_power

SIGNED = Mapping(scheme="signed")
STATIC = Hardware(name="static", cell=GenericCell(programming_noise=0.05), mapping=SIGNED)

OPS = {
    "1d": (ConvOp(2, 3, (3,), (1,), (1,), (1,), 1), (4, 2, 7)),
    "2d": (ConvOp(2, 4, (3, 2), (2, 1), (1, 0), (1, 2), 1), (4, 2, 7, 6)),
    "grouped": (ConvOp(4, 6, (3, 3), (1, 2), (1, 1), (2, 1), 2), (4, 4, 6, 6)),
    "3d": (ConvOp(2, 2, (2, 2, 2), (1, 1, 2), (0, 1, 0), (1, 1, 1), 1), (4, 2, 3, 3, 4)),
    "vector": (LinearOp(5, 3), (4, 5)),
    "tokens": (LinearOp(5, 3), (4, 6, 5)),
}


def _shape(op: ConvOp | LinearOp) -> tuple[int, ...]:
    if isinstance(op, LinearOp):
        return op.out_features, op.in_features
    return op.out_channels, op.in_channels // op.groups, *op.kernel


@pytest.mark.parametrize("case", [k for k in OPS if k not in ("vector", "tokens")])
def test_patches_are_what_a_kernel_multiplies(case: str) -> None:
    op, shape = OPS[case]
    assert isinstance(op, ConvOp)
    x, w = torch.randn(shape, dtype=torch.float64), torch.randn(_shape(op), dtype=torch.float64)
    rows = w.flatten(1).unflatten(0, (op.groups, -1))
    found = (rows @ patches(x, op)).flatten(1, 2)
    torch.testing.assert_close(found, op.apply(x, w, None).flatten(2))


@pytest.mark.parametrize("case", OPS)
def test_sample_gradients_are_autograds(case: str) -> None:
    op, shape = OPS[case]
    x, w = torch.randn(shape, dtype=torch.float64), torch.randn(_shape(op), dtype=torch.float64, requires_grad=True)
    y = op.apply(x, w, None)
    delta = torch.randn_like(y)
    found = sample_gradient(op, x, delta)
    for n in range(len(x)):
        (wanted,) = torch.autograd.grad(y[n], w, delta[n], retain_graph=True)
        torch.testing.assert_close(found[n], wanted.flatten(1))


@pytest.mark.parametrize("shape", [(), (3, 1), (3, 5)])
def test_the_short_way_of_a_dense_layer_is_the_long_one(shape: tuple[int, ...]) -> None:
    op = LinearOp(5, 3)
    h, delta, variance = torch.randn(4, 5).double(), torch.randn(4, 3).double(), torch.rand(shape).double()
    # Two reads, the second of nothing, take the long way.
    long = quadratic(op, [(h, delta), (0 * h, delta)], variance)
    torch.testing.assert_close(quadratic(op, [(h, delta)], variance), long)


class _Tied(nn.Module):
    """One matrix read twice, and once more by another layer that shares it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 5)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(torch.tanh(self.first(x))))
        return self.out(torch.tanh(self.second(h)))


class _Sequence(nn.Module):
    """A recurrent layer with its own batch order, or an attention, over tokens [N, T, 6]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.mix: nn.Module = nn.MultiheadAttention(6, 2, batch_first=True)
        else:
            self.mix = nn.LSTM(6, 6, batch_first=True) if kind == "lstm" else nn.GRUCell(6, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "attention":
            return self.out(self.mix(x, x, x, need_weights=False)[0].mean(1))
        if self.kind == "lstm":
            state = x.new_full((1, len(x), 6), 0.1)
            return self.out(self.mix(x, (state, state))[0][:, -1])
        h = x.new_full((len(x), 6), 0.1)
        for t in range(x.shape[1]):
            h = self.mix(x[:, t], h)
        return self.out(h)


class _Images(nn.Module):
    """Paddings of torch, groups, an activation in place, pooling, an output that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(4, 6, 2, groups=2, padding="same", bias=False)
        self.unused = nn.Linear(3, 2)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x[:, 0, 0, :3])
        h = F.relu(self.first(x), inplace=True)
        return self.out(torch.tanh(self.second(h)).mean((2, 3)))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), (6, 6)),
    "digits": (Digits, (6, 1, 6, 6)),
    "images": (_Images, (6, 2, 5, 5)),
    "tied": (_Tied, (6, 6)),
    "lstm": (lambda: _Sequence("lstm"), (6, 4, 6)),
    "gru cell": (lambda: _Sequence("cell"), (6, 4, 6)),
    "attention": (lambda: _Sequence("attention"), (6, 4, 6)),
}
HARDWARE = {
    "static": STATIC,
    "converters": NOISY,
    "tiles": NOISY.replace(tile=Tile(rows=18), mapping=Mapping(scheme="signed", per_column=True)),
    "neuron": NOISY.replace(
        neuron=Neuron(gain_neg=0.3, low=-0.3, high=0.6, soft=True), adc=Adc(bits=8, range_sigma=2.0)
    ),
    "slices": NOISY.replace(mapping=Mapping(scheme="signed", slices=2, bits_per_slice=4), adc=Adc(bits=6)),
}  # fmt: skip


def _prepared(network: str, hw: Hardware, seed: int = 0, **options: object) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(seed)
    make, shape = NETWORKS[network]
    net, x = make().double().eval(), torch.randn(shape, dtype=torch.float64)
    return calibrated(net, hw, x, **options).eval().double(), x, torch.arange(len(x)) % 5


def _variance(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with observed(model) as seen:
        margins = class_margin(model(x), y)
    return margin_variance(margins, seen.products)


@pytest.mark.parametrize("hw", ["static", "converters", "tiles", "neuron"])
@pytest.mark.parametrize("network", NETWORKS)
def test_it_is_per_sample_autograd(network: str, hw: str) -> None:
    model, x, y = _prepared(network, HARDWARE[hw], clip_sigma=2.0)
    weights = list(analog_weights(model))
    found = _variance(model, x, y).detach()
    margins = class_margin(model(x), y)
    for n in range(len(x)):
        total = torch.zeros((), dtype=torch.float64)
        slopes = torch.autograd.grad(margins[n], [w.weight for w in weights], retain_graph=True, allow_unused=True)
        for w, g in zip(weights, slopes, strict=True):
            if g is not None:
                total = total + ((0.05 * w.w_max * g) ** 2).sum()
        torch.testing.assert_close(found[n], total, rtol=1e-6, atol=1e-12)


def test_bit_slices_are_the_sum_of_their_own_errors() -> None:
    # Without clipping both slices see the slope of the whole weight times their digital factor.
    hw = HARDWARE["slices"].replace(adc=None, output_noise=0.0)
    model, x, y = _prepared("mlp", hw)
    whole = STATIC.replace(dac=hw.dac)
    plain, _, _ = _prepared("mlp", whole)
    factors = torch.tensor([15 * 16 / 255, 15 / 255], dtype=torch.float64)
    # Slices round the weights to 8 bits, which moves the slopes a little.
    torch.testing.assert_close(
        _variance(model, x, y), _variance(plain, x, y) * factors.square().sum(), rtol=0.02, atol=0
    )


def test_nothing_stays_behind_in_the_network() -> None:
    model, x, _ = _prepared("images", NOISY)
    substrates = [layer.substrate for _, layer in mho.nn.analog_layers(model)]
    before = model(x)
    with pytest.raises(InputError, match="features"), observed(model):
        model(x[..., :0])
    assert all(a is b.substrate for a, (_, b) in zip(substrates, mho.nn.analog_layers(model), strict=True))
    torch.testing.assert_close(model(x), before, rtol=0, atol=0)


def test_looking_does_not_change_the_pass_or_its_gradient() -> None:
    torch.manual_seed(1)
    start = mho.convert(Digits(), NOISY).train()
    x = torch.randn(4, 1, 6, 6)
    start(x)
    grads, states = [], []
    for looking in (False, True):
        model = copy.deepcopy(start)
        torch.manual_seed(7)
        if looking:
            with observed(model) as seen:
                out = model(x)
            assert len(seen.products) == 3
        else:
            out = model(x)
        out.square().sum().backward()
        grads.append([p.grad for p in model.parameters()])
        states.append(list(model.state_dict().values()))
    torch.testing.assert_close(grads[0], grads[1], rtol=0, atol=0)
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def _law_of(network: str, many: Callable[[nn.Module, Tensor, float], Tensor]) -> None:
    """Margins of one image over 100,000 chips are normal with the predicted sigma; 5 % off is seen."""
    hw = STATIC.replace(cell=GenericCell(programming_noise=1e-4))
    model, x, y = _prepared(network, hw, seed=3)
    x, y = x[:1], y[:1]
    sigma = float(_variance(model, x, y).detach().sqrt())
    ideal = class_margin(model(x), y).detach()

    def sampler(scale: float) -> Tensor:
        torch.manual_seed(11)
        outputs = torch.cat([many(model, x, 1e-4 * scale) for _ in range(10)])
        return class_margin(outputs, y.expand(len(outputs))) - ideal

    with torch.no_grad():
        assert_power(sampler, sigma=sigma, mean=0.0)


def _draws(weight: Tensor, sigma: float) -> Tensor:
    return weight + sigma * weight.abs().amax() * torch.randn(10_000, *weight.shape, dtype=weight.dtype)


def test_margins_of_a_dense_network_follow_the_law() -> None:
    def many(model: nn.Module, x: Tensor, sigma: float) -> Tensor:
        first, second = model[0], model[2]  # type: ignore[index]
        h = torch.tanh(torch.einsum("koi,ni->ko", _draws(first.weight, sigma), x) + first.bias)
        return torch.einsum("koi,ki->ko", _draws(second.weight, sigma), h) + second.bias

    _law_of("mlp", many)


def test_margins_of_a_pooled_convolution_follow_the_law() -> None:
    # One kernel error a chip, shared by all 25 positions: errors of each position would average out.
    NETWORKS["pooled"] = (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.AvgPool2d(5), nn.Flatten(), nn.Linear(4, 5)),
        (6, 2, 5, 5),
    )

    def many(model: nn.Module, x: Tensor, sigma: float) -> Tensor:
        conv, out = model[0], model[4]  # type: ignore[index]
        columns = F.unfold(x, 3, padding=1)[0]
        h = torch.tanh(_draws(conv.weight, sigma).flatten(2) @ columns + conv.bias[:, None]).mean(2)
        return torch.einsum("koi,ki->ko", _draws(out.weight, sigma), h) + out.bias

    _law_of("pooled", many)


@pytest.mark.parametrize("name", ["generic", "pcm-joshi2020", "reram-wan2022"])
def test_virtual_chips_agree(name: str) -> None:
    hw = load_hardware(name)
    hw = Hardware(name=name, cell=hw.cell, mapping=hw.mapping)
    hw = hw.replace(cell=mho.physics.cells.scale_noise(hw.cell, 0.1))
    torch.manual_seed(0)
    model = mho.convert(mlp(), hw).eval()
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    predicted = _variance(model, x, y).detach()
    chips, quiet = 300, model
    with torch.no_grad():
        outputs = mho.fabricate(quiet, chips=chips, seed=5)(x)
        margins = torch.stack([class_margin(o, y) for o in outputs])
    low, high = stats.chi2.ppf([1e-4, 1 - 1e-4], chips - 1) / (chips - 1)
    ratio = margins.var(0) / predicted
    assert bool(((ratio > low) & (ratio < high)).all()), ratio
    assert not bool(((2 * ratio > low) & (2 * ratio < high)).all())


@pytest.mark.parametrize("network", ["mlp", "images", "lstm"])
def test_gradient_to_the_weights(network: str) -> None:
    hw = STATIC.replace(neuron=Neuron(gain_neg=0.9, low=-0.8, soft=True))
    model, x, y = _prepared(network, hw, clip_sigma=4.0)
    _, layer = next(iter(mho.nn.analog_layers(model)))
    key = next(iter(layer.sites))
    start = getattr(layer, key).detach().clone().requires_grad_()
    del layer._parameters[key]

    def value(w: Tensor) -> Tensor:
        setattr(layer, key, w)
        return _variance(model, x[:2], y[:2]).sum()

    assert torch.autograd.gradcheck(value, start, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_a_state_dependent_error_moves_the_weights_too() -> None:
    model, x, y = _prepared("mlp", load_hardware("pcm-hermes").replace(adc=None, dac=None))
    _variance(model, x, y).sum().backward()
    assert all(bool((w.weight.grad != 0).any()) for w in analog_weights(model))


def test_hardware_without_static_noise_is_refused() -> None:
    model, x, y = _prepared("mlp", load_hardware("ideal"))
    with pytest.raises(
        HardwareError, match=r"no weight that was read has a static error \(hardware: ideal\).*Fix: a cell"
    ):
        _variance(model, x, y)


def test_samples_must_stay_apart() -> None:
    class Folds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.each, self.out = nn.Linear(3, 4), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.each(x.reshape(-1, 3)).reshape(len(x), 8))

    model = mho.convert(Folds(), STATIC).eval()
    with pytest.raises(InputError, match=r"each.weight: margin_noise needs the 4 samples.*axis 0.*\(8, 3\).*Fix: keep"):
        _variance(model, torch.randn(4, 6), torch.arange(4))
