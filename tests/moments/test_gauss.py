"""Closed forms against integration over the normal density on a dense grid."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mho.moments import gauss
from mho.moments.gauss import Passed

NODES = torch.linspace(-9.0, 9.0, 400_001, dtype=torch.float64)
DENSITY = torch.exp(-0.5 * NODES.square())
DENSITY = DENSITY / DENSITY.sum()


def integrated(f: Callable[[Tensor], Tensor], m: float, v: float) -> tuple[float, float, float]:
    """Mean, gain and variance of f(x), x ~ N(m, v)."""
    y = f(m + v**0.5 * NODES)
    mean = (DENSITY * y).sum()
    return float(mean), float((DENSITY * y * NODES).sum() / v**0.5), float((DENSITY * (y - mean).square()).sum())


LAWS: dict[str, tuple[Callable[[Tensor, Tensor], Passed], Callable[[Tensor], Tensor]]] = {
    "relu": (gauss.relu, torch.relu),
    "leaky_relu": (
        lambda m, v: gauss.leaky_relu(m, v, 0.2),
        lambda x: torch.nn.functional.leaky_relu(x, 0.2),
    ),
    "clamp": (lambda m, v: gauss.clamp(m, v, -0.5, 1.5), lambda x: x.clamp(-0.5, 1.5)),
    "rounded": (lambda m, v: gauss.rounded(m, v, 0.4), lambda x: 0.4 * torch.round(x / 0.4)),
    "tanh": (lambda m, v: gauss.elementwise(m, v, torch.tanh), torch.tanh),
}


@pytest.mark.parametrize("name", LAWS)
@settings(max_examples=40, deadline=None)
@given(m=st.floats(-2.0, 2.0), s=st.floats(0.01, 1.0))
def test_moments_are_the_integrals(name: str, m: float, s: float) -> None:
    closed, f = LAWS[name]
    found = closed(torch.tensor([m], dtype=torch.float64), torch.tensor([s * s], dtype=torch.float64))
    mean, gain, var = integrated(f, m, s * s)
    slack = 2e-3 if name in ("rounded", "tanh") else 1e-5
    assert abs(float(found.mean) - mean) < slack
    assert abs(float(found.var) - var) < slack
    assert abs(float(found.gain) - gain) < 12 * slack


def test_the_integrals_tell_a_sigma_five_percent_off() -> None:
    mean, _, var = integrated(torch.relu, 0.3, 1.0)
    wrong = gauss.relu(torch.tensor(0.3, dtype=torch.float64), torch.tensor(1.05**2, dtype=torch.float64))
    assert abs(float(wrong.mean) - mean) > 1e-2
    assert abs(float(wrong.var) - var) > 1e-2


def test_known_inputs_pass_as_numbers() -> None:
    m, v = torch.tensor([-1.0, 0.0, 0.26, 3.0]), torch.zeros(4)
    assert torch.equal(gauss.relu(m, v).mean, torch.relu(m))
    assert torch.equal(gauss.relu(m, v).var, v)
    assert torch.allclose(gauss.quantized(m, v, 1.0, 4).mean, torch.tensor([-1.0, 0.0, 0.25, 1.0]))
    assert torch.equal(gauss.quantized(m, v, 1.0, 4).var, v)
    assert torch.equal(gauss.rounded(m, v, 0.0).mean, v)


def test_a_converter_clips_then_rounds() -> None:
    m, v = torch.tensor([0.9], dtype=torch.float64), torch.tensor([0.04], dtype=torch.float64)
    found = gauss.quantized(m, v, 1.0, 31)
    mean, gain, var = integrated(lambda x: torch.round(x.clamp(-1, 1) * 31) / 31, 0.9, 0.04)
    assert abs(float(found.mean) - mean) < 2e-3
    assert abs(float(found.var) / var - 1) < 0.02
    assert abs(float(found.gain) - gain) < 0.02


def test_the_larger_of_two_correlated_normals() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(2, 1_000_000, generator=generator, dtype=torch.float64)
    x, y = 0.5 + a, 0.2 + 0.6 * (0.7 * a + 0.51**0.5 * b)
    top = torch.maximum(x, y)
    one = torch.ones(1, dtype=torch.float64)
    mean, var, first = gauss.larger(0.5 * one, one, 0.2 * one, 0.36 * one, 0.42 * one)
    assert abs(float(mean) - float(top.mean())) < 5 * float(top.std()) / 1000
    assert abs(float(var) / float(top.var()) - 1) < 5 * 2**0.5 / 1000
    assert abs(float(first) - float((x > y).double().mean())) < 5 * 0.5 / 1000
    independent = gauss.larger(0.5 * one, one, 0.2 * one, 0.36 * one, 0 * one)
    assert abs(float(independent[0]) - float(top.mean())) > 0.05


@pytest.mark.parametrize("m_u", [-1.5, 0.0, 0.7])
def test_a_rectified_skip_and_a_branch(m_u: float) -> None:
    """max(max(u, 0) + b, 0): against the integral over u, the inner rectifier in closed form."""
    m_b, v_b, v_u = -0.1, 0.2, 0.5

    def one(value: float) -> Tensor:
        return torch.tensor([value], dtype=torch.float64)

    found = gauss.relu_of_sum(one(m_u), one(v_u), one(m_b), one(v_b))
    u = m_u + v_u**0.5 * NODES
    inner = gauss.relu(m_b + u.clamp_min(0), torch.full_like(u, v_b))
    mean = float((DENSITY * inner.mean).sum())
    second = float((DENSITY * (inner.var + inner.mean.square())).sum())
    assert float(found.mean) == pytest.approx(mean, abs=2e-3)
    assert float(found.var) == pytest.approx(second - mean**2, rel=0.02)
    assert float(found.gain) == pytest.approx(float((DENSITY * inner.gain).sum()), abs=2e-3)
    up = (u > 0).double() * DENSITY
    assert float(found.skip_gain) == pytest.approx(float((up * inner.gain).sum() / up.sum()), abs=2e-3)
    # Both gains as if independent: what the next rectifier passes is underestimated.
    first = gauss.relu(one(m_u), one(v_u))
    assert float(gauss.relu(first.mean + m_b, first.var + v_b).gain) < float(found.skip_gain)


def test_gradients() -> None:
    m = torch.tensor([-0.7, 0.1, 0.8], dtype=torch.float64, requires_grad=True)
    v = torch.tensor([0.3, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    for f in (gauss.relu, lambda a, b: gauss.rounded(a, b, 0.4), lambda a, b: gauss.clamp(a, b, -1.0, 1.0)):
        assert torch.autograd.gradcheck(lambda a, b, f=f: tuple(f(a, b)), (m, v))
    assert torch.autograd.gradcheck(lambda a, b: gauss.larger(a, b, a.flip(0), b, 0.1 * b), (m, v))


def test_the_gain_is_the_slope_of_the_mean() -> None:
    m = torch.tensor([-0.7, 0.1, 0.8], dtype=torch.float64, requires_grad=True)
    for closed, _ in LAWS.values():
        found = closed(m, torch.full((3,), 0.3, dtype=torch.float64))
        (slope,) = torch.autograd.grad(found.mean.sum(), m)
        assert torch.allclose(slope, found.gain, atol=1e-3)
