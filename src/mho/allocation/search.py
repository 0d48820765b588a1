"""``mho.allocate``: the cheapest read times, repeats and converter bits within a loss of accuracy, checked on chips."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from mho.allocation.load import Load, Setting, harm, today
from mho.allocation.plan import plan
from mho.allocation.prices import Per, loads, refuse_channels
from mho.allocation.sensitivity import sensitivities
from mho.allocation.settings import applied
from mho.costs import EnergyReport, energy
from mho.errors import InputError
from mho.evaluation.run import evaluate
from mho.nn.site import analog_layers

EXAMPLES = 64
"""Inputs with whose values the cells are read."""


@final
@dataclass(frozen=True)
class Step:
    """One try: ``allowed``: harm over that of today; ``accuracy``: mean over the validation chips, percent."""

    allowed: float
    accuracy: float


@final
@dataclass(frozen=True)
class Allocation:
    """``settings``: what each layer is given; ``before``, ``after``: energy and accuracy (percent, mean over validation
    chips) of today and then; ``harm``: second-order loss then over today; ``steps``: what was tried."""

    settings: tuple[Setting, ...]
    before: EnergyReport
    after: EnergyReport
    accuracy_before: float
    accuracy_after: float
    harm: float
    steps: tuple[Step, ...]

    def saved(self, *parts: str) -> float:
        """Typical joules today over then, of ``parts`` (``"array"``, ``"adc"``, ...), or in all without any.

        Raises :class:`InputError` for a part that is not priced, and where these parts take no energy, so that there is
        nothing to save.
        """
        then, now = (_joules(report, parts) for report in (self.after, self.before))
        if then <= 0:
            raise InputError(
                f"Allocation.saved({', '.join(map(repr, parts))}): {now:g} J today and {then:g} J then: these parts "
                "take no energy on this hardware. Way out: parts that have a price there, or none for the whole."
            )
        return now / then

    def apply(self, model: nn.Module) -> nn.Module:
        """A copy of ``model`` under these settings; ``mho.fit`` retrains it for them."""
        return applied(model, self.settings)


def allocate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    points: float = 0.5,
    chips: int = 10,
    seed: int = 1_000_003,
    reads: tuple[float, float] = (1 / 64, 8.0),
    repeats: int = 1,
    dac: bool = False,
    per: Per = "layer",
    uniform: bool = False,
    halvings: int = 4,
    say: Callable[[str], None] | None = None,
) -> Allocation:
    """Read time, repeats and converter bits of each layer of a converted classifier, at most ``points`` percent points
    of accuracy lost.

    ``reads``: the shortest and longest read time over today's; ``repeats``: the most whole reads that are averaged
    (each drives and converts again); ``dac``: bits of the DACs too, beside those of the ADCs; ``per="channel"``: a read
    time, or a number of reads, for each output channel, where the readout can do that (``readout.columns``).

    Sensitivities come from one backward pass a batch, the plan from :mod:`mho.allocation.plan`; how much noise
    ``points`` allow is found on ``chips`` virtual chips of the lot ``seed``: the harm allowed doubles until accuracy is
    lost, then ``halvings`` bisections. ``loader``: held-out training images in a fixed order, and ``seed`` a lot that
    no test uses: the result is tuned on both. ``uniform``: the same for all layers, to compare with.

    Raises :class:`InputError` for a network or a loader that cannot be measured, :class:`HardwareError` for a hardware
    without prices, or one that cannot read single channels where that is asked for.
    """
    if not 0 < points < 100 or halvings < 0:
        raise InputError(f"mho.allocate: points = {points!r}, halvings = {halvings!r}: above 0 and at least 0.")
    if per not in ("layer", "channel") or (uniform and per == "channel"):
        raise InputError(
            f"mho.allocate: per = {per!r}, uniform = {uniform}: 'layer' or 'channel', and 'layer' with uniform=True."
        )
    tell = say or (lambda text: None)
    batches = [(x, y) for x, y in loader]
    if not batches:
        raise InputError("mho.allocate: the loader is empty. Way out: held-out training images.")
    example = torch.cat([x for x, _ in batches])[:EXAMPLES]
    if per == "channel":
        for _, layer in analog_layers(model):
            for site in layer.sites.values():
                refuse_channels(site.name, site.hw)
    known = loads(model, example, sensitivities(model, batches, seed=seed, channels=per == "channel"), dac=dac)

    def accuracy(settings: Sequence[Setting]) -> float:
        result = evaluate(applied(model, settings), batches, chips=chips, seed=seed)
        return float(result.accuracy().mean())

    search = _Search(known, accuracy, reads, repeats, uniform, tell)
    before = accuracy(today(known))
    settings, after = search.run(before - points, before, halvings)
    return Allocation(
        settings=settings,
        before=energy(model, example),
        after=energy(applied(model, settings), example),
        accuracy_before=before,
        accuracy_after=after,
        harm=harm(known, settings) / harm(known, today(known)),
        steps=tuple(search.steps),
    )


class _Search:
    """Doubling and halving of the harm that is allowed."""

    def __init__(
        self,
        known: Sequence[Load],
        accuracy: Callable[[Sequence[Setting]], float],
        reads: tuple[float, float],
        repeats: int,
        uniform: bool,
        tell: Callable[[str], None],
    ) -> None:
        self.known, self.accuracy, self.reads, self.tell = known, accuracy, reads, tell
        self.repeats, self.uniform = repeats, uniform
        self.now = harm(known, today(known))
        self.steps: list[Step] = []

    def run(self, least: float, before: float, halvings: int) -> tuple[tuple[Setting, ...], float]:
        # Very short reads are no small noise, whatever the second order says: where accuracy is lost at once, the
        # shortest read is four times as long, and so on up to that of today.
        # Nor is rounding to few bits: where that does not help, the bits of the DACs stay, and the reads start anew.
        good, settings, asked = 1.0, self._plan(1.0), self.reads
        while (reached := self._try(good, settings)) < least:
            if self.reads[0] < 1:
                self.reads = (min(1.0, 4 * self.reads[0]), max(1.0, self.reads[1]))
            elif any(load.by_dac for load in self.known):
                self.known, self.reads = [replace(load, by_dac={}) for load in self.known], asked
                self.tell("the bits of the DACs stay")
            else:
                return today(self.known), before
            settings = self._plan(good)
        bad = None
        while bad is None:
            after = self._plan(2 * good)
            if after == settings:
                return settings, reached
            found = self._try(2 * good, after)
            if found < least:
                bad = 2 * good
            else:
                good, settings, reached = 2 * good, after, found
        for _ in range(halvings):
            middle = (good * bad) ** 0.5
            after = self._plan(middle)
            found = self._try(middle, after)
            if found < least:
                bad = middle
            else:
                good, settings, reached = middle, after, found
        return settings, reached

    def _plan(self, allowed: float) -> tuple[Setting, ...]:
        return plan(self.known, allowed * self.now, reads=self.reads, repeats=self.repeats, uniform=self.uniform)

    def _try(self, allowed: float, settings: tuple[Setting, ...]) -> float:
        found = self.accuracy(settings)
        self.steps.append(Step(allowed, found))
        self.tell(f"{allowed:.3g} times the harm of today: {found:.2f} %")
        return found


def _joules(report: EnergyReport, parts: tuple[str, ...]) -> float:
    if not parts:
        total = report.total_J
        assert total is not None
        return total.typical
    known = report.parts_J
    for part in parts:
        if part not in known:
            raise InputError(f"Allocation.saved: part {part!r} has no price: must be one of {', '.join(known)}.")
    return sum(known[part].typical for part in parts)
