"""A prepared reader computes the bits of the fused product, whatever runs it."""

import pytest
import torch
from torch import Tensor

from mho.crossbar import fused, kernels
from mho.crossbar.array import program
from mho.crossbar.kernels import native, prepared, rounding
from mho.crossbar.noise import Counter, Noise, draw_static
from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.crossbar.reader import Reader
from mho.errors import InputError
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping, Tile

RANGES = torch.tensor([1.5, 6.0])


def _hardware(
    rows: int | None, read: float, adc: Adc | None, dac: Dac | None, output_noise: float, per_column: bool = False
) -> Hardware:
    cell = GenericCell(programming_noise=0.1, read_noise=read)
    mapping = Mapping(scheme="signed", per_column=per_column)
    return Hardware(
        name="h", cell=cell, mapping=mapping, tile=Tile(rows=rows), dac=dac, adc=adc, output_noise=output_noise
    )


def _shapes(kind: str) -> tuple[Op, Tensor, Tensor]:
    if kind == "linear":
        return LinearOp(24, 7), torch.randn(5, 24), torch.randn(7, 24)
    if kind == "tokens":
        return LinearOp(24, 7), torch.randn(24, 3, 5).permute(2, 1, 0), torch.randn(7, 24)
    if kind == "conv1d":
        return ConvOp(4, 6, (3,), (2,), (1,), (1,), 1), torch.randn(3, 4, 9), torch.randn(6, 4, 3)
    op = ConvOp(4, 6, (3, 3), (1, 1), (1, 1), (1, 1), 1)
    x = torch.randn(3, 4, 17, 40)
    return op, x.to(memory_format=torch.channels_last) if kind == "channels_last" else x, torch.randn(6, 4, 3, 3)


@pytest.mark.parametrize("kind", ["linear", "tokens", "conv1d", "conv2d", "channels_last"])
@pytest.mark.parametrize("rows", [None, 18])
@pytest.mark.parametrize(("read", "per_column"), [(0.0, False), (0.02, False), (0.02, True)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("compiled", [True, False])
def test_reader_is_the_fused_product(
    kind: str,
    rows: int | None,
    read: float,
    per_column: bool,
    bias: bool,
    compiled: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    op, x, w = _shapes(kind)
    hw = _hardware(rows, read, Adc(bits=8), Dac(bits=6), 0.02, per_column)
    array = program(w, op, hw, draw_static(op, hw, w.shape, lambda shape, label: Counter(5)))
    b = torch.randn(len(w)) if bias else None
    expected, _ = fused.product(x, array, op, hw, Noise(Counter(11)), RANGES, b)
    found = fused.circuit(array, op, hw)
    assert found is not None
    if not compiled:
        without = native.Native(None, None, "no compiler")
        monkeypatch.setattr(prepared, "native", lambda: without)
        monkeypatch.setattr(rounding, "native", lambda: without)
    reader = Reader(found, *RANGES.tolist(), noisy=True)
    y = reader.read(reader.drive(x), b, 11)
    assert torch.equal(y, expected)
    assert not torch.equal(reader.read(reader.drive(x), b, 12), expected)


@pytest.mark.parametrize("adc", [None, Adc(), Adc(bits=5)])
@pytest.mark.parametrize("dac", [None, Dac(), Dac(bits=5)])
def test_reader_leaves_out_what_is_not_there(adc: Adc | None, dac: Dac | None) -> None:
    torch.manual_seed(1)
    op, x, w = _shapes("linear")
    hw = _hardware(None, 0.0, adc, dac, 0.0)
    array, b = program(w, op, hw, None), torch.randn(7)
    found = fused.circuit(array, op, hw)
    assert found is not None
    reader = Reader(found, *RANGES.tolist(), noisy=False)
    expected, _ = fused.product(x, array, op, hw, Noise(), RANGES, b)
    assert torch.allclose(reader.read(reader.drive(x), b, 0), expected, rtol=1e-6, atol=1e-6)


def test_prepared_settings_are_checked_once() -> None:
    with pytest.raises(InputError, match="sigma -1"):
        kernels.PreparedAdc(-1.0, 1.0, 7, 4)
    with pytest.raises(InputError, match="range 0"):
        kernels.PreparedDac(0.0, 7)
