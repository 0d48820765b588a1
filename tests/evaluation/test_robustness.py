"""Numbers of a robustness curve against curves whose numbers are known."""

import math

import numpy as np
import pytest

from mho.errors import InputError
from mho.evaluation.robustness import area_under_curve, level_at_loss


def test_a_flat_curve_at_the_reference_has_area_one():
    assert area_under_curve([0, 5, 20], [90, 90, 90], reference=90, chance=10) == pytest.approx(1.0)


def test_a_straight_fall_to_chance_has_half_the_area_whatever_the_levels_and_their_order():
    for levels in ([0, 20], [0, 3, 20], [20, 0, 11]):
        accuracy = [90 - 4 * level for level in levels]
        assert area_under_curve(levels, accuracy, reference=90, chance=10) == pytest.approx(0.5)


def test_the_area_ends_where_it_is_told_to():
    levels, accuracy = [0, 10, 30], [90, 90, 10]
    assert area_under_curve(levels, accuracy, reference=90, chance=10, upto=10) == pytest.approx(1.0)
    assert area_under_curve(levels, accuracy, reference=90, chance=10, upto=20) == pytest.approx((10 + 7.5) / 20)


def test_the_level_of_a_loss_is_interpolated():
    assert level_at_loss([0, 10, 20], [90, 90, 80], reference=90, loss=1) == pytest.approx(11.0)
    assert level_at_loss([0, 10], [90, 89.5], reference=90, loss=1) == math.inf
    assert level_at_loss([2, 10], [80, 70], reference=90, loss=1) == 2.0


def test_the_first_crossing_counts():
    assert level_at_loss([0, 1, 2, 3], [90, 80, 90, 80], reference=90, loss=5) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("levels", "accuracy", "cause"),
    [
        ([0], [90], "two or more"),
        ([0, 1], [90], "two or more"),
        ([0, 0], [90, 80], "twice"),
        ([0, 1], [90, np.nan], "finite"),
    ],
)
def test_what_is_no_curve_is_refused(levels, accuracy, cause):
    with pytest.raises(InputError, match=cause):
        area_under_curve(levels, accuracy, reference=90, chance=10)
    with pytest.raises(InputError, match=cause):
        level_at_loss(levels, accuracy, reference=90)


def test_a_reference_at_chance_or_an_end_outside_is_refused():
    with pytest.raises(InputError, match="not above chance"):
        area_under_curve([0, 1], [10, 10], reference=10, chance=10)
    with pytest.raises(InputError, match="outside the levels"):
        area_under_curve([0, 1], [90, 90], reference=90, chance=10, upto=2)
