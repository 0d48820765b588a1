"""The error of a twin over the repeatability of its device, on a pattern that was not used for the fit."""

import math

from mho.lab.twin.cells import ReadBack
from mho.lab.twin.likelihood import Parameters, expected_code
from mho.lab.twin.measurements import Measurements
from mho.lab.twin.signals import codes, reference_of


def error_over_noise(
    data: Measurements, p: Parameters, noise: ReadBack | None, bits: tuple[int | None, int | None]
) -> float | None:
    """sqrt(mean (y - twin)^2 / mean var(y)) over the pairs that were held out; ``None`` where there are none.

    y: one read, in codes; twin: the mean of the law that it gives for this input; var: unbiased over the repeats of an
    input, at least two valid ones. Of a device that never differs from itself one knows a current to a step of its
    converter: var is then LSB^2 / 12.
    """
    error = spread = 0.0
    errors = spreads = 0
    top = 1
    for pair in data.of("held-out"):
        repeats = len(pair.currents_uA)
        law = codes(data, pair, reference_of(data, data.writings[pair.writing]), noise, bits)
        top = law.levels
        shape = (repeats, *pair.currents_uA.shape[1:])
        y = (law.code.double() / law.levels).reshape(shape)
        w = law.weight.reshape(shape)
        mean = expected_code(law, p).reshape(shape)
        error += float((w * (y - mean) ** 2).sum())
        errors += int(w.sum())
        count = w.sum(0)
        own = (w * y).sum(0) / count.clamp_min(1)
        enough = count >= 2
        spread += float((((w * (y - own) ** 2).sum(0) / (count - 1).clamp_min(1)) * enough).sum())
        spreads += int(enough.sum())
    if not errors or not spreads:
        return None
    floor = top**-2 / 12 if repeats_are_equal(data) else spread / spreads
    return math.sqrt(error / errors / floor)


def repeats_are_equal(data: Measurements) -> bool:
    """Whether no held-out input ever gave two different numbers: a device without noise."""
    reads = [p.currents_uA for p in data.of("held-out")]
    return bool(reads) and all(bool((y == y[:1]).logical_or(y.isnan()).all()) for y in reads)
