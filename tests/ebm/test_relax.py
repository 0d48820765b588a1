"""Relaxation: it stops at rest, certifies it, and says so when it cannot."""

import math

import pytest
import torch
from scipy.stats import norm

from mho.ebm.hopfield import Clip, Conv, Dense, Dynamics, HopfieldNet, Identity, clamp
from mho.ebm.relax import Relaxation, RelaxationError, States, averaged, relax
from mho.errors import InputError
from mho.rng import normals, stream, uniforms
from mho.testing import assert_law


class Quadratic:
    """E(s) = s'As / 2 - b's over blocks of one unit: Gauss-Seidel, against a linear solve."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        self.a, self.b = a, b

    def solve(self, k: int, states: States) -> torch.Tensor:
        s = torch.stack(states)
        return (self.b[k] - self.a[k] @ s + self.a[k, k] * s[k]) / self.a[k, k]

    def sweep(self, states: States) -> None:
        for k in range(len(states)):
            states[k] = self.solve(k, states)

    def residual(self, states: States) -> torch.Tensor:
        return torch.stack([(self.solve(k, states) - states[k]).abs() for k in range(len(states))]).amax()


def deep(seed: int = 0, gain: float = 0.8) -> HopfieldNet:
    layers = (Dense(units=20), Dense(units=15), Dense(units=4, activation=Identity()))
    return HopfieldNet((6,), layers, gain=gain, seed=seed).double()


def test_rest_of_a_quadratic_energy_is_the_linear_solve() -> None:
    root = normals((6, 6), 0, "a").double()
    a, b = root @ root.T + torch.eye(6), normals((6,), 0, "b").double()
    rest = relax(Quadratic(a, b), list(torch.zeros(6, dtype=torch.float64)), Relaxation(5000, 1e-12, 10))
    assert torch.allclose(torch.stack(rest.states), torch.linalg.solve(a, b), atol=1e-9)
    assert rest.residual is not None and rest.residual <= 1e-12


def test_the_certificate_is_the_projected_gradient_by_autograd() -> None:
    net, x = deep(), uniforms((7, 6), 0, "x").double()
    rest = relax(clamp(net, x), net.initial(x), Relaxation(2000, 1e-11))
    states = [s.requires_grad_() for s in rest.states]
    slopes = torch.autograd.grad(net.energy(states, x).sum(), states)
    for layer, s, slope in zip(net.described, states, slopes, strict=True):
        moved = layer.activation.apply((s - slope).detach().clone())
        assert float((moved - s.detach()).abs().max()) < 1e-10


def test_each_sweep_lowers_the_energy() -> None:
    net = HopfieldNet((2, 8, 8), (Conv(channels=3, pool="average"), Conv(channels=3, stride=2), Dense(units=3)), seed=1)
    x = uniforms((4, 2, 8, 8), 0, "x")
    system, states = clamp(net, x), net.initial(x)
    with torch.no_grad():
        energies = [net.energy(states, x)]
        for _ in range(12):
            system.sweep(states)
            energies.append(net.energy(states, x))
    drops = torch.stack(energies).diff(dim=0)
    assert float(drops.max()) < 1e-4
    assert float(drops[0].max()) < -0.01


def test_the_batch_does_not_change_the_rest_of_an_example() -> None:
    net, x = deep(), uniforms((7, 6), 0, "x").double()
    how = Relaxation(2000, 1e-11)
    whole = relax(clamp(net, x), net.initial(x), how).states
    alone = relax(clamp(net, x[2:3]), net.initial(x[2:3]), how).states
    assert all(torch.allclose(a[2:3], b, atol=1e-9) for a, b in zip(whole, alone, strict=True))


def test_the_given_states_are_not_written_to() -> None:
    net, x = deep(), uniforms((3, 6), 0, "x").double()
    start = net.initial(x)
    before = [s.clone() for s in start]
    relax(clamp(net, x), start, Relaxation(20, None))
    assert all(torch.equal(a, b) for a, b in zip(start, before, strict=True))


def test_no_rest_within_the_steps_is_an_error_with_the_numbers() -> None:
    net, x = deep(), uniforms((3, 6), 0, "x").double()
    with pytest.raises(RelaxationError, match=r"residual [0-9.e-]+ after 2 steps, above the tolerance 1e-12"):
        relax(clamp(net, x), net.initial(x), Relaxation(2, 1e-12))


@pytest.mark.parametrize("tolerance", [1e-6, None])
def test_an_unbounded_energy_is_an_error_and_no_hang(tolerance: float | None) -> None:
    layers = (Dense(units=8, activation=Identity()), Dense(units=8, activation=Identity()))
    net = HopfieldNet((4,), layers, gain=6.0)
    x = uniforms((3, 4), 0, "x")
    with pytest.raises(RelaxationError, match="not bounded from below"):
        relax(clamp(net, x), net.initial(x), Relaxation(400, tolerance))


def test_states_that_run_away_are_an_error_long_before_they_are_infinite() -> None:
    net = HopfieldNet((4,), (Dense(units=8, activation=Identity()), Dense(units=8, activation=Identity())), gain=1.3)
    x, told = uniforms((3, 4), 0, "x"), r"block 0 of 2 .*\|s\| reaches [0-9.]+e\+1[0-9] \(limit 1e\+06\) after 20 steps"
    with pytest.raises(RelaxationError, match=told):
        relax(clamp(net, x), net.initial(x), Relaxation(20, None))
    with pytest.raises(RelaxationError, match=told):
        averaged(clamp(net, x), net.initial(x), settle=18, reads=2)
    assert relax(clamp(net, x), net.initial(x), Relaxation(20, None, limit=1e30)).steps == 20
    with pytest.raises(InputError, match="limit = 0"):
        Relaxation(limit=0.0)


def test_a_fixed_number_of_steps_is_neither_judged_nor_certified() -> None:
    net, x = deep(), uniforms((3, 6), 0, "x").double()
    rest = relax(clamp(net, x), net.initial(x), Relaxation(2, None))
    assert (rest.steps, rest.residual) == (2, None)


def test_temperature_gives_the_law_of_boltzmann_and_a_mutant_does_not() -> None:
    """One layer driven by its bias alone: s ~ N(bias, T) inside wide bounds, whatever the step."""
    net = HopfieldNet((1,), (Dense(units=200, activation=Clip(-50.0, 50.0)),))
    x = torch.zeros(500, 1)
    for step in (1.0, 0.3):
        system = clamp(net, x, dynamics=Dynamics(temperature=0.7, step=step), generator=stream(5, "heat"))
        s = averaged(system, net.initial(x), settle=40, reads=1).states[0]
        sample = (s.double() / math.sqrt(0.7)).numpy().ravel()
        assert_law(sample, norm())
        with pytest.raises(AssertionError):
            assert_law(sample * 1.05, norm())


def test_a_nudged_output_has_the_law_of_its_stiffer_energy_whatever_the_step() -> None:
    """E = s^2 / 2 - bias s + b (s - 1)^2 / 2: s ~ N((bias + b) / (1 + b), T / (1 + b))."""
    net = HopfieldNet((1,), (Dense(units=2, activation=Clip(-50.0, 50.0)),))
    with torch.no_grad():
        net.layers[0].bias.fill_(0.4)
    x, y = torch.zeros(50_000, 1), torch.zeros(50_000, dtype=torch.int64)
    for b in (1.5, -0.5):
        for step in (1.0, 0.25):
            hot = Dynamics(temperature=0.7, step=step)
            system = clamp(net, x, dynamics=hot, generator=stream(5, "heat")).nudged(y, b)
            s = averaged(system, net.initial(x), settle=60, reads=1).states[0][:, 0].double()
            sample = ((s - (0.4 + b) / (1 + b)) / math.sqrt(0.7 / (1 + b))).numpy()
            assert_law(sample, norm())
            with pytest.raises(AssertionError):
                assert_law(sample * 1.05, norm())


def test_each_layer_may_have_a_temperature_of_its_own() -> None:
    net = HopfieldNet((1,), (Dense(units=3), Dense(units=2)))
    system = clamp(net, torch.zeros(4, 1), dynamics=Dynamics(read_noise=False, temperature=(0.0, 0.3)))
    states = net.initial(system.x)
    system.sweep(states)
    assert system.noisy and float(states[0].std(0).max()) == 0 < float(states[1].std(0).max())
    with pytest.raises(InputError, match="3 temperatures for 2 layers"):
        clamp(net, torch.zeros(4, 1), dynamics=Dynamics(temperature=(0.1, 0.1, 0.1)))


def test_the_converter_of_the_input_does_not_look_at_the_batch() -> None:
    net, x = HopfieldNet((6,), (Dense(units=20), Dense(units=4))), 2 * uniforms((7, 6), 0, "x") - 1
    with pytest.raises(InputError, match=r"reach beyond .*input_range"):
        clamp(net, x, dynamics=Dynamics(bits=3))
    how = Dynamics(bits=3, input_range=(-1.0, 1.0))
    assert torch.equal(clamp(net, x, dynamics=how).x[:1], clamp(net, x[:1], dynamics=how).x)


def test_states_have_their_bits() -> None:
    net, x = HopfieldNet((6,), (Dense(units=20), Dense(units=4))), uniforms((7, 6), 0, "x")
    system = clamp(net, x, dynamics=Dynamics(bits=3))
    states = net.initial(x)
    for _ in range(3):
        system.sweep(states)
    for s in states:
        assert torch.allclose((s * 7).round() / 7, s, atol=1e-6)


def test_impossible_settings_are_refused() -> None:
    net, x = deep(), uniforms((3, 6), 0, "x").double()
    for bad in (lambda: Relaxation(0), lambda: Relaxation(tolerance=0.0), lambda: Relaxation(check_every=0)):
        with pytest.raises(InputError):
            bad()
    with pytest.raises(InputError, match="temperature = -1"):
        Dynamics(temperature=-1.0)
    with pytest.raises(InputError, match="step = 0"):
        Dynamics(step=0.0)
    with pytest.raises(InputError, match="no bounds to convert"):
        clamp(net, x, dynamics=Dynamics(bits=4))
    with pytest.raises(InputError, match="reads = 0"):
        averaged(clamp(net, x), net.initial(x), settle=1, reads=0)
    with pytest.raises(InputError, match="holds NaN"):
        clamp(net, x * math.nan)
