"""Noise where it is cheap: the closed form against an optimiser, bits against all choices; equal accuracy."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mho.costs.allocation import read_times
from mho.costs.front import Point, at_equal_accuracy, front
from mho.costs.spread import Spread
from mho.errors import InputError
from mho.objectives.budget import noise_budget

near = partial(pytest.approx, rel=1e-6, abs=0.0)
E = [3e-9, 1e-9, 2e-10]
H = [0.4, 30.0, 5.0]
S2 = [0.2, 0.1, 0.3]


def test_read_times_are_what_an_optimiser_finds():
    found = read_times(E, H, S2)
    e, w = np.array(E), np.array(H) * np.array(S2)
    done = minimize(
        lambda log_f: np.log(np.sum(e / e.sum() * np.exp(log_f))),
        np.zeros(3),
        constraints={"type": "eq", "fun": lambda log_f: np.sum(w * np.exp(-log_f)) / w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert np.array(found.factors) == near(np.exp(done.x), rel=1e-4)
    assert found.saved == near(float(np.exp(-done.fun)), rel=1e-6)
    assert np.sum(w / np.array(found.factors)) == near(w.sum())  # the loss of today
    assert found.saved == near(sum(E) / sum(a * b for a, b in zip(E, found.factors, strict=True)))
    wrong = [f**2 for f in found.factors]  # without the root
    assert wrong != near(list(found.factors), rel=0.1)


def test_it_is_the_closed_form_of_the_noise_budget():
    n, h = torch.tensor([128.0, 64.0, 10.0]).double(), torch.tensor(H).double()
    kappa = 2e-12
    # Layers whose noise costs kappa n / s^2, all at the same noise today.
    found = read_times((kappa * n).tolist(), H, [1.0] * 3)
    s = torch.tensor(found.factors) ** -0.5
    free = noise_budget(n, h, kappa, 1.0)
    assert torch.allclose(s / s[0], (free / free[0]).to(s.dtype), rtol=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.floats(1e-6, 1e6)] * 3), min_size=1, max_size=8))
def test_it_never_costs_more_and_saves_nothing_where_layers_are_alike(layers):
    e, h, s2 = (list(column) for column in zip(*layers, strict=True))
    assert read_times(e, h, s2).saved >= 1 - 1e-9
    same = read_times([e[0]] * 3, [h[0]] * 3, [s2[0]] * 3)
    assert same.saved == near(1.0) and same.factors == near((1.0, 1.0, 1.0))


def test_impossible_layers_are_named():
    with pytest.raises(InputError, match=r"curvature\[1\] = 0\.0: must be finite and above 0"):
        read_times([1.0, 1.0], [1.0, 0.0], [1.0, 1.0])
    with pytest.raises(InputError, match="energy_J: 1, curvature: 2, variance: 1"):
        read_times([1.0], [1.0, 1.0], [1.0])


def point(label, joules, accuracy, p5=None):
    return Point(label, Spread(joules / 2, joules, joules * 2), accuracy, accuracy - 1 if p5 is None else p5)


def test_the_front_holds_what_nothing_beats():
    points = [point("a", 1, 90), point("b", 2, 89), point("c", 3, 95), point("d", 3, 94), point("e", 9, 95)]
    assert [p.label for p in front(points)] == ["a", "c"]
    points[1] = point("b", 2, 89, p5=89)
    assert [p.label for p in front(points, worst=True)] == ["a", "c"] and front([]) == ()
    points[0] = point("a", 1, 90, p5=80)
    assert [p.label for p in front(points, worst=True)] == ["a", "b", "c"]


def test_the_digital_network_compared_with_is_the_cheapest_that_is_as_good_as_the_best():
    digital = [point("fp32", 100, 95.2), point("int8", 20, 95.0), point("int4", 5, 94.8)]
    analog = [point("6 bits", 3, 94.6), point("8 bits", 9, 95.0)]
    found = at_equal_accuracy(analog, digital)
    assert (found.best.label, found.digital.label, found.analog.label) == ("fp32", "int4", "8 bits")
    assert found.ratio.typical == near(5 / 9)
    assert "94.80 % of int4, the most accurate: 95.20 % of fp32" in str(found)
    # A rounding that loses too much is not compared with, and the bar stays that of the best.
    strict = at_equal_accuracy(analog, digital, slack=0.3)
    assert (strict.digital.label, strict.analog.label) == ("int8", "8 bits")
    none = at_equal_accuracy(analog[:1], digital, slack=0.0)
    assert none.digital.label == "fp32" and "within 0 points of fp32 (95.20 %)" in str(none)


def test_by_the_worst_chips_an_analog_network_counts_by_its_5th_percentile():
    scattered, steady = Point("scattered", point("", 1, 95).energy_J, 95.0, 90.0), point("steady", 3, 94.8)
    by_mean, by_worst = (
        at_equal_accuracy([scattered, steady], [point("int8", 20, 95)], worst=w) for w in (False, True)
    )
    assert (by_mean.analog.label, by_worst.analog.label) == ("scattered", "steady")
    assert "by the 5th percentile over chips" in str(by_worst) and "percentile" not in str(by_mean)
    alone = at_equal_accuracy([scattered], [point("int8", 20, 95)], slack=1.0, worst=True)
    assert alone.analog is None and "(95.00 %) by the 5th percentile over chips" in str(alone)


def test_equal_accuracy_takes_the_cheapest_that_is_as_good():
    digital = point("int8", 20, 95)
    analog = [point("4 bits", 1, 90), point("6 bits", 3, 94.6), point("8 bits", 9, 95.2)]
    found = at_equal_accuracy(analog, [digital])
    assert (
        found.best == found.digital == digital
        and found.analog.label == "6 bits"
        and found.ratio == Spread(10 / 6, 20 / 3, 40 / 1.5)
    )
    assert "analog wins, whatever the constants: energy digital over analog 6.67" in str(found)
    assert at_equal_accuracy(analog, [digital], slack=0.1).analog.label == "8 bits"
    assert "they decide" in str(at_equal_accuracy(analog, [digital], slack=0.1))
    assert "loses, whatever" in str(at_equal_accuracy([point("8 bits", 900, 95)], [digital]))
    none = at_equal_accuracy(analog[:1], [digital])
    assert none.ratio is None and "No analog network comes within 0.5 points of int8 (95.00 %)" in str(none)
    with pytest.raises(InputError, match="slack = -1"):
        at_equal_accuracy(analog, [digital], slack=-1)
    with pytest.raises(InputError, match="no digital network"):
        at_equal_accuracy(analog, [])
    with pytest.raises(InputError, match="percent from 0 to 100"):
        point("broken", 1, 101)
