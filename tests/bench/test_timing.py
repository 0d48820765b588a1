"""The order, the budget and the statistics of interleaved timing, on a clock that we turn by hand."""

import gc

import pytest

from mho.bench.timing import Timings, interleave, quartiles
from mho.errors import InputError


class FakeClock:
    """Each run of a side turns the clock by that side's next duration."""

    def __init__(self, digital: list[float], mho: list[float]) -> None:
        self.now, self.left, self.order = 100.0, {"digital": digital, "mho": mho}, ""

    def __call__(self) -> float:
        return self.now

    def side(self, name: str) -> None:
        durations = self.left[name]
        self.now += durations.pop(0) if len(durations) > 1 else durations[0]
        self.order += name[0]
        assert not gc.isenabled()

    def digital(self) -> None:
        self.side("digital")

    def mho(self) -> None:
        self.side("mho")


def timed(clock: FakeClock, budget_s: float, minimum_pairs: int) -> Timings:
    return interleave(clock.digital, clock.mho, budget_s=budget_s, minimum_pairs=minimum_pairs, clock=clock)


def test_sides_alternate_and_the_warm_up_is_not_counted():
    clock = FakeClock([50.0, 1.0], [70.0, 2.0])  # the first run of each compiles something
    found = timed(clock, 8.5, 2)
    assert clock.order == "dm" * 4
    assert found.digital_s == pytest.approx([1.0] * 3)
    assert found.mho_s == pytest.approx([2.0] * 3)


def test_warm_up_takes_a_tenth_of_the_budget():
    clock = FakeClock([1.0], [1.0])
    found = timed(clock, 100.0, 2)
    assert len(found.ratios) == 50
    assert len(clock.order) == 2 * (5 + 50)


def test_slow_work_still_gets_the_minimum_of_pairs():
    clock = FakeClock([10.0], [15.0])
    assert timed(clock, 1.0, 4).ratios == pytest.approx([1.5] * 4)


def test_summary_is_the_median_of_ratios_not_the_ratio_of_medians():
    # The machine is three times slower during the last two pairs; each pair still has its own ratio.
    found = Timings((1.0, 1.0, 1.0, 3.0, 3.0), (1.0, 2.0, 2.1, 6.6, 9.0)).summary()
    assert found["ratio"] == pytest.approx(2.1)
    assert found["ratio_quartiles"] == pytest.approx([2.0, 2.2])
    assert found["digital_ms"] == pytest.approx(1000.0)
    assert found["mho_ms"] == pytest.approx(2100.0)
    assert found["pairs"] == 5


def test_quartiles_are_linear_between_neighbours():
    assert quartiles((4.0, 1.0, 3.0, 2.0)) == pytest.approx([1.75, 3.25])
    assert quartiles((1.0, 2.0)) == pytest.approx([1.25, 1.75])


def test_garbage_collector_is_as_before_also_after_an_error():
    def broken() -> None:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interleave(broken, broken, budget_s=1.0)
    assert gc.isenabled()
    gc.disable()
    try:
        timed(FakeClock([1.0], [1.0]), 1.0, 2)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("budget_s", "pairs"), [(0.0, 5), (-1.0, 5), (float("inf"), 5), (float("nan"), 5), (1.0, 1)])
def test_impossible_budgets_are_refused(budget_s, pairs):
    with pytest.raises(InputError, match=r"interleave: budget_s = .* Way out"):
        timed(FakeClock([1.0], [1.0]), budget_s, pairs)


@pytest.mark.parametrize(("digital", "mho"), [((1.0,), (1.0,)), ((1.0, 1.0), (1.0,)), ((1.0, 0.0), (1.0, 1.0))])
def test_timings_that_are_no_pairs_are_refused(digital, mho):
    with pytest.raises(InputError, match="Way out"):
        Timings(digital, mho)
