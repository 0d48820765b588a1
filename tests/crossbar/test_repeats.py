"""Reads that are repeated and columns that are timed alone: one law in plain torch, in the kernels and in closed
form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mho.crossbar import fused
from mho.crossbar.array import Array, program
from mho.crossbar.mvm import mvm
from mho.crossbar.noise import Counter, Noise, read_parts, shares_noise
from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.crossbar.reader import Reader
from mho.crossbar.variance import fresh_variance, rounding_variance
from mho.errors import HardwareError
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Readout, Tile, load_hardware
from mho.physics.averaging import longer_read, persisting_rounding, repeated_read
from mho.testing.statistics import assert_law, assert_power

SIGNED = Mapping(scheme="signed")
RANGES = torch.tensor([2.0, 8.0])
COLUMNS = {
    "all": Readout(repeats=3),
    "masked": Readout(repeats=3, columns="masked", column_repeats=(1, 3, 2, 1, 3, 2)),
    "timed": Readout(repeats=2, columns="timed", column_windows=(1.0, 0.5, 0.25, 1.0, 0.1, 0.7)),
}


def hardware(readout: Readout, *, rows: int | None = None, output_noise: float = 0.0, bits: int = 6) -> Hardware:
    return Hardware(
        name="h", cell=GenericCell(read_noise=0.05), mapping=SIGNED, tile=Tile(rows=rows), dac=Dac(bits=6),
        adc=Adc(bits=bits, enob=bits - 0.5), output_noise=output_noise, readout=readout,
    )  # fmt: skip


def shapes(kind: str) -> tuple[Op, Tensor, Tensor]:
    if kind == "linear":
        return LinearOp(24, 6), torch.randn(5, 24), torch.randn(6, 24)
    return ConvOp(4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1), torch.randn(2, 4, 9, 7), torch.randn(6, 4, 3, 3)


def plain(x: Tensor, array: Array, op: Op, hw: Hardware, noise: Noise, bias: Tensor | None = None) -> Tensor:
    return mvm(x, array, op, hw, noise, input_range=RANGES[0], adc_range=RANGES[1], bias=bias)[0]


@pytest.mark.parametrize("kind", ["linear", "conv"])
@pytest.mark.parametrize("columns", list(COLUMNS))
@pytest.mark.parametrize("rows", [None, 18])
def test_kernels_and_reader_compute_what_plain_torch_does(kind: str, columns: str, rows: int | None) -> None:
    torch.manual_seed(0)
    op, x, w = shapes(kind)
    hw, bias, noise = hardware(COLUMNS[columns], rows=rows), torch.randn(6), Noise(Counter(7))
    array = program(w, op, hw, None)
    found, seen = fused.product(x, array, op, hw, noise, RANGES, bias)
    step = float(RANGES[1]) / 31
    wanted = plain(x, array, op, hw, noise, bias)
    # A sum that falls on an edge between codes may be rounded either way: one step of one read, seldom.
    off = (found - wanted).abs()
    assert float(off.max()) <= step * 1.001 and float((off > 1e-4).float().mean()) < 0.01
    circuit = fused.circuit(array, op, hw)
    assert circuit is not None
    reader = Reader(circuit, *RANGES.tolist(), True)
    torch.testing.assert_close(reader.read(reader.drive(x), bias, 7), found)
    assert float(seen.adc_range) > 0


def test_gradients_pass_through_every_read() -> None:
    torch.manual_seed(0)
    op, x, w = shapes("linear")
    hw, noise = hardware(COLUMNS["masked"], bits=12), Noise(Counter(3))
    grads = []
    for product in (
        lambda a: fused.product(x, a, op, hw, noise, RANGES, None)[0],
        lambda a: plain(x, a, op, hw, noise),
    ):
        leaf = w.clone().requires_grad_()
        product(program(leaf, op, hw, None)).square().sum().backward()
        grads.append(leaf.grad)
    torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("columns", ["masked", "timed"])
def test_each_column_has_the_noise_of_its_own_reads(columns: str) -> None:
    torch.manual_seed(0)
    readout, op = COLUMNS[columns], LinearOp(4, 6)
    hw = replace(hardware(readout, output_noise=0.1), adc=Adc(), dac=None)
    x, w = torch.randn(4).expand(50_000, 4), torch.randn(6, 4)
    array = program(w, op, hw, None)
    one = (0.05 * float(w.abs().max())) ** 2 * float(x[0].square().sum()) + (0.1 * 8.0) ** 2

    def noisy(scale: float) -> Tensor:
        draws = scale * torch.randn(read_parts(op, hw), *x.shape[:1], 6)
        return plain(x, array, op, hw, Noise(draws)) - x @ w.t()

    for c in range(6):
        reads = readout.column_repeats[c] if readout.column_repeats else readout.repeats
        window = readout.column_windows[c] if readout.column_windows else 1.0
        assert_law(noisy(1.0)[:, c], sigma=math.sqrt(one / reads / window))
    assert_power(lambda scale: noisy(scale)[:, 1], sigma=math.sqrt(one / (3 if columns == "masked" else 2 * 0.5)))


def test_the_spectrum_of_rounding_is_what_an_integral_says() -> None:
    # Mean over noise of the rounding error, by quadrature; its variance over evenly spread signals is what stays.
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    mass = torch.exp(-z.square() / 2)
    mass = mass / mass.sum()
    x = torch.linspace(-0.5, 0.5, 401, dtype=torch.float64)[:-1]
    for sigma in (0.03, 0.1, 0.149, 0.151, 0.25, 0.4):
        mean = (torch.round(x[:, None] + sigma * z) * mass).sum(1) - x
        wanted = float(mean.square().mean() * 12)
        assert float(persisting_rounding(torch.tensor(sigma, dtype=torch.float64))) == pytest.approx(
            wanted, rel=1e-2, abs=2e-5
        )
    assert float(persisting_rounding(torch.tensor(0.0))) == 1.0


@pytest.mark.parametrize(("sigma_lsb", "repeats"), [(0.05, 4), (0.3, 4), (0.3, 16), (1.0, 4)])
def test_repeats_average_noise_and_the_rounding_that_it_dithers(sigma_lsb: float, repeats: int) -> None:
    torch.manual_seed(0)
    lsb = 1.0 / 15  # 5 bits on a range of 1
    hw = Hardware(
        name="h", cell=GenericCell(), mapping=SIGNED, adc=Adc(bits=5), output_noise=sigma_lsb * lsb,
        readout=Readout(repeats=repeats),
    )  # fmt: skip
    op, w = LinearOp(1, 1), torch.ones(1, 1)
    x = (torch.rand(100_000, 1) - 0.5) * 20 * lsb
    array, settings = program(w, op, hw, None), {"input_range": torch.tensor(1.0), "adc_range": torch.tensor(1.0)}
    error = mvm(x, array, op, hw, Noise(Counter(1)), **settings)[0] - x
    _, rounding = rounding_variance(x, array, op, hw, **settings)
    wanted = float(fresh_variance(x, array, op, hw, **settings).mean() + rounding.mean())
    assert float(error.square().mean()) == pytest.approx(wanted, rel=0.03)
    stays = float(persisting_rounding(torch.tensor(sigma_lsb)))
    assert wanted == pytest.approx(lsb**2 * ((stays + (1 - stays) / repeats) / 12 + sigma_lsb**2 / repeats), rel=1e-5)


def test_slow_noise_is_shared_by_the_repeats() -> None:
    # 1/f noise of phase-change cells: sixteen reads are one read sixteen times as long, not noise over four.
    torch.manual_seed(0)
    base = load_hardware("pcm-hermes").replace(adc=None, dac=None, tile=Tile())
    op, w, x = LinearOp(4, 2), torch.tensor([[1.0, -0.5, 0.3, 0.8]] * 2), torch.ones(40_000, 4)
    hw = repeated_read(base, 16)
    assert shares_noise(hw) and read_parts(op, hw) == 17 and not shares_noise(base)
    arrays = [program(w, op, each, None, t_s=60.0) for each in (base, hw, longer_read(base, 16.0))]
    settings = {"input_range": torch.tensor(1.0), "adc_range": torch.tensor(1.0)}
    once, many, longer = (
        fresh_variance(x[:1], array, op, each, **settings)
        for array, each in zip(arrays, (base, hw, longer_read(base, 16.0)), strict=True)
    )
    torch.testing.assert_close(many, longer)
    assert float((many / once).mean()) > 0.7
    y = mvm(x, arrays[1], op, hw, Noise(Counter(2)), **settings)[0]
    assert_law((y - y.mean(0))[:, 0], sigma=float(many[0, 0].sqrt()))
    assert fused.circuit(arrays[1], op, hw) is None


def test_sampled_charge_is_sampled_anew_and_longer_reads_do_not_help() -> None:
    sram = load_hardware("sram-charge").replace(adc=None, dac=None, tile=Tile())
    op, w, x = LinearOp(8, 2), torch.randn(2, 8), torch.randn(1, 8)
    settings = {"input_range": torch.tensor(1.0), "adc_range": torch.tensor(1.0)}
    once, many, longer = (
        fresh_variance(x, program(w, op, each, None), op, each, **settings)
        for each in (sram, repeated_read(sram, 4), longer_read(sram, 4.0))
    )
    torch.testing.assert_close(many, once / 4)
    torch.testing.assert_close(longer, once)


def test_columns_of_another_layer_are_refused() -> None:
    op, x, w = LinearOp(24, 5), torch.randn(2, 24), torch.randn(5, 24)
    with pytest.raises(HardwareError, match="holds 6 numbers, the layer has 5 output channels"):
        program(w, op, hardware(COLUMNS["timed"]), None)
    hw = hardware(COLUMNS["masked"])
    with pytest.raises(HardwareError, match="column_repeats holds 6 numbers"):
        plain(x, program(w, op, hw, None), op, hw, Noise(Counter(0)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"column_repeats": (1, 2), "repeats": 2}, "columns are read together"),
        ({"column_windows": (0.5,), "columns": "masked"}, "an integrator a column"),
        ({"column_repeats": (3,), "columns": "masked", "repeats": 2}, "more than repeats = 2"),
        ({"column_windows": (1.5,), "columns": "timed"}, "at most 1"),
        ({"column_repeats": (1.5,), "columns": "timed", "repeats": 2}, "whole numbers"),
        ({"repeats": 0}, "at least 1"),
    ],
)
def test_what_a_readout_cannot_do_cannot_be_described(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(HardwareError, match=said):
        Readout(**wrong)  # type: ignore[arg-type]
