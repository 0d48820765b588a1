import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_demo import demo_run

import mho
import mho.reporting
from mho.errors import CheckpointError, InputError
from mho.evaluation.result import Result
from mho.reporting.api import report
from mho.reporting.page import render
from mho.reporting.run import RunData, run_report, run_sections
from mho.reporting.sections import Details, Figure, Hero, Stat, Table, Text
from mho.reporting.svg import check_svg

VOID = {"meta", "br", "link", "img", "input", "hr"}
ATTACK = '<script>alert("x")</script> & "quoted" \'single\''


class Page(HTMLParser):
    """Parses a page, checks that tags nest, and collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.refs: list[str] = []
        self.urls: list[str] = []
        self.labels: list[str] = []
        self.headings: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.stack.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self._attributes(attrs)

    def _attributes(self, attrs):
        found = dict(attrs)
        if "id" in found:
            self.ids.append(found["id"])
        for name, value in found.items():
            if name in {"href", "src", "xlink:href", "srcset", "action"}:
                (self.refs if value.startswith("#") else self.urls).append(value)
            self.refs += [f"#{ref}" for ref in re.findall(r"url\(#([^)]+)\)", value or "")]
        if found.get("role") == "img":
            self.labels.append(found["aria-label"])

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack and self.stack[-1] in {"h1", "h2"}:
            self.headings.append(data)
        if "style" not in self.stack:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def without_figures() -> RunData:
    none = {"curves_noise": None, "curves_age": None, "histogram": None, "training": None}
    return replace(demo_run(), **none, conductance_uS=None, dominance=None)


@pytest.fixture(scope="module")
def page_text(tmp_path_factory):
    return run_report(tmp_path_factory.mktemp("run") / "report.html", demo_run()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(page_text):
    return Page(page_text)


def test_the_page_loads_nothing(page_text, page):
    assert "http:" not in page_text
    assert "https:" not in page_text
    assert "//" not in re.sub(r"data:image/png;base64,[^\"]*", "", page_text)
    assert all(url.startswith("data:image/png;base64,") for url in page.urls)
    assert not {"script", "link", "iframe", "img", "object", "embed"} & set(page.tags)
    assert "@import" not in page_text
    assert "default-src 'none'" in page_text


def test_every_part_is_there(page):
    wanted = (
        "made-up <demo>",
        "Accuracy",
        "Accuracy against noise",
        "Every chip",
        "Accuracy against age",
        "Training",
        "Which noise dominates",
        "Noise sources",
        "Conductances of a layer",
        "How to repeat it",
        "Recipe",
    )
    assert tuple(page.headings) == wanted
    said = "97.52", "1 month", "torch 2.13.0", "2 min 50 s", "mho run mnist-mini", "Quantised digital", "epochs = 12"
    for text in said:
        assert text in page.words


def test_missing_parts_are_not_mentioned():
    sections = run_sections(RunData(name="bare", hardware="ideal"))
    page = Page(render(sections, title="bare"))
    assert page.headings == ["bare", "How to repeat it"]
    assert "svg" not in page.tags
    assert "None" not in page.words
    no_recipe = run_sections(replace(without_figures(), recipe_toml=None))
    titles = [getattr(section, "title", "") for section in no_recipe]
    assert "Recipe" not in titles
    assert "Noise sources" not in titles


def test_ids_are_unique_and_references_resolve(page):
    assert len(page.ids) == len(set(page.ids)) > 0
    assert {ref.removeprefix("#") for ref in page.refs} == set(page.ids)


def test_each_drawing_says_in_words_what_it_shows(page):
    assert len(page.labels) == 12  # six figures, wide and narrow
    assert all(len(label) > 40 for label in page.labels)
    assert "worst chip" in page.labels[0]


def test_figures_follow_the_page_and_use_no_colour_of_their_own(page_text):
    drawings = re.findall(r'<svg class="(?:wide|narrow)".*?</svg>', page_text, re.S)
    for drawing in drawings:
        plain = re.sub(r'href="data:[^"]*"', "", drawing)
        assert not re.search(r"(?:fill|stroke): #", plain)
        assert "var(--" in plain
        assert "DejaVu" not in plain
        assert "<style" not in plain
    style = page_text[: page_text.index("</style>")]
    used = set(re.findall(r"var\((--s\d|--ink|--muted|--rule|--card)\)", "".join(drawings)))
    assert used
    for name in used:
        # light, dark and print
        assert style.count(f"{name}:") == 3


def _luminance(color: str) -> float:
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    high, low = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_the_contrast_of_wcag_aa():
    css = Path(mho.reporting.__path__[0], "page.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in css.split("@media", 2)[:2])
    assert _contrast("#000000", "#ffffff") == pytest.approx(21.0)
    for theme in (light, dark):
        for ground in ("page", "card", "tint"):
            assert _contrast(theme["ink"], theme[ground]) >= 7
            assert _contrast(theme["muted"], theme[ground]) >= 4.5
        for slot in range(6):
            assert _contrast(theme[f"s{slot}"], theme["card"]) >= 3


def test_the_same_run_is_the_same_page(page_text, tmp_path):
    again = run_report(tmp_path / "again.html", demo_run()).read_text(encoding="utf-8")
    assert again == page_text


def test_all_text_is_escaped(tmp_path):
    table = Table(head=(ATTACK, "n"), rows=((ATTACK, ATTACK),), title=ATTACK, caption=ATTACK)
    drawing = Figure(svg='<svg viewBox="0 0 1 1"></svg>', caption=ATTACK, alt=ATTACK, title=ATTACK)
    sections = (
        Hero(title=ATTACK, subtitle=ATTACK, lead=ATTACK, summary_rows=(Stat(label=ATTACK, value=ATTACK, note=ATTACK),)),
        Text(paragraphs=(ATTACK,), title=ATTACK),
        table,
        drawing,
        Details(summary=ATTACK, text=ATTACK, title=ATTACK),
    )
    page = Page(report(tmp_path / "page.html", *sections).read_text(encoding="utf-8"))
    assert "script" not in page.tags
    # <title> and head 7, text 2, table 5, figure 2 (its alt is an attribute), details 3.
    assert page.words.count('alert("x")') == 19
    assert page.labels == [ATTACK]
    run = run_report(tmp_path / "run.html", replace(without_figures(), name=ATTACK, hardware=ATTACK, command=ATTACK))
    assert "script" not in Page(run.read_text(encoding="utf-8")).tags


def test_names_inside_drawings_are_escaped(tmp_path):
    groups = tuple(replace(group, name=ATTACK) for group in demo_run().histogram[:1])
    path = run_report(tmp_path / "run.html", replace(without_figures(), histogram=groups))
    page = Page(path.read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert ATTACK in page.words


@pytest.mark.parametrize(
    "bad",
    [
        "<p>no drawing</p>",
        "<svg><script>1</script></svg>",
        '<svg onload="x()"></svg>',
        '<svg><image href="https://example.org/a.png"/></svg>',
        "<svg><rect style=\"fill: url('https://example.org/a#b')\"/></svg>",
        '<svg><use href="other.svg#x"/></svg>',
        "<svg><style>*{}</style></svg>",
        '<svg><a href="javascript:x()">t</a></svg>',
    ],
)
def test_active_or_outward_drawings_are_refused(bad):
    with pytest.raises(InputError, match="Figure"):
        check_svg(bad, "bad")
    check_svg('<svg><text>only = https, on = 3</text><use href="#x"/></svg>', "good")


def test_an_unwritable_path_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match=r"report\.html.*Fix"):
        run_report(tmp_path / "file" / "report.html", RunData(name="a", hardware="ideal"))


def test_wrong_items_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot show a dict"):
        report(tmp_path / "page.html", {"mean": 1})
    with pytest.raises(InputError, match="nothing to show"):
        report(tmp_path / "page.html")
    with pytest.raises(InputError, match="2 cells under 1 heads"):
        Table(head=("a",), rows=(("b", "c"),))
    broken = RunData(name="a", hardware="b", summary={"hardware_aware": {"mean": 1.0}})
    with pytest.raises(InputError, match="no std, p5"):
        run_sections(broken)
    assert not (tmp_path / "page.html").exists()


def test_a_result_becomes_a_page_and_the_package_can_be_called(tmp_path):
    rng = np.random.default_rng(0)
    share = np.array([0.99, 0.95])[:, None, None, None]
    result = Result.of(
        rng.random((2, 5, 2, 3, 1, 200)) < share,
        clean=rng.random((2, 200)) < 0.98,
        seeds=(0, 1),
        ages_s=(0.0, 86400.0),
        noise_scales=(0.5, 1.0, 2.0),
        attrs={"model": "made-up MLP", "hardware": "pcm-hermes", "command": "mho evaluate"},
    )
    page = Page(mho.report(tmp_path / "result.html", result, Text(paragraphs=("A remark.",))).read_text())
    wanted = ["made-up MLP", "Accuracy against noise", "Accuracy against age", "Every chip", "Accuracy"]
    assert page.headings == [*wanted, "How to repeat it"]
    assert "0 s, noise x 1" in page.words.replace("\u00a0", " ")
    assert "A remark." in page.words
    single = Result.of(np.ones((1, 1, 1, 1, 1, 9), dtype=bool))
    assert Page(mho.report(tmp_path / "one.html", single).read_text()).headings == ["Evaluation", "Accuracy"]


def test_lines_that_are_left_out_are_said(tmp_path):
    outcomes = np.random.default_rng(0).random((1, 3, 2, 1, 7, 50)) < 0.9
    result = Result.of(outcomes, ages_s=(1.0, 60.0), bits=(0, 2, 3, 4, 5, 6, 7))
    page = Page(report(tmp_path / "page.html", result).read_text(encoding="utf-8"))
    assert "The first 6 of 7 combinations; the table has all." in page.words
    assert "1 min, 7 bits" in page.words.replace("\u00a0", " ")


def test_a_package_without_a_use_costs_nothing():
    code = "import mho.reporting, sys; assert not {'matplotlib', 'xarray', 'rich', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'tabel'"):
        mho.reporting.tabel  # noqa: B018
