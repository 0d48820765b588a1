"""Noise against energy: the closed form, the curvature, and a layer that learns its level."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mho.errors import InputError
from mho.nn.stochastic import StochasticResidual
from mho.nn.stochastic_blocks import stochastic_block
from mho.objectives.budget import budget_objective, noise_budget, noise_curvature, noise_energy

OUTPUTS = torch.tensor([128.0, 64.0, 10.0], dtype=torch.float64)
CURVATURE = torch.tensor([0.3, 2.0, 40.0], dtype=torch.float64)
KAPPA, LAM = 2e-12, 5e6


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _mse(out: Tensor, target: Tensor) -> Tensor:
    """Half the squared error, summed over the outputs and averaged over samples: Hessian 1."""
    return 0.5 * (out - target).square().sum(-1).mean()


# --- the closed form ------------------------------------------------------------------------------


def test_minimising_the_objective_gives_the_closed_form() -> None:
    closed = noise_budget(OUTPUTS, CURVATURE, KAPPA, LAM)
    log_s = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([log_s], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = budget_objective(log_s.exp(), OUTPUTS, CURVATURE, KAPPA, LAM)
        value.backward()
        return value

    optimizer.step(closure)  # type: ignore[arg-type]
    assert torch.allclose(log_s.exp().detach(), closed, rtol=1e-4)
    best = budget_objective(closed, OUTPUTS, CURVATURE, KAPPA, LAM)
    for factor in (0.95, 1.05):
        assert float(budget_objective(closed * factor, OUTPUTS, CURVATURE, KAPPA, LAM)) > float(best)
    wrong = (LAM * KAPPA * OUTPUTS / CURVATURE) ** 0.25  # without the factor 2
    assert not torch.allclose(log_s.exp().detach(), wrong, rtol=0.1)


def test_at_the_optimum_noise_and_energy_cost_the_same() -> None:
    s = noise_budget(OUTPUTS, CURVATURE, KAPPA, LAM)
    assert torch.allclose(0.5 * CURVATURE * s**2, LAM * KAPPA * OUTPUTS / s**2)


def test_gradients_of_the_objective() -> None:
    s = (torch.rand(3, dtype=torch.float64) + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: budget_objective(s, OUTPUTS, CURVATURE, 2.0, 0.5), (s,))


# --- curvature ------------------------------------------------------------------------------------


class Chain(nn.Module):
    """Two layers; the loss is quadratic in the noise of both, with known Hessians."""

    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.first = StochasticResidual(nn.Linear(5, 6), activation=activation)
        self.second = StochasticResidual(nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


@pytest.mark.parametrize("method", ["difference", "hutchinson"])
def test_curvature_of_a_linear_chain_is_the_trace_of_w_w(method: str) -> None:
    model = Chain().double()
    x, y = torch.randn(64, 5, dtype=torch.float64), torch.randn(64, 3, dtype=torch.float64)
    h = noise_curvature(model, x, y, _mse, method=method, probes=64, generator=torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    exact = {"first": float(model.second.inner.weight.detach().square().sum()), "second": 3.0}  # type: ignore[union-attr, operator]
    assert set(h) == set(exact)
    assert all(h[n] == pytest.approx(exact[n], rel=0.06) for n in exact)
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_both_estimators_agree_with_autograd_on_a_smooth_network() -> None:
    model = Chain(nn.Tanh()).double()
    x, y = torch.randn(32, 5, dtype=torch.float64), torch.randint(0, 3, (32,))
    inner = model.first.inner
    assert isinstance(inner, nn.Linear)
    with torch.no_grad():
        a = inner(x)

    def from_noise(delta: Tensor) -> Tensor:
        return F.cross_entropy(model.second((a + delta).tanh()), y)

    hessian = torch.autograd.functional.hessian(from_noise, torch.zeros_like(a))
    exact = float(hessian.reshape(a.numel(), a.numel()).trace())  # type: ignore[union-attr]
    for method in ("difference", "hutchinson"):
        found = noise_curvature(model, x, y, F.cross_entropy, method=method, probes=400)["first"]  # type: ignore[arg-type]
        assert found == pytest.approx(exact, rel=0.1, abs=0.01)
        assert found != pytest.approx(2 * exact, rel=0.1, abs=0.01)


def test_curvature_predicts_the_rise_of_the_loss() -> None:
    model = nn.Sequential(stochastic_block(5, 8), stochastic_block(8, 8), nn.Linear(8, 3)).double()
    x, y = torch.randn(256, 5, dtype=torch.float64), torch.randn(256, 3, dtype=torch.float64)
    h = noise_curvature(model, x, y, _mse, probes=64, step=0.3)["0"]
    layer = model[0]
    assert isinstance(layer, StochasticResidual)
    s = 0.15
    layer.set_sigma(s)
    with torch.no_grad():
        quiet = float(_mse(model.eval()(x), y))
        loud = sum(float(_mse(model.train()(x), y)) for _ in range(400)) / 400
    assert loud - quiet == pytest.approx(0.5 * h * s**2, rel=0.25)


def test_a_loss_that_is_linear_in_the_noise_has_no_curvature() -> None:
    h = noise_curvature(Chain(), torch.randn(4, 5), torch.zeros(()), lambda out, _: out.sum(), method="hutchinson")
    assert h == {"first": 0.0, "second": 0.0}


# --- learned --------------------------------------------------------------------------------------


def test_a_layer_in_budget_mode_learns_the_closed_form_and_collapses_without_energy() -> None:
    kappa, lam, n = 1e-3, 0.5, torch.tensor(3.0)
    x = torch.randn(512, 5)
    levels = []
    for price in (lam, 0.0):
        layer = StochasticResidual(nn.Linear(5, 3)).train().use("budget", objective="energy")
        layer.set_level(1.0)
        with torch.no_grad():
            y = layer.inner(x)  # type: ignore[misc]
        optimizer = torch.optim.Adam([layer.log_level], 0.05)
        for _ in range(300):
            optimizer.zero_grad()
            loss = _mse(layer(x), y) + price * noise_energy(layer.level, n, kappa)
            loss.backward()
            optimizer.step()
        levels.append(float(layer.level.detach()))
    closed = float(noise_budget(n, torch.tensor(3.0), kappa, lam))  # the Hessian of three outputs is 3
    assert levels[0] == pytest.approx(closed, rel=0.05)
    assert levels[1] < 0.5 * closed  # and falling: on the task alone there is no other end than 0


# --- errors ---------------------------------------------------------------------------------------


def test_refusals() -> None:
    n, h = torch.ones(2), torch.ones(2)
    chain, x = Chain(), torch.randn(2, 5)

    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.out = StochasticResidual(nn.Linear(5, 3)), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(x)

    for run, message in (
        (lambda: noise_budget(n, torch.tensor([1.0, 0.0]), 1.0, 1.0), r"h\[1\] = 0: must be finite.*leave out a layer"),
        (lambda: noise_budget(torch.tensor([-1.0, 1.0]), h, 1.0, 1.0), r"n\[0\] = -1"),
        (lambda: noise_budget(n, torch.ones(3), 1.0, 1.0), r"n has shape \(2,\), h \(3,\)"),
        (lambda: noise_budget(n, h, 0.0, 1.0), r"kappa = 0.0"),
        (lambda: noise_budget(n, h, 1.0, float("inf")), r"lam = inf"),
        (lambda: noise_energy(torch.zeros(2), n, 1.0), r"not above 0.*s = exp"),
        (lambda: noise_curvature(nn.Linear(5, 3), x, x, _mse), r"Linear: no StochasticResidual.*Way out"),
        (lambda: noise_curvature(chain, x, x, _mse, method="exact"), r"method = 'exact'"),  # type: ignore[arg-type]
        (lambda: noise_curvature(chain, x, x, _mse, probes=0), r"probes = 0"),
        (lambda: noise_curvature(Unused(), x, torch.randn(2, 3), _mse), r"not used by the model's forward"),
        (lambda: noise_curvature(Unused(), x, torch.randn(2, 3), _mse, method="hutchinson"), r"not used by the model"),
    ):
        with pytest.raises(InputError, match=message):
            run()
