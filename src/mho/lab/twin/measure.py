"""Carry a plan out on a device: write, read back, multiply, wait. Nothing is fitted here."""

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from mho.lab.clock import wait
from mho.lab.protocol import CellStatus, Device
from mho.lab.twin import design
from mho.lab.twin.measurements import AgedRead, Measurements, Pairs, Role, Writing

Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing."""


@final
class _Bench:
    """The device with names for its operations and a count of what was asked."""

    def __init__(self, device: Device, tile: int, name: str) -> None:
        self.device, self.tile, self.name = device, tile, name
        self.can = device.capabilities()
        self.calls = self.vectors = 0
        self.time_s = 0.0
        self.temperature_K: float | None = None

    def operation(self) -> str:
        self.calls += 1
        return f"{self.name}/{self.tile}/{self.calls}"

    def write(self, targets: Tensor) -> tuple[Tensor, Tensor, float]:
        """(targets in uS, stuck cells, time of the writing)."""
        targets_uS = (targets * self.can.g_max_uS).expand(self.can.rows, self.can.cols).contiguous()
        report = self.device.program(self.tile, targets_uS, operation=self.operation())
        return targets_uS, report.status == int(CellStatus.STUCK), report.time_s

    def multiply(self, inputs: Tensor, full_scale: float, writing: int, role: Role, repeats: int = 1) -> list[Pairs]:
        """Pairs, cut to the device's largest batch; ``inputs`` and ``full_scale`` in units of v_max and v_max g_max."""
        unit_uA = self.can.v_max_V * self.can.g_max_uS
        scale_uA = min(max(full_scale * unit_uA, self.can.i_min_uA), self.can.i_max_uA)
        found = []
        for part in inputs.split(self.can.max_batch):
            volts = (part * self.can.v_max_V).contiguous()
            out = self.device.mvm(self.tile, volts, operation=self.operation(), full_scale_uA=scale_uA, repeats=repeats)
            self.vectors += repeats * len(part)
            self.time_s, self.temperature_K = out.time_s, out.temperature_K
            currents = torch.where(out.valid, out.currents_uA, torch.nan)
            found.append(Pairs(writing, volts, scale_uA, currents, role))
        return found

    def read(self) -> tuple[Tensor, float]:
        """(conductances [rows, cols], NaN where invalid; the device's time)."""
        self.calls += 1
        out = self.device.read(self.tile)
        return torch.where(out.valid, out.g_uS, torch.nan).double(), out.time_s


@final
class _Moments:
    """Running mean and variance of reads (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = self.squares = torch.zeros(())

    def add(self, g: Tensor) -> None:
        self.count += 1
        change = g - self.mean
        self.mean = self.mean + change / self.count
        self.squares = self.squares + change * (g - self.mean)


def measure(device: Device, plan: design.Plan, *, tile: int = 0, say: Say = quiet) -> Measurements:
    """Carry ``plan`` out on a tile; what the tile held before is lost.

    Read-backs stand between the products, so that no two of them fall into the same instant. A device without
    read-back, or that cannot wait, is measured without. Errors are those of the device.
    """
    bench = _Bench(device, tile, plan.name)
    writings: list[Writing] = []
    pairs: list[Pairs] = []
    for k in range(plan.writings):
        pattern = design.test_pattern(bench.can, plan, k)
        say(
            f"writing {k + 1} of {plan.writings}: {plan.reads} reads, {plan.broad + plan.narrow * plan.levels} products"
        )
        writings.append(_one_writing(bench, plan, pattern, k, pairs))
    sweep = design.amplitude_sweep(pattern, plan)
    pairs += bench.multiply(sweep.inputs, sweep.full_scale, plan.writings - 1, "sweep")
    say("a pattern that only judges")
    ages = _judge(bench, plan, writings, pairs, say)
    return Measurements(
        can=bench.can,
        tile=tile,
        writings=tuple(writings),
        pairs=tuple(pairs),
        ages=tuple(ages),
        calls=bench.calls,
        vectors=bench.vectors,
        time_s=bench.time_s,
        temperature_K=bench.temperature_K,
    )


def _one_writing(bench: _Bench, plan: design.Plan, pattern: design.Pattern, number: int, pairs: list[Pairs]) -> Writing:
    targets_uS, stuck, _ = bench.write(pattern.row[:, None])
    broad, narrow = design.drives(bench.can, pattern, plan, number)
    moments = _Moments()
    wide, small = (list(d.inputs.tensor_split(plan.reads)) for d in (broad, narrow))
    for a, b in zip(wide, small, strict=True):
        if len(a):
            pairs += bench.multiply(a, broad.full_scale, number, "fit")
        if len(b):
            pairs += bench.multiply(b, narrow.full_scale, number, "fit")
        if bench.can.read_back:
            moments.add(bench.read()[0])
    return _written(targets_uS, stuck, moments)


def _written(targets_uS: Tensor, stuck: Tensor, moments: _Moments) -> Writing:
    if moments.count < 2:
        return Writing(targets_uS, stuck)
    var = (moments.squares / (moments.count - 1)).float()
    return Writing(targets_uS, stuck, moments.mean.float(), var, moments.count)


def _judge(bench: _Bench, plan: design.Plan, writings: list[Writing], pairs: list[Pairs], say: Say) -> list[AgedRead]:
    """The held-out pattern, and its age."""
    number = len(writings)
    targets = design.network_pattern(bench.can, plan)
    targets_uS, stuck, written_s = bench.write(targets)
    inputs = design.network_inputs(bench.can, plan)
    full_scale = 3.0 * float((inputs @ targets).square().mean().sqrt())
    moments = _Moments()
    for part in inputs.tensor_split(min(plan.reads, len(inputs))):
        pairs += bench.multiply(part, full_scale, number, "held-out", plan.repeats)
        if bench.can.read_back:
            moments.add(bench.read()[0])
    writings.append(_written(targets_uS, stuck, moments))
    ages: list[AgedRead] = []
    if not (bench.can.max_wait_s and bench.can.read_back):
        return ages
    waited = 0.0
    for age_s in plan.ages_s:
        say(f"age {age_s:g} s")
        wait(bench.device, age_s - waited)
        waited = age_s
        later = _Moments()
        for _ in range(plan.reads_an_age):
            g, now_s = bench.read()
            later.add(g)
            # The clock moves between reads, so that each is one of its own.
            bench.multiply(inputs[:1], full_scale, number, "held-out")
        ages.append(AgedRead(number, now_s - written_s, later.mean.float(), later.count))
    return ages
