"""Which passages of a document are drawn."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.text import size
from triptych.tools.synthesize.passages import Sampling, draw_passages, why_not

SENTENCE = "The old mill by the river grinds rye, barley and spelt for three villages. "
HOW = Sampling(min_passage=60, max_passage=200)


def paragraphs(count: int) -> str:
    return "\n\n".join(f"Number {i}: {SENTENCE}" for i in range(count))


def test_the_draw_is_the_same_in_every_run_and_another_with_another_seed() -> None:
    text = paragraphs(40)
    first = draw_passages("d", text, HOW)
    assert first == draw_passages("d", text, HOW)
    others = {draw_passages("d", text, Sampling(60, 60, 200, seed=seed))[0].start for seed in range(20)}
    assert len(others) > 5
    assert {draw_passages(f"d{i}", text, HOW)[0].start for i in range(20)} != {first[0].start}


def test_more_passages_of_a_document_begin_with_the_fewer_and_do_not_overlap() -> None:
    text = paragraphs(40)
    many = draw_passages("d", text, Sampling(1, 60, 200, per_document=10))
    assert many[:3] == draw_passages("d", text, Sampling(1, 60, 200, per_document=3))
    ends = sorted((span.start, span.start + len(span.text)) for span in many)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


@given(st.text("ab .!\n。你ก", max_size=400), st.integers(1, 40), st.integers(0, 60), st.integers(1, 5))
def test_a_passage_stands_where_it_is_said_to_and_has_the_size_that_is_wanted(
    text: str, least: int, more: int, count: int
) -> None:
    how = Sampling(1, least, least + more, count)
    for span in draw_passages("x", text, how):
        assert text[span.start :].startswith(span.text)
        assert span.text == span.text.strip()
        assert size(span.text) >= how.min_passage
        assert why_not(span.text, how) is None
    assert len(draw_passages("x", text, how)) <= count


def test_short_paragraphs_are_joined_and_long_ones_are_cut_at_sentences() -> None:
    short = "\n\n".join(["A short one here."] * 10)
    assert all(size(span.text) >= 60 for span in draw_passages("d", short, Sampling(1, 60, 200, 9)))
    long = draw_passages("d", SENTENCE * 30, Sampling(1, 60, 200, 99))
    assert len(long) >= 10
    assert all(size(span.text) <= 200 and span.text.endswith("villages.") for span in long)


def test_an_ideograph_counts_as_three_letters() -> None:
    assert (size("abc"), size("河流"), size("かな"), size("한글")) == (3, 6, 6, 6)
    assert draw_passages("d", "这座古老的磨坊位于河边，为三个村庄磨制黑麦、大麦和小麦。" * 2, HOW)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Too short.", "too short"),
        ("| 12 | 34.5 | 67 | 8.90 |\n" * 8, "too few letters"),
        (SENTENCE + "Copyright © 2020 by nobody. " + SENTENCE, "boilerplate"),
        (SENTENCE + "ALL RIGHTS RESERVED", "boilerplate"),
        (
            "Home\nNews\nAbout us\nContact\nShop\nImprint\nJobs\nPress\nHelp\nSearch\nLogin\n",
            "a list or menu",
        ),
        ("click here now " * 30, "repeats itself"),
        (SENTENCE, None),
        ("พิพิธภัณฑ์แห่งนี้จัดแสดงเครื่องมือของช่างทอผ้าและจดหมายของนายกเทศมนตรี", None),
        ("संग्रहालय में बुनकरों के औज़ार, तीन बहीखाते और महापौर का एक पत्र रखा हुआ है।", None),
    ],
)
def test_a_passage_that_nothing_can_be_asked_about_is_told(text: str, why: str | None) -> None:
    assert why_not(text, HOW) == why


def test_a_document_without_a_fit_passage_gives_none() -> None:
    assert draw_passages("d", "1 2 3 4 5 6 7 8 9\n" * 100, HOW) == []
    assert draw_passages("d", "", HOW) == []


@pytest.mark.parametrize(
    "values", [{"min_passage": 0}, {"min_passage": 9, "max_passage": 8}, {"per_document": 0}]
)
def test_sizes_that_make_no_sense_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(InputError, match="expected"):
        Sampling(**values)
