"""The normals of the GPU kernels: known answers, their law, and a law that a mutant fails (Triton's interpreter)."""

import math

import numpy as np
import pytest
import torch
from gpu_interpreter import DEVICE, launch, on_device, philox_words, weights  # noqa: F401 (a fixture)
from scipy import stats

from mho.crossbar import kernels
from mho.crossbar.kernels import reference
from mho.crossbar.noise import Counter
from mho.crossbar.ops import ConvOp, LinearOp

ALPHA = 1e-5


def _philox_of(counter: list[int], key: list[int], rounds: int) -> list[int]:
    """Salmon et al., SC'11, in Python's integers."""
    mask = 0xFFFFFFFF
    c, k = list(counter), list(key)
    for _ in range(rounds):
        one, other = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [other >> 32 ^ c[1] ^ k[0], other & mask, one >> 32 ^ c[3] ^ k[1], one & mask]
        k = [(k[0] + 0x9E3779B9) & mask, (k[1] + 0xBB67AE85) & mask]
    return c


KNOWN = [
    ([0, 0, 0, 0], [0, 0], 10, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, 10, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    ([0, 0, 0, 0], [0, 0], 7, [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]),
]  # the known answers that come with Random123


@pytest.mark.parametrize(("counter", "key", "rounds", "answer"), KNOWN)
def test_philox_gives_the_known_answers(counter: list[int], key: list[int], rounds: int, answer: list[int]) -> None:
    assert _philox_of(counter, key, rounds) == answer
    c, k = (torch.from_numpy(np.array(v, dtype=np.uint32).view(np.int32)) for v in (counter, key))
    out = torch.zeros(4, 16, dtype=torch.int32)
    philox_words[(1,)](out, c.to(DEVICE).view(torch.uint32), k.to(DEVICE).view(torch.uint32), rounds)
    assert [int(v) & 0xFFFFFFFF for v in out[:, 0]] == answer


def _fresh(seed: int, rows: int, columns: int, parts: int = 1) -> torch.Tensor:
    return launch.fresh_normals(Counter(seed), parts, LinearOp(1, columns), torch.empty(rows, columns, device=DEVICE))


def _near(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal; on a GPU, where a multiplication and an addition may be fused, to a rounding."""
    one, other = one.cpu(), other.cpu()
    return torch.equal(one, other) if DEVICE == "cpu" else bool(((one - other).abs() <= 1e-5).all())


def test_an_element_is_a_function_of_seed_part_row_and_column() -> None:
    seed, part, row, column = (5 << 32) + 9, 2, 33, 43
    z = _fresh(seed, 40, 48, 3)[part, row, column]
    a, b, t, e = column // 16, column // 8 % 2, column // 2 % 4, column % 2
    words = _philox_of([4 * a + t, row, part, 0], [seed & 0xFFFFFFFF, seed >> 32], 7)
    pair = np.zeros((1, 1024), dtype=np.uint32)
    pair[0, 0], pair[0, 512] = words[2 * b], words[2 * b + 1]
    assert _near(z, torch.tensor(float(reference.box_muller(pair)[0, 512 * e]), device="cpu"))


@pytest.fixture(scope="module")
def sample() -> torch.Tensor:
    """100,000 normals."""
    return _fresh(2024, 500, 200)[0].cpu()


def test_the_law_is_the_normal_one(sample: torch.Tensor) -> None:
    z = sample.double().flatten().numpy()
    n = z.size
    assert stats.kstest(z, "norm").pvalue > ALPHA
    assert abs(z.mean()) < 4.5 / n**0.5
    assert abs(z.var() - 1) < 4.5 * (2 / n) ** 0.5
    assert abs((z**4).mean() - 3) < 4.5 * (96 / n) ** 0.5
    assert np.abs(z).max() <= 6.67


@pytest.mark.parametrize("mutant", [lambda z: 1.05 * z, lambda z: z + 0.03, lambda z: z.clip(-1.9, 1.9)])
def test_the_law_refuses_a_mutant(sample: torch.Tensor, mutant: object) -> None:
    assert callable(mutant)
    assert stats.kstest(mutant(sample.double().flatten().numpy()), "norm").pvalue < ALPHA


@pytest.mark.parametrize(("down", "across"), [(1, 0), (0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (1, 1), (16, 0)])
def test_neighbours_are_independent(sample: torch.Tensor, down: int, across: int) -> None:
    z = sample.double().numpy()
    one, other = z[down:, across:].ravel(), z[: z.shape[0] - down, : z.shape[1] - across].ravel()
    for f in (lambda v: v, lambda v: v**2 - 1):
        product = f(one) * f(other)
        assert abs(product.mean()) < 4.5 * product.std() / product.size**0.5


def test_parts_and_seeds_are_independent() -> None:
    a, b = _fresh(1, 100, 64, 2).double()
    c = _fresh(2, 100, 64)[0].double()
    for other in (b, c):
        assert abs((a * other).mean()) < 4.5 / a.numel() ** 0.5


def test_a_convolution_has_its_normals_where_its_outputs_are() -> None:
    op = ConvOp(3, 20, (1, 1), (1, 1), (0, 0), (1, 1), 1)
    z = launch.fresh_normals(Counter(4), 1, op, torch.empty(2, 20, 3, 2, device=DEVICE))
    assert torch.equal(z[0].permute(0, 2, 3, 1).reshape(12, 20), _fresh(4, 12, 20)[0])


@pytest.mark.parametrize("seed", [1, 2**63 - 1])
def test_noise_on_a_weight_has_the_numbers_of_the_cpu_kernels(seed: int) -> None:
    w = torch.linspace(-2, 2, 37 * 40).view(37, 40)
    noisy = weights.noisy(w, torch.tensor(1.5), torch.tensor(0.2), Counter(seed, 0.5))
    assert _near(noisy, kernels.add_normal(w.cpu(), 0.1, seed, lo=-1.5, hi=1.5))


@pytest.mark.parametrize("shape", [(5, 40), (5, 3, 3, 2)])
def test_noise_on_a_weight_has_a_size_and_a_limit_a_column(shape: tuple[int, ...]) -> None:
    w = torch.linspace(-2, 2, math.prod(shape)).view(shape)
    if len(shape) == 4:
        w = w.contiguous(memory_format=torch.channels_last)
    limit, sigma = (torch.rand(5).add_(0.5).view(-1, *[1] * (len(shape) - 1)) for _ in range(2))
    assert weights.takes(w, limit, sigma) and not weights.takes(w, limit[:1], sigma)
    found = weights.noisy(w, limit, sigma, Counter(3, 0.5))
    assert found.stride() == w.stride()
    normals = torch.empty_like(w, device="cpu")  # numbers lie in the order of memory
    kernels.normal_(normals, 3)
    assert _near(found, w.clamp(-limit, limit) + 0.5 * sigma * normals.to(w))


def test_noise_on_a_weight_passes_its_gradient() -> None:
    w = torch.linspace(-2, 2, 60).requires_grad_()
    weights.noisy(w, torch.tensor(1.0), torch.tensor(0.2), Counter(3)).sum().backward()
    assert w.grad is not None and torch.equal(w.grad, torch.ones(60))


def test_a_transposed_bfloat16_weight_is_taken_in_the_order_of_its_memory() -> None:
    w = torch.randn(30, 40).bfloat16().t()
    noisy = weights.noisy(w, None, torch.tensor(0.2), Counter(3))
    expected = kernels.add_normal(w.float().cpu(), 0.2, 3).to(DEVICE)
    assert noisy.stride() == w.stride()
    # The interpreter cuts bfloat16 off where a GPU rounds to nearest.
    assert ((noisy.float() - expected).abs() <= 2**-7 * expected.abs()).all()


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1])
def test_halves_of_a_seed_fit_signed_words(seed: int) -> None:
    low, high = launch.halves(seed)
    assert (high & 0xFFFFFFFF) << 32 | low & 0xFFFFFFFF == seed
    assert all(-(2**31) <= half < 2**31 for half in (low, high))
