"""One pass over the vectors of a corpus: the scores of all heads, and the best documents by each sum of them.

What a list of best documents holds is not only its sum but every single score, so that protocols, fusion and the
choice of weights need no second pass. Only token vectors may be left for later (`rescore`), since comparing them
with a whole corpus is what takes the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from triptych.eval.best import Best
from triptych.eval.contender import HeadScores, Progress, Scoring
from triptych.eval.survey import Survey
from triptych.eval.vectors import Vectors
from triptych.ops.scores import combine, head_scores
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights, Ragged

_QUERIES = 4096
"""Queries whose scores with one block are in memory at once."""


class Wanted(NamedTuple):
    """A list to keep: the k best documents by a weighted sum."""

    weights: HeadWeights
    k: int


@dataclass(slots=True)
class Scanned:
    """What a pass found.

    Attributes:
        heads: The heads whose scores `Best.parts` holds, in this order.
        lists: By the names that were asked for.
        seconds: Of each head's scoring, all queries and documents together; "rank" is the keeping of lists.
        bytes: Of each head, all documents together, as float32 numbers (sparse ones with an int32 place each).
    """

    heads: tuple[Head, ...]
    lists: dict[str, Best]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    bytes: dict[Head, int] = field(default_factory=dict[Head, int])


def numpy_scoring(queries: Encoded) -> HeadScores:
    """Scores in NumPy and SciPy: the default."""
    return lambda documents, heads: {head: head_scores(queries, documents, head) for head in heads}


def scan(
    vectors: Vectors,
    corpus: Survey,
    queries: Encoded,
    wanted: Mapping[str, Wanted],
    *,
    heads: Sequence[Head],
    scoring: Scoring = numpy_scoring,
    progress: Progress | None = None,
) -> Scanned:
    """Compares all queries with all documents.

    Args:
        vectors: The documents.
        corpus: Their ids.
        queries: Q queries with these heads.
        wanted: The lists to keep. A weight on a head that is not in `heads` counts 0 here.
        heads: Which scores to compute.
        scoring: How.
        progress: Called with (documents, all documents).

    Returns:
        The lists. A document without any score above 0 is in no list of the lexical score alone: such a search
        would not find it.
    """
    heads = tuple(head for head in HEADS if head in heads)
    lists = {name: Best(len(queries), min(one.k, len(corpus)), len(heads)) for name, one in wanted.items()}
    found = Scanned(heads, lists, dict.fromkeys((*heads, "rank"), 0.0), dict.fromkeys(heads, 0))
    chunks = [
        (start, scoring(queries[start : start + _QUERIES])) for start in range(0, len(queries), _QUERIES)
    ]
    for start, block in vectors.blocks(progress, heads):
        rows = np.arange(start, start + len(block))
        for head in heads:
            found.bytes[head] += _size(block, head)
        for first, score in chunks:
            scores: dict[Head, Floats] = {}
            for head in heads:
                began = time.perf_counter()
                scores |= score(block, (head,))
                found.seconds[head] += time.perf_counter() - began
            began = time.perf_counter()
            _keep(found, wanted, first, (rows, corpus.ranks[rows]), scores)
            found.seconds["rank"] += time.perf_counter() - began
    for best in lists.values():
        best.settle()
    return found


def _keep(
    found: Scanned,
    wanted: Mapping[str, Wanted],
    first: int,
    documents: tuple[NDArray[np.int64], NDArray[np.int64]],
    scores: Mapping[Head, Floats],
) -> None:
    parts = np.stack([scores[head] for head in found.heads])
    for name, one in wanted.items():
        weights = here(one.weights, found.heads)
        total = combine(scores, weights)
        if weights.heads == ("lexical",):
            total = np.where(total > 0, total, np.float32(-np.inf))
        found.lists[name].add(first, *documents, total, parts)


def here(weights: HeadWeights, heads: Sequence[Head]) -> HeadWeights:
    """The weights, with 0 for heads that are not there."""
    return HeadWeights(*(getattr(weights, head) if head in heads else 0.0 for head in HEADS))


def same(tokens: Ragged) -> Ragged:
    """Token vectors as they are."""
    return tokens


class Variant(NamedTuple):
    """A form of token vectors: the queries as they are compared, and what becomes of the documents' vectors."""

    queries: Ragged
    change: Callable[[Ragged], Ragged] = same


def rescore(
    vectors: Vectors,
    variants: Sequence[Variant],
    rows: Sequence[NDArray[np.int64]],
    *,
    scoring: Scoring = numpy_scoring,
    progress: Progress | None = None,
) -> list[list[Floats]]:
    """The multi-vector scores of given pairs, by one pass over the token vectors.

    Args:
        vectors: The documents.
        variants: Q queries each, with a change of the documents; one pass serves all of them.
        rows: For each query, numbers of documents in ascending order.
        scoring: How; it is called for one query at a time, with the documents of a block that it needs.
        progress: Called with (documents, all documents).

    Returns:
        For each variant and query float32 ``[len(rows[i])]``.
    """
    found = [[np.zeros(len(wanted), dtype=np.float32) for wanted in rows] for _ in variants]
    single = [
        {
            query: scoring(Encoded(multi=one.queries.take([query])))
            for query, wanted in enumerate(rows)
            if len(wanted)
        }
        for one in variants
    ]
    for start, block in vectors.blocks(progress, ("multi",)):
        bounds = [np.searchsorted(wanted, (start, start + len(block))) for wanted in rows]
        asked = [wanted[a:b] for wanted, (a, b) in zip(rows, bounds, strict=True)]
        needed = np.unique(np.concatenate(asked)) if asked else np.zeros(0, np.int64)
        if not len(needed):
            continue
        present = cast(Ragged, block.multi).take(needed - start)
        for number, one in enumerate(variants):
            tokens = one.change(present)
            for query, (a, b) in enumerate(bounds):
                if a < b:
                    documents = Encoded(multi=tokens.take(np.searchsorted(needed, asked[query])))
                    found[number][query][a:b] = single[number][query](documents, ("multi",))["multi"][0]
    return found


def _size(block: Encoded, head: Head) -> int:
    if head == "dense":
        return 4 * cast(Floats, block.dense).size
    if head == "multi":
        return 4 * cast(Ragged, block.multi).values.size
    return 8 * int(block.lexical.nnz)  # type: ignore[union-attr]
