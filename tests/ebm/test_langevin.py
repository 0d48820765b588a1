"""Langevin sampling: stationary variances in closed form, their biases corrected, the noise calibrated."""

import math

import pytest
import torch
from torch import Tensor

from mho import rng
from mho.ebm.langevin import Quadratic, check_bounded, gradient, overdamped, underdamped
from mho.ebm.langevin_noise import (
    DeviceNoise,
    ar1_variance,
    calibrate_colour,
    calibrate_temperature,
    coloured_variance,
    euler_variance,
    matched_temperature,
)
from mho.ebm.relax import RelaxationError
from mho.errors import InputError
from mho.testing import check_law, law_holds

CHAINS = 60_000


def well(k: float):
    return lambda x: 0.5 * k * x.square().flatten(1).sum(1)


def lyapunov(step_matrix: Tensor, noise: Tensor) -> Tensor:
    """The stationary covariance S = A S A^T + N of a linear scheme, solved as a linear system."""
    n = step_matrix.shape[0]
    left = torch.eye(n * n, dtype=torch.float64) - torch.kron(step_matrix, step_matrix)
    return torch.linalg.solve(left, noise.flatten()).view(n, n)


@pytest.mark.parametrize(("k", "temperature", "step"), [(1.0, 1.0, 0.3), (2.0, 0.5, 0.6), (4.0, 2.0, 0.35)])
def test_eulers_variance_is_its_closed_form_and_not_the_wells(k: float, temperature: float, step: float) -> None:
    x = torch.zeros(CHAINS, 2, dtype=torch.float64)
    end = overdamped(
        well(k), x, step=step, steps=60, temperature=temperature, scheme="euler", generator=rng.stream(0, "euler", step)
    ).x
    assert law_holds(end, sigma=math.sqrt(euler_variance(k, temperature, step)))
    assert not law_holds(end, sigma=math.sqrt(temperature / k))
    assert not law_holds(end * 1.05, sigma=math.sqrt(euler_variance(k, temperature, step)))


@pytest.mark.parametrize("scheme", ["averaged", "metropolis"])
def test_both_corrections_have_the_wells_own_variance(scheme) -> None:
    k, temperature, step = 2.0, 0.7, 0.5
    start = math.sqrt(temperature / k) * rng.normals((CHAINS, 2), 0, "start").double() * 1.3
    done = overdamped(
        well(k), start, step=step, steps=50, temperature=temperature, scheme=scheme, generator=rng.stream(0, scheme)
    )
    found = check_law(done.x, sigma=math.sqrt(temperature / k))
    assert found.holds, str(found)
    assert not law_holds(done.x, sigma=math.sqrt(euler_variance(k, temperature, step)))
    assert not law_holds(done.x * 1.05, sigma=math.sqrt(temperature / k))
    assert 0.6 < done.acceptance <= 1


def test_a_matched_temperature_takes_eulers_bias_and_the_colour_out() -> None:
    k, step, rho = 1.5, 0.4, 0.6
    asked = matched_temperature(k, 0.8, step, rho)
    end = overdamped(
        well(k),
        torch.zeros(CHAINS, 2, dtype=torch.float64),
        step=step,
        steps=80,
        temperature=asked,
        scheme="euler",
        noise=DeviceNoise(correlation=rho),
        generator=rng.stream(0, "matched"),
    ).x
    assert law_holds(end, sigma=math.sqrt(0.8 / k))


def test_coloured_noise_has_its_closed_form_and_whitening_takes_it_away() -> None:
    k, temperature, step, rho = 1.0, 1.0, 0.25, 0.7
    x = torch.zeros(CHAINS, 2, dtype=torch.float64)

    def end(whitened: bool, scheme) -> Tensor:
        noise = DeviceNoise(correlation=rho, whitened=whitened)
        generator = rng.stream(0, "colour", str(whitened), scheme)
        return overdamped(well(k), x, step=step, steps=90, scheme=scheme, noise=noise, generator=generator).x

    coloured = math.sqrt(euler_variance(k, temperature, step, rho))
    assert coloured > 1.9 > euler_variance(k, temperature, step)
    assert law_holds(end(False, "euler"), sigma=coloured)
    assert law_holds(end(True, "euler"), sigma=math.sqrt(euler_variance(k, temperature, step)))
    assert law_holds(end(True, "averaged"), sigma=math.sqrt(temperature / k))


@pytest.mark.parametrize(("decay", "rho"), [(0.7, 0.0), (0.7, 0.6), (-0.5, 0.9), (0.2, 0.3)])
def test_the_coloured_variance_solves_the_lyapunov_equation(decay: float, rho: float) -> None:
    step = torch.tensor([[decay, rho], [0.0, rho]], dtype=torch.float64)
    kick = torch.tensor([[1.0], [1.0]], dtype=torch.float64) * math.sqrt(1 - rho**2)
    assert ar1_variance(decay, rho) == pytest.approx(float(lyapunov(step, kick @ kick.t())[0, 0]))


def test_short_steps_tend_to_the_coloured_variance_of_continuous_time() -> None:
    k, temperature, tau, step = 1.3, 0.9, 0.4, 1e-4
    rho = math.exp(-step / tau)
    found = euler_variance(k, temperature * (1 - rho) / (1 + rho), step, rho)
    assert found == pytest.approx(coloured_variance(k, temperature, tau), rel=1e-3)


def test_baoab_has_the_wells_variance_and_its_own_velocitys() -> None:
    k, m, temperature, step, friction = 2.0, 1.5, 0.8, 0.7, 1.2
    done = underdamped(
        well(k),
        torch.zeros(CHAINS, 2, dtype=torch.float64),
        step=step,
        steps=50,
        temperature=temperature,
        friction=friction,
        mass=m,
        generator=rng.stream(0, "baoab"),
    )
    assert done.velocity is not None
    speed = temperature / m * (1 - step**2 * k / (4 * m))
    assert law_holds(done.x, sigma=math.sqrt(temperature / k))
    assert law_holds(done.velocity, sigma=math.sqrt(speed))
    assert not law_holds(done.velocity, sigma=math.sqrt(temperature / m))
    assert not law_holds(done.x * 1.05, sigma=math.sqrt(temperature / k))

    kick = torch.tensor([[1.0, 0.0], [-step * k / 2 / m, 1.0]], dtype=torch.float64)
    drift = torch.tensor([[1.0, step / 2], [0.0, 1.0]], dtype=torch.float64)
    c = math.exp(-friction * step)
    damp = torch.diag(torch.tensor([1.0, c], dtype=torch.float64))
    noise = torch.zeros(2, 2, dtype=torch.float64)
    noise[1, 1] = (1 - c * c) * temperature / m
    after = kick @ drift
    exact = lyapunov(after @ damp @ drift @ kick, after @ noise @ after.t())
    assert float(exact[0, 0]) == pytest.approx(temperature / k) and float(exact[1, 1]) == pytest.approx(speed)


def test_a_correlated_gaussian_has_its_covariance() -> None:
    matrix = torch.tensor([[2.0, 0.6, 0.0], [0.6, 1.0, -0.3], [0.0, -0.3, 1.5]], dtype=torch.float64)
    energy = Quadratic(matrix, torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))
    end = overdamped(
        energy,
        torch.zeros(CHAINS, 3, dtype=torch.float64),
        step=0.3,
        steps=120,
        temperature=0.5,
        generator=rng.stream(0, "g"),
    ).x
    white = torch.linalg.cholesky(matrix / 0.5).t() @ (end - energy.centre).t()
    assert law_holds(white, sigma=1.0)
    assert torch.allclose(end.mean(0), energy.centre, atol=0.02)


def test_a_double_well_has_its_law_by_metropolis_and_eulers_bias_is_seen() -> None:
    def energy(x: Tensor) -> Tensor:
        return (x[:, 0].square() - 1).square()

    grid = torch.linspace(-4, 4, 80_001, dtype=torch.float64)
    density = torch.exp(-(grid.square() - 1).square() / 0.6)
    cumulative = torch.cumsum(density, 0) / density.sum()

    def law(x):
        import numpy as np

        return np.interp(x, grid.numpy(), cumulative.numpy())

    start = torch.where(torch.arange(CHAINS) % 2 == 0, 1.0, -1.0).double()[:, None]
    run = {
        scheme: overdamped(
            energy, start, step=0.03, steps=200, temperature=0.6, scheme=scheme, generator=rng.stream(0, "two", scheme)
        )
        for scheme in ("metropolis", "euler")
    }
    assert law_holds(run["metropolis"].x, law)
    assert not law_holds(run["euler"].x, law)


def test_the_calibration_finds_the_temperature_of_wrong_noise() -> None:
    k, step = 1.0, 0.4
    noise = DeviceNoise(temperature_error=0.2)
    samples = overdamped(
        well(k), torch.zeros(400, 1), step=step, steps=1500, scheme="euler", noise=noise, keep_every=1,
        generator=rng.stream(0, "calibrate"),
    ).samples  # fmt: skip
    assert samples is not None
    found = calibrate_temperature(samples[100:, :, 0], k, step=step)
    assert found.low < 1.2 < found.high
    assert found.high / found.low < 1.05
    assert not found.low < 1.0 < found.high


def test_intervals_of_the_temperature_cover_as_often_as_they_say() -> None:
    k, step, hits = 1.0, 0.5, 0
    samples = overdamped(
        well(k), 1.1 * rng.normals((400, 1), 0, "cover"), step=step, steps=600, scheme="euler", keep_every=1,
        generator=rng.stream(0, "cover"),
    ).samples  # fmt: skip
    assert samples is not None
    for chain in range(200):
        found = calibrate_temperature(samples[50:, chain, 0], k, step=step)
        hits += found.low < 1.0 < found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_two_wells_tell_the_temperature_and_the_colour() -> None:
    rho, step, wells = 0.6, 0.1, (0.5, 8.0)
    samples = {}
    for k in wells:
        run = overdamped(
            well(k), torch.zeros(600, 1), step=step, steps=1200, scheme="euler", keep_every=2,
            noise=DeviceNoise(correlation=rho, temperature_error=-0.3), generator=rng.stream(0, "wells", int(k * 2)),
        )  # fmt: skip
        assert run.samples is not None
        samples[k] = run.samples[100:, :, 0]
    found = calibrate_colour(samples, step=step)
    assert found.correlation == pytest.approx(rho, abs=0.03)
    assert found.temperature == pytest.approx(0.7, rel=0.06)


def test_the_gradient_is_autograds_and_runs_are_functions_of_the_seed() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Softplus(), torch.nn.Linear(8, 1))
    x = rng.normals((5, 3), 0, "x")
    value, slope = gradient(lambda v: net(v)[:, 0], x)
    for i in range(3):
        d = torch.zeros(3)
        d[i] = 1e-2
        with torch.no_grad():
            plain = (net(x + d) - net(x - d))[:, 0] / 2e-2
        assert torch.allclose(slope[:, i], plain, atol=2e-3)
    assert value.shape == (5,) and not slope.requires_grad
    assert all(p.grad is None for p in net.parameters())
    runs = [underdamped(well(1.0), x, step=0.1, steps=9, generator=rng.stream(1, "same")).x for _ in range(2)]
    assert torch.equal(*runs)
    assert not torch.equal(runs[0], underdamped(well(1.0), x, step=0.1, steps=9, generator=rng.stream(2, "same")).x)


@pytest.mark.parametrize("sampler", [overdamped, underdamped])
def test_an_unbounded_energy_and_a_step_too_long_end_with_numbers(sampler) -> None:
    x = torch.ones(4, 2)
    with pytest.raises(RelaxationError, match=r"largest \|x\| = .*after \d+ steps of 0.5.*unbounded below"):
        sampler(well(-1.0), x, step=0.5, steps=10_000, generator=torch.Generator())
    with pytest.raises(RelaxationError, match=r"step is above 2 / curvature"):
        sampler(well(30.0), x, step=1.0, steps=10_000, generator=torch.Generator())


@pytest.mark.parametrize("sampler", [overdamped, underdamped])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"temperature": -1.0}, "needs a positive"),
        ({"temperature": math.inf}, "temperature = inf"),
        ({"step": 0.0}, "step = 0.0"),
        ({"steps": -1}, "-1 steps"),
        ({"x": torch.ones(3, 2, dtype=torch.int64)}, "must be floating"),
        ({"energy": lambda x: x.sum()}, "it must be"),
    ],
)
def test_bad_input_is_refused(sampler, change: dict[str, object], message: str) -> None:
    good = {"energy": well(1.0), "x": torch.ones(3, 2), "step": 0.1, "steps": 2, "generator": torch.Generator()}
    with pytest.raises(InputError, match=message):
        sampler(**(good | change))


def test_couplings_that_make_the_energy_unbounded_are_refused_with_the_eigenvalue() -> None:
    with pytest.raises(InputError, match=r"unbounded: the smallest eigenvalue of its couplings is -1\b"):
        Quadratic(torch.tensor([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(InputError, match="not symmetric"):
        check_bounded(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(InputError, match="NaN"):
        check_bounded(torch.tensor([[math.nan]]))
    with pytest.raises(InputError, match="square"):
        check_bounded(torch.ones(2, 3))


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature_error": 1.0},
        {"correlation": 0.8},
        {"correlation": 0.8, "whitened": True, "temperature_error": 0.1},
    ],
)
def test_metropolis_refuses_noise_whose_proposals_its_test_does_not_know(fields: dict[str, float]) -> None:
    x, rest = torch.zeros(1, 1), {"step": 0.4, "steps": 1, "generator": torch.Generator()}
    with pytest.raises(InputError, match=r"'metropolis' .* white at the temperature asked for.*Way out"):
        overdamped(well(1.0), x, scheme="metropolis", noise=DeviceNoise(**fields), **rest)
    overdamped(well(1.0), x, scheme="averaged", noise=DeviceNoise(**fields), **rest)


def test_metropolis_with_whitened_noise_has_the_wells_law() -> None:
    noise = DeviceNoise(correlation=0.8, whitened=True)
    start = rng.normals((CHAINS, 1), 0, "white start").double()
    generator = rng.stream(0, "white")
    done = overdamped(well(1.0), start, step=0.5, steps=30, scheme="metropolis", noise=noise, generator=generator)
    assert law_holds(done.x, sigma=1.0) and not law_holds(done.x * 1.05, sigma=1.0)


def test_closed_forms_refuse_what_has_no_stationary_law() -> None:
    with pytest.raises(InputError, match="no stationary law"):
        euler_variance(1.0, 1.0, 2.5)
    with pytest.raises(InputError, match="temperature = 0"):
        euler_variance(1.0, 0.0, 0.1)
    with pytest.raises(InputError, match="scheme 'heun' is unknown"):
        overdamped(well(1.0), torch.ones(1, 1), step=0.1, steps=1, scheme="heun", generator=torch.Generator())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="colour shows in the ratio of two"):
        calibrate_colour({1.0: torch.ones(10)}, step=0.1)
    for fields in ({"temperature_error": -1.0}, {"correlation": 1.0}):
        with pytest.raises(InputError, match=next(iter(fields))):
            DeviceNoise(**fields)
