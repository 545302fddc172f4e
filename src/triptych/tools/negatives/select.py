"""Mining of one block of queries: search, drop possible false negatives, sample, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.collections.examples import Example
from triptych.encode.encoder import Encoder
from triptych.tools.negatives.options import MiningOptions
from triptych.tools.negatives.passages import UNKNOWN, MinedExample, Passages, record_of, round_digits
from triptych.tools.negatives.report import NegativesReport
from triptych.tools.negatives.search import NOTHING, Searcher
from triptych.tools.rerank import CrossEncoder
from triptych.types import Encoded, Floats

RERANKED = 50
"""Candidates per query that a re-ranker reads, at least as many as are kept."""
_SAMPLE_CHARS = 300


@dataclass(frozen=True, slots=True)
class KnownTexts:
    """What is known of a query.

    Attributes:
        positives: Groups of its positives.
        query: Groups of its own text.
        existing: Groups of the negatives that it has and keeps.
        origins: (article, language) of its positives, as far as known.
        reference: The positive's score to which candidates are compared.
    """

    positives: frozenset[int]
    query: frozenset[int]
    existing: frozenset[int]
    origins: frozenset[tuple[int, int]]
    reference: float


def drop_reasons(
    rows: NDArray[np.int64], scores: Floats, passages: Passages, known: KnownTexts, options: MiningOptions
) -> NDArray[np.str_]:
    """Why each candidate is dropped; "" for those that are left.

    Args:
        rows: int64 ``[K]``, candidates by rank from 1; `NOTHING` after the last.
        scores: float32 ``[K]``, their scores.
        passages: What the rows are.
        known: What is known of the query.
        options: What is dropped.

    Returns:
        Strings ``[K]``, keys of `triptych.tools.negatives.report.REASONS` or "".
    """
    rows = rows[rows != NOTHING]
    group = passages.group[rows]
    reasons = np.full(len(rows), "", dtype="<U12")

    def drop(name: str, where: NDArray[np.bool_]) -> None:
        reasons[where & (reasons == "")] = name

    drop("rank", np.arange(1, len(rows) + 1) < options.ranks[0])
    drop("positive", _among(group, known.positives))
    drop("query", _among(group, known.query))
    drop("existing", _among(group, known.existing))
    same, translated = _relations(passages.article[rows], passages.language[rows], known.origins)
    if options.filters.article:
        drop("article", same)
    if options.filters.translation:
        drop("translation", translated)
    left = np.flatnonzero(reasons == "")
    repeated = np.ones(len(left), dtype=bool)
    repeated[np.unique(group[left], return_index=True)[1]] = False
    reasons[left[repeated]] = "duplicate"
    drop("margin", scores[: len(rows)] > options.filters.margin.limit(known.reference))
    return reasons


def draw(left: NDArray[np.int64], options: MiningOptions, number: int) -> NDArray[np.int64]:
    """The candidates in the order in which they are taken: by rank, or as the seed and the query's number draw."""
    if options.choose == "top":
        return left
    return np.random.default_rng([options.seed, number]).permutation(left)


def _among(group: NDArray[np.int64], wanted: frozenset[int]) -> NDArray[np.bool_]:
    return np.isin(group, np.fromiter(wanted, np.int64, len(wanted)))


def _relations(
    article: NDArray[np.int64], language: NDArray[np.int64], origins: frozenset[tuple[int, int]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which candidates are of a positive's article: in its own or an unknown language, or in another one."""
    related = (article != UNKNOWN) & _among(article, frozenset(number for number, _ in origins))
    same = np.zeros(len(article), dtype=bool)
    for number, spoken in origins:
        here = article == number
        same |= here if spoken == UNKNOWN else here & ((language == spoken) | (language == UNKNOWN))
    return related & same, related & ~same


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
    options: MiningOptions
    reranker: CrossEncoder | None
    article: Sequence[str]


@dataclass(slots=True)
class _Selection:
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
    block: Sequence[MinedExample], first: int, searcher: Searcher, mining: Mining
) -> tuple[list[dict[str, Any]], NegativesReport]:
    """The records of a block of examples, of which the first has the number `first`."""
    encoder, passages, options, reranker, _ = mining
    asked = [given.example.passages if options.existing else given.example.pos for given in block]
    wanted = [[passages.row(text) for text in texts] for texts in asked]
    queries = _encode([given.example for given in block], encoder, searcher, options)
    found = searcher.search(queries, wanted, options.ranks[1])
    selections = [
        _select(given, first + i, found.rows[i], found.scores[i], found.wanted[i], mining)
        for i, given in enumerate(block)
    ]
    if reranker is not None:
        _rerank(block, selections, reranker, mining)
    report = NegativesReport()
    return [
        _record(given, each, mining, report) for given, each in zip(block, selections, strict=True)
    ], report


def _encode(
    examples: Sequence[Example], encoder: Encoder, searcher: Searcher, options: MiningOptions
) -> Encoded:
    """Queries as in training by default: with the model's prefix, whatever their record's ``prompt``."""
    prefix = encoder.config.query_prefix
    texts = [prefix + each.query for each in examples]
    return encoder.encode(texts, outputs=searcher.heads, max_length=options.search.query_length)


def _select(
    given: MinedExample, number: int, rows: NDArray[np.int64], scores: Floats, judged: Floats, mining: Mining
) -> _Selection:
    passages, options = mining.passages, mining.options
    example = given.example
    origins = {origin for text in example.pos for origin in passages.origins(text)}
    named = passages.article_number(given.article(mining.article))
    if named != UNKNOWN and named not in {article for article, _ in origins}:
        origins.add((named, UNKNOWN))
    known = KnownTexts(
        positives=_groups(example.pos, passages),
        query=passages.groups_of(example.query),
        existing=_groups(example.neg if options.existing else (), passages),
        origins=frozenset(origins),
        reference=float(max(judged[: len(example.pos)])),
    )
    count = int((rows != NOTHING).sum())
    reasons = drop_reasons(rows, scores, passages, known, options)
    left = draw(np.flatnonzero(reasons == ""), options, number)
    return _Selection(rows[:count], scores[:count], reasons, left, judged)


def _groups(texts: Sequence[str], passages: Passages) -> frozenset[int]:
    return frozenset(group for text in texts for group in passages.groups_of(text))


def _rerank(
    block: Sequence[MinedExample], selections: Sequence[_Selection], reranker: CrossEncoder, mining: Mining
) -> None:
    """Lets the re-ranker read a pool of each query's candidates; its scores replace the others."""
    passages, options = mining.passages, mining.options
    pool = max(RERANKED, options.keep)
    pairs: list[tuple[str, str]] = []
    for given, each in zip(block, selections, strict=True):
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
    for given, each in zip(block, selections, strict=True):
        middle = start + len(each.judged)
        each.judged = scores[start:middle]
        start = middle + len(each.order)
        each.scores = each.scores.copy()
        each.scores[each.order] = scores[middle:start]
        reference = float(max(each.judged[: len(given.example.pos)]))
        near = each.scores[each.order] > options.filters.rerank_margin.limit(reference)
        each.reasons[each.order[near]] = "reranker"
        each.order = each.order[~near]


def _record(given: MinedExample, each: _Selection, mining: Mining, report: NegativesReport) -> dict[str, Any]:
    """The record of one example; counts what became of its candidates."""
    passages, options = mining.passages, mining.options
    example, existing = given.example, given.example.neg if options.existing else ()
    room = max(0, options.keep - len(existing))
    each.reasons[each.order[room:]] = "left over"
    taken = np.sort(each.order[:room])
    dropped = np.flatnonzero(each.reasons != "")
    report.candidates += len(each.rows)
    for i in dropped:
        reason = str(each.reasons[i])
        report.dropped.drop(
            reason, None if reason in report.dropped.counts else _sample(example, each, int(i), passages)
        )
    report.keep(len(taken), len(existing), options.keep, example.language)
    neg_scores = each.scores[taken]
    pos_scores = each.judged[: len(example.pos)]
    for name, value in (
        ("positive", float(pos_scores.sum())),
        ("positives", len(example.pos)),
        ("negative", float(neg_scores.sum())),
        ("rank", int((taken + 1).sum())),
    ):
        report.sums[name] = report.sums.get(name, 0) + value
    mined = [passages.texts[row] for row in each.rows[taken]]
    all_scores = (pos_scores, np.concatenate([each.judged[len(example.pos) :], neg_scores]))
    return record_of(given, [*existing, *mined], all_scores)


def _sample(example: Example, each: _Selection, place: int, passages: Passages) -> dict[str, Any]:
    """A dropped candidate for the report."""
    return {
        "query": _cut(example.query),
        "positive": _cut(example.pos[0]),
        "passage": _cut(passages.texts[each.rows[place]]),
        "rank": place + 1,
        "score": round_digits(each.scores[place]),
        "positive_score": round_digits(each.judged[0]),
    }


def _cut(text: str) -> str:
    return text if len(text) <= _SAMPLE_CHARS else text[: _SAMPLE_CHARS - 1] + "…"
