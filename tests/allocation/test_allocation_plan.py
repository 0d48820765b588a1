"""The plan: cheapest within its budget, and the closed form where there are no converters."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mho.allocation.load import Load, Setting, harm, spent_J, today
from mho.allocation.plan import plan
from mho.costs.allocation import read_times
from mho.errors import InputError

WIDE = (1e-9, 1e9)


def load(name: str, white: float, array_J: float, *, rounding: float = 0.0, bits: int | None = None) -> Load:
    prices = {} if bits is None else {b: 1e-12 * 1.5**b for b in range(2, 9)}
    return Load(name, white, rounding, 0.0, bits, array_J, prices)


def test_without_converters_it_is_the_closed_form() -> None:
    energy, curvature, variance = [3.0, 1.0, 0.2], [1.0, 5.0, 2.0], [0.1, 0.4, 2.0]
    known = [
        load(str(i), 0.5 * h * s2, e) for i, (e, h, s2) in enumerate(zip(energy, curvature, variance, strict=True))
    ]
    found = plan(known, harm(known, today(known)), reads=WIDE)
    wanted = read_times(energy, curvature, variance)
    assert [s.read for s in found] == pytest.approx(wanted.factors, rel=1e-6)
    assert spent_J(known, today(known)) / spent_J(known, found) == pytest.approx(wanted.saved, rel=1e-6)


positive = st.floats(1e-6, 1e3)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=4),
    st.floats(0.5, 30),
    st.data(),
)
def test_no_other_setting_within_the_budget_is_much_cheaper(
    numbers: list[tuple[float, float, float]], allowed: float, data: st.DataObject
) -> None:
    known = [load(str(i), w, 1e-12 * a, rounding=q, bits=6) for i, (w, a, q) in enumerate(numbers)]
    budget = allowed * harm(known, today(known))
    found = plan(known, budget, reads=(1e-3, 1e3))
    assert harm(known, found) <= budget * (1 + 1e-9)
    other = [Setting(k.name, data.draw(st.floats(1e-3, 1e3)), data.draw(st.integers(2, 8))) for k in known]
    if harm(known, other) <= budget:
        # Whole bits leave a gap of at most one layer's step to the relaxed optimum.
        step = max(k.adc_J[8] - k.adc_J[2] for k in known)
        assert spent_J(known, found) <= spent_J(known, other) + step


def test_a_larger_budget_never_costs_more() -> None:
    known = [load("a", 1.0, 1e-12, rounding=2.0, bits=6), load("b", 0.1, 3e-12, rounding=0.5, bits=6)]
    spent = [spent_J(known, plan(known, budget)) for budget in (2.0, 4.0, 8.0, 16.0, 64.0)]
    assert spent == sorted(spent, reverse=True)


def test_uniform_gives_every_layer_the_same_and_is_never_cheaper() -> None:
    known = [load("a", 5.0, 1e-12, rounding=2.0, bits=6), load("b", 0.01, 9e-12, rounding=0.001, bits=6)]
    same, each = plan(known, 7.1, uniform=True, reads=WIDE), plan(known, 7.1, reads=WIDE)
    assert len({(s.read, s.bits) for s in same}) == 1
    assert spent_J(known, each) < spent_J(known, same)


def test_layers_without_noise_are_read_as_short_as_allowed_and_free_ones_as_long() -> None:
    found = plan([load("quiet", 0.0, 1.0), load("free", 1.0, 0.0)], 1.0, reads=(0.25, 4.0))
    assert [s.read for s in found] == [0.25, 4.0]


def test_a_budget_that_cannot_be_met_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"12\.5 nats.*budget of 1"):
        plan([load("a", 100.0, 1.0)], 1.0)


@pytest.mark.parametrize("bad", [math.nan, -1.0, math.inf])
def test_loads_check_their_numbers(bad: float) -> None:
    with pytest.raises(InputError, match="fc: white"):
        load("fc", bad, 1.0)
    with pytest.raises(InputError, match="no price for today's 6 bits"):
        Load("fc", 1.0, 1.0, 0.0, 6, 1.0, {5: 1.0})


@pytest.mark.parametrize("reads", [(0.0, 1.0), (2.0, 1.0), (1.0, math.inf)])
def test_impossible_read_times_are_refused(reads: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="reads"):
        plan([load("a", 1.0, 1.0)], 1.0, reads=reads)
