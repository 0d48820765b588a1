"""Probes notice what wanders, and repairs are tried in the order of their price."""

from dataclasses import replace

import pytest
import torch
from lab_devices import HIDDEN, QUIET, SHEET, Scripted, pattern, volts
from torch import nn

import mho
from mho.errors import HardwareError, InputError, RangeError
from mho.hardware import GenericCell
from mho.lab import DryRun, Session, VirtualDevice, Watch, WatchPolicy, deploy
from mho.lab.protocol import Device, NotProgrammed
from mho.nn.site import analog_layers

REPAIRS = ("compensated", "refitted", "calibrated", "reprogrammed")


class Wandering:
    """A device whose columns answer gain times the current; ``heal`` names the call after which it is well again."""

    def __init__(self, gain: torch.Tensor | float, heal: str = "never") -> None:
        self.gain, self.heal, self.bad = gain, heal, False
        self.device = Scripted(self.script, QUIET)

    def script(self, called: str, number: int):
        if called == self.heal and self.bad:
            self.bad = False
        if called == "mvm" and self.bad:
            return lambda a: replace(a, currents_uA=a.currents_uA * self.gain)
        return None


def watched(device) -> tuple[Watch, nn.Module]:
    torch.manual_seed(0)
    net = nn.Linear(16, 8)
    deployed = deploy(mho.convert(nn.Sequential(net), QUIET), device)
    watch = Watch(deployed.substrate, WatchPolicy(every=1, tolerance=0.02))
    watch.check()
    return watch, deployed


def repairs(watch: Watch) -> list[str]:
    return [e.kind for e in watch.substrate.log.events if e.kind in REPAIRS and e.operation.startswith("tile")]


def test_a_steady_device_is_left_alone() -> None:
    watch, _ = watched(VirtualDevice(SHEET, 3))
    for step in range(5):
        watch.step(step)
    assert repairs(watch) == []
    assert watch.substrate.log.counts["probe"] == 6


@pytest.mark.parametrize(
    ("gain", "heal", "tried"),
    [
        (0.8, "never", ["compensated"]),
        (torch.tensor([0.7, 0.9, 1.1, 1.2, 0.8, 1.0, 1.3, 0.6]), "never", ["compensated", "refitted"]),
        (torch.full((8,), float("nan")).index_fill(0, torch.arange(4), 0.5), "calibrate", list(REPAIRS[:3])),
        (
            torch.tensor([0.0, 1, 1, 1, 1, 1, 1, 1]) ** 0 * torch.tensor([1.0, -1] * 4),
            "never",
            ["compensated", "refitted"],
        ),
    ],
)
def test_the_cheapest_repair_that_helps_is_the_last_one(gain, heal: str, tried: list[str]) -> None:
    wandering = Wandering(gain, heal)
    watch, deployed = watched(wandering.device)
    x = torch.randn(32, 16)
    before = deployed(x)
    wandering.bad = True
    watch.step(1)
    assert repairs(watch) == tried
    assert torch.allclose(deployed.again("after")(x), before, atol=0.05)


def test_a_tile_that_lost_conductance_is_written_again_at_last() -> None:
    class Noisy(Wandering):
        def script(self, called: str, number: int):
            if called == "program" and self.bad:
                self.bad = False
            if called == "mvm" and self.bad:
                g = torch.Generator().manual_seed(number)
                return lambda a: replace(a, currents_uA=a.currents_uA * torch.randn(8, generator=g))
            return None

    wandering = Noisy(1.0)
    watch, deployed = watched(wandering.device)
    x = torch.randn(32, 16)
    before = deployed(x)
    wandering.bad = True
    watch.step(1)
    assert repairs(watch) == list(REPAIRS)
    assert "#watch" in watch.substrate.reports[0].operation
    # what compensation had learned from a mad device is forgotten
    assert torch.allclose(deployed.again("after")(x), before, atol=0.05)


def test_a_fading_readout_is_compensated_for() -> None:
    device = VirtualDevice(QUIET, 3, fade_per_second=0.1)
    watch, deployed = watched(device)
    x = torch.randn(32, 16)
    before = deployed(x)
    device.wait(3.0)
    faded = deployed.again("faded")(x)
    watch.step(1)
    repaired = deployed.again("repaired")(x)
    assert float((faded - before).abs().max()) > 0.2
    assert torch.allclose(repaired, before, atol=0.02)
    assert repairs(watch) == ["compensated"]


def test_a_repair_that_is_asked_for_costs_its_vectors_and_no_more() -> None:
    device = VirtualDevice(QUIET, 3, fade_per_second=0.1)
    session = Session(device)
    torch.manual_seed(0)
    deployed = deploy(mho.convert(nn.Sequential(nn.Linear(16, 8)), QUIET), session)
    watch = Watch(deployed.substrate, WatchPolicy(vectors=3, repeats=1))
    device.wait(3.0)
    paid = session.budget.vectors
    for kind, vectors in (("compensated", 3), ("refitted", 3), ("calibrated", 0), ("reprogrammed", 0)):
        watch.repair(kind)
        assert session.budget.vectors - paid == vectors
        paid = session.budget.vectors
    assert repairs(watch) == list(REPAIRS)
    assert all(c.gain.eq(1).all() for c in watch.substrate.columns.values())  # the readout is as new
    with pytest.raises(InputError, match="repair 'prayed' is not known"):
        watch.repair("prayed")


def test_a_refit_from_vectors_on_one_step_of_the_converter_keeps_what_was_known() -> None:
    coarse = SHEET.replace(cell=GenericCell(), adc=SHEET.adc and replace(SHEET.adc, bits=2))
    deployed = deploy(mho.convert(nn.Sequential(nn.Linear(16, 8)), QUIET), VirtualDevice(coarse, 3))
    Watch(deployed.substrate, WatchPolicy(vectors=2, repeats=1)).repair("refitted")
    (columns,) = deployed.substrate.columns.values()
    assert bool((columns.gain != 0).all()) and bool((columns.gain == 1).any())
    assert bool(torch.isfinite(deployed(torch.randn(8, 16))).all())


def test_a_dry_run_asks_what_the_run_would_ask() -> None:
    analog = mho.convert(nn.Sequential(nn.Linear(16, 8)), QUIET)
    real, dry = Session(VirtualDevice(QUIET, 1)), DryRun(replace(VirtualDevice(QUIET, 1).capabilities(), latency_s=0.5))
    assert isinstance(dry, Device)
    x = torch.randn(4, 16)
    a, b = deploy(analog, real)(x), deploy(analog, dry)(x)
    assert torch.allclose(a, b, atol=1e-5)
    assert (dry.programs, dry.mvms, dry.vectors) == (1, 1, 4)
    assert dry.estimated_s == 1.0
    with pytest.raises(NotProgrammed):
        dry.mvm(5, volts(dry, 2), operation="m", full_scale_uA=10.0)
    with pytest.raises(RangeError):
        dry.program(0, torch.full((16, 8), 99.0), operation="p")


def test_the_virtual_device_is_named_by_its_operations() -> None:
    def numbers(name: str, seed: int = 3):
        device = VirtualDevice(HIDDEN, seed)
        report = device.program(0, pattern(device), operation=name)
        answer = device.mvm(0, volts(device, 5), operation=name, full_scale_uA=30.0, repeats=2)
        return report.achieved_uS, answer.currents_uA

    for a, b in zip(numbers("a"), numbers("a"), strict=True):
        assert torch.equal(a, b)
    for other in (numbers("b"), numbers("a", 4)):
        for a, b in zip(numbers("a"), other, strict=True):
            assert not torch.equal(a, b)
    repeats = numbers("a")[1]
    assert not torch.equal(repeats[0], repeats[1])


def test_parts_of_the_chip_stay_and_writing_is_drawn_anew() -> None:
    device = VirtualDevice(HIDDEN.replace(cell=GenericCell(programming_noise=0.05)), 3)
    first = device.program(0, pattern(device), operation="a").achieved_uS
    mask = torch.zeros(16, 8, dtype=torch.bool)
    mask[:, 2] = True
    second = device.program(0, pattern(device), operation="b", mask=mask).achieved_uS
    assert torch.equal(second[:, 3], first[:, 3])
    assert not torch.equal(second[:, 2], first[:, 2])
    assert device._tiles.get(0).draws.adc_gain is not None
    gains = [device._draws(0, name).adc_gain for name in ("a", "b")]
    assert torch.equal(*gains)
    assert not torch.equal(gains[0], device._draws(1, "a").adc_gain)


def test_a_virtual_chip_drifts_with_its_own_clock() -> None:
    drifting = QUIET.replace(cell=GenericCell(drift_nu=0.1, t0_s=1.0))
    device = VirtualDevice(drifting, 3, seconds_per_write=0.0)
    target = pattern(device)
    device.program(0, target, operation="a")
    device.wait(9.0)
    assert torch.allclose(device.read(0).g_uS, target * 10**-0.1, rtol=1e-4)
    device.program(0, target, operation="b")
    assert torch.allclose(device.read(0).g_uS, target, rtol=1e-5)


def test_impossible_policies_are_refused() -> None:
    with pytest.raises(HardwareError, match="every"):
        WatchPolicy(every=0)
    assert list(analog_layers(nn.Linear(1, 1))) == []
