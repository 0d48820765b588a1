"""Local gradients of couplings beside autograd's."""

import pytest
import torch
import torch.nn.functional as F

from mho.ebm.hopfield.couplings import Kernel
from mho.ebm.hopfield.layers import Pool
from mho.ebm.hopfield.pooling import pool, pull


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1), (5, 2, 0)])
def test_gradient_of_a_kernel_is_that_of_its_energy(kernel: int, stride: int, padding: int, layout) -> None:  # type: ignore[no-untyped-def]
    # 3 channels read by 1 x 1 at a stride of 2 in channels_last is what oneDNN cannot do on AVX2 (torch 2.13).
    generator = torch.Generator().manual_seed(0)
    s = torch.randn(50, 3, 32, 32, generator=generator).contiguous(memory_format=layout)
    w = torch.randn(16, 3, kernel, kernel, generator=generator).contiguous(memory_format=layout)
    side = (32 + 2 * padding - kernel) // stride + 1
    t = torch.randn(50, 16, side, side, generator=generator).contiguous(memory_format=layout)
    coupling = Kernel("w", stride, padding, None, 1, (3, 32, 32))
    found = coupling.gradient(t, s, w)
    free = w.double().contiguous().requires_grad_()
    energy = (t.double() * F.conv2d(s.double().contiguous(), free, None, stride, padding)).sum()
    (wanted,) = torch.autograd.grad(energy, free)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("kind", ["average", "max", "soft"])
def test_pull_of_pooling_is_its_derivative(kind: Pool) -> None:
    y = torch.randn(2, 3, 6, 6, dtype=torch.float64).requires_grad_()
    t = torch.randn(2, 3, 3, 3, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((t * pool(y, kind, 2)).sum(), y)
    torch.testing.assert_close(pull(t, y.detach(), kind, 2), wanted)
