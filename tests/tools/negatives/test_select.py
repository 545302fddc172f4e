import numpy as np
import pytest

from triptych.errors import InputError
from triptych.text import fold
from triptych.tools.negatives.options import FilterOptions, Margin, MiningOptions, RankingOptions, scoring_of
from triptych.tools.negatives.passages import CorpusPassage, Passages, own_passages, passages_of
from triptych.tools.negatives.search import NOTHING
from triptych.tools.negatives.select import KnownTexts, draw, drop_reasons
from triptych.types import HeadWeights

CORPUS = [
    CorpusPassage("1", "the  Positive", "a", "en"),
    CorpusPassage("2", "same article", "a", "en"),
    CorpusPassage("3", "gleicher Artikel", "a", "de"),
    CorpusPassage("4", "same article, language unknown", "a"),
    CorpusPassage("5", "other", "b", "en"),
    CorpusPassage("6", "OTHER", "c", "en"),
    CorpusPassage("7", "the question"),
    CorpusPassage("8", "known already"),
    CorpusPassage("9", "too near"),
]
SCORES = np.array([1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.96], dtype=np.float32)


@pytest.fixture(scope="module")
def passages() -> Passages:
    return passages_of(CORPUS, ["The positive", "Elsewhere", "elsewhere "])


def reasons(passages: Passages, options: MiningOptions) -> list[str]:
    known = KnownTexts(
        positives=passages.groups_of("THE POSITIVE"),
        query=passages.groups_of("The Question"),
        existing=passages.groups_of("known already"),
        origins=passages.origins("The positive"),
        reference=1.0,
    )
    rows = np.array([*range(9), NOTHING])
    return drop_reasons(rows, np.append(SCORES, 0), passages, known, options).tolist()


def test_each_candidate_is_dropped_for_the_first_reason_that_holds(passages):
    expected = [
        "positive",
        "article",
        "translation",
        "article",
        "",
        "duplicate",
        "query",
        "existing",
        "margin",
    ]
    assert reasons(passages, MiningOptions(ranks=(1, 9))) == expected
    assert reasons(passages, MiningOptions(ranks=(3, 9))) == ["rank", "rank", *expected[2:]]


def test_articles_and_translations_may_be_allowed(passages):
    allowed = reasons(passages, MiningOptions(ranks=(1, 9), filters=FilterOptions(article=False)))
    assert allowed[1:4] == ["", "translation", ""]
    allowed = reasons(passages, MiningOptions(ranks=(1, 9), filters=FilterOptions(translation=False)))
    assert allowed[1:4] == ["article", "", "article"]
    allowed = reasons(passages, MiningOptions(ranks=(1, 9), filters=FilterOptions(margin=Margin(None))))
    assert allowed[8] == ""


def test_texts_that_are_no_passages_are_scored_but_not_searched(passages):
    assert (passages.searchable, len(passages.texts)) == (9, 10)
    assert passages.texts[passages.row("ELSEWHERE")] == "Elsewhere"
    assert passages.texts[passages.row("the positive")] == "the  Positive"
    assert passages.groups_of("elsewhere") == frozenset()


def test_passages_stand_in_the_order_of_their_ids_and_blank_ones_are_counted():
    made = passages_of([CorpusPassage("b", "x"), CorpusPassage("a", "y"), CorpusPassage("c", " \n")], [])
    assert (list(made.ids), made.blank) == (["a", "b"], 1)


def test_own_passages_keep_the_article_that_a_positive_has():
    from triptych.collections.examples import Example

    examples = [(Example("q", ("one",), ("two", "three")), None), (Example("r", ("Two",), ("one",)), "a")]
    found = {each.text: each.article for each in own_passages(examples)}
    assert found == {"one": None, "two": "a", "three": None}


@pytest.mark.parametrize(
    ("margin", "positive", "limit"),
    [
        (Margin(0.95), 2.0, 1.9),
        (Margin(0.95), -2.0, -2.1),
        (Margin(None, 0.5), -2.0, -2.5),
        (Margin(0.95, 0.5), 2.0, 1.5),
        (Margin(None), 2.0, float("inf")),
    ],
)
def test_the_margin_lies_below_the_positive_whatever_its_sign(margin, positive, limit):
    assert margin.limit(positive) == pytest.approx(limit)


def test_margins_are_read_as_share_distance_both_or_none():
    assert Margin.parse("90%") == Margin(0.9, None)
    assert Margin.parse("0.05") == Margin(None, 0.05)
    assert Margin.parse("95%, 0.1") == Margin(0.95, 0.1)
    assert Margin.parse("none") == Margin(None, None)
    for text in ("", "much", "5%%", "-1", "0%", "nan%", "inf"):
        with pytest.raises(InputError, match="margin: got"):
            Margin.parse(text)


def test_a_draw_is_even_over_the_candidates():
    left, counts = np.arange(6), np.zeros(6)
    for number in range(3000):
        counts[draw(left, MiningOptions(), number)[:2]] += 1
    assert np.abs(counts - 1000).max() < 150  # 5.8 standard deviations


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MiningOptions(ranks=(0, 5)), "ranks: got 0:5"),
        (lambda: MiningOptions(ranks=(5, 4)), "ranks: got 5:4"),
        (lambda: MiningOptions(keep=0), "keep: got 0"),
        (lambda: MiningOptions(block=0), "block: got 0"),
        (lambda: MiningOptions(seed=-1), "seed: got -1"),
        (lambda: MiningOptions(choose="best"), "choose: got 'best'"),
        (lambda: RankingOptions("sparse"), "ranking: got 'sparse'"),
        (lambda: RankingOptions(candidates=0), "candidates: got 0"),
        (lambda: RankingOptions(routes=("x",)), "routes: got"),
        (lambda: Margin(0.0), "relative: got 0.0"),
        (lambda: Margin(None, -0.1), "absolute: got -0.1"),
    ],
)
def test_options_that_make_no_sense_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_ranking_by_token_vectors_recalls_by_what_the_model_has():
    options = MiningOptions(search=RankingOptions("multi"))
    assert scoring_of(options, ("dense", "lexical", "multi")).routes == ("dense", "lexical")
    assert scoring_of(options, ("multi",)).routes == ("multi",)
    hybrid = scoring_of(MiningOptions(), ("dense", "multi"))
    weights = HeadWeights(1.0, 0.0, 1.0)
    assert (hybrid.weights, hybrid.routes, hybrid.heads) == (weights, ("dense",), ("dense", "multi"))


def test_texts_are_equal_but_for_case_blanks_punctuation_and_forms():
    assert fold("  ﬁne\tTEXT ") == fold("Fine text!")
    assert fold("ｆｕｌｌ") == "full"
    assert fold("?!") != fold("…")
