"""Figures of accuracy: against noise, against age, over chips, during training."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mho.errors import InputError
from mho.reporting.sections import Figure, KeyEntry
from mho.reporting.series import Baseline, Curve, Floats, Group, History, with_slots
from mho.reporting.svg import INK, MUTED, PAPER, RULE, Canvas, color, draw_both, marker
from mho.units import duration_text

_BAND = "Line: mean over chips. Band: 5th to 95th percentile. Open marks: the worst chip."


def accuracy_vs_noise(
    curves: Sequence[Curve],
    baseline: Baseline | None = None,
    *,
    xlabel: str = "Noise, times the described level",
    title: str = "Accuracy against noise",
    caption: str = "",
) -> Figure:
    """Accuracy in percent against the noise level: mean, band over chips, worst chip, digital baseline."""
    levels = _points(curves)
    labels = [f"{level:g}" for level in levels]

    def ticks(axes: Axes, canvas: Canvas) -> None:
        kept = _room_for(levels, labels, canvas)
        axes.set_xticks(levels[kept], [labels[index] for index in kept])
        axes.set_xlabel(xlabel)

    return _accuracy(curves, baseline, ticks, title, caption, labels)


def accuracy_vs_age(
    curves: Sequence[Curve],
    baseline: Baseline | None = None,
    *,
    title: str = "Accuracy against age",
    caption: str = "",
) -> Figure:
    """As :func:`accuracy_vs_noise` with ``x`` the age in seconds on a log axis, labelled as people say it.

    An age of 0 s, which a log axis cannot hold, stands a decade left of the first other age.
    """
    ages = _points(curves)
    if ages[0] < 0:
        raise InputError(f"accuracy_vs_age: age {ages[0]} s. Fix: seconds since programming, not negative.")
    later = ages[ages > 0]
    zero_at = float(later[0]) / 10.0 if later.size else 1.0
    places = np.where(ages > 0, ages, zero_at)
    labels = [duration_text(float(age)) for age in ages]
    moved = [Curve(c.name, np.where(c.x > 0, c.x, zero_at), c.accuracy, c.slot) for c in curves]

    def ticks(axes: Axes, canvas: Canvas) -> None:
        axes.set_xscale("log")
        axes.margins(x=0.06)
        kept = _room_for(np.log10(places), labels, canvas)
        axes.set_xticks(places[kept], [labels[index] for index in kept])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("Age since programming")

    return _accuracy(moved, baseline, ticks, title, caption, labels)


def _points(curves: Sequence[Curve]) -> Floats:
    if not curves:
        raise InputError("no curves to draw. Fix: leave the figure out, or give one Curve or more.")
    return np.unique(np.concatenate([curve.x for curve in curves]))


def _room_for(places: Floats, labels: Sequence[str], canvas: Canvas) -> list[int]:
    """Which labels to keep so that none touches the next; the last one always stays."""
    span = float(places[-1] - places[0]) or 1.0
    # 0.62 em a character of the widest usual system font; 85 % of the width is axis.
    inches = [0.62 * canvas.font / 72 * (len(label) + 2) for label in labels]
    at = [float(place - places[0]) / span * 0.85 * canvas.width for place in places]
    kept = [len(labels) - 1]
    for index in range(len(labels) - 2, -1, -1):
        if at[kept[0]] - at[index] >= (inches[kept[0]] + inches[index]) / 2:
            kept.insert(0, index)
    return kept


def _accuracy(
    curves: Sequence[Curve],
    baseline: Baseline | None,
    finish: Callable[[Axes, Canvas], object],
    title: str,
    caption: str,
    labels: Sequence[str],
) -> Figure:
    shown = with_slots(curves)

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        if baseline is not None:
            axes.axhline(baseline.percent, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        for curve in shown:
            _draw_curve(axes, curve)
        axes.set_ylabel("Accuracy, %")
        finish(axes, canvas)

    wide, narrow = draw_both(draw, 3.9, 3.3)
    spans = "; ".join(
        f"{c.name}: mean {c.accuracy[0].mean():.1f} % at {labels[0]} to {c.accuracy[-1].mean():.1f} % at {labels[-1]}, "
        f"worst chip {c.accuracy.min():.1f} %"
        for c in shown
    )
    reference = f"; {baseline.name}: {baseline.percent:.1f} %" if baseline is not None else ""
    key = tuple(KeyEntry(name=c.name, slot=c.slot) for c in shown)
    if baseline is not None:
        key += (KeyEntry(name=baseline.name, slot=None),)
    text = f"{caption} {_BAND}".strip()
    return Figure(svg=wide, narrow=narrow, title=title, caption=text, alt=f"{title}. {spans}{reference}.", key=key)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    paint, sign = color(curve.slot or 0), marker(curve.slot or 0)
    if curve.accuracy.shape[1] > 1:
        low, high = np.quantile(curve.accuracy, [0.05, 0.95], axis=1)
        axes.fill_between(curve.x, low, high, color=paint, alpha=0.16, linewidth=0)
        worst = curve.accuracy.min(axis=1)
        axes.plot(curve.x, worst, sign, color=paint, markersize=4, markerfacecolor=PAPER, markeredgewidth=1.0)
    axes.plot(curve.x, curve.accuracy.mean(axis=1), color=paint, linewidth=1.9, marker=sign, markersize=5)


def chip_histogram(
    groups: Sequence[Group],
    baseline: Baseline | None = None,
    *,
    title: str = "Every chip",
    caption: str = "",
) -> Figure:
    """Histogram over chips of the accuracy in percent, one row a network on one axis, with a tick a chip."""
    if not groups:
        raise InputError("no groups to draw. Fix: leave the figure out, or give one Group or more.")
    shown = with_slots(groups)
    edges = _edges(np.concatenate([group.accuracy for group in shown]), baseline)

    def draw(canvas: Canvas) -> None:
        rows = canvas.figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for axes, group in zip(rows, shown, strict=True):
            _draw_group(axes, group, edges, baseline)
        rows[-1].set_xlabel("Accuracy of a chip, %")

    height = 0.6 + 1.2 * len(shown)
    wide, narrow = draw_both(draw, height, height)
    numbers = "; ".join(
        f"{g.name}: {len(g.accuracy)} chips, mean {g.accuracy.mean():.1f} %, worst {g.accuracy.min():.1f} %, "
        f"best {g.accuracy.max():.1f} %"
        for g in shown
    )
    key = () if baseline is None else (KeyEntry(name=baseline.name, slot=None),)
    text = f"{caption} Bars: number of chips. Ticks below: each chip.".strip()
    return Figure(svg=wide, narrow=narrow, title=title, caption=text, alt=f"{title}. {numbers}.", key=key)


def _edges(accuracy: Floats, baseline: Baseline | None) -> Floats:
    low, high = float(accuracy.min()), float(accuracy.max())
    if baseline is not None:
        low, high = min(low, baseline.percent), max(high, baseline.percent)
    room = max(0.04 * (high - low), 0.05)
    return np.linspace(low - room, high + room, 41)


def _draw_group(axes: Axes, group: Group, edges: Floats, baseline: Baseline | None) -> None:
    paint = color(group.slot or 0)
    counts, _ = np.histogram(group.accuracy, bins=edges)
    axes.bar(
        edges[:-1], counts, width=np.diff(edges), align="edge", color=paint, alpha=0.75, edgecolor=PAPER, linewidth=0.8
    )
    tallest = max(int(counts.max()), 1)
    axes.plot(group.accuracy, np.full_like(group.accuracy, -0.10 * tallest), "|", color=paint, markersize=7)
    if baseline is not None:
        axes.axvline(baseline.percent, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.set_title(group.name, loc="left", color=INK, fontsize="medium", pad=3)
    axes.set_ylim(-0.2 * tallest, 1.12 * tallest)
    axes.set_yticks([0, tallest])
    axes.spines["bottom"].set_color(RULE)
    axes.set_xlim(edges[0], edges[-1])


def training_curves(
    histories: Sequence[History],
    *,
    ylabel: str = "Validation accuracy, %",
    title: str = "Training",
    caption: str = "",
) -> Figure:
    """A quantity against the epoch, one line a network."""
    if not histories:
        raise InputError("no histories to draw. Fix: leave the figure out, or give one History or more.")
    shown = with_slots(histories)

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        for history in shown:
            slot = history.slot or 0
            every = max(1, len(history.epochs) // 12)
            axes.plot(
                history.epochs,
                history.values,
                color=color(slot),
                linewidth=1.8,
                marker=marker(slot),
                markersize=4,
                markevery=every,
            )
        axes.set_xlabel("Epoch")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        axes.tick_params(axis="x", labelcolor=MUTED)

    wide, narrow = draw_both(draw, 3.2, 3.0)
    ends = "; ".join(f"{h.name}: {h.values[0]:.4g} to {h.values[-1]:.4g} at epoch {h.epochs[-1]:g}" for h in shown)
    key = tuple(KeyEntry(name=h.name, slot=h.slot) for h in shown)
    return Figure(svg=wide, narrow=narrow, title=title, caption=caption, alt=f"{title}, {ylabel}. {ends}.", key=key)
