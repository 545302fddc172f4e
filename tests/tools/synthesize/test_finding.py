"""Round trips: by words, against the formula of BM25; by an encoder, against sorted scores."""

import math
import random
from collections import Counter

import numpy as np
import pytest

from index.fakes import FakeEncoder
from triptych.records import Document
from triptych.scores.on_numpy import dense_scores, lexical_scores
from triptych.text import terms
from triptych.tools.synthesize.round_trip import EncoderFinder, LexicalFinder, Question
from triptych.types import HeadWeights


def bm25(question: str, texts: list[str], k1: float = 1.2, b: float = 0.75) -> list[float]:
    """Robertson and Zaragoza 2009, with the inverse document frequency that SQLite takes."""
    bags = [Counter(terms(text)) for text in texts]
    mean = sum(bag.total() for bag in bags) / len(bags)
    scores = []
    for bag in bags:
        score = 0.0
        for word in set(terms(question)):
            n = sum(word in other for other in bags)
            idf = max(1e-6, math.log((len(bags) - n + 0.5) / (n + 0.5)))
            score += idf * bag[word] * (k1 + 1) / (bag[word] + k1 * (1 - b + b * bag.total() / mean))
        scores.append(score)
    return scores


def ranks_of(scores: list[list[float]], own: list[int], depth: int) -> list[int | None]:
    found: list[int | None] = []
    for row, mine in zip(scores, own, strict=True):
        rank = 1 + sum(score > row[mine] + 1e-9 for score in row)
        found.append(rank if rank <= depth and row[mine] > 0 else None)
    return found


def made(seed: int) -> tuple[list[Document], list[Question], list[int]]:
    dice = random.Random(seed)
    words = [f"w{i}" for i in range(60)]
    documents = [
        Document(f"d{i}", " ".join(dice.choices(words, k=dice.randrange(5, 60))), None) for i in range(40)
    ]
    own = [dice.randrange(40) for _ in range(30)]
    questions = [Question(" ".join(dice.sample(documents[i].text.split(), 3)), f"d{i}") for i in own]
    return documents, questions, own


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("depth", [1, 3, 10])
def test_the_ranks_by_words_are_those_of_bm25(seed: int, depth: int) -> None:
    documents, questions, own = made(seed)
    expected = ranks_of([bm25(each.question, [d.text for d in documents]) for each in questions], own, depth)
    assert list(LexicalFinder().ranks(documents, questions, depth)) == expected


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("block", [1, 7, 100])
def test_the_ranks_by_an_encoder_are_those_of_its_scores(seed: int, block: int) -> None:
    documents, questions, own = made(seed)
    encoder, weights = FakeEncoder(), HeadWeights(1, 0.3, 0)
    q = encoder.encode_query([each.question for each in questions])
    d = encoder.encode_document([each.content for each in documents])
    scores = dense_scores(q.dense, d.dense) + np.float32(0.3) * lexical_scores(q.lexical, d.lexical)
    order = [1 + int((row > row[mine] + 1e-6).sum()) for row, mine in zip(scores, own, strict=True)]
    found = EncoderFinder(encoder, weights, block).ranks(documents, questions, 4)
    assert list(found) == [rank if rank <= 4 else None for rank in order]
    assert EncoderFinder(encoder).ranks(documents, [], 4) == []


@pytest.mark.parametrize("finder", [LexicalFinder(), EncoderFinder(FakeEncoder())])
def test_equal_documents_do_not_count_against_the_one_that_is_looked_for(
    finder: LexicalFinder | EncoderFinder,
) -> None:
    documents = [Document(f"d{i}", "rye barley spelt" if i < 3 else f"other words {i}") for i in range(9)]
    questions = [Question("barley", "d2"), Question("barley", "d8"), Question("barley", "gone")]
    assert list(finder.ranks(documents, questions, 1)) == [1, None, None]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("The Mill, 1512!", ["the", "mill", "1512"]),
        ("阿尔维卡 mill 火", ["阿尔", "尔维", "维卡", "mill", "火"]),
        ("ไฟไหม้", ["ไฟ", "ฟไ", "ไห", "หม", "ม้"]),
        ("Ἀθῆναι naïve", ["αθηναι", "naive"]),
        ("बुनकरों के औज़ार।", ["बुनकरों", "के", "औज़ार"]),
        ("한글 Việt", ["한글", "viet"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_of_any_script_are_tokens(text: str, tokens: list[str]) -> None:
    assert list(terms(text)) == tokens


def test_a_document_is_found_by_its_words_in_scripts_without_spaces() -> None:
    documents = [
        Document("a", "一五一二年的大火烧毁了织工的作坊。"),
        Document("b", "博物馆展出三本账簿和一封信。"),
    ]
    assert list(LexicalFinder().ranks(documents, [Question("织工的作坊何时被烧毁？", "a")], 1)) == [1]
    assert list(LexicalFinder().ranks(documents, [Question("？？", "a")], 1)) == [None]
