"""The sweep: one or several trained networks on chips x ages x noise levels x converter bits."""

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

import mho
from mho.chips import Chips, fabricate
from mho.chips.memory import at_most_bytes, budget_bytes
from mho.errors import InputError
from mho.evaluation.result import Result
from mho.evaluation.statistics import StopRule
from mho.hardware import load_hardware
from mho.hardware.spec import Hardware
from mho.nn.site import analog_layers
from mho.physics.scaling import scale_hardware_noise, with_bits
from mho.units import seconds

CHIPS_AT_ONCE = 5


class Tick(Protocol):
    """Called after each chip pass with how many are done and how many there are."""

    def __call__(self, done: int, total: int) -> None: ...


def evaluate(
    model: nn.Module | Sequence[nn.Module],
    loader: Iterable,
    *,
    chips: int = 25,
    ages: Sequence[float | str] = (),
    noise_scales: Sequence[float] = (),
    bits: Sequence[int] = (),
    seed: int = 0,
    seeds: Sequence[int] | None = None,
    hardware: Hardware | str | None = None,
    compensate: bool = False,
    recalibrate: Iterable | None = None,
    stop: StopRule | None = None,
    memory_bytes: int | None = None,
    progress: bool | Tick = False,
    command: str = "",
) -> Result:
    """Accuracy of a converted network over virtual chips, image by image.

    ``model``: one converted network, or one for each training seed (``seeds`` labels them). ``loader``:
    (inputs, labels) in a fixed order, read once a point and block of chips. ``ages``: after
    programming (``()``: as the description says); ``noise_scales`` multiply every random source;
    ``bits`` of both converters (0: as described). ``hardware``: a description other than the one of
    training. ``compensate``: global drift compensation at each age; ``recalibrate``: batches with which
    batch norm is re-estimated on each chip at each point. All points see the same chips, images and
    fresh normals (common random numbers).

    ``stop``: stop adding chips once the interval of the first point is narrow enough; ``chips`` is then
    the most. ``memory_bytes``: what the arrays of chips may take; ``None``: half of what is free on the network's
    device. Where they take more, chips run in blocks that fit, and where not even one fits its arrays are made as
    they are read: the same outcomes. ``result.data.attrs["chips_at_once"]`` says how many ran together (0: not even
    one fits). ``progress``: a bar with the time left, or a callable.

    Returns a :class:`Result` with every outcome; ``result.summary()`` has mean, standard deviation, 5th
    percentile, worst chip and intervals. Raises :class:`InputError` for an empty loader or one whose
    order changes.
    """
    models = [model] if isinstance(model, nn.Module) else list(model)
    if not models:
        raise InputError("evaluate: no network was given.")
    labels_of_seeds = tuple(range(len(models))) if seeds is None else tuple(seeds)
    description = load_hardware(hardware) if isinstance(hardware, str) else hardware
    points = _Points(
        ages=tuple(seconds(a) for a in ages),
        scales=tuple(float(s) for s in noise_scales) or (1.0,),
        bits=tuple(int(b) for b in bits) or (0,),
        hardware=description,
    )
    _check_chips(chips)
    fit = min(chips_that_fit(m, chips, seed, points, memory_bytes) for m in models)
    blocks = _blocks(chips, stop, fit)
    with _ticker(progress, len(models) * chips * points.count) as tick:
        outcomes, done = [], 0
        for block in blocks:
            found, done = _run_block(
                models, loader, block, seed, points, compensate, recalibrate, memory_bytes, tick, done, chips > 1
            )
            outcomes.append(found)
            if stop is not None and stop.met(np.concatenate(outcomes, 1)[:, :, 0, 0, 0]):
                break
    return Result.of(
        np.concatenate(outcomes, 1),
        clean=np.stack([clean_outcomes(m, loader) for m in models]),
        seeds=labels_of_seeds,
        ages_s=points.ages or (_described_age(models[0], description),),
        noise_scales=points.scales,
        bits=points.bits,
        attrs={
            "hardware": _hardware_name(models[0], description),
            "model": type(models[0]).__name__,
            "chip_seed": seed,
            "chips_at_once": min(fit, len(blocks[0])),
            "compensated": compensate,
            "recalibrated": recalibrate is not None,
            "versions": {"mho": mho.__version__, "torch": torch.__version__, "python": platform.python_version()},
            "command": command,
        },
    )


class _Points:
    """The swept labels, and the change of description that each means."""

    def __init__(
        self, ages: tuple[float, ...], scales: tuple[float, ...], bits: tuple[int, ...], hardware: Hardware | None
    ) -> None:
        self.ages, self.scales, self.bits, self.hardware = ages, scales, bits, hardware

    @property
    def count(self) -> int:
        return max(len(self.ages), 1) * len(self.scales) * len(self.bits)

    def under(self, hw: Hardware, scale: float, bits: int) -> Hardware:
        base = hw if self.hardware is None else self.hardware
        return with_bits(scale_hardware_noise(base, scale), bits)

    def largest(self, hw: Hardware) -> Hardware:
        """The description whose arrays take most: that of the loudest point."""
        return self.under(hw, max(self.scales), self.bits[0])


def _check_chips(chips: int) -> None:
    if isinstance(chips, bool) or not isinstance(chips, int) or chips < 1:
        raise InputError(f"evaluate: chips = {chips!r}: must be a whole number of at least 1.")


def chips_that_fit(model: nn.Module, chips: int, seed: int, points: _Points, memory_bytes: int | None) -> int:
    """How many of ``chips`` chips of ``model`` fit in ``memory_bytes`` (see :func:`evaluate`); 0: not even one."""
    places = [(site, getattr(layer, key)) for _, layer in analog_layers(model) for key, site in layer.sites.items()]
    budget = budget_bytes(memory_bytes, places[0][1].device) if places else None
    if (
        budget is None
        or chips * sum(at_most_bytes(points.largest(site.hw), w, site.op) for site, w in places) <= budget
    ):
        return chips
    oldest = max(points.ages, default=None)
    one = fabricate(model, 1, seed, age=oldest, hardware=points.largest, memory_bytes=0).substrate.arrays.chip_bytes
    return chips if one == 0 else min(budget // one, chips)


def _blocks(chips: int, stop: StopRule | None, fit: int) -> list[range]:
    """All chips at once, in blocks of as many as ``fit``, or in blocks between which a stop rule is asked."""
    size = max(fit, 1)
    if stop is not None:
        size = min(size, CHIPS_AT_ONCE)
    return [range(a, min(a + size, chips)) for a in range(0, chips, size)]


def _run_block(
    models: Sequence[nn.Module],
    loader: Iterable,
    block: range,
    seed: int,
    points: _Points,
    compensate: bool,
    recalibrate: Iterable | None,
    memory_bytes: int | None,
    tick: Callable[[int], None],
    done: int,
    one_of_many: bool,
) -> tuple[np.ndarray, int]:
    """Outcomes [seed, chip, age, scale, bits, image] of the chips of ``block``."""
    per_seed = []
    for model in models:
        per_bits = []
        for bits in points.bits:
            per_scale = []
            for scale in points.scales:
                per_age = []
                for age in points.ages or (None,):
                    lot = fabricate(
                        model,
                        block.stop,
                        seed,
                        age=age,
                        hardware=lambda hw, s=scale, b=bits: points.under(hw, s, b),
                        first=block.start,
                        memory_bytes=memory_bytes,
                    )
                    lot.one_of_many = one_of_many
                    if compensate:
                        lot = lot.compensated()
                    if recalibrate is not None:
                        lot = lot.recalibrated(recalibrate)
                    per_age.append(chip_outcomes(lot, loader))
                    del lot  # its arrays go before the next ones come
                    done += len(block)
                    tick(done)
                per_scale.append(np.stack(per_age, 1))
            per_bits.append(np.stack(per_scale, 2))
        per_seed.append(np.stack(per_bits, 3))
    return np.stack(per_seed), done


@torch.inference_mode()
def chip_outcomes(lot: Chips, loader: Iterable) -> np.ndarray:
    """Whether each chip classifies each image rightly: bool [chip, image]."""
    found = [(lot(x).argmax(-1) == y).cpu().numpy() for x, y in _labelled(loader)]
    return np.concatenate(found, 1)


@torch.inference_mode()
def clean_outcomes(model: nn.Module, loader: Iterable) -> np.ndarray:
    """Whether the network in eval mode, without noise, is right on each image: bool [image]."""
    was_training = model.training
    model.eval()
    try:
        return np.concatenate([(model(x).argmax(-1) == y).cpu().numpy() for x, y in _labelled(loader)])
    finally:
        model.train(was_training)


def _labelled(loader: Iterable) -> Iterator[tuple[Tensor, Tensor]]:
    seen = 0
    for batch in loader:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise InputError("evaluate: the loader must yield pairs (inputs, labels).")
        seen += len(batch[1])
        yield batch[0], batch[1]
    if seen == 0:
        raise InputError("evaluate: the loader yielded no image. Way out: a loader that can be read more than once.")


def _described_age(model: nn.Module, hardware: Hardware | None) -> float:
    if hardware is not None:
        return hardware.environment.t_s
    for _, layer in analog_layers(model):
        for site in layer.sites.values():
            return site.hw.environment.t_s
    return math.nan


def _hardware_name(model: nn.Module, hardware: Hardware | None) -> str:
    if hardware is not None:
        return hardware.name
    names = dict.fromkeys(s.hw.name for _, layer in analog_layers(model) for s in layer.sites.values())
    return ", ".join(names)


@contextmanager
def _ticker(progress: bool | Tick, total: int) -> Any:
    if callable(progress):
        yield lambda done: progress(done, total)
        return
    if not progress:
        yield lambda done: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("virtual chips"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("chips", total=total)
        yield lambda done: bar.update(task, completed=done)
