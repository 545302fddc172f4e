"""Documents cut into passages: what must hold of any text, and where the cuts fall in some."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.passages import Passage, PassageOptions, content_of, metadata_of, split
from triptych.records import Document, Section


def spans_of(text: str) -> np.ndarray:
    """Words and punctuation as tokens, as XLM-R has them: a blank belongs to what follows."""
    return np.array(
        [match.span() for match in re.finditer(r"\s?\w+|\s?[^\w\s]|\s", text)], dtype=np.int64
    ).reshape(-1, 2)


def cut(text: str, tokens: int = 8, overlap: int = 0, **facts: object) -> list[str]:
    document = Document("d", text, **facts)  # type: ignore[arg-type]
    options = PassageOptions(passage_tokens=tokens, passage_overlap=overlap)
    return [text[p.start : p.end] for p in split(document, spans_of(text), options)]


pieces = st.sampled_from(["word", "longer", ".", "!", "\n", "\n\n", " ", "  ", "字。", "x", "\t"])


@settings(deadline=None)
@given(st.lists(pieces, max_size=120).map("".join), st.integers(8, 20), st.integers(0, 4), st.data())
def test_passages_have_all_of_the_text_within_the_limit(
    text: str, tokens: int, overlap: int, data: st.DataObject
) -> None:
    starts = sorted(set(data.draw(st.lists(st.integers(0, max(0, len(text))), max_size=4))))
    document = Document("d", text, sections=tuple(Section(start, (f"h{start}",)) for start in starts))
    spans = spans_of(text)
    passages = split(document, spans, PassageOptions(passage_tokens=tokens, passage_overlap=overlap))
    assert passages
    covered = set[int]()
    for before, passage in zip([None, *passages], passages, strict=False):
        inside = ((spans[:, 1] > passage.start) & (spans[:, 0] < passage.end)).sum()
        assert inside <= tokens + 1, "one more where a blank at the end belongs to the next token"
        assert before is None or passage.start > before.start
        covered |= set(range(passage.start, passage.end))
        under = [section for section in document.sections if section.start <= passage.start]
        assert passage.headings == (under[-1].headings if under else ())
    assert all(text[i].isspace() for i in range(len(text)) if i not in covered)
    if not overlap:
        assert sum(p.end - p.start for p in passages) == len(covered)


def test_the_best_place_within_reach_is_taken() -> None:
    assert cut("One two three. Four five six. Seven eight nine.") == [
        "One two three. Four five six.",
        "Seven eight nine.",
    ]
    assert cut("one two three four\n\nfive. six seven eight nine ten") == [
        "one two three four",
        "five. six seven eight nine ten",
    ]
    assert (
        cut("wrapped by an\neditor at some column. And then more words")[0]
        == "wrapped by an\neditor at some column."
    )
    assert cut("a b c d e f g h i j") == ["a b c d e f g h", "i j"]


def test_a_passage_begins_with_its_heading_and_short_sections_stay_together() -> None:
    text = "Intro one two.\nA\na b c d e f\nB\nb c\nC\nc d e"
    sections = tuple(Section(text.index(f"{name}\n"), (name,)) for name in "ABC")
    assert cut(text, sections=sections) == ["Intro one two.", "A\na b c d e f", "B\nb c\nC\nc d e"]


def test_what_is_cut_within_a_section_overlaps() -> None:
    found = cut("One two. Three four. Five six. Seven eight. Nine ten.", tokens=9, overlap=3)
    assert found == ["One two. Three four. Five six.", "Five six. Seven eight. Nine ten."]
    text = "one two three four five six seven\nNEW\neight nine ten eleven"
    assert cut(text, overlap=3, sections=(Section(text.index("NEW"), ("NEW",)),))[1].startswith("NEW")


def test_a_passage_says_where_it_stands() -> None:
    document = Document("d", "x y\nz", title="Book", sections=(Section(4, ("Part", "Chapter"), 7),))
    second = Passage(4, 5, ("Part", "Chapter"), 7)
    spans = np.array([[0, 1], [2, 3], [4, 5]], dtype=np.int64)
    assert split(document, spans, PassageOptions()) == [Passage(0, 5)]
    assert split(document, spans.repeat(9, 0), PassageOptions(passage_tokens=18))[-1] == second
    assert metadata_of(document, second, 2, 2) == {
        "parent": "d",
        "passage": 2,
        "passages": 2,
        "start": 4,
        "end": 5,
        "heading": "Part › Chapter",
        "page": 7,
    }
    assert content_of(document, second) == "Book › Part › Chapter\nz"
    assert content_of(
        Document("d", "Chapter z", sections=document.sections), Passage(0, 9, ("Chapter",))
    ) == ("Chapter z")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"passages": "some"}, "passages"),
        ({"passage_tokens": 3}, "passage_tokens"),
        ({"passage_tokens": "5"}, "passage_tokens"),
        ({"passage_overlap": -1}, "passage_overlap"),
        ({"passage_tokens": 20, "passage_overlap": 11}, "at most half"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PassageOptions(**options)  # type: ignore[arg-type]
