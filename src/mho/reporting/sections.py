"""Sections of a report page: plain text in, no HTML. ``page.py`` renders and escapes them."""

from dataclasses import dataclass

from mho.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Stat:
    """One number of the head of the page. ``slot``: colour of the network it belongs to."""

    label: str
    value: str
    note: str = ""
    slot: int | None = None


@dataclass(frozen=True, kw_only=True)
class Hero:
    """Head of the page: what this is, one sentence, and the few numbers that matter."""

    title: str
    summary_rows: tuple[Stat, ...] = ()
    subtitle: str = ""
    lead: str = ""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Paragraphs under an optional heading."""

    paragraphs: tuple[str, ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """``rows`` of cells under ``head``; the first column names the row. ``strong``: rows to stress.

    Raises :class:`InputError` for a row whose length is not that of the head.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    caption: str = ""
    strong: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.head):
                raise InputError(
                    f"Table {self.title!r}: row {index} has {len(row)} cells under {len(self.head)} heads. "
                    "Fix: give one cell a head."
                )


@dataclass(frozen=True, kw_only=True)
class KeyEntry:
    """One line of a figure's key: a name and how it is drawn. ``slot`` None: the baseline's dashes."""

    name: str
    slot: int | None


@dataclass(frozen=True, kw_only=True)
class Figure:
    """An inline SVG. ``alt`` says in words what it shows; ``narrow``: the drawing for phones, if another.

    The SVG must not refer to anything outside itself (checked when the page is made).
    """

    svg: str
    caption: str
    alt: str
    narrow: str = ""
    title: str = ""
    key: tuple[KeyEntry, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Details:
    """Preformatted text behind a line that opens it (a recipe, a log)."""

    summary: str
    text: str
    title: str = ""
    open: bool = False


Section = Hero | Text | Table | Figure | Details
