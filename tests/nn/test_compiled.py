"""torch.compile(fullgraph=True), torch.export and vmap over models."""

import copy

import pytest
import torch
from small_networks import FULL, NOISY, QUANTISED, Digits, calibrated, mlp
from torch import Tensor, nn

import mho
from mho.hardware import GenericCell, Hardware, Mapping


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.manual_seed(0)
    torch._dynamo.reset()


def _models() -> dict[str, tuple[nn.Module, Tensor]]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return {
        "mlp": (mlp(), torch.randn(4, 6)),
        "cnn": (Digits(), torch.randn(4, 1, 6, 6)),
        "transformer": (layer, torch.randn(2, 3, 8)),
        "lstm": (nn.LSTM(5, 4), torch.randn(2, 2, 5)),
    }


def _first(y: Tensor | tuple) -> Tensor:
    return y if isinstance(y, Tensor) else y[0]


@pytest.mark.parametrize("kind", list(_models()))
def test_compiled_eval_equals_eager(kind: str) -> None:
    digital, x = _models()[kind]
    model = calibrated(digital, QUANTISED, x).eval()
    want = _first(copy.deepcopy(model)(x))
    got = _first(torch.compile(model, fullgraph=True, backend="aot_eager")(x))
    assert torch.allclose(got, want, atol=0.05)
    assert (got - want).abs().mean() < 0.005  # a code may fall on the other side of a tie, rarely


@pytest.mark.parametrize(
    ("kind", "hw"), [*((kind, NOISY) for kind in _models()), ("cnn", FULL)], ids=lambda v: getattr(v, "name", v)
)
def test_compiled_training(kind: str, hw: Hardware) -> None:
    digital, x = _models()[kind]
    model = mho.convert(digital, hw).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    outputs = []
    for _ in range(3):
        optimizer.zero_grad()
        y = _first(compiled(x))
        y.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
        optimizer.step()
        outputs.append(y.detach())
    after = model.state_dict()
    assert all(not torch.equal(before[k], after[k]) for k in before if k.endswith(("weight", "_ranges")))
    assert all((after[k] > 0).all() for k in after if k.endswith("_ranges"))
    assert not torch.equal(outputs[1], outputs[2])
    assert _first(model.eval()(x)).isfinite().all()  # the ranges that were learned serve eager eval


def test_compiled_noise_is_new_at_each_call_and_has_the_size_of_the_eager_one() -> None:
    x = torch.randn(64, 6)
    model = calibrated(nn.Linear(6, 32), NOISY, x).train()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        fast = torch.stack([compiled(x) for _ in range(200)]).std(0).mean()
        slow = torch.stack([model(x) for _ in range(200)]).std(0).mean()
        assert not torch.equal(compiled(x), compiled(x))
    assert abs(fast / slow - 1) < 0.05


def test_compiled_layer_at_the_root_and_before_any_eager_forward() -> None:
    x = torch.randn(4, 6)
    for digital in (nn.Linear(6, 3), mlp()):
        compiled = torch.compile(mho.convert(digital, NOISY), fullgraph=True, backend="aot_eager").train()
        compiled(x).sum().backward()
        assert compiled.eval()(x).isfinite().all()


@pytest.mark.parametrize("compiled", [True, False])
def test_recurrence_meets_one_chip_throughout_a_sequence(compiled: bool) -> None:
    rnn = nn.RNN(1, 1, nonlinearity="relu", bias=False)
    with torch.no_grad():
        rnn.weight_hh_l0.fill_(1.0)
    model = mho.convert(
        rnn, Hardware(name="static", mapping=Mapping(), cell=GenericCell(programming_noise=0.05))
    ).train()
    run = torch.compile(model, fullgraph=True, backend="aot_eager") if compiled else model
    gains = [run(torch.zeros(4, 1), torch.ones(1, 1))[0].flatten() for _ in range(2)]
    for h in gains:  # h_t = (1 + error)^t
        assert torch.allclose(h, h[0] ** torch.arange(1, 5), rtol=1e-5)
        assert float(h[0].detach()) != 1.0
    assert not torch.equal(*gains)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_inductor() -> None:
    x = torch.randn(4, 6)
    model = calibrated(mlp(), NOISY, x).train()
    y = torch.compile(model, fullgraph=True)(x)
    y.square().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("kind", ["mlp", "cnn", "transformer"])
@pytest.mark.parametrize("hw", [QUANTISED, FULL], ids=lambda h: h.name)
def test_export(kind: str, hw: Hardware) -> None:
    digital, x = _models()[kind]
    model = calibrated(digital, hw, x).eval()
    exported = torch.export.export(model, (x,)).module()
    assert torch.allclose(exported(x), model(x), atol=0.05)
    assert (exported(x) - model(x)).abs().mean() < 0.005


@pytest.mark.parametrize("training", [True, False])
def test_vmap_over_models(training: bool) -> None:
    x = torch.randn(4, 6)
    models = [calibrated(mlp(), NOISY, x).train(training) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(models)
    base = copy.deepcopy(models[0])

    def call(p: dict, b: dict) -> Tensor:
        return torch.func.functional_call(base, (p, b), (x,))

    y = torch.vmap(call, randomness="different")(parameters, buffers)
    assert y.shape == (3, 4, 3)
    want = torch.stack([copy.deepcopy(m).eval()(x) for m in models])
    assert torch.allclose(y, want, atol=1.0 if training else 0.05)
    assert training != torch.allclose(y, want, atol=1e-3)


def test_per_sample_gradients() -> None:
    x = torch.randn(4, 6)
    model = calibrated(mlp(), QUANTISED, x).eval()
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(p: dict, sample: Tensor) -> Tensor:
        return torch.func.functional_call(model, (p, buffers), (sample.unsqueeze(0),)).square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    model(x).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert torch.allclose(each[key].sum(0), parameter.grad, atol=1e-2), key
