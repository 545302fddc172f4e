"""A training step's queries and passages as packed tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from triptych.data.collate import PairIds
from triptych.model.packed import Packed
from triptych.train.reps import text_keys


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Q queries with G passages each.

    Attributes:
        queries: The queries.
        passages: Q·G passages; the positive of query i is number i·G.
        group: G.
        teacher_scores: float32 ``[Q, G]`` or None; NaN in a row without scores, −inf for a passage drawn at random.
        keys: int64 ``[Q·G]``, equal for passages with equal tokens; None: nobody asked.
    """

    queries: Packed
    passages: Packed
    group: int
    teacher_scores: Tensor | None = None
    keys: Tensor | None = None

    @classmethod
    def of(cls, ids: PairIds, *, keyed: bool = False) -> PairBatch:
        """Packs what a `Collator` gives, on the processor.

        Args:
            ids: Tokens of queries and passages.
            keyed: Whether `keys` are needed.
        """
        scores = None if ids.teacher_scores is None else torch.from_numpy(ids.teacher_scores)
        keys = text_keys(ids.passages) if keyed else None
        return cls(Packed.of(ids.queries), Packed.of(ids.passages), ids.group, scores, keys)

    def joint(self) -> Packed:
        """Queries and passages as one batch, queries first."""
        first, second = self.queries, self.passages
        offsets = torch.cat([first.offsets, second.offsets[1:] + first.offsets[-1]])
        return Packed(torch.cat([first.ids, second.ids]), offsets, first.lengths + second.lengths)
