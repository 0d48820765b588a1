"""Bad input and impossible conversions: the error names the module, the cause and the way out."""

import pytest
import torch
from small_networks import NOISY, QUANTISED, Digits, calibrated, mlp
from torch import Tensor, nn
from torch.nn.utils import prune

import mho
from mho.errors import ConversionError, InputError
from mho.hardware import GenericCell, Hardware, Mapping, Tile
from mho.nn import AnalogLayer, analog_layers, new_chip, project_, set_noise_scale

IDEAL = Hardware(name="own", mapping=Mapping(scheme="signed"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nonfinite_weights_are_refused_by_name(bad: float) -> None:
    model = Digits()
    with torch.no_grad():
        model.hidden.weight[1, 2] = bad
    with pytest.raises(InputError, match=r"hidden.weight: holds NaN or infinity.*Way out"):
        mho.convert(model, NOISY)


def test_weights_that_became_nan_are_named_in_training() -> None:
    model = mho.convert(mlp(), NOISY).train()
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"2.weight: the weight holds NaN or infinity. Way out"):
        model(torch.randn(4, 6))


@pytest.mark.parametrize(
    ("layer", "x", "words"),
    [
        (nn.Linear(6, 3), torch.randn(4, 5), r"weight: input of shape \(4, 5\) needs 6 features in dimension -1"),
        (nn.Linear(6, 3), torch.tensor(1.0), "needs 6 features"),
        (nn.Conv2d(2, 3, 3), torch.randn(4, 3, 8, 8), r"needs 2 features in dimension -3"),
        (nn.Conv2d(2, 3, 3), torch.randn(8, 8), r"has 2 dimensions, 3 or 4 are needed"),
        (nn.LSTM(6, 3), torch.randn(4, 2, 5), "needs 6 features"),
        (nn.LSTM(6, 3), torch.randn(6), "has 1 dimensions, 2 or 3 are needed"),
        (nn.Linear(6, 3), torch.ones(4, 6, dtype=torch.long), "input is torch.int64, the weight is torch.float32"),
        (nn.Linear(6, 3), [1.0] * 6, "input is a list, not a tensor"),
    ],
)
def test_wrong_shapes_and_dtypes(layer: nn.Module, x: object, words: str) -> None:
    for training in (True, False):
        with pytest.raises(InputError, match=words):
            mho.convert(layer, NOISY).train(training)(x)


def test_wrong_attention_and_state_shapes() -> None:
    attention = mho.convert(nn.MultiheadAttention(6, 2, kdim=4), NOISY)
    x = torch.randn(5, 2, 6)
    with pytest.raises(InputError, match=r"\(key\): input of shape \(5, 2, 6\) needs 4 features"):
        attention(x, x, x)
    lstm = mho.convert(nn.Sequential(nn.LSTM(6, 3)), NOISY)[0]
    with pytest.raises(InputError, match=r"0: initial state of shape \(1, 3, 3\), needed \(1, 2, 3\)"):
        lstm(x, (torch.zeros(1, 3, 3), torch.zeros(1, 3, 3)))
    with pytest.raises(InputError, match="1 initial states, 2 needed for LSTM"):
        lstm(x, torch.zeros(1, 2, 3))
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]))
    with pytest.raises(InputError, match=r"0: input is a PackedSequence. Way out: pad"):
        lstm(packed)


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_wrong_state_of_a_cell(kind: type[nn.Module]) -> None:
    cell = mho.convert(kind(6, 3), NOISY).train()  # type: ignore[call-arg]
    bad = torch.zeros(2, 4)
    with pytest.raises(InputError, match=r"state of shape \(2, 4\)"):
        cell(torch.randn(2, 6), (bad, bad) if kind is nn.LSTMCell else bad)


def test_eval_without_ranges_says_how_to_get_them() -> None:
    model = mho.convert(mlp(), NOISY).eval()
    with pytest.raises(
        InputError, match=r"0.weight: the input range of its converters is not known yet.*mho.calibrate"
    ):
        model(torch.randn(4, 6))
    with pytest.raises(InputError, match="there was no batch"):
        mho.calibrate(model, [])
    mho.calibrate(model, [(torch.randn(4, 6), torch.zeros(4))])
    assert model(torch.randn(4, 6)).isfinite().all()


def test_calibration_is_the_mean_over_batches_and_keeps_the_mode() -> None:
    model = mho.convert(nn.Linear(6, 3), NOISY).train()
    batches = [torch.full((2, 6), 1.0), torch.full((2, 6), 3.0), torch.full((2, 6), 100.0)]
    mho.calibrate(model, batches, count=2)
    assert model.training
    assert float(model.weight_ranges[0]) == pytest.approx(2.0)
    mho.calibrate(model, batches[2:])  # ranges known before are forgotten
    assert float(model.weight_ranges[0]) == pytest.approx(100.0)


def test_calibration_refuses_nan() -> None:
    model = mho.convert(mlp(), NOISY)
    x = torch.randn(4, 6)
    x[0, 0] = float("nan")
    with pytest.raises(InputError, match="NaN or infinity"):
        mho.calibrate(model, [x])


def test_kernel_larger_than_the_tile() -> None:
    hw = NOISY.replace(tile=Tile(rows=8))
    with pytest.raises(ConversionError, match=r"conv \(Conv2d\): a kernel of 3x3 needs 9 rows.*digital=\['conv'\]"):
        mho.convert(Digits(), hw)
    assert type(mho.convert(Digits(), hw, digital=["conv"]).conv) is nn.Conv2d


def test_every_refusal_is_listed_at_once() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(1, 1, 3), nn.Linear(3, 3), nn.Bilinear(3, 3, 3))
    with pytest.raises(ConversionError, match=r"2 part\(s\)(.|\n)*0 \(ConvTranspose2d\)(.|\n)*2 \(Bilinear\)"):
        mho.convert(model, NOISY)
    with pytest.raises(ConversionError, match=r"shape is not known yet.*run one batch"):
        mho.convert(nn.Sequential(nn.LazyLinear(3)), NOISY)
    with pytest.raises(ConversionError, match="already converted"):
        mho.convert(mho.convert(mlp(), NOISY), NOISY)


# --- where= and digital= --------------------------------------------------------------------------


def _analog(model: nn.Module) -> list[str]:
    return [name for name, _ in analog_layers(model)]


@pytest.mark.parametrize("options", [{"where": ["hiden"]}, {"where": "hiden"}, {"where": {"hiden": None}},
                                     {"digital": ["hiden"]}, {"digital": "hiden"}], ids=str)  # fmt: skip
def test_unknown_pattern_is_a_typo(options: dict) -> None:
    for verb in (mho.convert, mho.inspect):
        with pytest.raises(ConversionError, match=r"pattern 'hiden' matches no module.*Did you mean 'hidden'"):
            verb(Digits(), NOISY, **options)


def test_where_as_predicate_list_and_map() -> None:
    assert _analog(mho.convert(Digits(), NOISY)) == ["conv", "hidden", "out"]
    assert _analog(mho.convert(Digits(), NOISY, where=lambda name, m: isinstance(m, nn.Conv2d))) == ["conv"]
    assert _analog(mho.convert(Digits(), NOISY, where=["hidden", "o*"])) == ["hidden", "out"]
    assert _analog(mho.convert(Digits(), NOISY, where="hidden")) == ["hidden"]
    assert _analog(mho.convert(Digits(), NOISY, digital=["out"])) == ["conv", "hidden"]
    mixed = mho.convert(Digits(), NOISY, where={"conv": "ideal", "out": None, "hid*": QUANTISED})
    assert _analog(mixed) == ["conv", "hidden"]
    assert mixed.conv.sites["weight"].hw.name == "ideal"
    assert mixed.hidden.sites["weight"].hw is QUANTISED


def test_where_on_parts_of_a_nested_network() -> None:
    layer = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)
    assert _analog(mho.convert(layer, NOISY, where=["layers.1.*"])) == [
        "layers.1.self_attn", "layers.1.self_attn.out_proj", "layers.1.linear1", "layers.1.linear2",
    ]  # fmt: skip
    assert _analog(mho.convert(layer, NOISY, digital=["layers.0"])) == _analog(
        mho.convert(layer, NOISY, where=["layers.1.*"])
    )


def test_inspect_lists_everything_and_changes_nothing() -> None:
    model = nn.Sequential(Digits(), nn.ConvTranspose2d(1, 1, 3))
    before = str(model)
    found = mho.inspect(model, "generic")
    assert str(model) == before
    rows = {row.name: row for row in found.rows}
    assert rows["0.conv"].decision == "analog"
    assert rows["0.norm"].decision == "digital"
    assert rows["1"].decision == "refused"
    assert rows["1"] in found.refused
    assert sum(r.parameters for r in found.rows) == sum(p.numel() for p in model.parameters())
    text = str(found)
    for name, module in model.named_modules():
        assert (name or "(root)") in text
        assert type(module).__name__ in text


# --- back again -----------------------------------------------------------------------------------


class TiedPair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.same = self.a

    def forward(self, x: Tensor) -> Tensor:
        return self.same(self.b(self.a(x)))


@pytest.mark.parametrize("make", [
    Digits, TiedPair, lambda: nn.LSTM(6, 4, 2, bidirectional=True), lambda: nn.GRU(6, 4, bias=False),
    lambda: nn.RNN(6, 4, nonlinearity="relu"), lambda: nn.LSTMCell(6, 4), lambda: nn.RNNCell(6, 4, bias=False),
    lambda: nn.MultiheadAttention(6, 2), lambda: nn.MultiheadAttention(6, 2, kdim=6, vdim=6, bias=False),
    lambda: nn.MultiheadAttention(6, 2, add_bias_kv=True, batch_first=True),
    lambda: nn.TransformerEncoderLayer(6, 2, 12, batch_first=True),
    lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), 2),
    lambda: nn.Conv1d(6, 4, 3, padding="same", padding_mode="circular", groups=2),
])  # fmt: skip
def test_to_digital_is_the_exact_inverse(make: object) -> None:
    torch.manual_seed(0)
    digital = make().eval()  # type: ignore[operator]
    x = torch.randn(2, 1, 6, 6) if isinstance(digital, Digits) else torch.randn(2, 6, 6)
    x = x[0] if isinstance(digital, nn.RNNCellBase) else x
    inputs = (x, x, x) if isinstance(digital, nn.MultiheadAttention) else (x,)
    back = mho.to_digital(mho.convert(digital, NOISY, clip_sigma=2.0))
    assert str(back) == str(digital)
    assert list(back.state_dict()) == list(digital.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(back.state_dict().values(), digital.state_dict().values(), strict=True)
    )
    assert [n for n, _ in back.named_parameters()] == [n for n, _ in digital.named_parameters()]
    assert not any(isinstance(m, AnalogLayer) for m in back.modules())
    assert not back._forward_pre_hooks
    assert not back._forward_hooks
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            want, got = digital(*inputs), back(*inputs)
            leaves = zip(torch.utils._pytree.tree_leaves(want), torch.utils._pytree.tree_leaves(got), strict=True)
            assert all(torch.equal(a, b) for a, b in leaves if a is not None)
    for (name, a), (_, b) in zip(digital.named_modules(), back.named_modules(), strict=True):
        theirs = {k for k in vars(a) if not k.startswith("_")}
        assert {k: getattr(a, k) for k in theirs if isinstance(getattr(a, k), (int, float, str, bool, tuple))} == {
            k: getattr(b, k) for k in theirs if isinstance(getattr(b, k), (int, float, str, bool, tuple))
        }, name


def test_user_hooks_survive_conversion_and_return() -> None:
    model, seen = mlp(), []
    model.register_forward_hook(lambda *_: seen.append("after"))
    model[0].register_forward_hook(lambda *_: seen.append("layer"))
    analog = calibrated(model, QUANTISED, torch.randn(4, 6))
    seen.clear()
    analog(torch.randn(4, 6))
    mho.fabricate(analog, chips=1)(torch.randn(4, 6))
    mho.to_digital(analog)(torch.randn(4, 6))
    assert seen == ["layer", "after"] * 3


@pytest.mark.filterwarnings("ignore:.*torch.nn.utils.weight_norm.*:FutureWarning")
@pytest.mark.parametrize("change", [
    nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm, nn.utils.weight_norm,
    nn.utils.spectral_norm, lambda m: prune.l1_unstructured(m, "weight", 0.5),
])  # fmt: skip
def test_computed_weights_are_refused(change: object) -> None:
    layer = change(nn.Linear(6, 6))  # type: ignore[operator]
    with pytest.raises(ConversionError, match=r"0 \(\w*Linear\): its weight is computed from other parameters"):
        mho.convert(nn.Sequential(layer), NOISY)


# --- bounds, scale, modes -------------------------------------------------------------------------


def test_bounds_clip_in_the_forward_and_project_in_place() -> None:
    torch.manual_seed(0)
    model = mho.convert(nn.Linear(50, 20, bias=False), IDEAL, clip_sigma=1.0).train()
    x, w = torch.randn(3, 50), model.weight.detach().clone()
    bound = float(w.std())
    y = model(x)
    assert torch.allclose(y, x @ w.clamp(-bound, bound).t(), atol=1e-5)
    y.sum().backward()
    assert torch.allclose(model.weight.grad, x.sum(0).expand(20, 50), atol=1e-5)  # out of range, yet able to return
    project_(model)
    assert float(model.weight.detach().abs().max()) == pytest.approx(bound)


def test_noise_scale() -> None:
    hw = IDEAL.replace(cell=GenericCell(programming_noise=0.1))
    model, x = mho.convert(nn.Linear(50, 40, bias=False), hw).train(), torch.randn(30, 50)
    clean = x @ model.weight.t()
    spread = {}
    for scale in (0.0, 1.0, 2.0):
        set_noise_scale(model, scale)
        torch.manual_seed(0)
        spread[scale] = float((model(x) - clean).detach().std())
    assert spread[0.0] == 0.0
    assert spread[2.0] == pytest.approx(2 * spread[1.0], rel=1e-3)
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="noise scale"):
            set_noise_scale(model, bad)
    with pytest.raises(ConversionError, match="no analog layer"):
        new_chip(mlp())


@pytest.mark.parametrize(("options", "words"), [({"ranges": "learnt"}, "ranges = 'learnt'"),
                                                ({"backward": "noise"}, "backward = 'noise'"),
                                                ({"clip_sigma": float("nan")}, "clip_sigma = nan")])  # fmt: skip
def test_wrong_arguments(options: dict, words: str) -> None:
    with pytest.raises(ConversionError, match=words):
        mho.convert(mlp(), NOISY, **options)


def test_noisy_backward_changes_only_the_gradient() -> None:
    x = torch.randn(4, 6)
    found = {}
    for backward in ("ideal", "noisy"):
        torch.manual_seed(0)
        model = calibrated(nn.Linear(6, 8), QUANTISED, x, backward=backward).train()
        batch = x.clone().requires_grad_()
        y = model(batch)
        y.square().sum().backward()
        found[backward] = y.detach(), batch.grad, model.weight.grad
    assert torch.allclose(found["ideal"][0], found["noisy"][0], atol=1e-6)
    assert torch.allclose(found["ideal"][2], found["noisy"][2], atol=1e-5)
    assert not torch.equal(found["ideal"][1], found["noisy"][1])
    assert torch.allclose(found["ideal"][1], found["noisy"][1], atol=0.1 * float(found["ideal"][1].abs().max()))


def test_a_conversion_that_converts_nothing_is_an_error() -> None:
    for model, where in ((nn.Sequential(nn.ReLU(), nn.Flatten()), None), (mlp(), lambda name, module: False)):
        with pytest.raises(ConversionError, match="no part of it"):
            mho.convert(model, "generic", where=where)
