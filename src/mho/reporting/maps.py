"""Figures of the hardware: conductances of one layer, and which noise dominates."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from numpy.typing import ArrayLike

from mho.errors import InputError
from mho.reporting.sections import Figure
from mho.reporting.series import DominanceRow
from mho.reporting.svg import INK, MUTED, RULE, Canvas, color, draw_both

_MAX_CELLS = 256
# Fewer colours than the eye separates in noise; fewer bytes.
_COLORS = 64
_FLOOR_STEP_DB = 10.0


def conductance_map(
    g_uS: ArrayLike, *, layer: str = "", title: str = "Conductances", caption: str = "", unit: str = "uS"
) -> Figure:
    """Map of ``g_uS[row, column]``, an embedded image with its colour bar.

    Of an axis longer than 256 cells every k-th one is shown, and the caption says so; negative values
    (signed cells) get a scale that is symmetric about zero. Raises :class:`InputError` where it is not
    a finite matrix.
    """
    g = np.asarray(g_uS, dtype=np.float64)
    if g.ndim != 2 or g.size == 0 or not np.isfinite(g).all():
        raise InputError(
            f"conductance_map: shape {g.shape}, needs a finite matrix [row, column]. Fix: one tile or layer."
        )
    steps = tuple(-(-size // _MAX_CELLS) for size in g.shape)
    cells = g[:: steps[0], :: steps[1]]
    signed = bool(g.min() < 0)
    top = float(np.abs(g).max()) or 1.0
    low = -top if signed else 0.0
    shape = min(max(g.shape[0] / g.shape[1], 0.3), 0.9)

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        extent = (-0.5, g.shape[1] - 0.5, g.shape[0] - 0.5, -0.5)
        image = axes.imshow(
            cells,
            cmap=mpl.colormaps["RdBu_r" if signed else "cividis"].resampled(_COLORS),
            vmin=low,
            vmax=top,
            aspect="auto",
            interpolation="none",
            extent=extent,
        )
        axes.grid(visible=False)
        axes.set_xlabel("Column (output)")
        axes.set_ylabel("Row (input)")
        for spine in axes.spines.values():
            spine.set_visible(False)
        upright = canvas.layout == "wide"
        bar = canvas.figure.colorbar(
            image, ax=axes, location="right" if upright else "top", shrink=1.0, aspect=26, pad=0.02
        )
        bar.set_label(unit.replace("uS", "\u00b5S"), color=MUTED)
        bar.outline.set_visible(False)
        bar.ax.tick_params(color=RULE, labelcolor=MUTED, size=2)

    wide, narrow = draw_both(draw, 0.7 + 7.0 * shape * 0.75, 1.3 + 4.0 * shape)
    thinned = [f"1 {what} in {k}" for k, what in zip(steps, ("row", "column"), strict=True) if k > 1]
    where = f"{layer}: " if layer else ""
    text = (
        f"{where}{g.shape[0]} rows x {g.shape[1]} columns{', ' + ' and '.join(thinned) + ' shown' if thinned else ''}."
    )
    alt = (
        f"Map of the conductances {('of ' + layer) if layer else ''}: {g.shape[0]} by {g.shape[1]}, mean "
        f"{g.mean():.3g}, from {g.min():.3g} to {g.max():.3g} {unit}."
    )
    return Figure(svg=wide, narrow=narrow, title=title, caption=f"{text} {caption}".strip(), alt=alt)


def dominance_bars(rows: Sequence[DominanceRow], *, title: str = "Which noise dominates", caption: str = "") -> Figure:
    """Level of each noise source relative to full scale, in dB, loudest first; absent ones are named too."""
    if not rows:
        raise InputError("dominance_bars: no rows. Fix: leave the figure out, or give one DominanceRow or more.")
    ordered = sorted(rows, key=lambda row: -row.level_dB)
    levels = [row.level_dB for row in ordered if np.isfinite(row.level_dB)]
    floor = _FLOOR_STEP_DB * (np.floor(min(levels, default=-10.0) / _FLOOR_STEP_DB) - 1)
    ceiling = max(0.0, *levels) if levels else 0.0

    def draw(canvas: Canvas) -> None:
        axes = canvas.figure.add_subplot()
        places = np.arange(len(ordered), dtype=np.float64)
        for place, row in zip(places, ordered, strict=True):
            present = np.isfinite(row.level_dB)
            if present:
                paint = color(0) if place == 0 else MUTED
                axes.barh(place, row.level_dB - floor, left=floor, height=0.26, color=paint, alpha=0.85, linewidth=0)
            value = f"{row.level_dB:.1f} dB".replace("-", "\u2212") if present else "none"
            axes.text(floor, place - 0.3, row.source, color=INK, va="bottom", ha="left")
            axes.text(ceiling, place - 0.3, value, color=INK, va="bottom", ha="right")
        axes.set_ylim(len(ordered) - 0.6, -0.85)
        axes.set_xlim(floor, ceiling)
        axes.set_yticks([])
        axes.grid(visible=True, axis="x")
        axes.set_xlabel("dB relative to full scale")

    height = 0.55 + 0.44 * len(ordered)
    wide, narrow = draw_both(draw, height, height + 0.05 * len(ordered))
    said = "; ".join(
        f"{r.source} {r.level_dB:.1f} dB" if np.isfinite(r.level_dB) else f"{r.source} none" for r in ordered
    )
    notes = " ".join(f"{row.source}: {row.note}." for row in ordered if row.note)
    text = f"{caption} Longer is louder; 20 dB is a factor of ten in amplitude. {notes}".strip()
    return Figure(svg=wide, narrow=narrow, title=title, caption=text, alt=f"{title}, relative to full scale: {said}.")
