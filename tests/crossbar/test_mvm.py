"""Closed-form laws of a noisy matrix-vector product, with power against a sigma 5 % off."""

import math

import pytest
import torch
from torch import Tensor, nn

import mho
from mho.crossbar.array import program, slice_factors, to_conductances, to_weights
from mho.crossbar.mvm import mvm
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.crossbar.ops import Block, ConvOp, LinearOp, balanced_blocks, output_shape
from mho.errors import ConversionError
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Neuron, Readout, Tile
from mho.physics.converters import enob_sigma, levels
from mho.rng import derive_seed
from mho.testing.statistics import assert_law, assert_power

N = 100_000
SIGNED = Mapping(scheme="signed")


def _hw(**parts: object) -> Hardware:
    return Hardware(name="test", **({"mapping": SIGNED} | parts))  # type: ignore[arg-type]


def _mvm(
    x: Tensor, w: Tensor, hw: Hardware, *, fresh: Tensor | None = None, programming: Tensor | None = None,
    ranges: tuple[float, float] = (1.0, 1.0), op: LinearOp | ConvOp | None = None,
) -> Tensor:  # fmt: skip
    op = op or LinearOp(w.shape[1], w.shape[0])
    draws = None
    if programming is not None:
        draws = draw_static(op, hw, w.shape, lambda shape, label: programming.reshape(shape))
    array = program(w, op, hw, draws)
    r_in, r_out = (torch.tensor(r) for r in ranges)
    return mvm(x, array, op, hw, Noise(fresh), input_range=r_in, adc_range=r_out)[0]


def test_static_weight_noise_gives_sigma_w_times_the_norm_of_x() -> None:
    torch.manual_seed(0)
    x, w, sigma = torch.randn(8), torch.linspace(-0.5, 0.5, 8).expand(N, 8), 0.1
    hw = _hw(cell=GenericCell(programming_noise=sigma))
    xi = torch.randn(1, N, 8)

    def sample(scale: float) -> Tensor:
        return _mvm(x, w, hw, programming=scale * xi) - w @ x

    assert_power(sample, sigma=sigma * 0.5 * float(x.norm()))


@pytest.mark.parametrize(("scheme", "cells"), [("signed", 1), ("differential", 2), ("offset", 1)])
def test_read_noise_gives_sigma_times_the_norm_of_x(scheme: str, cells: int) -> None:
    torch.manual_seed(0)
    x, w, sigma = torch.randn(8), torch.randn(3, 8), 0.02
    hw = _hw(cell=GenericCell(g_min_uS=2.0, read_noise=sigma), mapping=Mapping(scheme=scheme))  # type: ignore[arg-type]
    clean = _mvm(x, w, hw)
    xi = torch.randn(1, N // 3, 3)
    batch = x.expand(N // 3, 8)
    factor = math.sqrt(cells) * (2 if scheme == "offset" else 1)
    expected = sigma * factor * float(w.abs().max()) * float(x.norm())
    assert_power(lambda scale: _mvm(batch, w, hw, fresh=scale * xi) - clean, sigma=expected)


def test_output_noise_is_a_share_of_the_adc_range() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(N, 8), torch.randn(1, 8)
    hw = _hw(adc=Adc(), output_noise=0.04)
    xi, ranges = torch.randn(1, N, 1), (1.0, 100.0)
    assert_power(lambda scale: _mvm(x, w, hw, fresh=scale * xi, ranges=ranges) - x @ w.t(), sigma=4.0)


def test_enob_noise_before_rounding_makes_up_what_the_bits_lack() -> None:
    torch.manual_seed(0)
    bits, enob, r = 8, 5.0, 4.0
    x = torch.rand(N, 1) * 1.6 - 0.8
    w = torch.full((1, 1), r)
    hw = _hw(adc=Adc(bits=bits, enob=enob))

    def error(scale: float) -> Tensor:
        fresh = scale * torch.randn(1, N, 1, generator=torch.Generator().manual_seed(1))
        return _mvm(x, w, hw, fresh=fresh, ranges=(1.0, r)) - r * x

    # The rounding error has 2 % of the variance: the sum is normal as far as 100,000 samples can tell.
    assert_power(error, sigma=math.hypot(r * enob_sigma(bits, enob), r / levels(bits) / math.sqrt(12)))


def test_quantisation_error_is_uniform_with_lsb_squared_over_twelve() -> None:
    from scipy import stats

    torch.manual_seed(0)
    x = torch.rand(N, 1, dtype=torch.float64) * 1.8 - 0.9
    w = torch.ones(1, 1, dtype=torch.float64)
    lsb = 1 / levels(6)
    for hw in (_hw(dac=Dac(bits=6)), _hw(adc=Adc(bits=6))):
        assert_law(_mvm(x, w, hw) - x, stats.uniform(-lsb / 2, lsb))


def test_thermal_noise_in_si_units() -> None:
    torch.manual_seed(0)
    x, w = torch.rand(N, 4), torch.tensor([[0.5, -1.0, 0.25, 0.0]])
    hw = _hw(readout=Readout(thermal=True, v_read_V=0.1, t_read_s=1e-7))
    g_sum_S = 25e-6 * 1.75
    current = math.sqrt(4 * 1.380649e-23 * 300.0 * g_sum_S * 0.5e7)
    to_output = 1.0 / (0.1 * 25e-6) * 2.0  # full-scale weight 1, input range 2
    xi = torch.randn(1, N, 1)
    clean = _mvm(x, w, hw, ranges=(2.0, 1.0))
    big = 1e3 * xi  # the noise is small beside float32's resolution of y
    assert_law((_mvm(x, w, hw, fresh=big, ranges=(2.0, 1.0)) - clean) / 1e3, sigma=current * to_output)


def test_snr_is_the_square_of_range_over_noise() -> None:
    """One weight error: SNR = (rho / eta)^2, rho and eta the relative spreads of weights and errors."""
    torch.manual_seed(0)
    rows, w, eta = 256, torch.rand(N // 64, 256) * 2 - 1, 0.05
    w[:, 0] = 1.0
    hw = _hw(cell=GenericCell(programming_noise=eta))
    x = torch.randn(64, rows)
    y = _mvm(x, w, hw, programming=torch.randn(1, *w.shape))
    snr = float((x @ w.t()).var() / (y - x @ w.t()).var())
    assert snr == pytest.approx(float(w.square().mean()) / eta**2, rel=0.05)


def test_static_noise_of_a_convolution_is_shared_by_all_positions() -> None:
    """After average pooling sigma is |mean patch| sigma_w; drawn a pixel it would be 1/sqrt(pixels) of that."""
    torch.manual_seed(0)
    count, sigma = 20_000, 0.1
    x = torch.ones(1, 3, 16, 16)
    op = ConvOp(3, count, (3, 3), (1, 1), (0, 0), (1, 1), 1)
    w = torch.zeros(count, 3, 3, 3)
    w[:, 0, 0, 0] = 1.0
    hw = _hw(cell=GenericCell(programming_noise=sigma))
    xi = torch.randn(1, *w.shape)

    def pooled(scale: float) -> Tensor:
        return _mvm(x, w, hw, programming=scale * xi, op=op).mean((2, 3)) - 1.0

    exact = sigma * math.sqrt(27)
    assert_power(pooled, sigma=exact)
    wrong = exact / math.sqrt(14 * 14)
    assert float(pooled(1.0).std()) / wrong > 13


# --- mappings and tiles ---------------------------------------------------------------------------


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("scheme", ["signed", "differential", "offset"])
def test_noiseless_mappings_hold_w(scheme: str, per_column: bool) -> None:
    torch.manual_seed(0)
    w = torch.randn(5, 7, dtype=torch.float64)
    hw = _hw(cell=GenericCell(g_min_uS=3.0), mapping=Mapping(scheme=scheme, per_column=per_column))  # type: ignore[arg-type]
    array = program(w, LinearOp(7, 5), hw, None)
    assert torch.allclose(array.weights[0], w, rtol=1e-12, atol=1e-12)
    w_hat = w / w.abs().max()
    g = to_conductances(w_hat, hw)
    assert torch.allclose(to_weights(g, w.abs().max(), hw), w, rtol=1e-12, atol=1e-12)
    if scheme != "signed":
        assert float(g.min()) >= 3.0
        assert float(g.max()) <= 25.0 + 1e-9


@pytest.mark.parametrize(("slices", "bits"), [(1, 4), (2, 3), (3, 2), (8, 1)])
def test_bit_slices_add_up_to_the_rounded_weight(slices: int, bits: int) -> None:
    torch.manual_seed(0)
    w = torch.randn(5, 7, dtype=torch.float64).requires_grad_()
    hw = _hw(mapping=Mapping(slices=slices, bits_per_slice=bits))
    array = program(w, LinearOp(7, 5), hw, None)
    total = sum(f * s for f, s in zip(slice_factors(hw), array.weights, strict=True))
    step = float(w.detach().abs().max()) / (2 ** (slices * bits) - 1)
    assert torch.allclose(total, step * (w.detach() / step).round(), atol=1e-9)
    assert all(float(s.detach().abs().max()) <= float(w.detach().abs().max()) + 1e-9 for s in array.weights)
    (grad,) = torch.autograd.grad(total.sum(), w)
    assert torch.allclose(grad, torch.ones_like(w))  # straight through


@pytest.mark.parametrize("rows", [None, 64, 33, 9])
def test_tiles_change_nothing_without_converters(rows: int | None) -> None:
    torch.manual_seed(0)
    hw = _hw(cell=GenericCell(programming_noise=0.1), tile=Tile(rows=rows))
    x, w = torch.randn(5, 100), torch.randn(7, 100)
    xi = torch.randn(1, 7, 100)
    want = _mvm(x, w, _hw(cell=hw.cell), programming=xi)
    assert torch.allclose(_mvm(x, w, hw, programming=xi), want, atol=2e-5)
    op = ConvOp(8, 6, (3, 3), (1, 1), (1, 1), (1, 1), 2)
    x, w = torch.randn(2, 8, 5, 5), torch.randn(6, 4, 3, 3)
    assert torch.allclose(_mvm(x, w, hw, op=op), op.apply(x, w, None), atol=2e-5)


def test_partial_sums_are_converted_one_by_one() -> None:
    torch.manual_seed(0)
    x, w, bits, r = torch.randn(5, 20), torch.randn(3, 20), 5, 4.0
    hw = _hw(adc=Adc(bits=bits), tile=Tile(rows=10))
    lsb = r / levels(bits)
    want = sum(((x[:, s] @ w[:, s].t()).clamp(-r, r) / lsb).round() * lsb for s in (slice(0, 10), slice(10, 20)))
    assert torch.allclose(_mvm(x, w, hw, ranges=(1.0, r)), want, atol=1e-5)


@pytest.mark.parametrize("noise", ["output", "thermal", "read", "rel"])
@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_each_tile_has_noise_of_its_own(noise: str, kind: str) -> None:
    """Variance of the sum over parts; a batch as large as the number of parts must not mix them up."""
    torch.manual_seed(0)
    parts = {
        "output": {"adc": Adc(), "output_noise": 0.1},
        "thermal": {"readout": Readout(thermal=True, t_read_s=1e-13)},
        "read": {"cell": GenericCell(read_noise=0.1)},
        "rel": {"cell": GenericCell(read_noise_rel=0.1)},
    }[noise]
    if kind == "linear":
        op: LinearOp | ConvOp = LinearOp(20, 3)
        x, w = torch.randn(2, 20), torch.randn(3, 20)
    else:
        op = ConvOp(4, 3, (3, 3), (1, 1), (1, 1), (1, 1), 1)
        x, w = torch.randn(2, 4, 5, 5), torch.randn(3, 4, 3, 3)
    rows = 10 if kind == "linear" else 18
    spread = []
    for tile in (Tile(), Tile(rows=rows)):
        hw = _hw(tile=tile, **parts)
        count = 1 if tile.rows is None else 2
        shape = (count, *output_shape(op, x))
        clean = _mvm(x, w, hw, op=op, ranges=(1.0, 50.0))
        generator = torch.Generator().manual_seed(1)
        runs = [
            _mvm(x, w, hw, op=op, ranges=(1.0, 50.0), fresh=torch.randn(shape, generator=generator)) - clean
            for _ in range(600)
        ]
        spread.append(torch.stack(runs).var(0))
    ratio = spread[1] / spread[0]
    expected = 2.0 if noise == "output" else 1.0
    assert torch.allclose(ratio, torch.full_like(ratio, expected), rtol=0.45)


def test_blocks_are_balanced_and_a_large_kernel_is_refused() -> None:
    assert [b.stop - b.start for b in balanced_blocks(576, 256)] == [192, 192, 192]
    assert balanced_blocks(5, None) == (Block(0, 5),)
    with pytest.raises(ConversionError, match=r"a kernel of 3x3 needs 9 rows a channel and the tile has 8.*Way out"):
        ConvOp(4, 6, (3, 3), (1, 1), (0, 0), (1, 1), 1).blocks(8)


def test_counter_and_its_tensor_are_the_same_noise() -> None:
    x, w = torch.randn(5, 20), torch.randn(3, 20)
    hw = _hw(cell=GenericCell(read_noise=0.1), tile=Tile(rows=10))
    array, op = program(w, LinearOp(20, 3), hw, None), LinearOp(20, 3)
    one = torch.tensor(1.0)
    a, b = (
        mvm(x, array, op, hw, Noise(Counter(derive_seed("x"))), input_range=one, adc_range=one)[0] for _ in range(2)
    )
    assert torch.equal(a, b)


# --- gradients ------------------------------------------------------------------------------------


SMOOTH = [
    GenericCell(programming_noise=0.1),
    GenericCell(programming_noise_rel=0.2, drift_nu=0.1),
    GenericCell(read_noise=0.05),
    GenericCell(read_noise_rel=0.1),
]


@pytest.mark.parametrize("cell", SMOOTH)
@pytest.mark.parametrize("scheme", ["signed", "differential", "offset"])
def test_smooth_parts_pass_gradcheck(cell: GenericCell, scheme: str) -> None:
    torch.manual_seed(0)
    hw = _hw(cell=cell, mapping=Mapping(scheme=scheme), tile=Tile(rows=4))  # type: ignore[arg-type]
    op = LinearOp(6, 3)
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    w = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    bound, fresh = torch.tensor(5.0, dtype=torch.float64), torch.randn(2, 2, 3, dtype=torch.float64)
    draws = draw_static(
        op, hw, w.shape, lambda shape, label: torch.randn(shape, generator=torch.Generator().manual_seed(0))
    )

    def run(x: Tensor, w: Tensor) -> Tensor:
        array = program(w, op, hw, draws, t_s=10.0, bound=bound)
        return mvm(x, array, op, hw, Noise(fresh), input_range=torch.tensor(1.0), adc_range=torch.tensor(1.0))[0]

    assert torch.autograd.gradcheck(run, (x, w))


def test_a_neuron_without_any_signal_gives_zero_and_no_nan() -> None:
    """An LSTM's first state is zero: no range is known yet, and there is nothing to divide by."""
    hw = Hardware(name="n", mapping=Mapping(scheme="signed"), neuron=Neuron(gain_neg=0.5))
    op = LinearOp(4, 3)
    unknown = torch.zeros(())
    y, seen = mvm(
        torch.zeros(2, 4), program(torch.randn(3, 4), op, hw, None), op, hw, Noise(),
        input_range=unknown, adc_range=unknown,
    )  # fmt: skip
    assert torch.equal(y, torch.zeros(2, 3)) and float(seen.adc_range) == 0.0
    lstm = mho.convert(nn.LSTM(4, 3), hw)
    assert bool(torch.isfinite(mho.calibrate(lstm, [torch.randn(5, 2, 4)])(torch.randn(5, 2, 4))[0]).all())
