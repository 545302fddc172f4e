"""What can be evaluated: models that give vectors, and systems with a scoring of their own.

The evaluation itself knows neither torch nor any model: what encodes comes from a layer above.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from triptych.eval.collection import Corpus
from triptych.types import Encoded, Floats, Head, HeadWeights

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with (done, total or None)."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The ranking of one query.

    Attributes:
        documents: Ids, the best first.
        scores: float32, descending; equal ones are in the order of the ids.
    """

    documents: tuple[str, ...]
    scores: Floats

    @classmethod
    def of(cls, scores: Mapping[str, float]) -> Ranked:
        """Orders documents by falling score, equal ones by id."""
        order = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(id_ for id_, _ in order), np.asarray([score for _, score in order], np.float32))

    def __len__(self) -> int:
        return len(self.documents)


Run: TypeAlias = Mapping[str, Ranked]
"""Query id to its ranking."""


class VectorModel(Protocol):
    """A contender that encodes; searching and scoring is the evaluation's business."""

    @property
    def name(self) -> str:
        """Short name for tables, such as "small"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that determines the vectors: weights, tokenizer, configuration, dtype, lengths."""
        ...

    @property
    def modes(self) -> Mapping[str, HeadWeights]:
        """The ways to score with it; ``{"dense": HeadWeights(1, 0, 0)}`` for an ordinary embedding model.

        Every head with a weight in some mode has to be in what the two methods give.
        """
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it: source, device, dtype, dimensions (JSON values)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        ...

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents, `block` at a time (the last may be fewer), in order, and holds few blocks at once."""
        ...


class Ranker(Protocol):
    """A contender with its own index and scoring, such as BM25; it has one mode."""

    @property
    def name(self) -> str:
        """Short name for tables, such as "bm25 (words)"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that determines the scores."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it (JSON values)."""
        ...

    def rank(
        self,
        corpus: Corpus,
        queries: Sequence[str],
        languages: Sequence[str],
        k: int,
        progress: Progress | None = None,
    ) -> list[Ranked]:
        """Ranks the corpus for each query.

        Args:
            corpus: Documents.
            queries: Q texts.
            languages: Q language codes; "" where it is unknown. For cross-lingual subsets ("en-zh"), the query's.
            k: Most documents a query. Documents that match nothing may be left out.
            progress: Called with (done, total or None).
        """
        ...


Contender: TypeAlias = VectorModel | Ranker

HeadScores: TypeAlias = Callable[[Encoded, Sequence[Head]], dict[Head, Floats]]
"""From N documents and the heads wanted to float32 ``[Q, N]`` for each."""

Scoring: TypeAlias = Callable[[Encoded], HeadScores]
"""Takes the Q queries (puts them on the device, once) and gives what scores blocks of documents."""
