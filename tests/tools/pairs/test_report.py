"""Tables, examples and the picture are the tally's counts."""

from pathlib import Path

import pytest

from triptych.errors import InputError
from triptych.tools.pairs import report
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.report import DroppedPair, PairCell, PairCounts
from triptych.tools.pairs.settings import PairSettings, with_changes


def made() -> PairCounts:
    tally = PairCounts()
    for source, lang, to, count, dropped, name in (
        ("a", "en", "en", 6, 1, "length"),
        ("a", "en", "de", 3, 2, "copy"),
        ("b", "de", "de", 2, 0, ""),
        ("b", "fr", "fr", 1, 1, "copy"),
    ):
        pair = WeakPair(f"{source} {lang}", "p", "title-body", source, "k", lang, to)
        tally.made[PairCell.of(pair)] += count
        tally.kept[PairCell.of(pair)] += count - dropped
        for _ in range(dropped):
            tally.drop(name, pair, "why")
    tally.texts["documents", "en", "a"] = 4
    tally.texts["documents", "de", "b"] = 1
    return tally


def test_rows_sum_up_and_the_rest_is_others() -> None:
    tally = made()
    assert tally.filters == ["length", "copy"]
    assert report.rows(tally, "source") == [("a", 9, 6, (1, 2)), ("b", 3, 2, (0, 1))]
    assert report.rows(tally, "kind") == [("title-body", 12, 8, (1, 3))]
    assert report.rows(tally, "language", 2) == [("en", 6, 5, (1, 0)), ("others", 6, 3, (0, 3))]
    assert [row.name for row in report.rows(tally, "language", 4)] == ["en", "en>de", "de", "fr"]
    assert report.total(tally) == ("all", 12, 8, (1, 3))


def test_the_summary_has_the_totals() -> None:
    assert report.summary(made()) == {
        "made": 12,
        "kept": 8,
        "dropped": {"length": 1, "copy": 3},
        "languages": 2,
        "language_pairs": 1,
        "texts": {"documents": 5},
    }
    assert report.summary(PairCounts())["made"] == 0


def test_there_is_an_example_for_each_filter_from_where_it_dropped_most() -> None:
    assert report.examples(made()) == [
        ("length", PairCell("en", "a", "title-body"), DroppedPair("a en", "p", "why")),
        ("copy", PairCell("en>de", "a", "title-body"), DroppedPair("a en", "p", "why")),
    ]


@pytest.mark.parametrize("tally", [made(), PairCounts()])
def test_the_picture_is_the_same_for_the_same_counts(tally: PairCounts, tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        report.draw(tally, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    if tally.made:
        text = (tmp_path / "one.svg").read_text()
        for word in ("kept", "length", "copy", "title-body  12", "a  9"):
            assert word in text


def test_any_single_setting_can_be_changed() -> None:
    changed = with_changes(PairSettings(), {"near": 1, "limits.seed": 7, "parts": 3, "thresholds.ratio": 2.5})
    assert (changed.near, changed.limits.seed, changed.parts, changed.thresholds.ratio) == (1, 7, 3, 2.5)
    for name, value in (
        ("limits", 3),
        ("limits.seed", "x"),
        ("limits.seed", True),
        ("nothing.x", 1),
        ("seed", 1),
    ):
        with pytest.raises(InputError, match="settings: "):
            with_changes(PairSettings(), {name: value})
