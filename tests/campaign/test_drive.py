"""The driver's rules with workers that are played, and the time left."""

from collections import deque

import pytest
from campaign_cells import cell, many

from mho.campaign import CampaignError, Found
from mho.campaign.cells import answer
from mho.campaign.crew import Event
from mho.campaign.drive import MOST_DEATHS, Driver
from mho.campaign.progress import Tally
from mho.campaign.store import Past


class Played:
    """A crew without processes: ``do(cell)`` returns what was found, raises, or says "dies"."""

    def __init__(self, size, do, starts=()):
        self.size, self.do, self.starts = size, do, deque(starts)
        self.given, self.events, self.hired = [], [], 0

    def hire(self):
        self.hired += 1
        well = self.starts.popleft() if self.starts else True
        what = {"what": "ready"} if well else {"what": "died", "why": "no memory"}
        self.events.append(Event(hand=self.hired, **what))
        return self.hired

    def give(self, hand, cell):
        self.given.append(cell)
        if self.do(cell) == "dies":
            self.events.append(Event(hand=hand, what="died", why="killed"))
        else:
            self.events.append(Event(hand=hand, what="answer", reply=answer(self.do, cell)))

    def wait(self, hands, timeout_s):
        assert all(event.hand in hands for event in self.events)
        now, self.events = self.events, []
        return now

    def close(self):
        pass


def driven(cells, crew, **options):
    rows = []
    driver = Driver(cells, options.pop("succeeded", ()), crew, lambda c, row: rows.append(row), **options)
    driver.drive()
    return rows


def test_every_cell_is_recorded_once_and_no_more_workers_are_hired_than_there_is_work():
    cells = many(3, 0.0)
    crew = Played(8, lambda c: Found())
    assert sorted(row["id"] for row in driven(cells, crew)) == sorted(c.id for c in cells)
    assert crew.hired == 3


def test_what_needs_a_run_begins_after_it_also_if_that_was_in_an_earlier_start():
    first = cell(0, "run")
    later = cell(1, after=first)
    crew = Played(4, lambda c: Found())
    driven([later, first], crew)
    assert crew.given == [first, later]
    crew = Played(4, lambda c: Found())
    driven([later], crew, succeeded={first.id})
    assert crew.given == [later]
    crew = Played(4, lambda c: Found())
    assert driven([later], crew) == [] and crew.given == []


def test_a_cell_is_given_up_after_its_third_death_and_others_go_on():
    bad, good = cell(0, "die"), cell(1)
    crew = Played(1, lambda c: "dies" if c is bad else Found())
    rows = {row["id"]: row for row in driven([bad, good], crew)}
    assert crew.given.count(bad) == MOST_DEATHS
    assert (rows[bad.id]["status"], rows[bad.id]["deaths"]) == ("given up", MOST_DEATHS)
    assert rows[good.id]["status"] == "done"


def test_workers_that_never_start_end_the_campaign():
    with pytest.raises(CampaignError, match="3 workers in a row died at their start: no memory"):
        driven(many(5, 0.0), Played(1, lambda c: Found(), starts=[False] * 3))


def test_one_bad_start_in_between_is_no_reason_to_stop():
    crew = Played(1, lambda c: Found(), starts=[False, False, True])
    assert len(driven(many(2, 0.0), crew)) == 2


def test_nothing_new_is_given_once_it_is_stopped_but_what_is_in_hand_is_kept():
    cells = many(5, 0.0)
    crew = Played(2, lambda c: Found())
    rows = driven(cells, crew, stop=lambda: len(crew.given) >= 2)
    assert len(crew.given) == 2 and {row["id"] for row in rows} == {c.id for c in crew.given}


def test_the_time_left_is_the_mean_of_each_kind_over_the_workers():
    first = cell(0, "run")
    cells = [first, cell(1), cell(2), cell(3)]
    tally = Tally(cells, {}, workers=2)
    assert tally.progress().seconds_left is None and tally.progress().total == 4
    tally.add("run", "done", 100.0)
    assert tally.progress().seconds_left is None  # nothing is known of evaluations yet
    tally.add("evaluate", "done", 6.0)
    assert tally.progress().seconds_left == pytest.approx(2 * 6.0 / 2)
    tally.add("evaluate", "failed", 0.1)  # a failure says nothing of how long the work takes
    assert tally.progress().seconds_left == pytest.approx(3.0) and tally.progress().ended == 3
    past = {first.id: Past(status="done", kind="run", seconds=8.0)}
    assert Tally([first, cell(9, "run")], past, 1).progress().seconds_left == 8.0
