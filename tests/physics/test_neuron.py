"""The analog neuron: exact bounds, asymmetry, mismatch as a law, gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mho.hardware.spec import Neuron
from mho.physics.neuron import transfer
from mho.rng import normals
from mho.testing import assert_power


def test_the_default_neuron_is_a_clip() -> None:
    a = torch.linspace(-3, 3, 101)
    assert torch.equal(transfer(a, Neuron(), None, None), a.clamp(-1, 1))


def test_asymmetric_gains_and_offset() -> None:
    neuron = Neuron(gain_pos=0.5, gain_neg=0.25, offset=0.1, low=-0.2, high=0.8)
    a = torch.tensor([-4.0, -0.4, 0.0, 0.4, 4.0])
    assert torch.allclose(transfer(a, neuron, None, None), torch.tensor([-0.2, 0.0, 0.1, 0.3, 0.8]))


@settings(max_examples=60, deadline=None)
@given(
    low=st.floats(-2.0, 0.5),
    width=st.floats(0.6, 3.0),
    soft=st.booleans(),
    gain=st.floats(0.1, 5.0),
    offset=st.floats(-1.0, 1.0),
)
def test_values_stay_in_bounds_monotone_and_reach_them(
    low: float, width: float, soft: bool, gain: float, offset: float
) -> None:
    neuron = Neuron(gain_pos=gain, gain_neg=0.3 * gain, offset=offset, low=low, high=max(low + width, 0.1), soft=soft)
    a = torch.cat([torch.linspace(-5, 5, 501), torch.tensor([1e4])])
    a = torch.cat([torch.tensor([-1e4]), a])
    f = transfer(a, neuron, None, None)
    assert (f >= neuron.low).all() and (f <= neuron.high).all()
    assert (f.diff() >= 0).all()
    assert float(f[0]) == pytest.approx(neuron.low, abs=1e-6)
    assert float(f[-1]) == pytest.approx(neuron.high, abs=1e-6)


def test_soft_neuron_is_tanh_shaped_with_unit_slope_at_rest() -> None:
    neuron = Neuron(low=-0.5, high=2.0, soft=True)
    a = torch.tensor([-1.0, -0.1, 0.0, 0.1, 3.0], dtype=torch.float64)
    expected = torch.where(a >= 0, 2.0 * torch.tanh(a / 2.0), -0.5 * torch.tanh(a / -0.5))
    assert torch.allclose(transfer(a, neuron, None, None), expected, atol=1e-15)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(transfer(zero, neuron, None, None), zero)
    assert slope == 1.0


def test_soft_rectifier_has_no_division_by_zero() -> None:
    neuron = Neuron(gain_neg=0.0, low=0.0, high=1.0, soft=True)
    a = torch.tensor([-3.0, 0.0, 0.5, 30.0], requires_grad=True)
    f = transfer(a, neuron, None, None)
    f.sum().backward()
    assert torch.allclose(f.detach(), torch.tensor([0.0, 0.0, math.tanh(0.5), 1.0]))
    assert a.grad is not None and a.grad.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
def test_nan_stays_nan(soft: bool) -> None:
    for neuron in (Neuron(soft=soft), Neuron(soft=soft, low=0.0, gain_neg=0.0)):
        assert transfer(torch.tensor([math.nan]), neuron, None, None).isnan().all()


@pytest.mark.parametrize("soft", [False, True])
def test_gradcheck(soft: bool) -> None:
    neuron = Neuron(
        gain_pos=0.8, gain_neg=0.3, offset=0.05, low=-0.6, high=0.9, soft=soft, gain_d2d=0.1, offset_d2d=0.1
    )
    a = (0.7 * normals((4, 6), 0, "a")).double().requires_grad_()
    gain, offset = normals((6,), 0, "gain").double(), normals((6,), 0, "offset").double()
    assert torch.autograd.gradcheck(lambda x: transfer(x, neuron, gain, offset), (a,))


def test_the_gradient_at_zero_is_the_positive_gain() -> None:
    a = torch.zeros(1, requires_grad=True)
    transfer(a, Neuron(gain_pos=0.7, gain_neg=0.2), None, None).backward()
    assert a.grad is not None and a.grad.item() == pytest.approx(0.7)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gain_mismatch_law(sign: float) -> None:
    xi = normals((100_000,), 1, "gain")
    a = torch.full((100_000,), 0.4 * sign)
    mean = 0.4 * (0.9 if sign > 0 else -0.5)

    def sample(scale: float) -> torch.Tensor:
        neuron = Neuron(gain_pos=0.9, gain_neg=0.5, low=-10, high=10, gain_d2d=0.1 * scale)
        return transfer(a, neuron, xi, None)

    assert_power(sample, stats.norm(mean, 0.1 * abs(mean)))


def test_offset_mismatch_law() -> None:
    xi = normals((100_000,), 1, "offset")
    a = torch.full((100_000,), 0.2)
    assert_power(
        lambda scale: transfer(a, Neuron(low=-10, high=10, offset=0.1, offset_d2d=0.05 * scale), None, xi),
        stats.norm(0.3, 0.05),
    )


def test_draws_belong_to_neurons_and_every_option_matters() -> None:
    a = normals((8, 3), 2, "a")
    xi = torch.tensor([-1.0, 0.0, 1.0])
    plain = transfer(a, Neuron(), None, None)
    mismatched = transfer(a, Neuron(gain_d2d=0.3), xi, None)
    assert torch.equal(mismatched[:, 1], plain[:, 1]) and not torch.equal(mismatched[:, 0], plain[:, 0])
    for neuron in (
        Neuron(gain_pos=0.5),
        Neuron(gain_neg=0.5),
        Neuron(offset=0.1),
        Neuron(low=-0.5),
        Neuron(high=0.5),
        Neuron(soft=True),
    ):
        assert not torch.equal(transfer(a, neuron, None, None), plain)
