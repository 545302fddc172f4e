"""Every filter lets good pairs pass and drops what it is there for; all that is dropped is counted."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.text import (
    LanguageCheck,
    fold,
    gram_size,
    letters,
    may_be,
    ngrams,
    primary,
    size,
    unit_hashes,
    units,
)
from triptych.tools.pairs import filters
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.filters import Thresholds, line_digest, pair_filters
from triptych.tools.pairs.report import PAIR_FILTERS, PairCell, PairCounts, PairFilter

from .made import LONG, OTHER

LIMITS = Thresholds()
CHECK = LanguageCheck()
GERMAN = "Das Wasser wird im unteren Teil erhitzt und steigt durch das Kaffeepulver nach oben."


def pair(
    query: str, passage: str, kind: str = "title-body", lang: str = "en", to: str | None = None
) -> WeakPair:
    return WeakPair(query, passage, kind, "s", "k", lang, to or lang)


@pytest.mark.parametrize(
    ("made", "good"),
    [
        (pair("moka pot", LONG), True),
        (pair("ab", LONG), False),
        (pair("咖啡", LONG), True),
        (pair("moka pot", "too short"), False),
        (pair("q" * 301, LONG), False),
        (pair(LONG * 5, OTHER, "neighbour"), True),
        (pair("one two three", "eins zwei drei", "sentence-translation"), True),
        (pair("a", "b", "sentence-translation"), False),
        (pair(LONG, "kurz aber doch", "paragraph-translation"), False),
        (pair("猫", "cat", "term-translation"), True),
        (pair("!", "cat", "term-translation"), False),
        (pair("w" * 301, "cat", "term-translation"), False),
    ],
)
def test_the_length_filter(made: WeakPair, good: bool) -> None:
    assert filters.long_enough(made, LIMITS) is good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (LONG, True),
        ("हिन्दी में लिखा हुआ एक वाक्य यहाँ है", True),
        ("สวัสดีครับ นี่คือข้อความภาษาไทย", True),
        ("\\x1b[31m $$ %% @@ {{--}} ###", False),
        ("0x3f 17 29 31 44 57 61 a b", False),
        ("GPT-4 and USB 3.0", True),
        ("", True),
    ],
)
def test_the_symbol_filter_counts_marks_as_letters(text: str, good: bool) -> None:
    assert filters.mostly_words(pair(text, LONG), LIMITS) is good
    assert filters.mostly_words(pair("moka", text), LIMITS) is good


@pytest.mark.parametrize(
    ("query", "passage", "good"),
    [
        (LONG, LONG, False),
        (LONG, LONG.upper() + "!", False),
        (LONG, LONG + " And more.", False),
        (LONG, "More: " + LONG, False),
        (LONG, OTHER, True),
        ("moka pot", "The moka pot: " + LONG, True),
        ("...", "!", False),
        ("你好世界", "你好，世界！", False),
    ],
)
def test_the_copy_filter(query: str, passage: str, good: bool) -> None:
    assert filters.differs(pair(query, passage), LIMITS) is good
    assert filters.differs(pair(passage, query), LIMITS) is good


@given(st.text("ab c", max_size=12), st.text("ab c", max_size=12))
def test_the_copy_filter_is_the_share_of_common_words(query: str, passage: str) -> None:
    here, there = query.split(), passage.split()
    common = sum(min(here.count(word), there.count(word)) for word in set(here))
    longest = max(len(here), len(there))
    assert filters.differs(pair(query, passage), LIMITS) == (
        longest > 0 and common / longest < LIMITS.overlap
    )


def test_the_language_filter_wants_both_sides_in_their_languages() -> None:
    assert filters.in_its_language(pair(LONG, GERMAN, lang="en", to="de"), CHECK)
    assert not filters.in_its_language(pair(LONG, OTHER, lang="en", to="de"), CHECK)
    assert not filters.in_its_language(pair(GERMAN, OTHER), CHECK)
    assert filters.in_its_language(pair("Kanne", LONG), CHECK)  # too short to tell
    assert filters.in_its_language(pair(GERMAN, GERMAN, lang="tlh"), CHECK)  # a language that nobody knows
    assert filters.in_its_language(pair(GERMAN, LONG, lang=""), CHECK)


def test_regions_scripts_and_near_languages_are_no_contradiction() -> None:
    assert primary("zh_Hant-TW") == "zh"
    assert may_be("pt-BR", "pt")
    assert may_be("nb", "no")
    assert may_be("zh_CN", "yue")
    assert not may_be("de", "en")


def test_a_language_is_named_where_it_is_sure() -> None:
    assert CHECK.identify(GERMAN) == "de"
    assert CHECK.identify("ok") == ""
    assert CHECK.identify("1234 5678 9012 3456 7890 1234 56789") == ""


def test_the_boilerplate_filter_drops_queries_that_recur_but_no_terms() -> None:
    recurring = {line_digest("s", "en", "Click here!")}
    assert not filters.is_its_own(pair("click here", LONG), recurring)
    assert filters.is_its_own(pair("click there", LONG), recurring)
    assert filters.is_its_own(pair("click here", LONG, lang="de"), recurring)
    assert filters.is_its_own(pair("click here", LONG, "term-translation"), recurring)


def test_filters_run_in_the_order_of_their_names_and_only_if_wanted() -> None:
    made = pair_filters(PAIR_FILTERS, language=CHECK, contaminated=lambda _pair: False)
    assert tuple(step.name for step in made) == PAIR_FILTERS
    assert [step.name for step in pair_filters(["copy", "length"])] == ["length", "copy"]
    contaminated = pair_filters(["contamination"], contaminated=lambda made: made.query == "leaked")
    assert [step.keeps(pair(text, LONG)) for text in ("leaked", "own") for step in contaminated] == [
        False,
        True,
    ]


PAIRS = st.builds(
    pair, st.sampled_from(["a", "b", "c", "d"]), st.sampled_from([LONG, OTHER]), st.sampled_from(["x", "y"])
)


@given(st.lists(PAIRS), st.lists(st.sets(st.sampled_from("abcd")), max_size=3))
def test_nothing_vanishes_uncounted(pairs: list[WeakPair], bad: list[set[str]]) -> None:
    steps = [
        PairFilter(f"f{i}", lambda made, drop=drop: made.query not in drop) for i, drop in enumerate(bad)
    ]
    tally = PairCounts()
    kept = list(tally.keep(tally.filter(pairs, steps)))
    assert kept == [made for made in pairs if not any(made.query in drop for drop in bad)]
    assert tally.made == Counter(map(PairCell.of, pairs))
    for cell in tally.made:
        dropped = sum(count for (_, where), count in tally.dropped.counts.items() if where == cell)
        assert tally.made[cell] == tally.kept[cell] + dropped
    assert set(tally.dropped.first) == set(tally.dropped.counts)


@given(st.lists(PAIRS, max_size=8), st.lists(PAIRS, max_size=8))
def test_tallies_add_up_and_survive_json(first: list[WeakPair], second: list[WeakPair]) -> None:
    steps = [PairFilter("f", lambda made: made.query in "ab")]
    parts: list[PairCounts] = []
    for pairs in (first, second, [*first, *second]):
        tally = PairCounts()
        list(tally.keep(tally.filter(pairs, steps)))
        tally.texts["documents", "en", "s"] += 1 + len(pairs)
        parts.append(tally)
    parts[2].texts["documents", "en", "s"] += 1
    parts[0].add(PairCounts.from_dict(parts[1].to_dict()))
    assert parts[0].to_dict() == parts[2].to_dict()


def test_a_long_text_of_an_example_is_cut() -> None:
    tally = PairCounts()
    tally.drop("f", pair("q" * 1000, LONG), "why")
    (example,) = tally.dropped.first.values()
    assert len(example.query) == 160
    assert example.query.endswith("…")
    assert example.because == "why"


def test_units_are_words_or_single_characters_in_every_script() -> None:
    assert units("Don't STOP—me!") == ["don", "t", "stop", "me"]
    assert units("日本語 text") == ["日", "本", "語", "text"]
    assert units("हिन्दी में") == ["हिन्दी", "में"]
    assert units("ﬁne Ｆｕｌｌ") == ["fine", "full"]
    assert units(" \n…") == []
    assert fold(" A,  b ") == "a b"
    assert letters("ab 1!") == 3
    assert letters("日本") == letters("한국") == letters("カナ") == 6
    assert size("日本 x") == 8


@given(st.lists(st.sampled_from(["a", "b", "cc", "字"]), max_size=12), st.integers(1, 5))
def test_hashes_of_ngrams_are_equal_exactly_where_the_ngrams_are(words: list[str], n: int) -> None:
    hashes = ngrams(unit_hashes(words), n).tolist()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    assert len(hashes) == len(grams)
    assert [hashes.index(value) for value in hashes] == [grams.index(gram) for gram in grams]


def test_single_characters_count_as_a_third_of_a_word() -> None:
    assert gram_size(units("a b c"), 8) == 8
    assert gram_size(units("日本語の本 a"), 8) == 24
    assert gram_size([], 8) == 8
