"""Input sensitivity against torch's own Jacobian, and the law of its random estimator."""

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from mho.objectives import jacobian
from mho.objectives.tasks import class_margin
from mho.testing.statistics import assert_law, law_holds


def _network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    return net, torch.randn(5, 6, dtype=torch.float64).requires_grad_()


def _full(net: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.jacrev(net))(x.detach())


def test_exact_norms_are_those_of_the_full_jacobian() -> None:
    net, x = _network()
    full = _full(net, x)
    torch.testing.assert_close(jacobian.exact(net(x), x, "l2"), full.square().sum((1, 2)).mean())
    torch.testing.assert_close(jacobian.exact(net(x), x, "l1"), full.abs().sum((1, 2)).mean(), atol=1e-4, rtol=0)


def test_images_and_vectors_have_the_same_norm() -> None:
    net, x = _network()
    image = x.detach().reshape(5, 1, 2, 3).requires_grad_()
    torch.testing.assert_close(jacobian.exact(net(image.flatten(1)), image, "l2"), jacobian.exact(net(x), x, "l2"))


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_margin_norm_is_that_of_the_margins_gradient(norm: str) -> None:
    net, x = _network()
    y = torch.tensor([0, 1, 2, 3, 1])
    (g,) = torch.autograd.grad(class_margin(net(x), y).sum(), x)
    wanted = g.square().sum(1).mean() if norm == "l2" else g.abs().sum(1).mean()
    torch.testing.assert_close(jacobian.of_margin(class_margin(net(x), y), x, norm), wanted, atol=1e-4, rtol=0)


def test_directions_are_uniform_on_the_sphere() -> None:
    # One coordinate of a uniform direction in C dimensions: (v + 1)/2 ~ Beta((C - 1)/2, (C - 1)/2).
    v = jacobian.sphere(100, 1000, 10, torch.Generator().manual_seed(3))
    law = stats.beta(4.5, 4.5, loc=-1, scale=2)
    assert_law(v[..., 4], law)
    assert not law_holds((v[..., 4] * 1.05).clamp(-0.999, 0.999), law)
    not_normalised = torch.randn(100_000, generator=torch.Generator().manual_seed(3)) / 10**0.5
    assert not law_holds(not_normalised.clamp(-0.999, 0.999), law)


def test_random_projections_are_unbiased_and_the_factor_matters() -> None:
    net, x = _network()
    exact = float(jacobian.exact(net(x), x, "l2").detach())
    one = x.detach()[:1].requires_grad_()
    out = net(one)
    exact = float(jacobian.exact(out, one, "l2").detach())
    v = jacobian.sphere(4000, 1, 4, torch.Generator().manual_seed(1)).double()
    draws = torch.stack([jacobian.projected(net(one), one, d[None]).detach() for d in v])
    error = float(draws.std()) / len(draws) ** 0.5
    assert error < 0.02 * exact
    assert abs(float(draws.mean()) - exact) < 4.5 * error
    mutant = float(draws.mean()) / 4  # without the factor C
    assert abs(mutant - exact) > 4.5 * error


def test_many_projections_are_the_mean_of_single_ones() -> None:
    net, x = _network()
    v = jacobian.sphere(3, 5, 4, torch.Generator().manual_seed(2))
    single = torch.stack([jacobian.projected(net(x), x, d[None]) for d in v]).mean()
    torch.testing.assert_close(jacobian.projected(net(x), x, v), single)


def test_an_orthonormal_set_of_directions_gives_the_exact_norm() -> None:
    net, x = _network()
    basis, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))
    v = basis[:, None, :].expand(4, 5, 4)
    torch.testing.assert_close(jacobian.projected(net(x), x, v), jacobian.exact(net(x), x, "l2"))


@pytest.mark.parametrize("estimator", ["projection", "exact", "exact_l1", "margin", "margin_l1"])
def test_gradients_to_the_weights(estimator: str) -> None:
    net, x = _network()
    y = torch.tensor([0, 1, 2, 3, 1])
    v = jacobian.sphere(2, 5, 4, torch.Generator().manual_seed(2))
    norm = "l1" if estimator.endswith("l1") else "l2"

    def value(w: Tensor) -> Tensor:
        out = torch.tanh(x @ w.T) @ net[2].weight.detach().T  # type: ignore[index,union-attr,operator]
        if estimator == "projection":
            return jacobian.projected(out, x, v)
        if estimator.startswith("exact"):
            return jacobian.exact(out, x, norm)
        return jacobian.of_margin(class_margin(out, y), x, norm)

    assert torch.autograd.gradcheck(value, net[0].weight.detach().requires_grad_())  # type: ignore[index,union-attr]


def test_the_smoothed_absolute_value_has_a_slope_at_zero() -> None:
    g = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    value = jacobian.absolute(g)
    assert float(value.detach()) == pytest.approx(3 * jacobian.SMOOTHING)
    (slope,) = torch.autograd.grad(value.sum(), g)
    assert bool((slope == 0).all())
