"""Ideal hardware is torch.nn to the last bit, forward; gradients agree too."""

import copy

import pytest
import torch
from torch import Tensor, nn

import mho


def _flat(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, (tuple, list)):
        return [leaf for item in value for leaf in _flat(item)]
    return []


def assert_same_as_torch(digital: nn.Module, *inputs: object, atol: float = 1e-6, **options: object) -> None:
    """Same bits forward in train and eval mode, same gradients of parameters and inputs."""
    for training in (True, False):
        reference = copy.deepcopy(digital).train(training)
        analog = mho.convert(reference, "ideal")
        with torch.no_grad():
            want, got = _flat(reference(*inputs, **options)), _flat(analog(*inputs, **options))
            assert len(want) == len(got) > 0
            for a, b in zip(want, got, strict=True):
                assert a.dtype == b.dtype
                assert torch.equal(a, b), f"no_grad, training={training}: {(a - b).abs().max()}"
        leaves = [t for t in _flat(inputs) if t.is_floating_point()]
        grads = []
        for module in (reference, analog):
            for leaf in leaves:
                leaf.grad = None
                leaf.requires_grad_()
            outputs = _flat(module(*inputs, **options))
            weighted = [(o * torch.linspace(-1, 1, o.numel()).reshape(o.shape)).sum() for o in outputs]
            sum(weighted).backward()
            grads.append((outputs, [t.grad for t in leaves], {k: p.grad for k, p in module.named_parameters()}))
            for leaf in leaves:
                leaf.requires_grad_(False)
        for a, b in zip(grads[0][0], grads[1][0], strict=True):
            assert torch.equal(a, b), f"with grad, training={training}: {(a - b).abs().max()}"
        for a, b in zip(grads[0][1], grads[1][1], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=1e-5, atol=atol)
        assert grads[0][2].keys() == grads[1][2].keys()
        for key, a in grads[0][2].items():
            b = grads[1][2][key]
            assert (a is None) == (b is None), key
            assert a is None or torch.allclose(a, b, rtol=1e-5, atol=atol), key


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(12,), (5, 12), (2, 3, 12), (2, 3, 4, 12)])
def test_linear(shape: tuple[int, ...], bias: bool) -> None:
    assert_same_as_torch(nn.Linear(12, 7, bias=bias), torch.randn(shape))


CONV_OPTIONS = [
    {},
    {"bias": False},
    {"stride": 2, "padding": 1},
    {"padding": 2, "dilation": 2},
    {"padding": "same", "dilation": 2},
    {"padding": "same", "kernel_size": 4},
    {"padding": "valid"},
    {"groups": 2},
    {"groups": 4, "out_channels": 8},
    {"padding": 1, "padding_mode": "reflect"},
    {"padding": 1, "padding_mode": "replicate"},
    {"padding": 1, "padding_mode": "circular"},
    {"padding": "same", "padding_mode": "circular", "kernel_size": 4},
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("options", CONV_OPTIONS, ids=str)
@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_conv(ndim: int, options: dict) -> None:
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[ndim - 1]
    conv = kind(**{"in_channels": 4, "out_channels": 6, "kernel_size": 3} | options)
    assert_same_as_torch(conv, torch.randn(2, 4, *([7] * ndim)), atol=1e-5)
    assert_same_as_torch(conv, torch.randn(4, *([7] * ndim)), atol=1e-5)


def test_conv_unequal_options_and_channels_last() -> None:
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(0, 2), dilation=(1, 2))
    assert_same_as_torch(conv, torch.randn(2, 4, 9, 8), atol=1e-5)
    assert_same_as_torch(conv, torch.randn(2, 4, 9, 8).to(memory_format=torch.channels_last), atol=1e-5)


RECURRENT_OPTIONS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"bias": False},
    {"batch_first": True},
]


@pytest.mark.parametrize("options", RECURRENT_OPTIONS, ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN", "RELU"])
def test_recurrent(kind: str, options: dict) -> None:
    extra = {"nonlinearity": "relu"} if kind == "RELU" else {}
    layer = getattr(nn, "RNN" if kind == "RELU" else kind)(5, 4, **options, **extra)
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    x, h = torch.randn(3, 6, 5), torch.randn(rows, 3 if layer.batch_first else 6, 4)
    assert_same_as_torch(layer, x)
    assert_same_as_torch(layer, x, (h, h.flip(-1)) if kind == "LSTM" else h)
    single = torch.randn(rows, 4)
    assert_same_as_torch(layer, torch.randn(6, 5))
    assert_same_as_torch(layer, torch.randn(6, 5), (single, single.flip(-1)) if kind == "LSTM" else single)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell", "RELU"])
def test_recurrent_cells(kind: str, bias: bool) -> None:
    extra = {"nonlinearity": "relu"} if kind == "RELU" else {}
    cell = getattr(nn, "RNNCell" if kind == "RELU" else kind)(5, 4, bias=bias, **extra)
    h = torch.randn(3, 4)
    assert_same_as_torch(cell, torch.randn(3, 5))
    assert_same_as_torch(cell, torch.randn(3, 5), (h, h.flip(0)) if kind == "LSTMCell" else h)
    assert_same_as_torch(cell, torch.randn(5))


ATTENTION_OPTIONS = [
    {},
    {"batch_first": True},
    {"bias": False},
    {"add_bias_kv": True},
    {"kdim": 6, "vdim": 10},
    {"kdim": 6, "vdim": 10, "batch_first": True, "bias": False},
]


@pytest.mark.parametrize("options", ATTENTION_OPTIONS, ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_attention(options: dict, need_weights: bool) -> None:
    attention = nn.MultiheadAttention(8, 2, **options)
    batch_first = attention.batch_first
    x = torch.randn(3, 5, 8) if batch_first else torch.randn(5, 3, 8)
    key, value = (torch.randn(*((3, 7) if batch_first else (7, 3)), n) for n in (attention.kdim, attention.vdim))
    if attention.kdim == 8:
        assert_same_as_torch(attention, x, x, x, need_weights=need_weights)
    assert_same_as_torch(attention, x, key, value, need_weights=need_weights)
    if attention.kdim == attention.vdim:
        assert_same_as_torch(attention, x, key, key, need_weights=need_weights)
    hidden = torch.tensor([[False] * 7, [False] * 5 + [True] * 2, [False] * 6 + [True]])
    mask = torch.randn(5, 7)
    assert_same_as_torch(attention, x, key, value, key_padding_mask=hidden, need_weights=need_weights)
    assert_same_as_torch(attention, x, key, value, attn_mask=mask, need_weights=need_weights)
    assert_same_as_torch(attention, x, key, value, attn_mask=mask > 1.5, need_weights=need_weights)
    assert_same_as_torch(
        attention, x, key, value, attn_mask=mask.expand(6, 5, 7) > 1.5, key_padding_mask=hidden,
        need_weights=need_weights, average_attn_weights=False,
    )  # fmt: skip
    single = torch.randn(5, 8), torch.randn(7, attention.kdim), torch.randn(7, attention.vdim)
    assert_same_as_torch(attention, *single, need_weights=need_weights)
    assert_same_as_torch(attention, *single, attn_mask=mask.expand(2, 5, 7), need_weights=need_weights)


@pytest.mark.parametrize("length", [5, 1])
def test_causal_attention(length: int) -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(3, length, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(length)
    for need_weights in (True, False):
        assert_same_as_torch(attention, x, x, x, attn_mask=mask, is_causal=True, need_weights=need_weights)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_transformer_encoder_layer(batch_first: bool, norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=batch_first, norm_first=norm_first)
    x, ideal = torch.randn(3, 5, 8), mho.convert(layer, "ideal")
    for training in (True, False):
        layer.train(training), ideal.train(training)
        assert torch.equal(layer(x), ideal(x))  # with gradients torch takes no fused path
    with torch.no_grad():
        assert torch.allclose(layer(x), ideal(x), atol=1e-5)  # its fused path rounds in another order
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            assert torch.equal(layer(x), ideal(x))
        finally:
            torch.backends.mha.set_fastpath_enabled(True)


def test_whole_transformer() -> None:
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
    x, y = torch.randn(2, 5, 8), torch.randn(2, 3, 8)
    assert torch.equal(model(x, y), mho.convert(model, "ideal")(x, y))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(64, 5)).to(dtype)
    assert_same_as_torch(model, torch.randn(2, 3, 4, 4).to(dtype), atol=0.05)


def test_dropout_between_recurrent_layers_draws_as_torch_does() -> None:
    lstm = nn.LSTM(5, 4, 3, dropout=0.5)
    analog, x = mho.convert(lstm, "ideal"), torch.randn(6, 2, 5)
    outputs = []
    for module in (lstm, analog):
        torch.manual_seed(3)
        outputs.append(module(x)[0])
    assert torch.equal(*outputs)


def test_convert_leaves_the_original_alone() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    analog = mho.convert(model, "ideal")
    with torch.no_grad():
        for p in analog.parameters():
            p.zero_()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert type(model[0]) is nn.Linear
