"""Variance of one product by source, against what program and mvm sample, with mutants that must fail."""

import math

import pytest
import torch
from torch import Tensor

from mho.crossbar.array import program
from mho.crossbar.mvm import mvm
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.crossbar.ops import ConvOp, LinearOp, Op, output_shape
from mho.crossbar.variance import cell_moments, output_variance, weight_moments
from mho.errors import HardwareError
from mho.hardware import (
    Adc,
    Dac,
    Faults,
    GenericCell,
    Hardware,
    Mapping,
    Neuron,
    Readout,
    Tile,
    Wires,
    load_hardware,
    preset_names,
)
from mho.rng import derive_seed, stream
from mho.testing.statistics import assert_law, law_holds

N = 100_000
SIGNED = Mapping(scheme="signed")
LINEAR = LinearOp(12, 5)
CONV = ConvOp(4, 6, (3, 3), (2, 2), (1, 1), (1, 1), 2)


def _hw(**parts: object) -> Hardware:
    return Hardware(name="test", **({"mapping": SIGNED} | parts))  # type: ignore[arg-type]


def _data(op: Op) -> tuple[Tensor, Tensor]:
    generator = stream("variance", op.rows)
    if isinstance(op, LinearOp):
        return torch.randn(3, op.in_features, generator=generator), torch.randn(
            op.out_features, op.in_features, generator=generator
        )
    shape = (op.out_channels, op.in_channels // op.groups, *op.kernel)
    return torch.randn(2, op.in_channels, 7, 7, generator=generator), torch.randn(shape, generator=generator)


R_IN, R_OUT = torch.tensor(4.0), torch.tensor(30.0)


def _variance(x: Tensor, w: Tensor, op: Op, hw: Hardware, **options: object):  # type: ignore[no-untyped-def]
    return output_variance(x, w, op, hw, input_range=R_IN, adc_range=R_OUT, **options)  # type: ignore[arg-type]


# --- fresh noise: exact normal laws ---------------------------------------------------------------


FRESH = {
    "read": {"cell": GenericCell(read_noise=0.05)},
    "read_rel": {"cell": GenericCell(read_noise_rel=0.1, g_min_uS=1.0), "mapping": Mapping()},
    "offset": {"cell": GenericCell(read_noise=0.05, g_min_uS=1.0), "mapping": Mapping(scheme="offset")},
    "columns": {"cell": GenericCell(read_noise=0.05), "mapping": Mapping(scheme="signed", per_column=True)},
    "shot": {"readout": Readout(fano=1.0, t_read_s=1e-13, v_read_V=0.1)},
    "thermal": {"readout": Readout(thermal=True, t_read_s=1e-13, v_read_V=0.1)},
    "output": {"adc": Adc(), "output_noise": 0.04},
    "tiles": {"cell": GenericCell(read_noise=0.05), "adc": Adc(), "output_noise": 0.02, "tile": Tile(rows=18)},
    "slices": {"cell": GenericCell(read_noise=0.05), "mapping": Mapping(slices=2, bits_per_slice=4), "adc": Adc(),
               "output_noise": 0.01},
}  # fmt: skip


@pytest.mark.parametrize("kind", FRESH)
@pytest.mark.parametrize("op", [LINEAR, CONV], ids=["linear", "conv"])
def test_fresh_noise_is_normal_with_this_variance(kind: str, op: Op) -> None:
    hw = _hw(**FRESH[kind])
    x, w = _data(op)
    array = program(w, op, hw, None)
    copies = -(-N // output_shape(op, x).numel())
    many = x.repeat(copies, *([1] * (x.dim() - 1)))
    ranges = {"input_range": R_IN, "adc_range": R_OUT}
    clean = mvm(x, array, op, hw, Noise(), **ranges)[0]
    noisy = mvm(many, array, op, hw, Noise(Counter(derive_seed(kind))), **ranges)[0]
    sigma = _variance(x, w, op, hw).total.double().sqrt().expand_as(clean)
    z = ((noisy.unflatten(0, (copies, -1)) - clean).double() / sigma).reshape(-1)[:N]
    assert_law(z, sigma=1.0)
    assert not law_holds(1.05 * z, sigma=1.0)


def test_each_fresh_source_stands_in_its_own_field() -> None:
    x, w = _data(LINEAR)
    names = {"read": "read", "shot": "shot", "thermal": "thermal", "output": "output"}
    for kind, field in names.items():
        found = _variance(x, w, LINEAR, _hw(**FRESH[kind]))._asdict()
        assert [n for n, v in found.items() if bool((v > 0).any())] == [field]


# --- static noise ---------------------------------------------------------------------------------


def _chips(op: Op, hw: Hardware, x: Tensor, w: Tensor, count: int, t_s: float = 0.0) -> Tensor:
    """Outputs of ``count`` chips without fresh noise, [chips, *output], float64."""
    outputs = []
    for chip in range(count):
        generator = stream("chip", chip)
        draws = draw_static(op, hw, w.shape, lambda shape, label, g=generator: torch.randn(shape, generator=g))
        array = program(w, op, hw, draws, t_s=t_s)
        outputs.append(mvm(x, array, op, hw, Noise(), input_range=R_IN, adc_range=R_OUT)[0].double())
    return torch.stack(outputs)


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_uniform_programming_error_is_normal_with_this_variance(kind: str) -> None:
    """Each column of one wide array is a chip of its own."""
    hw = _hw(cell=GenericCell(programming_noise=0.1))
    x, w = _data(LINEAR if kind == "linear" else CONV)
    op: Op
    if kind == "linear":
        x, w, op = x[:1], w[:1].expand(N, -1).contiguous(), LinearOp(12, N)
    else:
        x, w = x[:1, :2, :3, :3], w[:1].expand(N, -1, -1, -1).contiguous()
        op = ConvOp(2, N, (3, 3), (1, 1), (0, 0), (1, 1), 1)
    draws = draw_static(op, hw, w.shape, lambda shape, label: torch.randn(shape, generator=stream("cells", kind)))
    y = op.apply(x, program(w, op, hw, draws).weights[0], None)
    variance = _variance(x, w, op, hw)
    z = (y - op.apply(x, w, None)).double() / variance.weights.double().sqrt()
    assert_law(z, sigma=1.0)
    assert not law_holds(1.05 * z, sigma=1.0)
    assert torch.equal(variance.total, variance.weights)


STATIC = {
    "differential": {"cell": GenericCell(programming_noise=0.05, g_min_uS=2.0), "mapping": Mapping()},
    "clipped at 0": {"cell": GenericCell(programming_noise=0.1), "mapping": Mapping()},
    "relative": {"cell": GenericCell(programming_noise_rel=0.2), "mapping": SIGNED},
    "offset": {"cell": GenericCell(programming_noise=0.05, g_min_uS=1.0), "mapping": Mapping(scheme="offset")},
    "drift": {"cell": GenericCell(programming_noise=0.03, drift_nu=0.05, drift_nu_d2d=0.02), "mapping": Mapping()},
    "slices": {"cell": GenericCell(programming_noise=0.05), "mapping": Mapping(slices=2, bits_per_slice=3)},
    "stuck": {"faults": Faults(stuck_on=0.03, stuck_off=0.05), "mapping": Mapping()},
    "dead rows": {"faults": Faults(dead_rows=0.1), "mapping": Mapping(scheme="offset")},
    "dead columns": {"faults": Faults(dead_cols=0.2), "mapping": Mapping(scheme="offset")},
    "all faults": {"faults": Faults(stuck_on=0.02, dead_rows=0.05, dead_cols=0.1),
                   "cell": GenericCell(programming_noise=0.05)},
    "row gain": {"dac": Dac(gain_d2d=0.1), "cell": GenericCell(programming_noise=0.05)},
    "column gain": {"adc": Adc(gain_d2d=0.1), "tile": Tile(rows=18)},
    "column offset": {"adc": Adc(bits=14, offset_d2d_lsb=300.0), "mapping": Mapping(slices=2, bits_per_slice=4)},
}  # fmt: skip


def _close(found: Tensor, expected: Tensor, count: int) -> bool:
    """Mean ratio of many variances against its standard error, which is at most that of one of them."""
    ratio = float((found / expected).mean())
    return abs(ratio - 1) < 4 * math.sqrt(2 / count) and float((found / expected - 1).abs().max()) < 0.5


@pytest.mark.parametrize("kind", STATIC)
@pytest.mark.parametrize("op", [LINEAR, CONV], ids=["linear", "conv"])
def test_static_variance_is_that_of_many_chips(kind: str, op: Op) -> None:
    hw, count = _hw(**STATIC[kind]), 800
    x, w = _data(op)
    t_s = 1000.0 if kind == "drift" else 0.0
    expected = _variance(x, w, op, hw, t_s=t_s).static.double().expand(output_shape(op, x))
    found = _chips(op, hw, x, w, count, t_s).var(0)
    assert _close(found, expected, count)
    assert not _close(1.5 * found, expected, count)


@pytest.mark.parametrize("name", [n for n in preset_names() if load_hardware(n).neuron is None and n != "ideal"])
@pytest.mark.parametrize("t_s", [0.0, 86_400.0])
def test_moments_of_every_preset_are_those_of_its_programmed_weights(name: str, t_s: float) -> None:
    hw = load_hardware(name)
    w = torch.linspace(-1, 1, 21).unsqueeze(0)
    moments = weight_moments(w, hw, t_s=t_s)
    count = 20_000
    many = w.expand(count, 21).contiguous()
    draws = draw_static(LinearOp(21, count), hw, many.shape, lambda shape, label: torch.randn(
        shape, generator=stream(name, label)))  # fmt: skip
    got = program(many, LinearOp(21, count), hw, draws, t_s=t_s, bound=torch.tensor(1.0)).weights
    from mho.crossbar.array import slice_factors

    total = sum(f * g for f, g in zip(slice_factors(hw), got, strict=True))
    assert isinstance(total, Tensor)
    sigma = moments.variance.sqrt().expand_as(w)[0]
    assert torch.allclose(total.mean(0), moments.mean[0], atol=5 * float(sigma.max()) / math.sqrt(count) + 1e-4)
    assert torch.allclose(total.std(0), sigma, rtol=0.06, atol=1e-5)
    if bool((sigma > 0).all()):
        assert not torch.allclose(1.15 * total.std(0), sigma, rtol=0.06, atol=1e-5)


# --- rounding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["dac", "adc"])
def test_rounding_is_delta_squared_over_twelve(part: str) -> None:
    hw = _hw(**({"dac": Dac(bits=6)} if part == "dac" else {"adc": Adc(bits=6)}))
    generator = stream("rounding", part)
    x = torch.rand(20_000, 12, generator=generator, dtype=torch.float64) * 7 - 3.5
    x[:, :4] = 0  # a zero is a code: it is not rounded
    w = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    array = program(w, LINEAR, hw, None)
    error = mvm(x, array, LINEAR, hw, Noise(), input_range=R_IN, adc_range=R_OUT)[0] - x @ w.t()
    variance = _variance(x, w, LINEAR, hw)
    expected = getattr(variance, part).expand(20_000, 5).mean(0)
    assert torch.allclose(error.var(0), expected, rtol=0.05)
    assert not torch.allclose(error.var(0), expected * 12 / 8, rtol=0.05)
    assert torch.equal(variance.rounding, getattr(variance, part))


# --- what it is made of ---------------------------------------------------------------------------


def test_ideal_hardware_has_no_variance_and_the_total_adds_up() -> None:
    x, w = _data(CONV)
    assert float(_variance(x, w, CONV, load_hardware("ideal")).total.abs().max()) == 0.0
    v = _variance(x, w, CONV, load_hardware("generic"))
    assert torch.allclose(v.total, sum(v, torch.zeros(())))
    assert torch.allclose(v.static + v.fresh + v.rounding, v.total)


def test_cell_moments_of_a_cell_clipped_at_zero() -> None:
    """g = max(0, sigma xi) has mean sigma / sqrt(2 pi) and second moment sigma^2 / 2."""
    table = cell_moments(_hw(cell=GenericCell(programming_noise=0.1), mapping=Mapping()))
    sigma = 2.5
    mean, second = sigma / math.sqrt(2 * math.pi), sigma**2 / 2
    assert float(table.mean[0]) == pytest.approx(mean, rel=2e-3)
    assert float(table.variance[0]) == pytest.approx(second - mean**2, rel=5e-3)
    assert float(table.variance[-1]) == pytest.approx(sigma**2, rel=1e-3)


@pytest.mark.parametrize("kind", ["generic", "relative", "full"])
@pytest.mark.parametrize("op", [LinearOp(4, 3), ConvOp(2, 2, (2,), (1,), (1,), (1,), 1)], ids=["linear", "conv"])
def test_gradients(kind: str, op: Op) -> None:
    hw = {
        "generic": _hw(cell=GenericCell(programming_noise=0.1, read_noise=0.02), adc=Adc(gain_d2d=0.1)),
        "relative": _hw(cell=GenericCell(read_noise_rel=0.1), readout=Readout(fano=0.5, thermal=True)),
        "full": _hw(cell=GenericCell(programming_noise=0.1), mapping=Mapping(), dac=Dac(gain_d2d=0.1)),
    }[kind]
    torch.manual_seed(0)
    shape = (2, 4) if isinstance(op, LinearOp) else (2, 2, 4)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    w = torch.randn((3, 4) if isinstance(op, LinearOp) else (2, 2, 2), dtype=torch.float64, requires_grad=True)
    bound = torch.tensor(4.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x, w: output_variance(x, w, op, hw, input_range=R_IN, adc_range=R_OUT, bound=bound).total, (x, w)
    )


def test_neurons_and_wires_are_refused() -> None:
    x, w = _data(LINEAR)
    with pytest.raises(HardwareError, match=r"'test' has an analog neuron.*Way out: hw.replace\(neuron=None\)"):
        _variance(x, w, LINEAR, _hw(neuron=Neuron()))
    with pytest.raises(HardwareError, match=r"'test' has wires of 2 ohm.*Way out: hw.replace\(wires=None\)"):
        _variance(x, w, LINEAR, _hw(mapping=Mapping(), wires=Wires(wire_ohm=2.0)))
