"""Time over the network: a served chip ages when its holder lets its clock run on, once, and within limits."""

from dataclasses import replace

import grpc
import pytest
import torch
from torch import nn

import mho
from mho.errors import DeviceBusyError, DeviceFault, RangeError
from mho.hardware import GenericCell, Hardware, Mapping
from mho.lab import (
    DryRun,
    FaultPlan,
    FaultyDevice,
    Session,
    VirtualDevice,
    Watch,
    WatchPolicy,
    deploy,
    wait,
    wait_until,
)
from mho.lab.remote import Limits, messages, replies, requests
from mho.lab.remote import device_pb2 as pb
from mho.lab.twin import Plan, fit, measure

DRIFTING = Hardware(
    name="drifting",
    cell=GenericCell(drift_nu=0.06, drift_nu_d2d=0.01, t0_s=1.0, read_noise=0.01),
    mapping=Mapping(scheme="signed"),
)
TARGETS = torch.linspace(-20.0, 20.0, 48).reshape(8, 6)
INPUTS = torch.linspace(-0.2, 0.2, 40).reshape(5, 8)
REPAIRS = ("compensated", "refitted", "calibrated", "reprogrammed")


def chip(hardware=DRIFTING, **options):
    return VirtualDevice(hardware, 3, **{"tiles": 2, "rows": 8, "cols": 6, **options})


def aged(device, name="p"):
    """What a tile says at once and ten seconds later."""
    device.program(0, TARGETS, operation=name)
    young = device.mvm(0, INPUTS, operation=f"{name} young", full_scale_uA=20.0)
    stood = wait(device, 10.0)
    return young, device.read(0), device.mvm(0, INPUTS, operation=f"{name} old", full_scale_uA=20.0), stood


def test_a_served_chip_ages_as_it_would_in_process(serve, connect):
    near, far = aged(chip()), aged(connect(serve(chip())))
    for ours, theirs in zip(near, far, strict=True):
        for name, value in vars(ours).items():
            other = getattr(theirs, name)
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other, name
    young, _, old, stood = far
    assert stood.time_s == pytest.approx(10.0, abs=0.01)
    assert float((old.currents_uA / young.currents_uA).median()) == pytest.approx(11**-0.06, rel=0.03)


def test_an_answer_that_is_lost_does_not_age_the_chip_twice(serve, connect):
    inner = chip(seconds_per_write=0.0)
    server = serve(inner)
    lossy = FaultyDevice(connect(server), FaultPlan(drop_after=0.5, duplicate=0.3), 1, sleep=lambda s: None)
    session = Session(lossy, mho.lab.Policy(backoff_s=0.0, retries=30, breaker_failures=99))
    for k in range(1, 7):
        assert wait(session, 5.0).time_s == 5.0 * k
    assert lossy.injected["drop_after"] > 2
    assert session.log.counts["waited"] == 6
    session.close()


def test_limits_of_the_server_and_of_the_chip_hold_on_both_sides(serve, connect, raw):
    server = serve(chip(), limits=Limits(wait_s=100.0))
    far, bad = connect(server), raw(server)
    assert far.capabilities().max_wait_s == 100.0
    for seconds, words in (
        (101.0, "101 s from now, allowed 100"),
        (float("nan"), "nan s is no time"),
        (-1.0, "0 or more"),
    ):
        with pytest.raises(RangeError, match=words):
            wait(far, seconds)
    with pytest.raises(RangeError, match="200 s from now, allowed 100 in one call"):
        far.wait_until(200.0)  # refused by the server: a client does not know its clock
    for message, words in (
        (requests.wait_message(float("inf")), "inf s is no time"),
        (requests.wait_message(1e9), "1e+09 s from now, allowed 100"),
        (pb.WaitRequest(version=9, until_s=1.0).SerializeToString(), "version 9"),
        (b"\xff\xff", "no WaitRequest"),
    ):
        far.close()
        code, details, kind = bad.send("Wait", message)
        assert (code, kind) == (grpc.StatusCode.INVALID_ARGUMENT, "RangeError")
        assert words in details
    assert connect(server).health().time_s == 0.0


def test_only_the_holder_lets_time_pass(serve, connect):
    server = serve(chip())
    holder, other = connect(server), connect(server)
    wait(holder, 1.0)
    with pytest.raises(DeviceBusyError):
        wait(other, 1.0)
    assert other.health().time_s == 1.0


@pytest.mark.parametrize("limits", [None, Limits(wait_s=0.0)])
def test_a_device_that_cannot_wait_says_so(driver, serve, connect, raw, limits):
    if limits is None:
        driver.changes = {"max_wait_s": 0.0}
    server = serve(driver, limits=limits)
    far = connect(server)
    assert far.capabilities().max_wait_s == 0.0
    for call in (far.wait_until, lambda s: wait(far, s), lambda s: wait_until(far, s), Session(far).wait_until):
        with pytest.raises(RangeError, match=r"cannot be asked to run \(max_wait_s = 0\)"):
            call(1.0)
    assert raw(server, client="b").send("Wait", requests.wait_message(1.0))[0] is grpc.StatusCode.INVALID_ARGUMENT
    assert driver.counts["wait"] == 0


def test_a_server_that_does_not_know_of_waiting_is_one_that_cannot():
    old = pb.Description.FromString(replies.description_reply(chip().capabilities(), 77))
    old.ClearField("max_wait_s")
    assert replies.read_description(old.SerializeToString())[0].max_wait_s == 0.0
    assert messages.VERSION == 1


def test_a_driver_without_the_call_it_promises_is_at_fault(driver, serve, connect):
    class Promises(type(driver)):
        wait_until = None

    for device in (Promises(), connect(serve(Promises()))):
        with pytest.raises(DeviceFault, match="max_wait_s is above 0, and wait_until does not exist"):
            wait(device, 1.0)


def watched(device, x):
    """A small network on a device that is watched, and what it answered when it was new."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 6))
    deployed = deploy(mho.convert(net, DRIFTING.replace(cell=GenericCell())), device)
    watch = Watch(deployed.substrate, WatchPolicy(every=1, tolerance=0.03, repeats=16))
    watch.check()
    return watch, deployed, deployed(x)


def repaired(watch):
    return [e.kind for e in watch.substrate.log.events if e.kind in REPAIRS and e.operation.startswith("tile")]


@pytest.mark.parametrize(
    ("hardware", "options", "tried"),
    [
        (DRIFTING.replace(cell=GenericCell(drift_nu=0.06, read_noise=0.01)), {}, ["compensated"]),
        (DRIFTING.replace(cell=GenericCell()), {"fade_per_second": 1e-4}, ["compensated"]),
        # Cells that drift each by an exponent of its own are no gain of anything: only writing helps.
        (DRIFTING.replace(cell=GenericCell(drift_nu=0.06, drift_nu_d2d=0.06)), {}, list(REPAIRS)),
    ],
)
def test_drift_while_in_use_is_met_over_the_network(serve, connect, hardware, options, tried):
    x = torch.linspace(-1.0, 1.0, 64).reshape(8, 8)
    session = Session(connect(serve(chip(hardware, **options))))
    watch, deployed, before = watched(session, x)
    watch.check()
    assert repaired(watch) == []  # nothing has aged yet
    wait(session, 3000.0)
    drifted = deployed.again("drifted")(x)
    watch.step(1)
    assert repaired(watch) == tried
    found = deployed.again("repaired")(x)
    assert float((found - before).square().mean()) < 0.2 * float((drifted - before).square().mean())
    session.close()


def test_a_twin_fitted_over_the_network_knows_the_drift(serve, connect):
    plan = Plan(name="w", writings=1, reads=4, broad=64, narrow=16, sparse=8, sweep=16, held_out=16, ages_s=(10.0, 1e3))
    near = measure(chip(rows=32, cols=16), plan)
    far = measure(Session(connect(serve(chip(rows=32, cols=16)))), plan)
    assert [a.age_s for a in far.ages] == [a.age_s for a in near.ages] and len(far.ages) == 2
    assert all(torch.equal(a.mean_uS, b.mean_uS) for a, b in zip(near.ages, far.ages, strict=True))
    assert any(e.name == "cell.drift_nu" and e.sure for e in fit(far).estimates)


def test_a_dry_run_keeps_the_time_of_its_waits():
    dry = DryRun(chip().capabilities())
    assert wait(dry, 5.0).time_s == 5.0 and wait_until(dry, 2.0).time_s == 5.0
    with pytest.raises(RangeError, match="from now, allowed"):
        wait(dry, 1e12)
    with pytest.raises(RangeError, match="max_wait_s = 0"):
        wait(DryRun(replace(chip().capabilities(), max_wait_s=0.0)), 1.0)
