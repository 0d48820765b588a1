"""Faults are injected as planned, the same ones for the same calls, and the numbers of each are what they say."""

import math

import pytest
import torch

from mho.errors import DeviceFault, HardwareError, RangeError, TransportError
from mho.hardware import load_hardware
from mho.lab import VirtualDevice
from mho.lab.fault_plan import KINDS, amplify, cut_short, drive, put_nan, read_through, stick
from mho.lab.faults import Fault, FaultPlan, FaultyDevice
from mho.lab.protocol import CellStatus
from mho.rng import uniforms
from mho.testing import check_device, law_holds

ROWS, COLS = 12, 8


def chip() -> VirtualDevice:
    return VirtualDevice(load_hardware("ideal"), 5, tiles=2, rows=ROWS, cols=COLS)


TARGETS = uniforms((ROWS, COLS), "faults", "targets") * chip().capabilities().g_max_uS
INPUTS = uniforms((6, ROWS), "faults", "inputs") * 0.1
FULL = 40.0


class Counting:
    """How often each call reached the device."""

    def __init__(self) -> None:
        self.inner = chip()
        self.reached: list[str] = []

    def __getattr__(self, name: str):
        def call(*args, **rest):
            self.reached.append(name)
            return getattr(self.inner, name)(*args, **rest)

        return call


def faulty(seed: int = 0, device=None, **rates) -> FaultyDevice:
    return FaultyDevice(device or chip(), FaultPlan(**rates), seed, sleep=lambda s: None)


def programmed(seed: int = 0, **rates) -> tuple[FaultyDevice, list[Fault]]:
    """A device whose tile 0 was written before its faults began."""
    inner, noted = chip(), []
    inner.program(0, TARGETS, operation="w")
    return FaultyDevice(inner, FaultPlan(**rates), seed, on_fault=noted.append, sleep=lambda s: None), noted


def multiply(device, operation: str = "m", repeats: int = 1, full: float = FULL):
    return device.mvm(0, INPUTS, operation=operation, full_scale_uA=full, repeats=repeats)


def truth() -> torch.Tensor:
    return multiply(programmed()[0]).currents_uA


def test_no_faults_is_the_device_itself_to_the_bit_and_conforms() -> None:
    plain = chip()
    plain.program(0, TARGETS, operation="w")
    assert torch.equal(truth(), multiply(plain).currents_uA)
    check_device(lambda: FaultyDevice(chip(), FaultPlan()))


def outcomes(seed: int, order: list[str], plan: FaultPlan) -> dict[str, str]:
    inner = chip()
    inner.program(0, TARGETS, operation="w")
    device = FaultyDevice(inner, plan, seed, sleep=lambda s: None)
    found = {}
    for name in order:
        try:
            answer = multiply(device, name)
            found[name] = f"{answer.valid.sum()} {answer.currents_uA.isnan().sum()} {answer.currents_uA.nansum()}"
        except TransportError as error:
            found[name] = str(error)
    return found


def test_faults_depend_on_seed_and_operation_not_on_the_order() -> None:
    names = [f"m{k}" for k in range(60)]
    plan = FaultPlan.uniform(0.5)
    one, same, back = (outcomes(1, order, plan) for order in (names, names, names[::-1]))
    assert one == same == back
    assert len(set(one.values())) > 5
    assert outcomes(2, names, plan) != one


def test_a_second_attempt_has_its_own_chance() -> None:
    device, noted = programmed(drop_before=0.5)
    waited = 0
    for k in range(40):
        for attempt in range(30):
            try:
                multiply(device, f"m{k}")
            except TransportError:
                waited += 1
                continue
            assert attempt == sum(f.operation == f"m{k}" for f in noted)
            break
        else:
            pytest.fail("the same call fails for ever")
    assert waited == device.injected["drop_before"] == len(noted) > 10


def test_the_rate_is_the_rate() -> None:
    """The share of calls hit is binomial; a plan with twice the rate is told from it."""

    def hits(rate: float) -> int:
        device, _ = programmed(nan_flagged=rate)
        for k in range(1000):
            multiply(device, f"m{k}")
        return device.injected["nan_flagged"]

    sigma = math.sqrt(1000 * 0.05 * 0.95)
    assert abs(hits(0.05) - 50) < 5 * sigma
    assert abs(hits(0.10) - 50) > 5 * sigma


@pytest.mark.parametrize(("rate", "reached"), [("drop_before", 0), ("drop_after", 1), ("disconnect", 0)])
def test_lost_calls_were_carried_out_or_not(rate: str, reached: int) -> None:
    inner = Counting()
    device = faulty(device=inner, **{rate: 1.0})
    with pytest.raises(TransportError, match=r"injected fault, program 'w': .* Fix: try again under the same name"):
        device.program(0, TARGETS, operation="w")
    assert inner.reached.count("program") == reached
    for call in (device.health, device.calibrate, lambda: device.read(0)):
        with pytest.raises(TransportError):
            call()


def test_a_duplicate_reaches_the_device_twice_and_the_first_answer_counts() -> None:
    inner = Counting()
    device = faulty(device=inner, duplicate=1.0)
    report = device.program(0, TARGETS, operation="w")
    assert inner.reached.count("program") == 2
    assert not report.repeated
    assert device.injected == {"duplicate": 1}


def test_delay_is_in_seconds() -> None:
    waited: list[float] = []
    device = FaultyDevice(chip(), FaultPlan(delay=1.0, delay_s=0.25), sleep=waited.append)
    device.program(0, TARGETS, operation="w")
    assert waited == [0.25]


def test_a_lost_connection_lasts_for_its_calls_and_capabilities_fail_too() -> None:
    device, noted = programmed(disconnect=1.0, disconnect_calls=4)
    with pytest.raises(TransportError, match="the connection broke"):
        multiply(device, "a")
    for call in (device.capabilities, device.health, lambda: multiply(device, "b")):
        with pytest.raises(TransportError, match="there is no connection"):
            call()
    assert device.capabilities() == chip().capabilities()
    assert [f.kind for f in noted] == ["disconnect"] + ["disconnected"] * 3


def test_a_short_answer_lacks_its_last_vectors() -> None:
    device, _ = programmed(short=1.0, short_share=0.4)
    answer = multiply(device, repeats=3)
    lost = answer.currents_uA.isnan()
    assert torch.equal(lost, ~answer.valid)
    assert lost[:, 4:].all()
    assert not lost[:, :4].any()
    assert torch.equal(answer.currents_uA[0, :4], truth()[0, :4])
    read = device.read(0)
    assert torch.equal(read.g_uS.isnan(), ~read.valid)
    assert read.valid.sum() == (ROWS - 5) * COLS
    report = device.program(0, TARGETS, operation="w2")
    assert torch.equal(report.achieved_uS.isnan(), report.status == int(CellStatus.UNKNOWN))


@pytest.mark.parametrize(("kind", "flagged"), [("nan_flagged", True), ("nan_silent", False)])
def test_nan_with_and_without_a_flag(kind: str, flagged: bool) -> None:
    device, _ = programmed(**{kind: 1.0}, nan_share=0.25)
    answer = multiply(device, repeats=50)
    bad = answer.currents_uA.isnan()
    assert abs(float(bad.float().mean()) - 0.25) < 5 * math.sqrt(0.25 * 0.75 / bad.numel())
    assert torch.equal(answer.valid, ~bad if flagged else torch.ones_like(bad))
    device, _ = programmed(**{kind: 1.0}, nan_share=0.0)
    assert multiply(device).currents_uA.isnan().sum() == 1  # a fault that does nothing is none


def test_where_nan_falls_is_uniform() -> None:
    """Positions of the NaN of many calls; piled up at the front they would not be uniform."""
    device, _ = programmed(nan_flagged=1.0, nan_share=0.02)
    places = []
    for k in range(400):
        bad = multiply(device, f"m{k}").currents_uA.reshape(-1).isnan()
        places.append(bad.nonzero()[:, 0].float())
    x = (torch.cat(places) + uniforms((len(torch.cat(places)),), "spread")) / INPUTS.shape[0] / COLS
    assert law_holds(x, lambda v: v.clip(0, 1))
    assert not law_holds(x**1.3, lambda v: v.clip(0, 1))


def test_gain_steps_add_up_and_calibration_mends_them() -> None:
    device, noted = programmed(gain_step=1.0, gain_step_rel=0.1)
    answers = [multiply(device, f"m{k}").currents_uA for k in range(3)]
    for k, answer in enumerate(answers):
        torch.testing.assert_close(answer, truth() * 1.1**k)
    assert noted[-1] == Fault("gain_step", "mvm", "m2", 0, "gain 1.331")
    torch.testing.assert_close(device.read(0).g_uS, TARGETS * 1.331)
    device.calibrate()
    torch.testing.assert_close(multiply(device, "after").currents_uA, truth())


def test_drift_is_exponential_in_the_calls() -> None:
    device, _ = programmed(drift_per_call=0.02)
    for k in range(10):
        torch.testing.assert_close(multiply(device, f"m{k}").currents_uA, truth() * math.exp(-0.02 * k))
    assert not device.injected  # it is no event


def test_a_larger_gain_is_held_at_full_scale_and_flagged() -> None:
    full = float(truth().max()) * 1.05
    device, _ = programmed(gain_step=1.0, gain_step_rel=0.5)
    multiply(device, "first", full=full)
    answer = multiply(device, "second", full=full)
    assert float(answer.currents_uA.max()) == pytest.approx(full)
    assert "saturated" in answer.flags


def test_stuck_lines_from_the_beginning() -> None:
    device, _ = programmed(stuck_rows=((0, 2), (1, 0)), stuck_V=0.05, stuck_cols=((0, 3),), stuck_uA=1.5)
    driven = INPUTS.clone()
    driven[:, 2] = 0.05
    expected = driven @ TARGETS
    expected[:, 3] = 1.5
    torch.testing.assert_close(multiply(device).currents_uA[0], expected)
    v_max = device.capabilities().v_max_V
    read = device.read(0).g_uS
    for row in range(ROWS):  # a read is a current at v_max on its row, with the stuck row driven beside it
        v = torch.zeros(ROWS)
        v[row] = v_max
        v[2] = 0.05
        current = v @ TARGETS
        current[3] = 1.5
        torch.testing.assert_close(read[row], current / v_max)


def test_stuck_lines_that_come() -> None:
    device, noted = programmed(stuck_col=1.0, stuck_uA=-2.0, stuck_row=1.0)
    torch.testing.assert_close(multiply(device, "first").currents_uA, truth())
    col = int(noted[-1].detail.split()[-1])
    row = int(noted[-2].detail.split()[-1])
    assert [f.kind for f in noted] == ["stuck_row", "stuck_col"]
    driven = INPUTS.clone()
    driven[:, row] = 0.0
    expected = driven @ TARGETS
    expected[:, col] = -2.0
    torch.testing.assert_close(multiply(device, "second").currents_uA[0], expected)


def test_an_invalid_number_in_a_stuck_column_stays_nan() -> None:
    valid = torch.tensor([[True, False], [True, True]])
    got = stick(torch.zeros(2, 2).masked_fill(~valid, torch.nan), valid, [1], 7.0)
    assert torch.equal(got.isnan(), ~valid)
    assert got[1, 1] == 7.0


def test_pure_functions_leave_their_arguments_alone() -> None:
    values, valid = truth(), torch.ones_like(truth(), dtype=torch.bool)
    kept = values.clone()
    cut_short(values, valid, 0.5)
    put_nan(values, valid, torch.rand_like(values), 0.5, flagged=True)
    amplify(values, 2.0, 1.0)
    stick(values, valid, [0], 1.0)
    drive(values[0], [0], 9.0)
    read_through(values[0], [0], [1], 0.1, 1.0, 0.2)
    assert torch.equal(values, kept)
    assert valid.all()


def test_the_device_still_refuses_what_it_refuses() -> None:
    device, _ = programmed(stuck_rows=((0, 11),))
    with pytest.raises(RangeError, match="inputs_V"):
        device.mvm(0, INPUTS[:, :5], operation="x", full_scale_uA=FULL)
    device.close()
    with pytest.raises(DeviceFault, match="closed"):
        device.health()


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"delay": 1.5}, r"FaultPlan.delay = 1.5: must be at most 1"),
        ({"short": -0.1}, r"FaultPlan.short = -0.1: must be at least 0"),
        ({"delay_s": math.nan}, "not a finite number"),
        ({"disconnect_calls": 0}, "must be at least 1"),
        ({"gain_step_rel": -1.0}, "leaves no gain"),
    ],
)
def test_impossible_plans(rates: dict, message: str) -> None:
    with pytest.raises(HardwareError, match=message):
        FaultPlan(**rates)


def test_lines_that_the_device_does_not_have() -> None:
    with pytest.raises(RangeError, match=r"stuck_cols: tile 0, col 8: the device has 2 tiles of 8 cols"):
        faulty(stuck_cols=((0, 8),))
    with pytest.raises(RangeError, match=r"stuck_rows: tile 2, row 0"):
        faulty(stuck_rows=((2, 0),))


@pytest.mark.parametrize("kind", KINDS)
def test_every_rate_does_something_and_is_counted(kind: str) -> None:
    device, noted = programmed(**{kind: 1.0}, stuck_uA=1.0)
    first = second = None
    try:
        first = multiply(device, "a")
        second = multiply(device, "b")
    except TransportError:
        assert kind in ("drop_before", "drop_after", "disconnect")
    assert device.injected[kind] == sum(f.kind == kind for f in noted) >= 1
    if second is not None and kind not in ("delay", "duplicate"):
        assert not torch.equal(second.currents_uA, truth()) or not torch.equal(first.currents_uA, truth())
