"""The rules of the server without a network: lease, rate, memory of answers, addresses, statuses."""

import grpc
import pytest

from mho.errors import (
    BudgetError,
    DeviceBusyError,
    DeviceFault,
    HardwareError,
    RangeError,
    TransportError,
)
from mho.lab import NotProgrammed
from mho.lab.remote import Limits
from mho.lab.remote.address import host_and_port, target
from mho.lab.remote.answers import Answers, mark_of
from mho.lab.remote.lease import Lease
from mho.lab.remote.limits import Rate
from mho.lab.remote.status import MAX_TEXT, error_of, status_of


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def lease(clock):
    return Lease(60.0, clock)


def test_the_second_client_is_refused_until_the_lease_has_aged(lease, clock):
    lease.take("a")
    clock.now_s += 50
    with pytest.raises(DeviceBusyError, match=r"another client \(a\) holds the device.*at the latest 10 s after"):
        lease.take("b")
    lease.take("a")
    clock.now_s += 59
    with pytest.raises(DeviceBusyError):
        lease.take("b")
    clock.now_s += 1
    lease.take("b")
    assert lease.holder == "b"


def test_a_call_under_way_keeps_the_lease_from_ageing(lease, clock):
    with lease.call("a"):
        clock.now_s += 1000
        with pytest.raises(DeviceBusyError):
            lease.take("b")
    clock.now_s += 59
    assert lease.holder == "a"
    clock.now_s += 1
    assert lease.holder is None


def test_letting_go_frees_and_only_the_holder_can(lease):
    lease.take("a")
    lease.free("b")
    assert lease.holder == "a"
    lease.free("a")
    lease.take("b")


def test_the_lease_ends_with_the_last_line_to_the_client(lease):
    first, second = lease.grip("a"), lease.grip("a")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert lease.holder == "a"
    second.__exit__(None, None, None)
    assert lease.holder is None


def test_a_call_that_outlives_its_lease_does_not_count_in_the_next(lease, clock):
    old = lease.call("a")
    old.__enter__()
    lease.free("a")
    with lease.call("a"):
        old.__exit__(None, None, None)
        clock.now_s += 1000
        assert lease.holder == "a"
    line = lease.grip("a")
    line.__enter__()
    lease.free("a")
    lease.take("a")
    line.__exit__(None, None, None)
    assert lease.holder == "a"


def test_a_rate_grants_a_burst_and_then_says_how_long_to_wait(clock):
    rate = Rate(4.0, clock)
    assert [rate.wait_s() for _ in range(5)] == [0, 0, 0, 0, 0.25]
    clock.now_s += 0.25
    assert rate.wait_s() == 0
    assert rate.wait_s() == 0.25
    clock.now_s += 1e6
    assert [rate.wait_s() > 0 for _ in range(5)] == [False] * 4 + [True]


def test_a_rate_below_one_a_second_still_grants_one(clock):
    rate = Rate(0.5, clock)
    assert rate.wait_s() == 0
    assert rate.wait_s() == 2.0


def test_answers_are_bounded_and_the_least_used_goes_first():
    answers = Answers(30)
    for name in "abc":
        answers.keep(("x", "mvm", name), b"1", bytes(10))
    assert answers.find(("x", "mvm", "a"), b"1") == bytes(10)
    answers.keep(("x", "mvm", "d"), b"1", bytes(10))
    assert answers.find(("x", "mvm", "b"), b"1") is None
    assert answers.find(("x", "mvm", "a"), b"1") is not None
    assert answers.bytes_kept == 30
    answers.keep(("x", "mvm", "e"), b"1", bytes(31))
    assert answers.bytes_kept == 0
    assert answers.find(("x", "mvm", "e"), b"1") is None


def test_an_answer_that_is_kept_again_counts_once():
    answers = Answers(30)
    for _ in range(5):
        answers.keep(("x", "mvm", "a"), b"1", bytes(10))
    assert answers.bytes_kept == 10


def test_a_name_with_other_content_is_refused():
    answers = Answers(100)
    answers.keep(("x", "mvm", "a"), mark_of(1, b"ab"), b"answer")
    assert answers.find(("x", "mvm", "a"), mark_of(1, b"ab")) == b"answer"
    assert answers.find(("y", "mvm", "a"), b"") is None
    with pytest.raises(RangeError, match="operation 'a': mvm was called under this name with other content"):
        answers.find(("x", "mvm", "a"), mark_of(1, b"ac"))


def test_marks_keep_neighbours_apart():
    assert mark_of(b"ab", b"c") != mark_of(b"a", b"bc")
    assert mark_of(1, 23) != mark_of(12, 3)


@pytest.mark.parametrize("kind", [RangeError, TransportError, DeviceBusyError, DeviceFault, NotProgrammed, BudgetError])
def test_an_error_comes_back_as_its_class(kind):
    status = status_of(kind("tile 3: words. Fix: this."))
    back = error_of(status.code, status.kind, status.text, "grpc://h:1 Mvm")
    assert type(back) is kind
    assert str(back) == "grpc://h:1 Mvm: tile 3: words. Fix: this."


def test_what_a_driver_raises_by_mistake_is_a_fault_of_the_device():
    status = status_of(ZeroDivisionError("division by zero"))
    assert (status.kind, status.code) == ("DeviceFault", grpc.StatusCode.INTERNAL)
    assert status.text == "the driver raised ZeroDivisionError: division by zero"
    assert len(status_of(RangeError("x" * 9999)).text) == MAX_TEXT


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, TransportError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, TransportError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, TransportError),
        (grpc.StatusCode.UNIMPLEMENTED, RangeError),
        (grpc.StatusCode.UNAUTHENTICATED, RangeError),
    ],
)
def test_without_a_class_the_code_decides(code, kind):
    assert type(error_of(code, None, "words", "where")) is kind
    assert type(error_of(code, "SystemExit", "words", "where")) is kind


@pytest.mark.parametrize("text", ["7070", "host", "host:", ":7070", "host:port", "host:70707", "grpc://host:1", "h:-1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(RangeError, match=r"no address. Fix: write host:port"):
        host_and_port(text, "listen")


def test_addresses():
    assert host_and_port("[::1]:80", "listen") == ("[::1]", 80)
    assert target("grpc://bench-3:7070") == ("bench-3:7070", False)
    assert target("grpcs://bench-3:7070") == ("bench-3:7070", True)
    assert target("bench-3:7070") == ("bench-3:7070", False)
    with pytest.raises(RangeError, match="unknown scheme"):
        target("http://bench-3:7070")
    with pytest.raises(RangeError, match="port 0"):
        target("grpc://bench-3:0")


def test_limits_check_themselves():
    with pytest.raises(HardwareError, match="calls_per_s"):
        Limits(calls_per_s=0)
    with pytest.raises(HardwareError, match="connections"):
        Limits(connections=1)
