"""What notebooks draw: everything is escaped, and the numbers are those of the results."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from triptych import Encoder, Index
from triptych.eval.tables import Table, TableCell, TableRow
from triptych.explain import explain
from triptych.notebook import NotebookProgress, bars, html_table, in_notebook
from triptych.train.card import Change
from triptych.train.run import Outcome
from triptych.types import Hit, Hits

EVIL = "<script>alert('x')</script> & \"quoted\""


class Page(HTMLParser):
    """The tags and the texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def assert_harmless(html: str) -> Page:
    page = Page(html)
    assert set(page.tags) <= {"table", "caption", "b", "thead", "tbody", "tr", "th", "td", "div", "small"}
    assert EVIL in page.texts
    return page


def test_every_place_of_a_table_is_escaped() -> None:
    for html in (
        html_table([EVIL], [[1]]),
        html_table(["a"], [[EVIL]]),
        html_table(["a"], [[1.5]], EVIL),
        html_table(["a"], [[None]], "", [EVIL]),
    ):
        assert_harmless(html)


def test_hits_are_a_list_that_is_drawn_with_each_score_as_a_bar() -> None:
    first = Hit("a", 1.5, {"dense": 0.8, "lexical": 0.5}, EVIL)
    hits = Hits([first, Hit(EVIL, 0.6, {"dense": 0.4, "lexical": 0.0}, "word " * 100)])
    assert hits == list(hits)
    page = assert_harmless(hits._repr_html_())
    for text in ("1.500", "0.800", "0.500", "0.400", "dense", "lexical"):
        assert text in page.texts
    assert "multi" not in page.texts
    assert max(map(len, page.texts)) <= 240
    assert [
        bar and round(bar.share, 3)
        for bar in bars({"dense": 0.4}, {"dense": 0.8, "multi": 1}, ["dense", "multi"])
    ] == [
        0.5,
        None,
    ]
    assert_harmless(first._repr_html_())
    assert Page(Hits()._repr_html_()).tags[0] == "table"


def test_a_search_and_its_explanation_and_encodings_are_drawn(encoder: Encoder, tmp_path: Path) -> None:
    with Index.create(tmp_path / "my.index", encoder, engine="exact") as index:
        index.add(["a", "b"], [f"the world of text {EVIL}", "hello world"])
        found = index.search("world")
        several = index.search(["world", "hello"], k=1)
    assert "alert" in found._repr_html_()  # type: ignore[attr-defined]
    assert "<script>" not in found._repr_html_()  # type: ignore[attr-defined]
    assert all("table" in hits._repr_html_() for hits in several)  # type: ignore[attr-defined]
    [one] = explain(encoder, "world <b>", ["hello <b> world"])
    page = Page(one._repr_html_())
    assert "b" not in page.tags or page.tags.count("b") == 1  # the caption's own
    assert {"world", f"{one.scores['dense']:.4g}"} <= set(page.texts)
    encoded = encoder.encode(["one text", "another"])
    texts = Page(encoded._repr_html_()).texts
    assert "Encoded: 2 texts" in texts
    for head, width in encoder.widths.items():
        assert {head, f"{width:,}"} <= set(texts)


def test_tables_of_evaluations_and_of_training_are_drawn() -> None:
    table = Table("t", ["nDCG"], [TableRow(EVIL, [TableCell("51.2", True, True)])], ["* differs"])
    assert "51.2*" in assert_harmless(table._repr_html_()).texts
    outcome = Outcome(3, 3, {}, {}, 2, Path("best"), {}, changes=[Change(EVIL, 0.5, 0.6, 0.01)], queries=12)
    page = assert_harmless(outcome._repr_html_())
    assert {"0.5000", "0.6000", "+0.1000*", "0.01"} <= set(page.texts)


def test_progress_is_one_picture_for_each_stage_that_ends_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []

    def display(picture: str, *, display_id: bool) -> Any:
        assert display_id
        drawn.append([picture])
        return SimpleNamespace(update=drawn[-1].append)

    module = SimpleNamespace(HTML=lambda text: text, display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    bar = NotebookProgress()
    for done in range(1001):
        bar("encoding <i>", done, 1000)
    bar("reading", 7, None)
    assert len(drawn) == 2
    assert len(drawn[0]) < 100
    assert drawn[0][-1] == "<progress max='1000' value='1000'></progress> encoding &lt;i&gt;: 1,000 / 1,000"
    bar("reading", 8, None)
    bar._finish(None)
    bar._finish(None)
    assert drawn[1] == [f"<progress></progress> reading: {done}" for done in (7, 8)]


def test_this_is_no_notebook() -> None:
    assert not in_notebook()
