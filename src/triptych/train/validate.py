"""Evaluation during training: nDCG of every head on a held-out collection, by exact search."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from triptych.data.beir import BeirSet
from triptych.model.packed import Packed, Reps
from triptych.model.tokenizer import TextTokenizer
from triptych.ops.ranking import ndcg
from triptych.ops.torch_scores import combine
from triptych.train.gradcache import original_order, split
from triptych.train.objective import INTEGRATED, Triple
from triptych.train.reps import join, score, take
from triptych.types import Head


class Validation:
    """A collection, tokenised once.

    Args:
        collection: Queries, documents and judgements.
        tokenizer: Of the model.
        query: Most tokens and prefix of a query.
        document: The same of a document.
        k: Depth of nDCG@k.

    Attributes:
        ids: Of the queries.
    """

    def __init__(
        self,
        collection: BeirSet,
        tokenizer: TextTokenizer,
        query: tuple[int, str],
        document: tuple[int, str],
        k: int = 10,
    ) -> None:
        def encoded(texts: Sequence[str], limit: tuple[int, str]) -> Packed:
            return Packed.of(tokenizer.encode(texts, max_length=limit[0], prefix=limit[1]).ids)

        column = {id_: number for number, id_ in enumerate(collection.corpus)}
        self._queries = encoded(list(collection.queries.values()), query)
        self._documents = encoded(list(collection.corpus.values()), document)
        self._gains = [
            {column[id_]: float(gain) for id_, gain in collection.qrels[name].items()}
            for name in collection.queries
        ]
        self._k = k
        self.ids = list(collection.queries)

    def __call__(
        self,
        encode: Callable[[Packed], Reps],
        heads: Sequence[Head],
        weights: Triple,
        *,
        device: torch.device,
        budget: int = 16384,
    ) -> dict[str, NDArray[np.float64]]:
        """nDCG@k of each query, ``[Q]``, by each head, and by the integrated score if there are several heads.

        Args:
            encode: From a packed batch to representations.
            heads: Which ones.
            weights: Of the integrated score.
            device: Where `encode` wants its batches.
            budget: Tokens encoded at a time.
        """
        queries = _encoded(encode, self._queries, device, budget)
        documents = _encoded(encode, self._documents, device, budget)
        scores: dict[Head, Tensor] = {head: score(head, queries, documents) for head in heads}
        found: dict[str, NDArray[np.float64]] = {head: self._each(matrix) for head, matrix in scores.items()}
        if len(scores) > 1:
            together = combine(scores.get("dense"), scores.get("lexical"), scores.get("multi"), weights)
            found[INTEGRATED] = self._each(together)
        return found

    def _each(self, scores: Tensor) -> NDArray[np.float64]:
        return np.asarray(ndcg(scores.cpu().numpy(), self._gains, self._k), dtype=np.float64)


def _encoded(encode: Callable[[Packed], Reps], texts: Packed, device: torch.device, budget: int) -> Reps:
    parts = split(texts, budget)
    found: list[Reps] = []
    with torch.no_grad():
        for part in parts:
            batch = Packed(part.batch.ids.to(device), part.batch.offsets.to(device), part.batch.lengths)
            found.append(encode(batch))
    return take(join(found), original_order(parts).to(device))
