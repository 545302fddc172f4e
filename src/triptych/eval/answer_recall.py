"""Recall of answers in runs: does one of the first k passages contain one of the answers?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.eval.answers import tokens
from triptych.eval.collection import Corpus
from triptych.eval.contender import Run


def answer_recall(
    run: Run,
    answers: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    texts: Mapping[str, str],
    cutoffs: Sequence[int],
) -> dict[int, NDArray[np.float64]]:
    """For each query and cutoff k, 1 if a passage among its first k contains an answer, else 0.

    What counts as containing is said in `triptych.eval.answers`.

    Args:
        run: Rankings; a query without one scores 0.
        answers: Query id to strings of which one has to be found.
        queries: The Q queries to evaluate.
        texts: The retrieved passages as `passages` gives them.
        cutoffs: The ks.

    Returns:
        For each k float64 ``[Q]``.
    """
    found = {k: np.zeros(len(queries)) for k in cutoffs}
    for row, query in enumerate(queries):
        wanted = [_joined(answer) for answer in answers[query] if tokens(answer)]
        documents = run[query].documents[: max(cutoffs)] if query in run else ()
        first = next(
            (rank for rank, name in enumerate(documents, 1) if any(part in texts[name] for part in wanted)),
            None,
        )
        for k in cutoffs:
            found[k][row] = first is not None and first <= k
    return found


def passages(corpus: Corpus, ids: set[str]) -> dict[str, str]:
    """The tokens of some documents, a blank around each, by one reading of the corpus: many answers meet them."""
    return {document.id: _joined(document.text) for document in corpus if document.id in ids}


def _joined(text: str) -> str:
    return f" {' '.join(tokens(text))} "
