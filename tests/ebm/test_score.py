"""Score matching of Gaussians, whose best parameters are known in closed form."""

import math

import pytest
import torch

from mho import rng
from mho.ebm.langevin import Quadratic
from mho.ebm.score import denoising_loss, score, sliced_loss
from mho.errors import InputError

COVARIANCE = torch.tensor([[1.0, 0.4], [0.4, 0.5]], dtype=torch.float64)


def data(count: int) -> torch.Tensor:
    return rng.normals((count, 2), 0, "data").double() @ torch.linalg.cholesky(COVARIANCE).t()


def fitted(loss, temperature: float) -> torch.Tensor:
    """The matrix K of the energy x^T K x / 2 with the smallest loss, by Newton's method on its four numbers."""
    matrix = torch.eye(2, dtype=torch.float64)

    def value(entries: torch.Tensor) -> torch.Tensor:
        k = (entries.view(2, 2) + entries.view(2, 2).t()) / 2
        return loss(lambda x: 0.5 * ((x @ k) * x).sum(1), temperature) + 1e-9 * entries.square().sum()

    for _ in range(3):  # the loss is quadratic in K
        flat = matrix.flatten().requires_grad_(True)
        slope = torch.autograd.functional.jacobian(value, flat)
        curvature = torch.autograd.functional.hessian(value, flat)
        matrix = (flat.detach() - torch.linalg.pinv(curvature, rtol=1e-7) @ slope).view(2, 2)
    return (matrix + matrix.t()) / 2


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_sliced_loss_finds_the_precision_of_the_data(temperature: float) -> None:
    x = data(40_000)
    found = fitted(lambda e, t: sliced_loss(e, x, generator=rng.stream(0, "v"), temperature=t), temperature)
    assert torch.allclose(found / temperature, torch.linalg.inv(x.t().cov()), atol=0.06)


@pytest.mark.parametrize("sigma", [0.3, 1.0])
def test_the_denoising_loss_finds_the_precision_of_the_blurred_data(sigma: float) -> None:
    x = data(200_000)
    found = fitted(lambda e, t: denoising_loss(e, x, sigma=sigma, generator=rng.stream(0, "n"), temperature=t), 0.7)
    wanted = torch.linalg.inv(COVARIANCE + sigma**2 * torch.eye(2, dtype=torch.float64))
    assert torch.allclose(found / 0.7, wanted, atol=0.05)


def test_the_score_is_the_gradient_of_log_p() -> None:
    matrix = torch.linalg.inv(COVARIANCE)
    x = data(7)
    assert torch.allclose(score(Quadratic(matrix), x, 2.0), -x @ matrix / 2)


def test_bad_input_is_refused() -> None:
    x, energy = data(4), Quadratic(torch.eye(2, dtype=torch.float64))
    generator = torch.Generator()
    with pytest.raises(InputError, match="sigma = 0"):
        denoising_loss(energy, x, sigma=0.0, generator=generator)
    with pytest.raises(InputError, match="temperature = nan"):
        denoising_loss(energy, x, sigma=1.0, temperature=math.nan, generator=generator)
    with pytest.raises(InputError, match="0 slices"):
        sliced_loss(energy, x, slices=0, generator=generator)
    with pytest.raises(InputError, match="it must be"):
        score(lambda v: v.sum(), x)
