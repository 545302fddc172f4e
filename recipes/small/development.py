"""The development pool: passages of the articles that are set aside, questions on them, and nDCG@10."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qa_split import Passage, sample
from triptych.text import digest


@dataclass(frozen=True, slots=True)
class Pool:
    """Questions of several sets on passages that are searched together.

    Attributes:
        passages: Texts of N passages, of all sets and languages.
        questions: Q texts.
        answers: int64 ``[Q]``, the passage that each question was asked on.
        sets: "set language" of each question.
    """

    passages: list[str]
    questions: list[str]
    answers: NDArray[np.int64]
    sets: list[str]


def pool(passages: Sequence[Passage], passages_each: int = 250, questions_each: int = 50) -> Pool:
    """Draws a pool: of every set and language so many passages and questions, the same in every run.

    Args:
        passages: Passages with questions; those that are development are used.
        passages_each: Most passages of a set and language.
        questions_each: Most questions of it.
    """
    chosen = sample((p for p in passages if p.is_development and p.questions), passages_each)
    asked: dict[str, list[tuple[int, str, int]]] = {}
    for row, passage in enumerate(chosen):
        group = asked.setdefault(f"{passage.source} {passage.language}", [])
        group += [(digest(question), question, row) for question in passage.questions]
    kept = [(name, entry) for name, entries in asked.items() for entry in sorted(entries)[:questions_each]]
    return Pool(
        [passage.text for passage in chosen],
        [entry[1] for _, entry in kept],
        np.array([entry[2] for _, entry in kept], dtype=np.int64),
        [name for name, _ in kept],
    )


def gains(scores: NDArray[Any], pool: Pool) -> NDArray[np.float64]:
    """nDCG@10 of every question, ``[Q]``.

    **Math** With one relevant passage at rank r, nDCG@10 is ``1 / log2(r + 1)`` for r ≤ 10, else 0. A passage
    with the same score as the answer counts as ranked before it: ties win nothing.
    """
    own = scores[np.arange(len(scores)), pool.answers][:, None]
    ranks = (scores >= own).sum(axis=1)
    return np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0.0)


def ndcg10(scores: NDArray[Any], pool: Pool) -> dict[str, float]:
    """nDCG@10 of every set, and their mean under "mean"."""
    each, names = gains(scores, pool), np.array(pool.sets)
    figures = {str(name): float(each[names == name].mean()) for name in np.unique(names)}
    return {"mean": float(np.mean(list(figures.values()))), **figures}
