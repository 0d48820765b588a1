"""From a matplotlib figure to an inline SVG that follows the page: its font, its colours, its width.

Figures are drawn in sentinel colours; each becomes a CSS variable, so that one drawing serves light,
dark and print.
"""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any, Literal

from matplotlib import style
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import FuncFormatter, LogFormatterSciNotation

from mho.errors import InputError

INK, MUTED, RULE, PAPER = "#010203", "#020304", "#030405", "#040506"
SLOTS = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05", "#0a0b06")
MARKERS = ("o", "s", "^", "D", "v", "P")
_VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", PAPER: "--card"} | {
    color: f"--s{index}" for index, color in enumerate(SLOTS)
}
_FONT = re.compile(r"'DejaVu Sans'[^;\"]*")
_FORBIDDEN_TAGS = frozenset({"script", "style", "foreignobject", "iframe", "object", "embed", "link", "a", "animate"})

Layout = Literal["wide", "narrow"]


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """An empty figure of one layout; sizes in inches, one inch being 72 units of the SVG."""

    figure: MplFigure
    layout: Layout
    width: float
    font: float


def color(slot: int) -> str:
    """The sentinel colour of a network's slot (they repeat after six)."""
    return SLOTS[slot % len(SLOTS)]


def marker(slot: int) -> str:
    """The marker of a slot: colour is never the only difference."""
    return MARKERS[slot % len(MARKERS)]


def draw_both(draw: Callable[[Canvas], None], height_wide: float, height_narrow: float) -> tuple[str, str]:
    """``draw`` on a wide canvas and on one for phones; returns both SVGs.

    Settings of matplotlib hold for this call only.
    """
    return _draw(draw, "wide", 8.4, height_wide, 9.0), _draw(draw, "narrow", 4.1, height_narrow, 10.2)


def _draw(draw: Callable[[Canvas], None], layout: Layout, width: float, height: float, font: float) -> str:
    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "mho",
        "text.parse_math": False,
        "svg.id": None,
        "font.family": "DejaVu Sans",
        "font.size": font,
        "text.color": INK,
        "axes.edgecolor": RULE,
        "axes.labelcolor": MUTED,
        "xtick.color": RULE,
        "ytick.color": RULE,
        "xtick.labelcolor": MUTED,
        "ytick.labelcolor": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": RULE,
        "grid.linewidth": 0.7,
        "axes.axisbelow": True,
        "ytick.major.size": 0.0,
        "legend.frameon": False,
    }
    # A user's own matplotlibrc must not change the page.
    with style.context(["default", settings]):
        figure = MplFigure(figsize=(width, height), layout="constrained")
        figure.patch.set_visible(False)
        draw(Canvas(figure=figure, layout=layout, width=width, font=font))
        for axes in figure.axes:
            axes.patch.set_visible(False)
            for axis in (axes.xaxis, axes.yaxis):
                # Powers of ten are mathematics to matplotlib, and nothing here reads mathematics.
                if isinstance(axis.get_major_formatter(), LogFormatterSciNotation):
                    axis.set_major_formatter(FuncFormatter(_power_of_ten))
        stream = io.StringIO()
        FigureCanvasSVG(figure)
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(stream.getvalue())


def _power_of_ten(value: float, _: object = None) -> str:
    """ "10^-3" with small raised digits; other numbers plainly."""
    exponent = math.log10(value) if value > 0 else math.nan
    if exponent != round(exponent, 6) or not exponent.is_integer():
        return f"{value:g}"
    return "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _inline(document: str) -> str:
    """The <svg> element alone: no prolog, no namespaces (HTML knows them), variables for colours."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    # matplotlib's style sheet would act on the whole page; its two rules move to the root.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.S)
    head, body = svg.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    if box is None:
        raise InputError("matplotlib made an SVG without a viewBox. Fix: use matplotlib 3.9 or later.")
    body = body.replace("xlink:href=", "href=")
    for sentinel, variable in _VARIABLES.items():
        body = body.replace(sentinel, f"var({variable})")
    body = _FONT.sub("var(--sans)", body)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', body))
    names = {name for pair in used for name in pair if name}
    body = re.sub(r' id="([^"]+)"', lambda found: found.group() if found.group(1) in names else "", body)
    body = re.sub(r"\n\s*", "\n", body)
    return f'<svg {box.group()} stroke-linejoin="round" stroke-linecap="butt">{body.strip()}'


class _Inspector(HTMLParser):
    """Collects what an inline SVG must not contain."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _FORBIDDEN_TAGS:
            self.faults.append(f"<{tag}>")
        for name, value in attrs:
            text = "".join((value or "").split()).lower()
            loads = name in {"href", "xlink:href", "src"} and not text.startswith(("#", "data:image/png;base64,"))
            if loads or name.startswith("on") or re.search(r"url\([\"']?(?!#)", text):
                self.faults.append(f"{name}={value!r}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_decl(self, decl: str) -> None:
        self.faults.append(f"<!{decl}>")

    def handle_pi(self, data: str) -> None:
        self.faults.append(f"<?{data}>")


def check_svg(svg: str, name: str) -> None:
    """Raise :class:`InputError` unless ``svg`` is one element that runs nothing and loads nothing."""
    text = svg.strip()
    if not (text.startswith("<svg") and text.endswith("</svg>")):
        raise InputError(
            f"Figure {name!r}: svg must be one <svg> element without a prolog. Fix: cut what is around it."
        )
    inspector = _Inspector()
    inspector.feed(text)
    if inspector.faults:
        raise InputError(
            f"Figure {name!r}: the svg is active or refers outside itself: {inspector.faults[0][:80]}. "
            "Fix: remove scripts, style sheets and links; embed images as data:image/png;base64."
        )


def with_prefix(svg: str, prefix: str) -> str:
    """``svg`` with each id, and each reference to one, prefixed: ids stay unique on a page of many figures."""
    svg = re.sub(r'(?<![\w-])id="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r'href="#', f'href="#{prefix}', svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)
