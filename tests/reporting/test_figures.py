import re

import matplotlib as mpl
import numpy as np
import pytest

from mho.errors import InputError
from mho.reporting.figures import _room_for, accuracy_vs_age, accuracy_vs_noise, chip_histogram, training_curves
from mho.reporting.maps import conductance_map, dominance_bars
from mho.reporting.series import Baseline, Curve, DominanceRow, Group, History, slots_by_name, with_slots
from mho.reporting.svg import Canvas, draw_both


def curve(name="a", x=(1.0, 2.0), chips=4, slot=None):
    return Curve(name, np.array(x), np.linspace(80, 95, len(x) * chips).reshape(len(x), chips), slot)


def words(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_the_drawing_holds_mean_band_and_worst():
    def paths(figure):
        return len(re.findall(r"stroke: var\(--s0\)|fill: var\(--s0\)", figure.svg))

    many, one = accuracy_vs_noise([curve()]), accuracy_vs_noise([curve(chips=1)])
    assert paths(many) > paths(one)  # one chip has neither band nor worst
    assert "fill-opacity" in many.svg
    assert "fill-opacity" not in one.svg
    assert "stroke-dasharray" in accuracy_vs_noise([curve()], Baseline("digital", 97.0)).svg
    assert "stroke-dasharray" not in many.svg
    assert "mean 83.2 % at 1 to 91.8 % at 2, worst chip 80.0 %" in many.alt


def test_ages_are_labelled_as_people_say_them():
    figure = accuracy_vs_age([curve(x=(0.0, 25.0, 86400.0, 31557600.0))])
    assert {"0 s", "25 s", "1 day", "1 year"} <= set(words(figure.svg))
    with pytest.raises(InputError, match="negative"):
        accuracy_vs_age([curve(x=(-1.0, 2.0))])


def test_crowded_labels_make_room():
    canvas = Canvas(figure=None, layout="narrow", width=4.5, font=9.6)
    places, labels = np.linspace(0, 1, 30), ["10 months"] * 30
    kept = _room_for(places, labels, canvas)
    assert kept[-1] == 29
    assert 3 <= len(kept) <= 6
    assert _room_for(np.array([0.0, 0.5, 1.0]), ["a", "b", "c"], canvas) == [0, 1, 2]
    assert _room_for(np.array([3.0]), ["a"], canvas) == [0]


def test_one_network_keeps_one_colour():
    slots = slots_by_name(["b", "a", "b"])
    assert slots == {"b": 0, "a": 1}
    first, second = with_slots([curve("a"), curve("b", slot=5)], slots)
    assert (first.slot, second.slot) == (1, 5)
    assert [entry.slot for entry in accuracy_vs_noise([first, second]).key] == [1, 5]


def test_the_map_shows_every_cell_or_says_which():
    small = conductance_map(np.arange(12.0).reshape(3, 4), layer="fc1")
    assert "shown" not in small.caption
    assert 'width="4" height="3"' in small.svg
    large = conductance_map(np.ones((600, 10)))
    assert "1 row in 3 shown" in large.caption
    assert 'width="10" height="200"' in large.svg
    assert "-5" in conductance_map(np.array([[-5.0, 5.0]])).alt
    for bad in (np.ones(3), np.array([[np.nan]]), np.ones((0, 3))):
        with pytest.raises(InputError, match="conductance_map"):
            conductance_map(bad)


def test_dominance_is_sorted_and_names_absent_sources():
    rows = [DominanceRow("shot", -np.inf), DominanceRow("thermal", -80.0), DominanceRow("programming", -20.0)]
    figure = dominance_bars(rows)
    said = [word for word in words(figure.svg) if word in {"shot", "thermal", "programming", "none"}]
    assert said == ["programming", "thermal", "shot", "none"]
    assert dominance_bars([DominanceRow("shot", -np.inf)]).svg
    with pytest.raises(InputError, match="shot"):
        DominanceRow("shot", np.nan)


def test_histogram_counts_every_chip():
    figure = chip_histogram([Group("a", np.array([90.0, 90.0, 90.0, 95.0])), Group("b", np.array([50.0]))])
    assert "3" in words(figure.svg)
    assert "4 chips" in figure.alt
    assert chip_histogram([Group("same", np.full(5, 100.0))], Baseline("digital", 100.0)).svg


def test_training_curves():
    figure = training_curves([History("net", np.arange(3), np.array([1.0, 0.5, 0.25]))], ylabel="Loss")
    assert "Loss" in words(figure.svg)
    assert "1 to 0.25" in figure.alt


@pytest.mark.parametrize("draw", [accuracy_vs_noise, accuracy_vs_age, chip_histogram, training_curves, dominance_bars])
def test_nothing_to_draw_is_an_error(draw):
    with pytest.raises(InputError, match=r"Fix: leave the figure out"):
        draw([])


def test_impossible_series_are_refused():
    with pytest.raises(InputError, match="percent"):
        Curve("a", np.array([1.0]), np.array([[101.0]]))
    with pytest.raises(InputError, match="rising"):
        Curve("a", np.array([2.0, 1.0]), np.ones((2, 3)))
    with pytest.raises(InputError, match="axes"):
        Group("a", np.ones((2, 2)))
    with pytest.raises(InputError, match="percent"):
        Baseline("a", float("nan"))
    with pytest.raises(InputError, match="equally long"):
        History("a", np.arange(3), np.ones(2))


def test_settings_of_matplotlib_neither_change_nor_matter():
    plain = accuracy_vs_noise([curve("a $ b $ c")])
    with mpl.rc_context({"axes.facecolor": "red", "lines.linestyle": ":", "font.size": 30.0}):
        before = dict(mpl.rcParams)
        assert accuracy_vs_noise([curve("a $ b $ c")]) == plain
        assert dict(mpl.rcParams) == before


def test_dollars_are_text():
    assert "$x^" in words(accuracy_vs_noise([curve()], xlabel="$x^").svg)


def test_powers_of_ten_are_plain_text() -> None:
    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        axes.set_yscale("log")
        axes.plot([1, 2, 3], [1e-3, 1.0, 100.0])

    wide, _ = draw_both(draw, 2.0, 2.0)
    assert "mathdefault" not in wide and "10⁻²" in wide and "10²" in wide
