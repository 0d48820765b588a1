"""Accuracy against joules as a figure: every point, the front, the digital networks."""

import math
from collections.abc import Sequence

import numpy as np

from mho.costs.front import Point, front
from mho.costs.text import quantity_text
from mho.errors import InputError
from mho.reporting.sections import Figure, KeyEntry
from mho.reporting.svg import Canvas, color, draw_both, marker


def accuracy_front_figure(
    analog: Sequence[Point],
    digital: Sequence[Point] = (),
    *,
    title: str = "Accuracy against energy",
    caption: str = "",
    worst: bool = False,
) -> Figure:
    """Mean accuracy over chips (percent) against J an inference (log axis); bars: 5th percentile, low to high joules.

    ``worst``: points and front are those of the 5th percentile over chips.
    Raises :class:`InputError` without analog points.
    """
    if not analog:
        raise InputError("accuracy_front_figure: no analog point. Fix: leave the figure out.")
    best = front(analog, worst=worst)

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        axes.set_xscale("log")
        for points, slot, size in ((analog, 0, 3.5), (digital, 1, 6.0)):
            joules = np.array([p.energy_J.typical for p in points])
            percent = np.array([_shown(p, worst) for p in points])
            axes.plot(joules, percent, linestyle="", marker=marker(slot), markersize=size, color=color(slot))
        line = np.array([(p.energy_J.typical, _shown(p, worst), p.p5) for p in best])
        axes.plot(line[:, 0], line[:, 1], drawstyle="steps-post", color=color(0), linewidth=1.4)
        axes.vlines(line[:, 0], line[:, 2], line[:, 1], color=color(0), linewidth=0.8)
        for p in (best[-1], *digital):
            axes.hlines(_shown(p, worst), p.energy_J.low, p.energy_J.high, color=color(p in digital), linewidth=0.6)
        low = min(*(p.p5 for p in best), *(p.accuracy for p in digital), best[0].accuracy)
        axes.set_ylim(max(0.0, low - 2), min(100.5, max(p.accuracy for p in (*analog, *digital)) + 1))
        low_J, high_J = axes.get_xlim()
        decades = [10.0**k for k in range(math.ceil(math.log10(low_J)), math.floor(math.log10(high_J)) + 1)]
        axes.set_xticks(decades, [quantity_text(d, "J") for d in decades])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("Energy of one inference")
        axes.set_ylabel("Accuracy, %")

    wide, narrow = draw_both(draw, 3.0, 2.8)
    said = "; ".join(f"{p.label} {p.energy_J.typical:.3g} J {_shown(p, worst):.2f} %" for p in (*best, *digital))
    down = "" if worst else ", thin bars down to the 5th percentile of chips"
    told = f"Line: the analog front{down}; sideways from low to high constants."
    key = [KeyEntry(name=f"analog, {'5th percentile of chips' if worst else 'mean over chips'}", slot=0)]
    key += [KeyEntry(name="digital: fp32, int8, int4", slot=1)] if digital else []
    return Figure(
        svg=wide,
        narrow=narrow,
        title=title,
        caption=f"{caption} {told}".strip(),
        alt=f"{title}: {said}.",
        key=tuple(key),
    )


def _shown(point: Point, worst: bool) -> float:
    return point.p5 if worst else point.accuracy
