"""Chooses the target and the scale of the lexical head by nDCG@10 on the development pool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from development import Pool, ndcg10
from lexical_start import Floats, Frequencies, Text, states_of, targets
from triptych.model.checkpoint import Checkpoint
from triptych.scores.on_numpy import lexical_scores

SCALES = (0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5, 0.8)
"""Lexical weights are tried times these, so that the default weights of the heads fit the model."""


def figures(
    model: Checkpoint, pool: Pool, heads: Mapping[str, Floats], frequencies: Frequencies
) -> tuple[dict[str, dict[str, float]], dict[str, NDArray[np.float32]]]:
    """nDCG@10 of lexical search with every head, with constant weights, and with BM25's own weights.

    Args:
        model: Backbone and tokenizer.
        pool: The development pool.
        heads: Name → ``[H + 1]``, weights and bias.
        frequencies: For the BM25 weights, which know the language and need no guess.

    Returns:
        Name → figures, and name → scores ``[Q, N]``.
    """
    names = [*heads, "constant", "bm25 itself"]
    sides = [
        _weights(model, [Text(text, "", is_query) for text in texts], heads, frequencies)
        for texts, is_query in ((pool.questions, True), (pool.passages, False))
    ]
    scores = {
        name: lexical_scores(queries, passages)
        for name, queries, passages in zip(names, sides[0], sides[1], strict=True)
    }
    return {name: ndcg10(each, pool) for name, each in scores.items()}, scores


def _weights(
    model: Checkpoint, texts: list[Text], heads: Mapping[str, Floats], frequencies: Frequencies
) -> list[sparse.csr_array]:
    """One CSR ``[N, V]`` for every head, then for constant weights and BM25's."""
    parts: list[list[tuple[NDArray[Any], ...]]] = [[] for _ in range(len(heads) + 2)]
    for rows, ids, states in states_of(model, texts):
        for row, tokens, state in zip(rows, ids, states, strict=True):
            for part, weights in zip(
                parts, _position_weights(tokens, state, texts[row], heads, frequencies), strict=True
            ):
                counted = weights * ~np.isin(tokens, model.model.special.never_lexical)
                part.append(_strongest(row, tokens, counted))
    width = model.model.widths["lexical"]
    return [_matrix(part, (len(texts), width)) for part in parts]


def _position_weights(
    tokens: NDArray[np.int64],
    state: NDArray[Any],
    text: Text,
    heads: Mapping[str, Floats],
    frequencies: Frequencies,
) -> Iterator[Floats]:
    for head in heads.values():
        yield np.maximum(state @ head[:-1] + head[-1], 0)
    yield np.ones(len(tokens))
    # idf over all languages: an exact count needs none, and the pool's languages are not told.
    yield targets(tokens, replace(text, language=""), frequencies)[:, 2]


def _strongest(row: int, tokens: NDArray[np.int64], weights: Floats) -> tuple[NDArray[Any], ...]:
    """Rows, columns and values of a text: the largest weight of every token id."""
    columns, inverse = np.unique(tokens, return_inverse=True)
    values = np.zeros(len(columns))
    np.maximum.at(values, inverse, weights)
    return np.full(len(columns), row), columns, values


def _matrix(parts: list[tuple[NDArray[Any], ...]], shape: tuple[int, int]) -> sparse.csr_array:
    rows, columns, values = (np.concatenate(each) for each in zip(*parts, strict=True))
    return sparse.csr_array((values.astype(np.float32), (rows, columns)), shape=shape)
