"""Whether an encoder finds the document that a question was written for: the round trip of synthetic questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triptych.data.cache import chunked
from triptych.data.records import Document
from triptych.data.synthetic.lexical import Asked
from triptych.ops.scores import combine, head_scores
from triptych.types import Encoded, Floats, HeadWeights, TextEncoder


@dataclass(frozen=True, slots=True)
class EncoderFinder:
    """A `triptych.data.synthetic.lexical.Finder` with an encoder's scores.

    Documents go through in blocks and only each question's best scores are kept: memory grows with the questions times
    the depth, not with the corpus.

    Attributes:
        encoder: Makes the representations.
        weights: Of the three scores. The default is the paper's for dense and lexical together; token vectors of
            whole long documents are slow to compare.
        block: Documents that are encoded at once.
    """

    encoder: TextEncoder
    weights: HeadWeights = field(default_factory=lambda: HeadWeights(1.0, 0.3, 0.0))
    block: int = 64

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Asked], depth: int
    ) -> Sequence[int | None]:
        """The rank of each question's document, or None beyond `depth`; equal scores do not count against it."""
        if not questions:
            return []
        heads = self.weights.heads
        asked = self.encoder.encode_query([each.question for each in questions], outputs=heads)
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(questions):
            rows.setdefault(each.document, []).append(row)
        best = np.full((len(questions), depth), -np.inf, dtype=np.float32)
        own = np.full(len(questions), -np.inf, dtype=np.float32)
        for block in chunked(documents, self.block):
            scores = self._scores(asked, [document.content for document in block])
            for column, document in enumerate(block):
                mine = rows.get(document.id, [])
                own[mine] = scores[mine, column]
            best = _largest(np.concatenate([best, scores], axis=1), depth)
        better = (best > own[:, None]).sum(axis=1)
        return [
            int(count) + 1 if np.isfinite(score) and count < depth else None
            for count, score in zip(better, own, strict=True)
        ]

    def _scores(self, asked: Encoded, texts: list[str]) -> Floats:
        encoded = self.encoder.encode_document(texts, outputs=self.weights.heads)
        heads = self.weights.heads
        return combine({head: head_scores(asked, encoded, head) for head in heads}, self.weights)


def _largest(scores: Floats, count: int) -> NDArray[np.float32]:
    """The `count` largest of each row, in any order."""
    return np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:]
