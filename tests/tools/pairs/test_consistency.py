"""The consistency filter keeps a pair exactly if a model ranks its passage high enough in the sample."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.filters import Consistency, inconsistent


def pair(query: str, passage: str, key: str, lang: str = "en") -> WeakPair:
    return WeakPair(query, passage, "title-body", "s", key, lang, lang)


def common_words(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
    """A scorer that counts the words that both have."""
    return np.array(
        [[len(set(q.split()) & set(p.split())) for p in passages] for q in queries], np.float32
    ).reshape(len(queries), len(passages))


def test_a_pair_whose_passage_others_beat_is_dropped_with_its_rank() -> None:
    pairs = [pair("a b", "a b c", "1"), pair("c d", "x y", "2"), pair("e", "c d e", "3"), pair("f", "c", "4")]
    found = dict(inconsistent(pairs, common_words, Consistency(top=1, sample=9), seed=0))
    # "c d" has nothing in common with its own passage; those of 1, 3 and 4 have. "f": no passage is better.
    assert found == {1: 4}
    assert dict(inconsistent(pairs, common_words, Consistency(top=4, sample=9), seed=0)) == {}


def test_passages_of_the_same_document_and_equal_passages_are_no_rivals() -> None:
    pairs = [pair("a", "x", "1"), pair("b", "a", "1"), pair("c", "X!", "2"), pair("x", "x", "3")]
    assert dict(inconsistent(pairs, common_words, Consistency(top=1, sample=9), seed=0)).get(0) is None


def test_samples_have_one_language_and_the_wanted_size_and_every_pair_is_in_one() -> None:
    pairs = [pair(f"q{i}", f"p{i}", str(i), "de" if i % 3 else "en") for i in range(50)]
    seen: list[list[str]] = []

    def scorer(queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        seen.append(list(passages))
        return np.zeros((len(queries), len(passages)), np.float32)

    assert list(inconsistent(pairs, scorer, Consistency(top=1, sample=8), seed=3)) == []
    assert sorted(text for sample in seen for text in sample) == sorted(p.passage for p in pairs)
    languages = {p.passage: p.lang for p in pairs}
    assert all(len({languages[text] for text in sample}) == 1 for sample in seen)
    assert max(map(len, seen)) == 8
    first, seen = seen, []
    list(inconsistent(pairs, scorer, Consistency(top=1, sample=8), seed=3))
    assert seen == first
    list(inconsistent(pairs, scorer, Consistency(top=1, sample=8), seed=4))
    assert seen[len(first) :] != first


def test_what_means_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="got top 5 of 5"):
        Consistency(top=5, sample=5)
    with pytest.raises(InputError, match=r"shape \(1,\); expected \(1, 1\)"):
        list(inconsistent([pair("a", "b", "1")], lambda _q, _p: np.zeros(1, np.float32), Consistency(), 0))
