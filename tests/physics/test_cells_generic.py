"""The generic cell: every dial does what its docstring says, for one sign and for both."""

import math

import pytest
import torch

from mho.errors import HardwareError
from mho.hardware import GenericCell
from mho.physics import cells
from mho.testing import assert_power

N = 100_000


def draws(seed: int, n: int = N) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("cell", "sigma"),
    [
        (GenericCell(g_min_uS=5.0, programming_noise=0.02), 0.02 * 20.0),
        (GenericCell(programming_noise_rel=0.05), 0.05 * 15.0),
        (GenericCell(programming_noise=0.02, programming_noise_rel=0.05), 0.02 * 25.0 + 0.05 * 15.0),
        (GenericCell(sigma_table=((0.0, 0.1), (10.0, 0.5), (25.0, 2.0))), 1.0),
    ],
)
def test_programming_law(cell: GenericCell, sigma: float) -> None:
    target = torch.full((N,), 15.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        return cells.program(cells.scale_noise(cell, scale), target, draws(1)) - target

    assert_power(sample, sigma=sigma, mean=0.0)


def test_signed_targets_are_not_clipped_and_have_the_error_of_their_magnitude() -> None:
    cell = GenericCell(sigma_table=((0.0, 1.0), (25.0, 3.0)))
    target = torch.tensor([-12.5, 0.0, 12.5], dtype=torch.float64)
    g = cells.program(cell, target, -torch.ones(3), signed=True)
    torch.testing.assert_close(g, torch.tensor([-14.5, -1.0, 10.5], dtype=torch.float64))
    assert torch.equal(cells.program(cell, target, None, signed=True), target)
    unsigned = cells.program(cell, target.clamp_min(0), -torch.ones(3))
    torch.testing.assert_close(unsigned, torch.tensor([0.0, 0.0, 10.5], dtype=torch.float64))
    drifted = cells.age(GenericCell(drift_nu=1.0), target, target, 1.0, None)
    torch.testing.assert_close(drifted, target / 2)
    noisy = cells.read_sigma_uS(GenericCell(read_noise_rel=0.1), target, target, 0.0)
    torch.testing.assert_close(noisy, target.abs() * 0.1)


def test_lognormal_programming_law() -> None:
    cell = GenericCell(programming_lognormal=0.3)
    target = torch.full((N,), 15.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        return (cells.program(cells.scale_noise(cell, scale), target, draws(4)) / target).log()

    assert_power(sample, sigma=0.3, mean=0.0)
    assert cells.uniform_programming_sigma(cell) is None
    signed = cells.program(cell, torch.tensor([-2.0, 0.0, 2.0]), torch.ones(3), signed=True)
    torch.testing.assert_close(signed, torch.tensor([-2.0, 0.0, 2.0]) * math.exp(0.3))


def test_programming_noise_of_two_laws_is_refused() -> None:
    with pytest.raises(HardwareError, match=r"programming_lognormal = 0\.3.*given twice"):
        GenericCell(programming_lognormal=0.3, programming_noise=0.1)


def test_drift_law() -> None:
    cell = GenericCell(drift_nu=0.05, drift_nu_d2d=0.01, t0_s=20.0)
    target = torch.full((N,), 10.0, dtype=torch.float64)

    def sample(scale: float) -> torch.Tensor:
        g = cells.age(cells.scale_noise(cell, scale), target, target, 1000.0, draws(2))
        return -(g / 10).log() / math.log(51)

    assert_power(sample, sigma=0.01, mean=0.05)


def test_table_is_linear_between_points_and_exact_at_them() -> None:
    cell = GenericCell(sigma_table=((0.0, 0.1), (10.0, 0.5), (12.0, 0.2), (25.0, 2.0)))
    at = torch.tensor([0.0, 5.0, 10.0, 11.0, 12.0, 25.0], dtype=torch.float64)
    sigma = cells.program(cell, at, torch.ones_like(at)) - at
    torch.testing.assert_close(sigma, torch.tensor([0.1, 0.3, 0.5, 0.35, 0.2, 2.0], dtype=torch.float64))


def test_uniform_read_sigma_is_0d_and_relative_is_not() -> None:
    g = torch.rand(3, 4)
    flat = cells.read_sigma_uS(GenericCell(g_min_uS=5.0, read_noise=0.01), g, g, 1.0)
    assert flat.dim() == 0 and flat.item() == pytest.approx(0.2)
    assert cells.uniform_read_sigma(GenericCell(read_noise=0.01)) == 0.01
    assert cells.uniform_read_sigma(GenericCell(read_noise=0.01, read_noise_rel=0.1)) is None
    assert cells.read_sigma_uS(GenericCell(read_noise_rel=0.01), g, g, 1.0).shape == g.shape


def test_fault_5_relative_noise_knows_no_largest_weight() -> None:
    """The same cell has the same error whatever else is in the tensor."""
    cell = GenericCell(programming_noise_rel=0.1)
    one = torch.ones(2)
    alone = cells.program(cell, torch.tensor([5.0, 5.0]), one)[0]
    beside = cells.program(cell, torch.tensor([5.0, 25.0]), one)[0]
    assert alone == beside == 5.5


def test_uniform_programming_sigma() -> None:
    assert cells.uniform_programming_sigma(GenericCell(programming_noise=0.1)) == 0.1
    assert cells.uniform_programming_sigma(GenericCell()) == 0.0
    assert cells.uniform_programming_sigma(GenericCell(programming_noise_rel=0.1)) is None
    assert cells.uniform_programming_sigma(GenericCell(sigma_table=((0.0, 1.0), (25.0, 1.0)))) is None


def test_ideal_cell_hands_the_very_tensor_back() -> None:
    target = torch.randn(5)
    assert cells.program(GenericCell(), target, torch.randn(5), signed=True) is target
    assert cells.age(GenericCell(), target, target, 1e9, torch.randn(5)) is target


def test_levels() -> None:
    cell = GenericCell(g_min_uS=1.0, g_max_uS=4.0, bits=2)
    g = torch.tensor([1.0, 1.4, 1.6, 3.4, 4.0], requires_grad=True)
    levels = cells.quantize_levels(cell, g)
    assert levels.tolist() == [1.0, 1.0, 2.0, 3.0, 4.0]
    levels.sum().backward()
    assert g.grad is not None and (g.grad == 1).all()
    signed = cells.quantize_levels(GenericCell(g_max_uS=3.0, bits=2), torch.tensor([-3.0, -1.2, 0.4, 3.0]))
    assert signed.tolist() == [-3.0, -1.0, 0.0, 3.0]
    signed = cells.quantize_levels(cell, torch.tensor([-3.0, -1.2, 0.4, 3.0]), signed=True)
    assert signed.tolist() == [-3.0, -1.0, 0.0, 3.0]


def test_something_that_is_no_cell() -> None:
    with pytest.raises(HardwareError, match="no law for str"):
        cells.program("pcm", torch.ones(1), None)  # type: ignore[arg-type]
