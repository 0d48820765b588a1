"""The array read in the other direction: laws of its noise, and exactness without any."""

import math

import pytest
import torch
from torch import Tensor

from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp, Op
from mho.crossbar.reverse import output_sigma, reversible
from mho.hardware import Adc, Dac, GenericCell, Hardware, Mapping
from mho.physics.converters import enob_sigma, levels
from mho.testing.statistics import assert_power

SIGNED = Mapping(scheme="signed")
QUIET = Hardware(name="quiet", mapping=SIGNED)


def _grad_x(x: Tensor, w: Tensor, g: Tensor, hw: Hardware, draw: Tensor | Counter, op: Op | None = None) -> Tensor:
    x = x.detach().requires_grad_()
    y = reversible(x, w, op or LinearOp(w.shape[1], w.shape[0]), hw, draw)
    return torch.autograd.grad(y, x, g)[0]


@pytest.mark.parametrize(
    ("op", "x", "w"),
    [
        (LinearOp(6, 4), torch.randn(3, 6), torch.randn(4, 6)),
        (ConvOp(4, 6, (3, 3), (2, 1), (1, 0), (1, 1), 2), torch.randn(2, 4, 5, 6), torch.randn(6, 2, 3, 3)),
    ],
)
def test_quiet_hardware_gives_the_exact_gradient(op: Op, x: Tensor, w: Tensor) -> None:
    found = []
    for run in ("torch", "reverse"):
        x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
        y = op.apply(x, w, None) if run == "torch" else reversible(x, w, op, QUIET, Counter(1))
        y.square().sum().backward()
        found.append((y.detach(), x.grad, w.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(*(f[1:] for f in found), strict=True))


def test_read_noise_of_the_transposed_array() -> None:
    torch.manual_seed(0)
    count, sigma = 25_000, 0.05
    w, g = torch.randn(8, 4), torch.randn(8).expand(count, 8)
    hw = QUIET.replace(cell=GenericCell(read_noise=sigma))
    xi, zeros = torch.randn(count, 4), torch.zeros(count, 4)
    expected = sigma * float(w.abs().max()) * float(g[0].norm())
    assert_power(lambda scale: _grad_x(zeros, w, g, hw, scale * xi) - g @ w, sigma=expected)


def test_output_noise_is_a_share_of_the_largest_gradient() -> None:
    torch.manual_seed(0)
    count = 25_000
    w, g = torch.randn(8, 4), torch.randn(count, 8)
    hw = QUIET.replace(adc=Adc(), output_noise=0.03)
    xi, zeros, exact = torch.randn(count, 4), torch.zeros(count, 4), g @ w
    assert_power(lambda scale: _grad_x(zeros, w, g, hw, scale * xi) - exact, sigma=0.03 * float(exact.abs().max()))


def test_gradients_are_quantised_to_their_own_maximum() -> None:
    torch.manual_seed(0)
    w, g = torch.randn(8, 4), torch.randn(16, 8)
    for scale in (1.0, 1e-6):  # gradients shrink during training, the resolution must follow
        out = _grad_x(torch.zeros(16, 4), w, scale * g, QUIET.replace(dac=Dac(bits=6), adc=Adc(bits=6)), Counter(1))
        lsb = out.abs().max() / levels(6)
        assert torch.allclose(out / lsb, (out / lsb).round(), atol=1e-3)
        assert torch.allclose(out, scale * g @ w, atol=float(3 * lsb))
        assert not torch.equal(out, scale * g @ w)


def test_output_sigma_adds_in_variance() -> None:
    hw = QUIET.replace(adc=Adc(bits=8, enob=6.0), output_noise=0.01)
    assert output_sigma(hw) == pytest.approx(math.hypot(0.01, enob_sigma(8, 6.0)))
    assert output_sigma(QUIET) == 0.0


def test_zero_and_empty_gradients() -> None:
    hw = Hardware(name="n", mapping=SIGNED, cell=GenericCell(read_noise=0.1), dac=Dac(bits=6), adc=Adc(bits=6))
    w = torch.randn(8, 4)
    assert torch.equal(_grad_x(torch.zeros(3, 4), w, torch.zeros(3, 8), hw, Counter(1)), torch.zeros(3, 4))
    assert _grad_x(torch.zeros(0, 4), w, torch.zeros(0, 8), hw, Counter(1)).shape == (0, 4)
