"""Packed representations as values: choosing, splitting and joining texts, and the scores of all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from triptych.model.packed import Reps
from triptych.ops import torch_scores
from triptych.types import Head


def take(reps: Reps, texts: Tensor, *, permutes: bool = False) -> Reps:
    """The texts `texts` (int64 ``[K]``), in that order; differentiable.

    Args:
        reps: N texts.
        texts: Their numbers.
        permutes: Whether each text comes once: then the sizes are known, and nobody waits for a GPU.
    """
    places, offsets = ragged_places(reps.offsets, texts, len(reps.ids) if permutes else None)
    multi, multi_offsets = reps.multi, offsets
    if multi is not None:
        vectors, multi_offsets = ragged_places(reps.multi_offsets, texts, len(multi) if permutes else None)
        multi = multi.index_select(0, vectors)
    return Reps(
        ids=reps.ids[places],
        offsets=offsets,
        dense=None if reps.dense is None else reps.dense.index_select(0, texts),
        lexical=None if reps.lexical is None else reps.lexical.index_select(0, places),
        multi=multi,
        multi_offsets=multi_offsets,
    )


def parted(reps: Reps, texts: int, tokens: int) -> tuple[Reps, Reps]:
    """The first `texts` texts, which have `tokens` tokens, and the others; as views."""
    vectors = 0 if reps.multi is None else int(reps.multi_offsets[texts])

    def part(own: slice, bounds: slice, flat: slice, row: slice) -> Reps:
        return Reps(
            ids=reps.ids[flat],
            offsets=reps.offsets[bounds] - reps.offsets[own.start or 0],
            dense=None if reps.dense is None else reps.dense[own],
            lexical=None if reps.lexical is None else reps.lexical[flat],
            multi=None if reps.multi is None else reps.multi[row],
            multi_offsets=reps.multi_offsets[bounds] - reps.multi_offsets[own.start or 0],
        )

    return (
        part(slice(texts), slice(texts + 1), slice(tokens), slice(vectors)),
        part(slice(texts, None), slice(texts, None), slice(tokens, None), slice(vectors, None)),
    )


def ragged_places(offsets: Tensor, texts: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """Positions of the texts `texts` in a flat buffer with bounds `offsets`, and the bounds that result.

    Args:
        offsets: int64 ``[N + 1]``.
        texts: int64 ``[K]``.
        total: How many positions these are, if that is known.
    """
    lengths = offsets.diff()[texts]
    bounds = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    count = int(bounds[-1]) if total is None else total
    within = torch.arange(count, device=offsets.device)
    shift = (offsets[:-1][texts] - bounds[:-1]).repeat_interleave(lengths, output_size=count)
    return within + shift, bounds


def join(parts: Sequence[Reps]) -> Reps:
    """One batch of several, in their order; all have the same heads."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]

    def joined(name: str) -> Tensor | None:
        if getattr(first, name) is None:
            return None
        return torch.cat([cast(Tensor, getattr(part, name)) for part in parts])

    return Reps(
        ids=torch.cat([part.ids for part in parts]),
        offsets=join_offsets([part.offsets for part in parts]),
        dense=joined("dense"),
        lexical=joined("lexical"),
        multi=joined("multi"),
        multi_offsets=join_offsets([part.multi_offsets for part in parts]),
    )


def join_offsets(parts: Sequence[Tensor]) -> Tensor:
    """Bounds of flat buffers that are laid one after the other."""
    lengths = torch.cat([part.diff() for part in parts])
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def leaves(reps: Reps) -> Reps:
    """The same values cut off from what made them, each waiting for its gradient."""
    return replace(
        reps,
        dense=_leaf(reps.dense),
        lexical=_leaf(reps.lexical),
        multi=_leaf(reps.multi),
    )


def _leaf(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().requires_grad_()


def score(head: Head, queries: Reps, passages: Reps, width: int | None = None) -> Tensor:
    """The score of one head for all pairs, float32 ``[Q, N]``.

    Args:
        head: Which score.
        queries: Q texts.
        passages: N texts.
        width: Use only the first so many columns, normalised anew (Matryoshka, arXiv 2205.13147); dense and
            multi-vector only.
    """
    if head == "lexical":
        return torch_scores.lexical_scores(
            queries.ids,
            cast(Tensor, queries.lexical),
            queries.offsets,
            passages.ids,
            cast(Tensor, passages.lexical),
            passages.offsets,
        )
    sides = [cast(Tensor, getattr(side, head)) for side in (queries, passages)]
    if width is not None:
        sides = [normalize(side[:, :width], dim=-1) for side in sides]
    if head == "dense":
        return torch_scores.dense_scores(*sides)
    return torch_scores.maxsim_scores(sides[0], queries.multi_offsets, sides[1], passages.multi_offsets)


def text_keys(texts: Sequence[NDArray[np.integer] | Sequence[int]]) -> Tensor:
    """A number for each text that depends on its token ids alone, int64 ``[N]`` on the processor."""
    contents = [np.asarray(text, dtype=np.int64).tobytes() for text in texts]
    return torch.tensor([_key(content) for content in contents], dtype=torch.int64)


def _key(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True)
