"""Search through an `Index`, whose engine scales further than memory; approximate where the engine is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.index.index import BLOCK, Index, Progress
from triptych.scores.on_numpy import combine, head_scores
from triptych.tools.negatives.options import Scoring
from triptych.tools.negatives.passages import ARTICLE, Passage, Passages, article_of, language_of
from triptych.tools.negatives.search import NOTHING, Found
from triptych.types import Encoded, Floats, Head, Hit

_FETCHED = 1000


class IndexSearch:
    """Searches an index; fulfils `Searcher`.

    The scores of passages that are asked for are computed from their texts, those of hits are the index's.

    Args:
        index: An open index that holds exactly the searchable passages.
        encoder: Its model.
        passages: What the rows are.
        scoring: Which scores, with which weights.
        passage_length: Most tokens of a passage that is asked for.

    Raises:
        InputError: If the index lacks a head that is needed.
    """

    def __init__(
        self, index: Index, encoder: Encoder, passages: Passages, scoring: Scoring, passage_length: int | None
    ) -> None:
        if lacking := [head for head in scoring.heads if head not in index.heads]:
            raise InputError(
                f"search: needs {' and '.join(lacking)}; this index holds {', '.join(index.heads)}"
            )
        self._index, self._encoder, self._passages, self._scoring = index, encoder, passages, scoring
        self._length = passage_length
        self._row = {name: row for row, name in enumerate(passages.ids)}

    @property
    def heads(self) -> tuple[Head, ...]:
        """See `Searcher.heads`."""
        return self._index.heads

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> Found:
        """See `Searcher.search`."""
        scoring = self._scoring
        hits = self._index.search_encoded(
            queries, depth, weights=scoring.rank, routes=scoring.routes, candidates=scoring.candidates
        )
        rows = np.full((len(hits), depth), NOTHING, dtype=np.int64)
        scores = np.zeros((len(hits), depth), dtype=np.float32)
        for i, found in enumerate(hits):
            known = [hit for hit in found if hit.id in self._row]  # a blank passage is none
            rows[i, : len(known)] = [self._row[hit.id] for hit in known]
            scores[i, : len(known)] = [self._judged(hit) for hit in known]
        return Found(rows, scores, self._wanted(queries, wanted))

    def _judged(self, hit: Hit) -> float:
        return float(
            sum(
                np.float32(getattr(self._scoring.judge, head)) * np.float32(hit.scores[head])
                for head in self._judging
            )
        )

    @property
    def _judging(self) -> tuple[Head, ...]:
        return self._scoring.judge.heads

    def _wanted(self, queries: Encoded, wanted: Sequence[Sequence[int]]) -> list[Floats]:
        rows = sorted({row for each in wanted for row in each})
        place = {row: i for i, row in enumerate(rows)}
        texts = [self._passages.texts[row] for row in rows]
        encoded = self._encoder.encode_document(texts, outputs=self._judging, max_length=self._length)
        scores: list[Floats] = []
        for i, each in enumerate(wanted):
            some = encoded[np.array([place[row] for row in each], dtype=np.int64)]
            single: dict[Head, Floats] = {head: head_scores(queries[i], some, head) for head in self._judging}
            scores.append(combine(single, self._scoring.judge)[0])
        return scores


def add_missing(index: Index, passages: Sequence[Passage], progress: Progress | None = None) -> None:
    """Adds the passages that an index does not hold yet, or holds with another text.

    An interrupted run is completed by the next one.
    """
    for start in range(0, len(passages), BLOCK):
        some = [each for each in passages[start : start + BLOCK] if each.text.strip()]
        held = index.get([each.id for each in some])
        new = [each for each, old in zip(some, held, strict=True) if old is None or old["text"] != each.text]
        if new:
            metadata = [{"article": each.article, "lang": each.language, "also": each.also} for each in new]
            kept = [
                {name: value for name, value in fields.items() if value is not None} for fields in metadata
            ]
            index.add([each.id for each in new], [each.text for each in new], kept)
        if progress:
            progress(min(start + BLOCK, len(passages)), len(passages))


def passages_in(index: Index, article_fields: Sequence[str] = ARTICLE) -> Iterator[Passage]:
    """The documents of an index as passages."""
    names = sorted(index.ids)
    for start in range(0, len(names), _FETCHED):
        for payload in index.get(names[start : start + _FETCHED]):
            if payload is not None:
                fields = payload["metadata"]
                also = fields.get("also")
                yield Passage(
                    payload["id"],
                    payload["text"],
                    article_of(fields, article_fields),
                    language_of(fields),
                    also if isinstance(also, str) else None,
                )
