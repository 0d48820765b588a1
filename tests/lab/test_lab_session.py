"""The policies: what is sent, how often, and what becomes of answers that do not come."""

import time
from dataclasses import replace

import pytest
import torch
from lab_devices import SHEET, Scripted, pattern, volts

from mho.errors import BudgetError, DeviceFault, RangeError, TransportError
from mho.lab import VirtualDevice
from mho.lab.log import EventLog
from mho.lab.policy import Budget, Policy
from mho.lab.protocol import Device, NotProgrammed
from mho.lab.session import Session

FULL_UA = 40.0


def fails(*numbers: int, method: str = "mvm", error: Exception | None = None):
    """A script in which the calls of ``method`` with these numbers break the connection."""

    def script(called: str, number: int):
        if called == method and number in numbers:
            raise error or TransportError("the line is broken")

    return script


def session(device, pauses: list[float] | None = None, **settings) -> Session:
    naps = pauses if pauses is not None else []
    budget = settings.pop("budget", None)
    return Session(device, Policy(**settings), budget=budget, sleep=naps.append)


def written(device, **settings) -> Session:
    s = session(device, **settings)
    s.program(0, pattern(device.inner), operation="p")
    return s


def ask(s: Session, n: int = 3, **settings):
    return s.mvm(0, volts(s.device.inner, n), operation="m", full_scale_uA=FULL_UA, **settings)


def test_a_session_is_a_device_and_changes_no_answer() -> None:
    plain, behind = VirtualDevice(SHEET, 5), Session(VirtualDevice(SHEET, 5))
    assert isinstance(behind, Device)
    for device in (plain, behind):
        device.program(0, pattern(plain), operation="p")
    a, b = (d.mvm(0, volts(plain, 4), operation="m", full_scale_uA=FULL_UA) for d in (plain, behind))
    assert torch.equal(a.currents_uA, b.currents_uA)
    assert behind.health() == plain.health()
    assert torch.equal(behind.read(0).g_uS, plain.read(0).g_uS)


def test_a_broken_call_is_tried_again_under_its_name_with_growing_pauses() -> None:
    pauses: list[float] = []
    s = session(Scripted(fails(1, 2, 3)), pauses, backoff_s=0.1, backoff_factor=2.0, backoff_max_s=0.3)
    s.program(0, pattern(s.device.inner), operation="p")
    answer = ask(s)
    assert pauses == pytest.approx([0.1, 0.2, 0.3])
    assert s.device.calls.count("mvm") == 4
    assert (s.log.counts["transport"], s.log.counts["retry"]) == (3, 3)
    clean = written(Scripted(fails()))
    assert torch.equal(answer.currents_uA, ask(clean).currents_uA)


@pytest.mark.parametrize("error", [RangeError("no"), DeviceFault("no")])
def test_what_the_caller_or_the_device_is_at_fault_for_is_not_tried_again(error: Exception) -> None:
    s = written(Scripted(fails(1, error=error)))
    with pytest.raises(type(error)):
        ask(s)
    assert s.device.calls.count("mvm") == 1


def test_out_of_range_is_refused_before_anything_is_sent() -> None:
    s = written(Scripted(fails()))
    for inputs in (torch.full((1, 16), 9.0), torch.full((1, 16), float("nan")), torch.zeros(1, 15)):
        with pytest.raises(RangeError):
            s.mvm(0, inputs, operation="m", full_scale_uA=FULL_UA)
    with pytest.raises(RangeError, match="targets_uS"):
        s.program(0, torch.full((16, 8), 99.0), operation="q")
    assert (s.device.calls.count("mvm"), s.device.calls.count("program")) == (0, 1)


def test_a_call_that_takes_too_long_is_lost_and_asked_again() -> None:
    def script(called: str, number: int):
        if called == "mvm" and number == 1:
            time.sleep(0.4)

    s = written(Scripted(script), timeout_s=0.15)
    assert ask(s).currents_uA.shape == (1, 3, 8)
    assert s.log.counts["timeout"] == 1
    assert "0.15 s" in next(e.detail for e in s.log.events if e.kind == "timeout")


def test_the_breaker_asks_for_health_only_until_the_device_is_back() -> None:
    down = {"health": 3}

    def script(called: str, number: int):
        if called == "mvm" and number <= 3:
            raise TransportError("down")
        if called == "health" and number > 1 and down["health"] > 0:
            down["health"] -= 1
            raise TransportError("down")

    pauses: list[float] = []
    s = session(Scripted(script), pauses, retries=2, backoff_s=0.0, breaker_pause_s=7.0)
    s.program(0, pattern(s.device.inner), operation="p")
    ask(s)
    assert pauses.count(7.0) == 4
    assert (s.log.counts["breaker open"], s.log.counts["breaker closed"]) == (1, 1)


def test_a_device_that_stays_away_is_given_up_with_the_way_out() -> None:
    s = session(Scripted(fails(*range(1, 99), method="program")), retries=1, backoff_s=0.0, give_up_s=0.0)
    with pytest.raises(TransportError, match=r"p: the line is broken.*not answered for 0 s.*resume"):
        s.program(0, pattern(s.device.inner), operation="p")


def test_a_call_that_fails_while_the_device_is_well_ends() -> None:
    s = written(Scripted(fails(*range(1, 99))), retries=2, backoff_s=0.0)
    with pytest.raises(TransportError, match="6 attempts"):
        ask(s)


def test_a_device_that_lost_its_tiles_gets_them_again_masks_too() -> None:
    device = Scripted(fails())
    s = written(device)
    mask = torch.zeros(16, 8, dtype=torch.bool)
    mask[3] = True
    s.program(0, pattern(device.inner, 1), operation="q", mask=mask)
    before = ask(s).currents_uA
    fresh = VirtualDevice(SHEET, 5, tiles=8)
    device.inner, device.boot = fresh, "second"
    assert torch.equal(ask(s).currents_uA, before)
    assert s.log.counts["restored"] == 1


def test_what_was_never_written_is_not_restored() -> None:
    s = session(Scripted(fails()))
    with pytest.raises(NotProgrammed, match="tile 0"):
        ask(s)


def broken_numbers(which: int, change):
    def script(called: str, number: int):
        return change if called == "mvm" and number == which else None

    return script


def with_nan(answer):
    currents = answer.currents_uA.clone()
    currents[0, 1, 2] = float("nan")
    return replace(answer, currents_uA=currents)


def invalid(answer):
    valid = answer.valid.clone()
    valid[0, 0] = False
    return replace(answer, valid=valid)


def short(answer):
    return replace(answer, currents_uA=answer.currents_uA[:, :-1], valid=answer.valid[:, :-1])


@pytest.mark.parametrize(("change", "missing"), [(with_nan, 1), (invalid, 8), (short, 8)])
def test_missing_numbers_are_asked_for_again_and_counted(change, missing: int) -> None:
    s = written(Scripted(broken_numbers(1, change)))
    answer = ask(s)
    assert bool(answer.valid.all())
    assert bool(torch.isfinite(answer.currents_uA).all())
    assert s.log.counts["invalid"] == missing
    assert s.device.calls.count("mvm") == 2


@pytest.mark.parametrize("change", [with_nan, invalid, short])
def test_what_never_comes_stays_nan_and_is_never_zero(change) -> None:
    s = written(Scripted(lambda called, number: change if called == "mvm" else None), retries=2)
    answer = ask(s)
    assert torch.equal(torch.isnan(answer.currents_uA), ~answer.valid)
    assert int((~answer.valid).sum()) > 0
    assert s.device.calls.count("mvm") == 3


def test_some_missing_numbers_may_be_allowed() -> None:
    s = written(Scripted(broken_numbers(1, with_nan)), max_invalid=0.1)
    assert int((~ask(s).valid).sum()) == 1
    assert s.device.calls.count("mvm") == 1


def test_an_answer_of_another_shape_is_the_drivers_fault() -> None:
    wide = broken_numbers(1, lambda a: replace(a, currents_uA=torch.zeros(1, 3, 9), valid=torch.ones(1, 3, 9) > 0))
    with pytest.raises(DeviceFault, match=r"\[1, 3, 9\], asked was \[1, 3, 8\]"):
        ask(written(Scripted(wide)))


def test_batches_are_cut_to_the_size_of_the_device() -> None:
    device = Scripted(lambda called, n: (lambda c: replace(c, max_batch=4)) if called == "capabilities" else None)
    s = written(device)
    answer = ask(s, 10, repeats=2)
    assert answer.currents_uA.shape == (2, 10, 8)
    assert device.calls.count("mvm") == 3
    assert s.budget.vectors == 20


def test_the_budget_stops_before_the_call() -> None:
    s = written(Scripted(fails()), budget=Budget(calls=4))
    ask(s)
    with pytest.raises(BudgetError, match=r"calls = 5 would exceed 4"):
        ask(s)
    assert s.device.calls.count("mvm") == 1
    assert s.budget.summary()["mvms"] == 1
    with pytest.raises(BudgetError, match="seconds"):
        written(Scripted(fails()), budget=Budget(seconds=0.0))
    with pytest.raises(BudgetError, match="vectors"):
        ask(written(Scripted(fails()), budget=Budget(vectors=2)))


def test_the_log_is_a_file_that_a_resumed_run_continues(tmp_path) -> None:
    for _ in range(2):
        log = EventLog(tmp_path / "log.jsonl")
        s = Session(Scripted(fails(1)), Policy(backoff_s=0.0), log=log)
        s.program(0, pattern(s.device.inner), operation="p")
        ask(s)
        s.close()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert '"kind": "transport"' in lines[0]
    with pytest.raises(KeyError, match="unknown kind"):
        log.write("weather", "m", "fine")


def test_closing_a_device_that_is_gone_is_no_error() -> None:
    class Gone:
        def close(self) -> None:
            raise TransportError("gone")

    Session(Gone()).close()


def test_a_call_that_is_lost_while_a_tile_is_restored_is_tried_again() -> None:
    """Found by killing a server under load: the restoring itself met a broken line and ended the run."""
    device = Scripted(fails(2, method="program"))
    s = written(device, backoff_s=0.0)
    before = ask(s).currents_uA
    device.inner, device.boot = VirtualDevice(SHEET, 5, tiles=8), "second"
    assert torch.equal(ask(s).currents_uA, before)
    assert (s.log.counts["restored"], s.log.counts["transport"]) == (1, 1)


def test_a_read_back_that_did_not_come_is_in_the_log_and_the_tile_is_written() -> None:
    def lose(report):
        achieved = report.achieved_uS.clone()
        achieved[2] = float("nan")
        return replace(report, achieved_uS=achieved)

    s = session(Scripted(lambda called, number: lose if called == "program" else None))
    report = s.program(0, pattern(s.device.inner), operation="p")
    assert int(torch.isnan(report.achieved_uS).sum()) == s.log.counts["invalid"] == 8
    assert s.device.calls.count("program") == 1
