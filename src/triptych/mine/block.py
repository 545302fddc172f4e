"""Mining of one block of queries: search, drop what may be right, draw, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.data.examples import Example
from triptych.encode.encoder import Encoder
from triptych.mine.filters import Asked, drawn, reference_of, sieve
from triptych.mine.given import Given, record_of, rounded
from triptych.mine.options import Options
from triptych.mine.passages import UNKNOWN, Passages
from triptych.mine.report import Report, shortened
from triptych.mine.rerank import Reranker
from triptych.mine.search import NOTHING, Searcher
from triptych.types import Encoded, Floats


class Mining(NamedTuple):
    """What the mining of every block needs.

    Attributes:
        encoder: Encodes queries.
        passages: What is searched.
        options: How.
        reranker: A second opinion, or None.
        article: Fields that name an example's article.
    """

    encoder: Encoder
    passages: Passages
    options: Options
    reranker: Reranker | None
    article: Sequence[str]


@dataclass(slots=True)
class _Drawn:
    """One query on its way: its candidates, why each is dropped ("" if not), and which are taken.

    Attributes:
        rows: int64 ``[K]``.
        scores: float32 ``[K]``.
        reasons: Strings ``[K]``.
        order: The candidates that are left, in the order in which they are taken.
        judged: Scores of its positives, then of its existing negatives.
    """

    rows: NDArray[np.int64]
    scores: Floats
    reasons: NDArray[np.str_]
    order: NDArray[np.int64]
    judged: Floats


def mine_block(
    block: Sequence[Given], first: int, searcher: Searcher, mining: Mining
) -> tuple[list[dict[str, Any]], Report]:
    """The records of a block of examples, of which the first has the number `first`."""
    encoder, passages, options, reranker, _ = mining
    asked = [given.example.passages if options.existing else given.example.pos for given in block]
    wanted = [[passages.row(text) for text in texts] for texts in asked]
    queries = _encoded([given.example for given in block], encoder, searcher, options)
    found = searcher.search(queries, wanted, options.ranks[1])
    drawn_all = [
        _sieved(given, first + i, found.rows[i], found.scores[i], found.wanted[i], mining)
        for i, given in enumerate(block)
    ]
    if reranker is not None:
        _rerank(block, drawn_all, reranker, mining)
    report = Report()
    return [
        _written(given, each, mining, report) for given, each in zip(block, drawn_all, strict=True)
    ], report


def _encoded(examples: Sequence[Example], encoder: Encoder, searcher: Searcher, options: Options) -> Encoded:
    """Queries as in training: with their own prompt, or else the model's prefix."""
    prefix = encoder.config.query_prefix
    texts = [(prefix if each.prompt is None else each.prompt) + each.query for each in examples]
    return encoder.encode(texts, outputs=searcher.heads, max_length=options.search.query_length)


def _sieved(
    given: Given, number: int, rows: NDArray[np.int64], scores: Floats, judged: Floats, mining: Mining
) -> _Drawn:
    passages, options = mining.passages, mining.options
    example = given.example
    origins = {origin for text in example.pos for origin in passages.origins(text)}
    named = passages.article_number(given.article(mining.article))
    if named != UNKNOWN and named not in {article for article, _ in origins}:
        origins.add((named, UNKNOWN))
    asked = Asked(
        positives=_groups(example.pos, passages),
        query=passages.groups_of(example.query),
        existing=_groups(example.neg if options.existing else (), passages),
        origins=frozenset(origins),
        reference=reference_of(judged[: len(example.pos)], options.filters),
    )
    count = int((rows != NOTHING).sum())
    reasons = sieve(rows, scores, passages, asked, options)
    left = drawn(np.flatnonzero(reasons == ""), options, number)
    return _Drawn(rows[:count], scores[:count], reasons, left, judged)


def _groups(texts: Sequence[str], passages: Passages) -> frozenset[int]:
    return frozenset(group for text in texts for group in passages.groups_of(text))


def _rerank(block: Sequence[Given], all_drawn: Sequence[_Drawn], reranker: Reranker, mining: Mining) -> None:
    """Lets the re-ranker read a pool of each query's candidates; its scores replace the others."""
    passages, options = mining.passages, mining.options
    pool = max(options.filters.rerank_pool, options.keep)
    pairs: list[tuple[str, str]] = []
    for given, each in zip(block, all_drawn, strict=True):
        example = given.example
        each.reasons[each.order[pool:]] = "left over"
        each.order = each.order[:pool]
        texts = [
            *example.passages[: len(each.judged)],
            *(passages.texts[row] for row in each.rows[each.order]),
        ]
        pairs += [(example.query, text) for text in texts]
    scores = reranker.score(pairs)
    start = 0
    for given, each in zip(block, all_drawn, strict=True):
        middle = start + len(each.judged)
        each.judged = scores[start:middle]
        start = middle + len(each.order)
        each.scores = each.scores.copy()
        each.scores[each.order] = scores[middle:start]
        reference = reference_of(each.judged[: len(given.example.pos)], options.filters)
        near = each.scores[each.order] > options.filters.rerank_margin.limit(reference)
        each.reasons[each.order[near]] = "reranker"
        each.order = each.order[~near]


def _written(given: Given, each: _Drawn, mining: Mining, report: Report) -> dict[str, Any]:
    """The record of one example; counts what became of its candidates."""
    passages, options = mining.passages, mining.options
    example, existing = given.example, given.example.neg if options.existing else ()
    room = max(0, options.keep - len(existing))
    each.reasons[each.order[room:]] = "left over"
    taken = np.sort(each.order[:room])
    dropped = np.flatnonzero(each.reasons != "")
    report.candidates += len(each.rows)
    report.drop(
        each.reasons[dropped].tolist(),
        {str(each.reasons[i]): _shown(example, each, int(i), passages) for i in dropped[::-1]},
    )
    report.keep(len(taken), len(existing), options.keep, example.language)
    neg_scores = each.scores[taken]
    pos_scores = each.judged[: len(example.pos)]
    report.total(
        {
            "positive": float(pos_scores.sum()),
            "positives": len(example.pos),
            "negative": float(neg_scores.sum()),
            "rank": int((taken + 1).sum()),
        }
    )
    mined = [passages.texts[row] for row in each.rows[taken]]
    all_scores = (pos_scores, np.concatenate([each.judged[len(example.pos) :], neg_scores]))
    return record_of(given, [*existing, *mined], all_scores)


def _shown(example: Example, each: _Drawn, place: int, passages: Passages) -> dict[str, Any]:
    """A dropped candidate for the report."""
    return {
        "query": shortened(example.query),
        "positive": shortened(example.pos[0]),
        "passage": shortened(passages.texts[each.rows[place]]),
        "rank": place + 1,
        "score": rounded(each.scores[place]),
        "positive_score": rounded(each.judged[0]),
    }
