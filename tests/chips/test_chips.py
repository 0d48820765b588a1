"""A chip is a seed: the same chip whatever the batch, tiles, dtype, order and process."""

import copy
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_networks import FULL, NOISY, QUANTISED, Digits, calibrated, mlp
from torch import Tensor, nn

import mho
from mho.chips import Chips
from mho.errors import ConversionError, InputError
from mho.hardware import Adc, Faults, GenericCell, Hardware, Tile, load_hardware
from mho.nn import analog_layers

STATIC = Hardware(name="static", cell=GenericCell(programming_noise=0.1, drift_nu=0.05, drift_nu_d2d=0.02))
X = torch.randn(5, 6, generator=torch.Generator().manual_seed(9))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _weights(chips: Chips) -> list[Tensor]:
    return [w for arrays in chips.substrate.arrays.values() for a in arrays for w in a.weights]


def _same(a: Chips, b: Chips) -> bool:
    return all(torch.equal(x, y) for x, y in zip(_weights(a), _weights(b), strict=True))


def test_output_has_a_leading_chip_axis_and_chips_and_layers_differ() -> None:
    model = mho.convert(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), STATIC)
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)
    chips = mho.fabricate(model, chips=3, seed=7)
    assert chips(X).shape == (3, 5, 6)
    assert len(chips) == 3
    errors = [w - model[0].weight.detach() for w in _weights(chips)]
    for i, a in enumerate(errors):
        for b in errors[i + 1 :]:
            assert abs(float(torch.corrcoef(torch.stack((a.flatten(), b.flatten())))[0, 1])) < 0.6
    assert not torch.equal(mho.fabricate(model, chips=3, seed=8)(X), chips(X))


def test_more_chips_and_a_later_first_are_the_same_chips() -> None:
    model = mho.convert(mlp(), STATIC)
    many = mho.fabricate(model, chips=5, seed=7)(X)
    assert torch.equal(mho.fabricate(model, chips=2, seed=7)(X), many[:2])
    assert torch.equal(mho.fabricate(model, chips=5, seed=7, first=3)(X), many[3:])


@pytest.mark.parametrize("hw", [STATIC, NOISY.replace(cell=GenericCell(programming_noise=0.1), output_noise=0.0)])
def test_batch_size_and_order_do_not_matter(hw: Hardware) -> None:
    model = calibrated(mlp(), hw, X)
    chips = mho.fabricate(model, chips=3, seed=7)
    whole = chips(X)
    pieces = torch.cat([chips(X[i : i + 1]) for i in range(5)], 1)
    assert torch.allclose(pieces, whole, atol=1e-6)
    alone = [mho.fabricate(model, chips=3, seed=7).run(chip, X) for chip in (2, 0, 1)]
    assert torch.equal(torch.stack(alone), whole[[2, 0, 1]])


@pytest.mark.parametrize("rows", [2, 3])
def test_tile_size_does_not_change_the_cells(rows: int) -> None:
    model = mho.convert(mlp(), STATIC)
    whole = mho.fabricate(model, chips=2, seed=7)
    tiled = mho.fabricate(model, chips=2, seed=7, hardware=STATIC.replace(tile=Tile(rows=rows, cols=2)))
    assert _same(whole, tiled)
    assert torch.allclose(whole(X), tiled(X), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_does_not_change_the_chip(dtype: torch.dtype) -> None:
    model = mho.convert(mlp().to(torch.bfloat16).float(), STATIC)
    single = mho.fabricate(model, chips=2, seed=7)
    other = mho.fabricate(copy.deepcopy(model).to(dtype), chips=2, seed=7)
    for a, b in zip(_weights(single), _weights(other), strict=True):
        assert b.dtype == dtype
        assert torch.allclose(a, b.float(), rtol=2e-2 if dtype == torch.bfloat16 else 1e-4, atol=5e-3)
    assert other(X.to(dtype)).dtype == dtype


SCRIPT = """
import hashlib, torch, mho
from mho.hardware import GenericCell, Hardware
torch.manual_seed(5)
torch.randn(int({skip}))
net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Linear(8, 3))
with torch.no_grad():
    for p in net.parameters():
        p.copy_(torch.linspace(-1, 1, p.numel()).reshape(p.shape))
hw = Hardware(name="x", cell=GenericCell(programming_noise=0.1, drift_nu_d2d=0.02, drift_nu=0.05))
chips = mho.fabricate(mho.convert(net, hw), chips=2, seed=7, age="1 day")
cells = [w for arrays in chips.substrate.arrays.values() for a in arrays for w in a.weights]
print(hashlib.sha256(b"".join(c.detach().numpy().tobytes() for c in cells)).hexdigest())
"""


def test_another_process_makes_the_same_chip() -> None:
    hashes = set()
    source = str(Path(mho.__file__).parents[1])
    for skip, threads in ((0, "1"), (7, "2")):
        environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": str(skip)}
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT.format(skip=skip)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(found.stdout.strip())
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


# --- age ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hw", [STATIC, load_hardware("pcm-hermes"), load_hardware("reram-wan2022")], ids=lambda h: h.name
)
def test_ageing_is_a_sample_path(hw: Hardware) -> None:
    quiet = hw.replace(dac=None, adc=None, output_noise=0.0, neuron=None)
    model = mho.convert(mlp(), quiet)
    chips = mho.fabricate(model, chips=2, seed=7, age="1 s")
    there = chips.aged("1 day").aged("1 year")
    assert _same(there, chips.aged("1 year"))
    assert _same(there, mho.fabricate(model, chips=2, seed=7, age="1 year"))
    assert _same(there.aged("1 s"), chips)
    assert not _same(there, chips)
    assert _same(chips, mho.fabricate(model, chips=2, seed=7, age=1.0))


def test_drift_lowers_the_output_and_compensation_restores_it() -> None:
    hw = load_hardware("pcm-hermes").replace(dac=None, adc=None, output_noise=0.0)
    layer = nn.Linear(64, 32, bias=False)
    with torch.no_grad():
        layer.weight.abs_()
    x = torch.rand(200, 64)
    chips = mho.fabricate(mho.convert(layer, hw), chips=4, seed=7, age=0.0)
    new, old = float(chips(x).mean()), chips.aged("1 year")
    assert float(old(x).mean()) < 0.8 * new
    assert float(old.compensated()(x).mean()) == pytest.approx(new, rel=0.03)
    later = chips.aged("1 day").compensated().aged("1 year")  # a gain stays as it was measured
    assert float(later(x).mean()) < 0.95 * new


def test_compensation_leaves_the_bias_alone() -> None:
    hw = Hardware(name="drift", cell=GenericCell(drift_nu=0.1))
    layer = nn.Linear(6, 3)
    chips = mho.fabricate(mho.convert(layer, hw), chips=1, age="1 day").compensated()
    assert torch.allclose(chips(X)[0], layer(X), atol=1e-4)


def test_recalibration_sets_batch_norm_on_each_chip() -> None:
    x = torch.randn(64, 1, 6, 6)
    model = calibrated(Digits(), NOISY.replace(cell=GenericCell(programming_noise=0.3)), x)
    chips = mho.fabricate(model, chips=3, seed=7)
    new = chips.recalibrated([x])
    assert not torch.equal(new(x), chips(x))
    hidden: list[Tensor] = []
    new.model.norm.register_forward_hook(lambda m, i, o: hidden.append(o))
    new(x)
    for output in hidden:
        assert torch.allclose(output.mean((0, 2, 3)), torch.zeros(4), atol=0.02)
    assert torch.equal(model.norm.running_mean, torch.zeros(4))
    assert not new.model.norm.training
    with pytest.raises(InputError, match="no batch norm"):
        mho.fabricate(mho.convert(mlp(), STATIC)).recalibrated([X])
    with pytest.raises(InputError, match="there was no batch"):
        chips.recalibrated([])


# --- use ------------------------------------------------------------------------------------------


def test_hardware_override() -> None:
    model = calibrated(mlp(), NOISY, X)
    clean = mho.fabricate(model, chips=2, hardware=QUANTISED)(X)
    assert torch.equal(clean[0], clean[1])
    worse = mho.fabricate(model, chips=2, hardware=lambda hw: hw.replace(cell=GenericCell(programming_noise=0.3)))(X)
    assert float((worse - clean).std()) > 2 * float((mho.fabricate(model, chips=2)(X) - clean).std())
    # A converter that the training did not know has no range.
    with pytest.raises(InputError, match=r"ADC range of its converters is not known yet.*mho.calibrate"):
        mho.fabricate(mho.convert(mlp(), STATIC), hardware=STATIC.replace(adc=Adc(bits=8)))(X)


def test_fresh_noise_is_reproducible_and_new_at_each_pass() -> None:
    model = calibrated(mlp(), NOISY, X)
    a, b = mho.fabricate(model, chips=2, seed=7), mho.fabricate(model, chips=2, seed=7)
    torch.manual_seed(1)
    first, second = a(X), a(X)
    torch.manual_seed(2)
    assert torch.equal(first, b(X))
    assert torch.equal(second, b(X))
    assert not torch.equal(first, second)


def test_chips_never_train() -> None:
    model = mho.convert(Digits(), NOISY).train()
    x = torch.randn(8, 1, 6, 6)
    mho.calibrate(model, [x])
    before = {k: v.clone() for k, v in model.state_dict().items()}
    chips = mho.fabricate(model, chips=2).train()
    assert not any(m.training for m in chips.modules())
    assert not any(p.requires_grad for p in chips.parameters())
    chips(x)
    assert model.training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    with torch.no_grad():  # a chip was written once: training goes on without it
        model.out.weight.zero_()
    assert not torch.equal(chips.model.out.weight, model.out.weight)


def test_gradient_with_respect_to_the_input() -> None:
    chips = mho.fabricate(calibrated(mlp(), NOISY, X), chips=2)
    x = X.clone().requires_grad_()
    chips(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert bool((x.grad != 0).any())


@pytest.mark.parametrize("hw", [NOISY, FULL], ids=lambda h: h.name)
def test_recurrent_and_attention_networks(hw: Hardware) -> None:
    for digital, inputs in (
        (nn.LSTM(6, 4, 2, bidirectional=True), (torch.randn(7, 3, 6),)),
        (nn.GRUCell(6, 4), (torch.randn(3, 6), torch.randn(3, 4))),
        (nn.MultiheadAttention(6, 2), (torch.randn(7, 3, 6),) * 3),
        (nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), (torch.randn(3, 7, 6),)),
    ):
        model = mho.convert(digital, hw).train()
        model(*inputs)
        chips = mho.fabricate(model, chips=2)
        want, got = digital.eval()(*inputs), chips(*inputs)
        flat = [t for t in torch.utils._pytree.tree_leaves(want) if t is not None]
        found = [t for t in torch.utils._pytree.tree_leaves(got) if t is not None]
        for a, b in zip(flat, found, strict=True):
            assert b.shape == (2, *a.shape)
            assert not torch.equal(b[0], b[1])


def test_ideal_chips_of_any_age_are_digital_to_the_last_bit() -> None:
    for digital, inputs in ((Digits().eval(), (torch.randn(4, 1, 6, 6),)), (nn.LSTM(6, 4), (torch.randn(3, 2, 6),))):
        want = digital(*inputs)
        for age in (None, "1 year"):
            got = mho.fabricate(mho.convert(digital, "ideal"), chips=2, age=age)(*inputs)
            a, b = (y[0] if isinstance(y, tuple) else y for y in (want, got))
            assert torch.equal(b, torch.stack((a, a)))


def test_nan_sample_affects_only_its_row() -> None:
    model, x = calibrated(mlp(), NOISY, X), X.clone()
    x[2, 1] = float("nan")
    clean, dirty = mho.fabricate(model, chips=2)(X), mho.fabricate(model, chips=2)(x)
    assert dirty[:, 2].isnan().all()
    assert torch.equal(dirty[:, [0, 1, 3, 4]], clean[:, [0, 1, 3, 4]])


def test_faults_are_of_the_chip() -> None:
    hw = Hardware(name="broken", faults=Faults(stuck_on=0.2, dead_rows=0.2))
    chips = mho.fabricate(mho.convert(nn.Linear(50, 40, bias=False), hw), chips=2)
    w, other = _weights(chips)
    dead = (w == 0).all(0)
    assert 0 < int(dead.sum()) < 25
    assert not torch.equal(w, other)


def test_misuse_is_a_clear_error() -> None:
    with pytest.raises(ConversionError, match=r"fabricate: Sequential has no analog layer. Way out: mho.convert"):
        mho.fabricate(mlp())
    for count in (0, -1, 2.5, True):
        with pytest.raises(InputError, match="fabricate: chips = "):
            mho.fabricate(mho.convert(mlp(), STATIC), chips=count)
    with pytest.raises((InputError, ValueError), match="day"):
        mho.fabricate(mho.convert(mlp(), STATIC), age="1 dya")
    for age in (-1.0, float("nan")):
        with pytest.raises((InputError, ValueError)):
            mho.fabricate(mho.convert(mlp(), STATIC), age=age)
    with pytest.raises(InputError, match=r"0.weight: input of shape \(5, 4\) needs 6 features"):
        mho.fabricate(mho.convert(mlp(), STATIC))(torch.randn(5, 4))
    with pytest.raises(InputError, match="first"):
        mho.fabricate(mho.convert(mlp(), STATIC), chips=2, first=2)


def test_chips_use_the_sites_of_the_network_that_made_them() -> None:
    model = mho.convert(mlp(), STATIC)
    chips = mho.fabricate(model, hardware=STATIC.replace(environment=replace(STATIC.environment, t_s=1e6)), chips=1)
    assert {site.hw.environment.t_s for _, layer in analog_layers(model) for site in layer.sites.values()} == {0.0}
    assert not _same(chips, mho.fabricate(model, chips=1))


class Siamese(nn.Module):
    """One layer that reads two inputs, or one in two layouts."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(features, 4)

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        return self.fc(a) - self.fc(a.transpose(1, 2) if b is None else b)


@torch.no_grad()
@pytest.mark.parametrize("inputs", [2, 1], ids=["two inputs", "a transposed one"])
def test_a_layer_that_reads_more_than_one_input_rounds_each(inputs: int) -> None:
    given = tuple(torch.randn(3, 6, 6) for _ in range(inputs))
    chips = mho.fabricate(calibrated_with(Siamese(6), *given), chips=2, seed=3)
    together = chips(*given)
    one_by_one = torch.stack([chips.run(chip, *given) for chip in range(2)])
    assert torch.equal(together, one_by_one)
    assert together.std() > 0.1


def calibrated_with(model: nn.Module, *given: Tensor) -> nn.Module:
    """``model`` on hardware that rounds and has no fresh noise, its ranges set by one pass."""
    analog = mho.convert(model, QUANTISED.replace(cell=GenericCell(programming_noise=0.05))).train()
    analog(*given)
    return analog.eval()
