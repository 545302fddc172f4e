"""A training step's queries and passages as packed tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from triptych.data.collate import PairIds
from triptych.model.packed import Packed


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Q queries with G passages each.

    Attributes:
        queries: The queries.
        passages: Q·G passages; the positive of query i is number i·G.
        group: G.
        teacher_scores: float32 ``[Q, G]`` or None; NaN in a row without scores, −inf for a passage drawn at random.
    """

    queries: Packed
    passages: Packed
    group: int
    teacher_scores: Tensor | None = None

    @classmethod
    def of(cls, ids: PairIds, device: torch.device | None = None) -> PairBatch:
        """Packs what a `Collator` gives."""
        scores = None if ids.teacher_scores is None else torch.from_numpy(ids.teacher_scores).to(device)
        return cls(Packed.of(ids.queries, device), Packed.of(ids.passages, device), ids.group, scores)

    def to(self, device: torch.device) -> PairBatch:
        """The same on another device."""
        scores = None if self.teacher_scores is None else self.teacher_scores.to(device)
        return replace(
            self,
            queries=_moved(self.queries, device),
            passages=_moved(self.passages, device),
            teacher_scores=scores,
        )


def _moved(packed: Packed, device: torch.device) -> Packed:
    return replace(packed, ids=packed.ids.to(device), offsets=packed.offsets.to(device))
