"""What a converted network does where the field's tools fail: single process, eager."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from small_networks import FULL, NOISY, QUANTISED, Digits, calibrated, mlp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import mho
from mho.errors import ConversionError, HardwareError, InputError
from mho.hardware import Adc, GenericCell, Hardware
from mho.nn import AnalogLayer, analog_layers


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _step(model: nn.Module, x: Tensor, lr: float = 0.1) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr)
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


# --- inputs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("hw", [NOISY, QUANTISED], ids=lambda h: h.name)
def test_nan_sample_in_eval_affects_only_its_row(hw: Hardware) -> None:
    x = torch.randn(4, 1, 6, 6)
    model = calibrated(Digits(), hw, x).eval()
    clean = model(x)
    x[2, 0, 3, 3] = float("nan")
    dirty = model(x)
    assert dirty[2].isnan().any()
    rows = [0, 1, 3]
    assert torch.equal(dirty[rows], clean[rows])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("hw", [NOISY, NOISY.replace(dac=None, adc=None, output_noise=0.0)], ids=["dac", "bare"])
def test_nan_batch_in_training_is_refused_and_nothing_changes(hw: Hardware, bad: float) -> None:
    model = mho.convert(mlp(), hw).train()
    _step(model, torch.randn(4, 6))
    before, x = _state(model), torch.randn(4, 6)
    x[1, 2] = bad
    with pytest.raises(InputError, match=r"0.weight: its input holds NaN or infinity"):
        _step(model, x)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    _step(model, torch.randn(4, 6))  # the next batch goes on


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(hw: Hardware, training: bool) -> None:
    model = calibrated(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(32, 3)), hw, torch.randn(4, 1, 6, 6))
    model.train(training)
    before = _state(model)
    y = model(torch.randn(0, 1, 6, 6))
    assert y.shape == (0, 3)
    y.sum().backward()
    assert all(p.grad is not None and bool((p.grad == 0).all()) for p in model.parameters())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_one_dimensional_input() -> None:
    model = calibrated(nn.Linear(6, 3), NOISY, torch.randn(4, 6)).eval()
    x = torch.randn(6)
    assert model(x).shape == (3,)
    assert torch.equal(model(x), model(x.unsqueeze(0))[0])


@pytest.mark.parametrize("training", [True, False])
def test_float64_input_to_a_float32_model_is_an_error(training: bool) -> None:
    model = calibrated(mlp(), NOISY, torch.randn(4, 6)).train(training)
    with pytest.raises(InputError, match=r"0.weight: input is torch.float64, the weight is torch.float32.*Way out"):
        model(torch.randn(4, 6, dtype=torch.float64))


@pytest.mark.parametrize("hw", [NOISY, QUANTISED, FULL], ids=lambda h: h.name)
@pytest.mark.parametrize("training", [True, False])
def test_noncontiguous_input(hw: Hardware, training: bool) -> None:
    x = torch.randn(6, 6, 1, 4)
    model = calibrated(Digits(), hw, x.permute(3, 2, 0, 1).contiguous()).train(training)
    twin = copy.deepcopy(model)
    outputs, grads = [], []
    for module, batch in ((model, x.permute(3, 2, 0, 1)), (twin, x.permute(3, 2, 0, 1).contiguous())):
        torch.manual_seed(1)
        y = module(batch)
        y.sum().backward()
        outputs.append(y)
        grads.append([p.grad for p in module.parameters()])
    assert torch.allclose(*outputs, atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*grads, strict=True))


# --- dtypes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
def test_double_half_bfloat16(hw: Hardware, dtype: torch.dtype) -> None:
    x = torch.randn(4, 1, 6, 6)
    digital = Digits().to(dtype)
    before_or_after = mho.convert(digital, hw), mho.convert(Digits(), hw).to(dtype)
    for model in before_or_after:
        assert all(p.dtype == dtype for p in model.parameters())
        model.train()
        y = model(x.to(dtype))
        assert y.dtype == dtype
        assert y.isfinite().all()
        y.float().square().sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype and p.grad.isfinite().all() for p in model.parameters())
        assert model.eval()(x.to(dtype)).dtype == dtype


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
def test_autocast_training_step(hw: Hardware) -> None:
    model, x = mho.convert(Digits(), hw).train(), torch.randn(4, 1, 6, 6)
    before = _state(model)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert not torch.equal(before["out.weight"], model.state_dict()["out.weight"])


@pytest.mark.parametrize("hw", [NOISY, FULL, QUANTISED], ids=lambda h: h.name)
def test_autocast_gives_what_the_digital_layer_gives(hw: Hardware) -> None:
    """Noise of float32 added to a product of bfloat16 would make the output float32."""
    layer, x = mho.convert(nn.Linear(6, 3), hw).train(), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == layer(x.bfloat16()).dtype == nn.Linear(6, 3)(x).dtype == torch.bfloat16
    assert layer(x).dtype == torch.float32


# --- randomness -----------------------------------------------------------------------------------


def test_manual_seed_fixes_the_noise_and_each_step_is_a_new_chip() -> None:
    model, x = mho.convert(mlp(), NOISY).train(), torch.randn(4, 6)
    model(x)
    frozen = copy.deepcopy(model)
    outputs = []
    for module in (model, frozen):
        torch.manual_seed(7)
        outputs.append((module(x), module(x)))
    assert torch.equal(outputs[0][0], outputs[1][0])
    assert torch.equal(outputs[0][1], outputs[1][1])
    assert not torch.equal(*outputs[0])


def test_eval_is_deterministic_unless_asked() -> None:
    x = torch.randn(4, 6)
    model = calibrated(mlp(), NOISY, x).eval()
    assert torch.equal(model(x), model(x))
    noisy = calibrated(mlp(), NOISY, x, noise_in_eval=True).eval()
    assert not torch.equal(noisy(x), noisy(x))


class Deep(nn.Module):
    """Two blocks that can be checkpointed, with dropout in the first."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 8))
        self.second = nn.LSTM(8, 4)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in (self.first, self.second):
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
            x = x[0] if isinstance(x, tuple) else x
        return x


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("options", [{}, {"backward": "noisy"}, {"ranges": "learned"}], ids=str)
def test_activation_checkpointing_meets_the_same_noise(hw: Hardware, reentrant: bool, options: dict) -> None:
    plain = mho.convert(Deep(), hw, **options).train()
    x = torch.randn(5, 3, 6)
    found = []
    for setting in (None, reentrant):
        model = copy.deepcopy(plain)
        model.reentrant = setting
        torch.manual_seed(5)
        for _ in range(2):  # the second step has known ranges
            model.zero_grad()
            batch = x.clone().requires_grad_()
            y = model(batch)
            y.square().sum().backward()
        found.append((y, batch.grad, {k: p.grad for k, p in model.named_parameters()}, _state(model)))
    (y0, x0, g0, s0), (y1, x1, g1, s1) = found
    assert torch.equal(y0, y1)
    assert torch.equal(x0, x1)
    assert all(torch.equal(g0[k], g1[k]) for k in g0)
    assert all(torch.equal(s0[k], s1[k]) for k in s0)


def test_module_used_twice_meets_one_chip_within_a_step() -> None:
    hw = NOISY.replace(cell=GenericCell(programming_noise=0.1), output_noise=0.0)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack((self.layer(x), self.layer(x)))

    model, x = mho.convert(Twice(), hw).train(), torch.randn(3, 6)
    first, second = model(x), model(x)
    assert torch.equal(first[0], first[1])
    assert torch.equal(second[0], second[1])
    assert not torch.equal(first, second)


# --- parameters and state -------------------------------------------------------------------------


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
def test_deepcopy_and_whole_model_pickle(hw: Hardware) -> None:
    x = torch.randn(4, 1, 6, 6)
    model = calibrated(Digits(), hw, x)
    model.train()(x)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for other in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        torch.manual_seed(2)
        want = model.train()(x)
        torch.manual_seed(2)
        assert torch.equal(other.train()(x), want)
        _step(other, x)
        assert not torch.equal(other.out.weight, model.out.weight)
        substrates = {id(layer.substrate) for _, layer in analog_layers(other)}
        assert len(substrates) == 1
        assert substrates.isdisjoint(id(layer.substrate) for _, layer in analog_layers(model))


def test_state_dict_loads_with_weights_only() -> None:
    x = torch.randn(4, 1, 6, 6)
    model, other = calibrated(Digits(), NOISY, x), mho.convert(Digits(), NOISY)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(model.eval()(x), other.eval()(x))


@pytest.mark.parametrize("options", [{}, {"clip_sigma": 2.0}, {"ranges": "learned"}], ids=str)
def test_digital_state_dict_loads_strictly_and_comes_back(options: dict) -> None:
    digital, x = Digits(), torch.randn(4, 1, 6, 6)
    analog = calibrated(Digits(), NOISY, x, **options)
    assert set(digital.state_dict()) <= set(analog.state_dict())
    analog.load_state_dict(digital.state_dict())
    back = mho.to_digital(analog)
    assert list(back.state_dict()) == list(digital.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(digital.state_dict().values(), back.state_dict().values(), strict=True)
    )
    assert torch.equal(digital.eval()(x), back.eval()(x))
    # The ranges belonged to other weights and are forgotten.
    with pytest.raises(InputError, match="range of its converters is not known yet"):
        analog.eval()(x)


def test_load_state_dict_takes_effect() -> None:
    x = torch.randn(4, 6)
    model, other = calibrated(mlp(), QUANTISED, x).eval(), calibrated(mlp(), QUANTISED, x).eval()
    before = model(x)
    model.load_state_dict(other.state_dict())
    assert torch.equal(model(x), other(x))
    assert not torch.equal(model(x), before)


def test_parameters_are_plain() -> None:
    digital = Digits()
    model = mho.convert(digital, NOISY)
    assert all(type(p) is nn.Parameter for p in model.parameters())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in digital.named_parameters()]
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in digital.parameters())
    vector = nn.utils.parameters_to_vector(model.parameters())
    assert torch.equal(vector, nn.utils.parameters_to_vector(digital.parameters()))
    nn.utils.vector_to_parameters(vector * 2, model.parameters())
    assert torch.equal(model.out.weight, digital.out.weight * 2)
    assert torch.equal(model.out.weight.clone(), digital.out.weight * 2)


def test_exponential_moving_average() -> None:
    model, x = mho.convert(mlp(), NOISY).train(), torch.randn(8, 6)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5), use_buffers=True
    )
    _step(model, x)
    average.update_parameters(model)
    first = model[0].weight.detach().clone()
    _step(model, x)
    average.update_parameters(model)
    assert torch.allclose(average.module[0].weight, (first + model[0].weight) / 2)
    assert average.eval()(x).shape == (8, 3)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack((self.first(x), self.second(x)))


def test_tied_weights_stay_tied_and_share_one_chip() -> None:
    hw = NOISY.replace(cell=GenericCell(programming_noise=0.1), output_noise=0.0)
    model, x = mho.convert(Tied(), hw).train(), torch.randn(3, 6)
    assert model.first.weight is model.second.weight
    assert len(list(model.parameters())) == 1
    y = model(x)
    assert torch.equal(y[0], y[1])
    chips = mho.fabricate(model, chips=2)
    both = chips(x)
    assert torch.equal(both[:, 0], both[:, 1])
    assert not torch.equal(both[0], both[1])
    back = mho.to_digital(model)
    assert back.first.weight is back.second.weight


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
@pytest.mark.parametrize("training", [True, False])
def test_step_of_a_plain_optimiser_takes_effect(hw: Hardware, training: bool) -> None:
    x = torch.randn(16, 6)
    model = calibrated(mlp(), hw, x).train(training)
    before = model.eval()(x)
    model.train(training)
    _step(model, x, lr=0.5)
    assert not torch.equal(model.eval()(x), before)


def test_gradient_accumulation() -> None:
    hw = QUANTISED
    x = torch.randn(8, 6)
    model = calibrated(mlp(), hw, x).eval()
    model(x).square().sum().backward()
    whole = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    for half in x.split(4):
        model(half).square().sum().backward()
    assert all(torch.allclose(a, p.grad, rtol=1e-5, atol=1e-5) for a, p in zip(whole, model.parameters(), strict=True))


# --- what is converted, and what is refused aloud -------------------------------------------------


def _analog_calls(model: nn.Module) -> list[str]:
    called: list[str] = []
    for name, layer in analog_layers(model):
        layer.register_forward_hook(lambda *_, name=name: called.append(name))
    return called


@pytest.mark.parametrize("options", [{"groups": 2}, {"groups": 4}, {"dilation": 2}, {"padding": "same"},
                                     {"padding": 1, "padding_mode": "reflect"}], ids=str)  # fmt: skip
@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
def test_every_kind_of_convolution_is_converted(hw: Hardware, options: dict) -> None:
    conv, x = nn.Conv2d(4, 8, 3, **options), torch.randn(2, 4, 8, 8)
    quiet = hw.replace(cell=GenericCell(), output_noise=0.0, dac=None, adc=Adc(bits=16))
    analog = calibrated(conv, quiet, x).eval()
    assert torch.allclose(analog(x), conv(x), atol=1e-3)
    assert not torch.equal(analog(x), conv(x))
    noisy = mho.convert(conv, hw).train()
    noisy(x).sum().backward()
    assert noisy.weight.grad.isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_transformer_encoder_layer_in_eval_takes_no_digital_path(grad: bool) -> None:
    digital = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    x = torch.randn(3, 5, 8)
    analog = calibrated(digital, QUANTISED, x).eval()
    called = _analog_calls(analog)
    with torch.set_grad_enabled(grad):
        y = analog(x)
        assert not torch.equal(y, digital(x))
        assert torch.allclose(y, digital(x), atol=0.2)
    assert set(called) == {"self_attn", "self_attn.out_proj", "linear1", "linear2"}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_transformer_encoder_with_padding_mask_in_eval() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    digital = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    x, hidden = torch.randn(3, 5, 8), torch.zeros(3, 5, dtype=torch.bool)
    hidden[1, 3:] = True
    analog = mho.convert(digital, QUANTISED)
    mho.calibrate(analog, [x])
    with torch.no_grad():
        y, want = analog(x, src_key_padding_mask=hidden), digital(x, src_key_padding_mask=hidden)
    seen = ~hidden
    assert torch.allclose(y[seen], want[seen], atol=0.3)
    assert not torch.equal(y[seen], want[seen])


@pytest.mark.parametrize("make", [lambda: nn.LSTM(6, 4), lambda: nn.GRU(6, 4, 2), lambda: nn.MultiheadAttention(6, 2)])
def test_lstm_gru_and_attention_are_converted(make: object) -> None:
    digital = make()  # type: ignore[operator]
    x = torch.randn(5, 3, 6)
    inputs = (x, x, x) if isinstance(digital, nn.MultiheadAttention) else (x,)
    analog = mho.convert(digital, NOISY).train()
    y = analog(*inputs)[0]
    assert isinstance(analog, AnalogLayer)
    assert not torch.equal(y, digital(*inputs)[0])
    y.sum().backward()
    assert all(p.grad is not None for p in analog.parameters())


class Renamed(nn.Linear):
    """Keeps nn.Linear's forward."""


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_subclass_without_its_own_forward_is_converted() -> None:
    model = mho.convert(nn.Sequential(Renamed(6, 3)), NOISY)
    assert isinstance(model[0], AnalogLayer)


def test_subclass_with_its_own_forward_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"0 \(Scaled\): a subclass of nn.Linear with a forward of its own"):
        mho.convert(nn.Sequential(Scaled(6, 3)), NOISY)
    kept = mho.convert(nn.Sequential(Scaled(6, 3), nn.Linear(3, 2)), NOISY, digital=["0"])
    assert type(kept[0]) is Scaled
    assert kept.train()(torch.randn(2, 6)).shape == (2, 2)


def test_two_classes_of_one_name() -> None:
    def make(scale: float) -> nn.Module:
        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 3)

            def forward(self, x: Tensor) -> Tensor:
                return scale * self.layer(x)

        return Block()

    x = torch.randn(2, 3)
    for scale in (1.0, 10.0):
        digital = make(scale)
        assert torch.equal(mho.convert(digital, "ideal")(x), digital(x))


class OwnMatrix(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.matrix = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.layer(x), self.matrix)


class TiedEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(10, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.layer(self.embedding(x)), self.embedding.weight)


def test_functional_product_with_a_bare_matrix_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"matrix \(Parameter\): a bare matrix \(4, 4\).*Way out"):
        mho.convert(OwnMatrix(), NOISY)


@pytest.mark.parametrize("product", [
    lambda h, w: F.linear(h, w), lambda h, w: h @ w.t(), lambda h, w: torch.einsum("bi,oi->bo", h, w),
    lambda h, w: torch.matmul(h, w.T),
])  # fmt: skip
def test_functional_product_with_an_embedding_is_refused_at_the_first_forward(product: object) -> None:
    class Model(TiedEmbedding):
        def forward(self, x: Tensor) -> Tensor:
            return product(self.layer(self.embedding(x)), self.embedding.weight)  # type: ignore[operator]

    tokens = torch.tensor([1, 2, 3])
    model = mho.convert(Model(), NOISY)
    for _ in range(2):  # it does not go through at the second attempt either
        with pytest.raises(ConversionError, match=r"with 'embedding.weight' by itself.*Way out"):
            model(tokens)
    allowed = mho.convert(Model(), NOISY, digital=["embedding"])
    assert allowed(tokens).shape == (3, 10)


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_transposed_convolution_is_refused_with_the_reason(kind: type[nn.Module]) -> None:
    with pytest.raises(ConversionError, match=r"1 \(ConvTranspose.d\): a transposed convolution.*Way out: nn.Upsample"):
        mho.convert(nn.Sequential(nn.Linear(2, 2), kind(2, 2, 3)), NOISY)  # type: ignore[call-arg]


def test_bare_root_layer_is_converted() -> None:
    layer, x = nn.Linear(6, 3), torch.randn(4, 6)
    analog = calibrated(layer, QUANTISED, x).eval()
    assert isinstance(analog, AnalogLayer)
    assert not torch.equal(analog(x), layer(x))
    assert torch.allclose(analog(x), layer(x), atol=0.1)
    assert type(mho.to_digital(analog)) is nn.Linear


def test_typos_and_impossible_values_are_refused() -> None:
    with pytest.raises(TypeError, match="output_nose"):
        Hardware(name="x", output_nose=0.1)  # type: ignore[call-arg]
    with pytest.raises(HardwareError, match="output_noise"):
        Hardware(name="x", adc=Adc(), output_noise=-0.1)
    with pytest.raises(HardwareError, match=r"GenericCell.programming_noise = -0.1: must be at least"):
        GenericCell(programming_noise=-0.1)
    with pytest.raises(HardwareError, match=r"Adc.bits = -3"):
        Adc(bits=-3)
    with pytest.raises(ConversionError, match="clip_sigma = -1"):
        mho.convert(mlp(), NOISY, clip_sigma=-1)
    with pytest.raises(HardwareError, match="Did you mean 'generic'"):
        mho.convert(mlp(), "genric")
