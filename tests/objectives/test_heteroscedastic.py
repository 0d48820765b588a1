"""Fitting noise to reads: the loss, the fit against the true law, and a device whose noise changes."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mho.errors import InputError
from mho.hardware import GenericCell, Hardware, Mapping, load_hardware
from mho.nn.conversion import convert
from mho.nn.stochastic import StochasticResidual
from mho.nn.stochastic_law import ReadLaw
from mho.objectives.heteroscedastic import BetaNLL, OnlineNoise, fit_noise, gaussian_nll
from mho.rng import stream


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def _device(layer: StochasticResidual, x: Tensor, repeats: int, seed: int, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Reads of a device that is not in the model's family of constants: floor, shot and read noise."""
    inner = layer.inner
    assert isinstance(inner, nn.Linear)
    with torch.no_grad():
        a = inner(x)
        variance = scale**2 * (0.003 + 0.02 * a.abs() + 0.004 * x.square().sum(-1, keepdim=True))
        eps = torch.randn(repeats, *a.shape, generator=stream("device", seed))
        return a + variance.sqrt() * eps, variance


# --- the loss -------------------------------------------------------------------------------------


def test_beta_zero_is_the_likelihood_and_beta_one_has_the_gradient_of_a_mean_squared_error() -> None:
    mean = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    variance = torch.rand(5, 3, dtype=torch.float64) + 0.1
    z = torch.randn(7, 5, 3, dtype=torch.float64)
    normal = torch.distributions.Normal(mean, variance.sqrt())
    nll = BetaNLL(0.0)(ReadLaw(mean, variance), z) + 0.5 * math.log(2 * math.pi)
    assert torch.allclose(nll, -normal.log_prob(z).mean())
    assert torch.allclose(gaussian_nll(mean, variance, z), -normal.log_prob(z))
    (one,) = torch.autograd.grad(BetaNLL(1.0)(ReadLaw(mean, variance), z), mean)
    (mse,) = torch.autograd.grad(0.5 * (z - mean).square().mean(), mean)
    assert torch.allclose(one, mse)
    (half,) = torch.autograd.grad(BetaNLL(0.5)(ReadLaw(mean, variance), z), mean)
    assert not torch.allclose(half, mse)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_gradcheck_of_beta_nll_up_to_its_stopped_weight(beta: float) -> None:
    mean = torch.randn(4, dtype=torch.float64, requires_grad=True)
    variance = (torch.rand(4, dtype=torch.float64) + 0.2).requires_grad_()
    z = torch.randn(3, 4, dtype=torch.float64)
    weight = variance.detach() ** beta
    found = torch.autograd.grad(BetaNLL(beta)(ReadLaw(mean, variance), z), (mean, variance))
    exact = torch.autograd.grad((weight * gaussian_nll(mean, variance, z)).mean(), (mean, variance))
    assert all(torch.allclose(a, b) for a, b in zip(found, exact, strict=True))
    assert torch.autograd.gradcheck(lambda m, v: gaussian_nll(m, v, z), (mean, variance))


# --- the fit --------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_reads", [True, False])
def test_fit_finds_the_law_of_a_device_and_beats_one_constant_sigma(of_reads: bool) -> None:
    layer = StochasticResidual(nn.Linear(8, 4))
    before = [p.detach().clone() for p in layer.inner.parameters()]  # type: ignore[union-attr]
    x = torch.randn(600, 8) * torch.rand(600, 1) * 2
    z, variance = _device(layer, x, 8, 1)
    fit = fit_noise(layer, x, z, of_reads=of_reads, true_variance=variance)
    assert fit.given is not None
    assert fit.homoscedastic - fit.given > 0.1  # the device is far from one sigma
    assert fit.nll - fit.given < 0.05 * (fit.homoscedastic - fit.given)
    assert fit.held_out == 150
    ratio = layer.law(x).variance.detach() / variance
    assert float(ratio.log().abs().mean()) < 0.06
    assert all(torch.equal(a, b) for a, b in zip(before, layer.inner.parameters(), strict=True))  # type: ignore[union-attr]
    assert not layer.theta.requires_grad
    assert layer.theta.grad is None
    assert "nats a read on 150 held-out inputs" in str(fit)


def test_a_fit_without_steps_of_its_kind_is_worse() -> None:
    """The comparison has power: a fit of one step stays near the constant law."""
    layer = StochasticResidual(nn.Linear(8, 4))
    x = torch.randn(600, 8) * torch.rand(600, 1) * 2
    z, variance = _device(layer, x, 8, 1)
    fit = fit_noise(layer, x, z, true_variance=variance, steps=1)
    assert fit.given is not None
    assert fit.nll - fit.given > 0.3 * (fit.homoscedastic - fit.given)


@pytest.mark.parametrize("form", ["pre", "post"])
def test_gain_and_offset_of_the_chip_are_found_first(form: Any) -> None:
    layer = StochasticResidual(nn.Linear(8, 3), form=form, activation=nn.Softplus(), mean_shift=True)
    x = torch.randn(500, 8)
    gain, offset = torch.tensor([0.1, -0.2, 0.0]), torch.tensor([0.3, 0.0, -0.1])
    with torch.no_grad():
        base = layer.law(x).mean
        z = base * (1 + gain) + offset + 0.05 * torch.randn(4, *base.shape)
    fit = fit_noise(layer, x, z, of_reads=False)
    assert layer.shift_gain is not None
    assert layer.shift_offset is not None
    assert torch.allclose(layer.shift_gain, gain, atol=0.02)
    assert torch.allclose(layer.shift_offset, offset, atol=0.02)
    assert float(layer.law(x).variance.detach().mean().sqrt()) == pytest.approx(0.05, rel=0.05)
    assert fit.nll == pytest.approx(math.log(0.05) + 0.5 * math.log(2 * math.pi * math.e), abs=0.05)
    without = StochasticResidual(layer.inner, form=form, activation=nn.Softplus())
    assert fit_noise(without, x, z, of_reads=False).nll > fit.nll + 0.5


def test_convolution_reads_are_fitted_and_the_physical_terms_are_not_fitted_twice() -> None:
    hw = Hardware(name="read", mapping=Mapping(scheme="signed"), cell=GenericCell(read_noise=0.05))
    layer = StochasticResidual(nn.Conv2d(2, 3, 3, padding=1), hw)
    x = torch.randn(40, 2, 6, 6)
    with torch.no_grad():
        law = layer.law(x, of_reads=True)
        extra = 0.5 * law.variance.mean()
        z = law.mean + (law.variance + extra).sqrt() * torch.randn(6, *law.mean.shape)
    fit_noise(layer, x, z)
    found = (layer.law(x, of_reads=True).variance - law.variance).detach()
    assert torch.allclose(found.mean(), extra, rtol=0.1)


def test_a_law_of_the_layer_trains_by_hand_too() -> None:
    layer = StochasticResidual(nn.Linear(8, 4), sigma=0.3).use("fit")
    x = torch.randn(400, 8)
    z, variance = _device(layer, x, 4, 2)
    loss, optimizer = BetaNLL(), torch.optim.Adam([layer.theta], 0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(layer.law(x), z).backward()
        optimizer.step()
    assert float((layer.law(x).variance.detach() / variance).log().abs().mean()) < 0.15
    assert layer.inner.weight.grad is None  # type: ignore[union-attr]


# --- a device that changes ------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_online_noise_follows_a_sigma_that_doubles(beta: float) -> None:
    layer = StochasticResidual(nn.Linear(8, 4))
    x = torch.randn(600, 8)
    z, _ = _device(layer, x, 8, 1)
    fit_noise(layer, x, z)
    online = OnlineNoise(layer, rate=0.2, beta=beta)

    def sigma(batches: int, scale: float, start: int) -> float:
        for k in range(batches):
            batch = torch.randn(64, 8, generator=stream("batch", start + k))
            reads, _ = _device(layer, batch, 1, 100 + start + k, scale)
            online.observe(batch, reads)
        probe = torch.randn(500, 8, generator=stream("probe"))
        _, true = _device(layer, probe, 1, 0, 1.0)
        return float((layer.law(probe).variance.detach() / true).sqrt().mean())

    assert sigma(40, 1.0, 0) == pytest.approx(1.0, abs=0.12)
    assert sigma(2, 2.0, 100) < 1.8  # it does not jump at one batch
    assert sigma(58, 2.0, 200) == pytest.approx(2.0, abs=0.25)
    assert sigma(80, 1.0, 300) == pytest.approx(1.0, abs=0.15)


def test_a_slow_rate_does_not_follow() -> None:
    layer = StochasticResidual(nn.Linear(8, 4), sigma=0.1)
    online = OnlineNoise(layer, rate=1e-4)
    x = torch.randn(64, 8)
    z, _ = _device(layer, x, 1, 3, 2.0)
    first = online.observe(x, z)
    assert online.observe(x, z) == pytest.approx(first, rel=1e-2)
    assert online.observe(x, z[0]) == pytest.approx(first, rel=1e-2)


# --- errors ---------------------------------------------------------------------------------------


def test_refusals() -> None:
    layer, x = StochasticResidual(nn.Linear(4, 2)), torch.randn(8, 4)
    z = torch.randn(3, 8, 2)
    for run, message in (
        (lambda: BetaNLL(1.5), r"beta = 1.5: must lie in \[0, 1\]"),
        (lambda: BetaNLL()(layer.law(x), z), r"variance that is not above 0.*set_sigma"),
        (lambda: BetaNLL()(ReadLaw(z[0], z[0].abs()), z[:, :3]), r"\(3, 3, 2\) for outputs of shape \(8, 2\)"),
        (lambda: fit_noise(layer, x, z[:, :3]), r"reads of shape \(3, 3, 2\) for inputs of shape \(8, 4\).*Way out"),
        (lambda: fit_noise(layer, x, z[:, :, :1]), r"for outputs of shape \(8, 2\)"),
        (lambda: fit_noise(layer, x, z[:1]), r"one read of each input.*repeat the reads"),
        (lambda: fit_noise(layer, x, z[:1].expand(3, 8, 2)), r"all reads of an input are equal"),
        (lambda: fit_noise(layer, x, z * float("nan")), r"NaN or infinity"),
        (lambda: fit_noise(layer, x, z, held_out=0.01), r"held_out = 0.01 of 8 inputs"),
        (lambda: fit_noise(layer, x, z, steps=0), r"steps = 0"),
        (lambda: fit_noise(convert(nn.Sequential(layer), load_hardware("generic"))[0], x, z), r"substrate adds noise"),  # type: ignore[index]
        (lambda: OnlineNoise(layer), r"no unit.*fit_noise"),
        (lambda: OnlineNoise(StochasticResidual(nn.Linear(4, 2), sigma=0.1), rate=0.0), r"rate = 0.0"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            run()
