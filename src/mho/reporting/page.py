"""Sections to one HTML page that loads nothing: styles and drawings inside, system fonts, no scripts."""

import re
from collections.abc import Sequence
from html import escape as escape_html
from importlib.resources import files

from mho.errors import InputError
from mho.reporting.sections import Details, Figure, Hero, KeyEntry, Section, Stat, Table, Text
from mho.reporting.svg import SLOTS, check_svg, marker, with_prefix

# The browser enforces what the page promises: nothing is fetched, nothing runs.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

_SHAPES = {
    "o": '<circle cx="14" cy="6" r="3.4"/>',
    "s": '<rect x="10.8" y="2.8" width="6.4" height="6.4"/>',
    "^": '<path d="M14 1.8 17.8 9.2H10.2Z"/>',
    "D": '<path d="M14 1.6 18 6 14 10.4 10 6Z"/>',
    "v": '<path d="M14 10.2 17.8 2.8H10.2Z"/>',
    "P": '<path d="M12.5 2.4h3v2.1h2.1v3h-2.1v2.1h-3V7.5h-2.1v-3h2.1Z"/>',
}


def render(sections: Sequence[Section], *, title: str) -> str:
    """The page of ``sections`` as HTML. All text is escaped; ids of drawings are made unique.

    Raises :class:`InputError` for something that is no section, or a drawing that is active or refers
    outside itself.
    """
    body = "\n".join(_render(section, index) for index, section in enumerate(sections))
    style = files("mho.reporting").joinpath("page.css").read_text(encoding="utf-8")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="mho">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
<footer>Made by mho. This page is one file and loads nothing.</footer>
</main>
</body>
</html>
"""


def escape(text: str) -> str:
    """HTML of plain text; a number keeps its unit: no line break between them."""
    return re.sub(r"(?<=\d) (?=(?:%|s|dB|min)(?![\w-]))", "\u00a0", escape_html(text, quote=True))


def _render(section: Section, index: int) -> str:
    if isinstance(section, Hero):
        return _hero(section)
    if isinstance(section, Text):
        return (
            f"<section>{_heading(section.title)}{''.join(f'<p>{escape(p)}</p>' for p in section.paragraphs)}</section>"
        )
    if isinstance(section, Table):
        return _table(section)
    if isinstance(section, Figure):
        return _figure(section, index)
    if isinstance(section, Details):
        shown = " open" if section.open else ""
        summary, text = escape(section.summary), escape_html(section.text)
        body = f'<details{shown}><summary>{summary}</summary><pre tabindex="0">{text}</pre></details>'
        return _card(section.title, body)
    raise InputError(
        f"report: section {index} is a {type(section).__name__}. Fix: use Hero, Text, Table, Figure or Details."
    )


def _heading(title: str) -> str:
    return f"<h2>{escape(title)}</h2>" if title else ""


def _card(title: str, body: str) -> str:
    return f'<section class="card">{_heading(title)}{body}</section>'


def _hero(hero: Hero) -> str:
    over = f'<p class="over">{escape(hero.subtitle)}</p>' if hero.subtitle else ""
    lead = f'<p class="lead">{escape(hero.lead)}</p>' if hero.lead else ""
    stats = f'<dl class="stats">{"".join(map(_stat, hero.summary_rows))}</dl>' if hero.summary_rows else ""
    return f"<header>{over}<h1>{escape(hero.title)}</h1>{lead}{stats}</header>"


def _stat(stat: Stat) -> str:
    paint = f' style="--c: var(--s{stat.slot % len(SLOTS)})"' if stat.slot is not None else ""
    note = f'<dd class="note">{escape(stat.note)}</dd>' if stat.note else ""
    return f'<div{paint}><dt>{escape(stat.label)}</dt><dd class="value">{escape(stat.value)}</dd>{note}</div>'


def _table(table: Table) -> str:
    numeric = [index > 0 and all(_is_number(row[index]) for row in table.rows) for index in range(len(table.head))]
    kind = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f'<th scope="col"{k}>{escape(cell)}</th>' for cell, k in zip(table.head, kind, strict=True))
    rows = []
    for index, row in enumerate(table.rows):
        cells = "".join(f"<td{k}>{escape(cell)}</td>" for cell, k in zip(row[1:], kind[1:], strict=True))
        strong = ' class="strong"' if index in table.strong else ""
        rows.append(f'<tr{strong}><th scope="row">{escape(row[0])}</th>{cells}</tr>')
    caption = f'<p class="caption">{escape(table.caption)}</p>' if table.caption else ""
    name = escape(table.title or "Table")
    grid = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    # Scrolling boxes take the focus, so that a keyboard can scroll them.
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{grid}</div>'
    return _card(table.title, box + caption)


def _is_number(cell: str) -> bool:
    """Digits with what may stand around them: signs, units, an interval, or a dash for absence."""
    return cell in {"", "-", "\u2013"} or (any(c.isdigit() for c in cell) and not cell[0].isalpha() and len(cell) < 24)


def _figure(figure: Figure, index: int) -> str:
    name = figure.title or figure.caption[:40]
    label = f'role="img" aria-label="{escape(figure.alt)}"'
    drawings = []
    for kind, svg in (("wide", figure.svg), ("narrow", figure.narrow)):
        if svg:
            check_svg(svg, name)
            drawing = with_prefix(svg.strip(), f"f{index}{kind[0]}-")
            drawings.append(f'<svg class="{kind}" {label}{drawing.removeprefix("<svg")}')
    both = ' class="has-narrow"' if figure.narrow else ""
    key = f'<ul class="key">{"".join(map(_key_entry, figure.key))}</ul>' if figure.key else ""
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return _card(figure.title, f"{key}<figure{both}>{''.join(drawings)}{caption}</figure>")


def _key_entry(entry: KeyEntry) -> str:
    if entry.slot is None:
        sample = '<path d="M0 6H28" stroke="var(--ink)" stroke-width="1.5" stroke-dasharray="6 4.5"/>'
    else:
        paint = f"var(--s{entry.slot % len(SLOTS)})"
        sample = f'<g style="fill: {paint}"><path d="M0 6H28" style="stroke: {paint}" stroke-width="2.2"/>'
        sample += f"{_SHAPES[marker(entry.slot)]}</g>"
    return f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{sample}</svg>{escape(entry.name)}</li>'
