"""Metrics of runs: those of ir-measures, and recall of answers as open-domain question answering counts it.

MKQA is judged so (arXiv 2402.03216v4, section 4.2): a query counts at k if one of its first k passages contains one of
its answers. Both are split into tokens after canonical decomposition, and an answer is contained where its tokens
follow each other in the passage; DPR's evaluation does this, and with it RocketQA's, Contriever's and Pyserini's.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import ANSWER_RECALL, Corpus, Run
from triptych.errors import InputError, require_extra


class _Splitting(dict[int, str]):
    """For `str.translate`: letters, digits and marks stay together, every other visible character is alone."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        kind = unicodedata.category(char)[0]
        self[point] = char if kind in "LNM" else " " if kind in "ZC" else f" {char} "
        return self[point]


_SPLITTING = _Splitting()


def tokens(text: str) -> list[str]:
    """The tokens of a text in lower case: runs of letters, digits and marks; any other visible character alone.

    Example:
        >>> tokens("Rock 'n' Roll, 1955")
        ['rock', "'", 'n', "'", 'roll', ',', '1955']
    """
    return [
        token.lower()
        for token in unicodedata.normalize("NFD", text).translate(_SPLITTING).split(" ")
        if token
    ]


def spaced(text: str) -> str:
    """The tokens of a text with a blank around each: no token has one, so a run of tokens is where the string is."""
    return f" {' '.join(tokens(text))} "


def check_metrics(names: Sequence[str], where: str = "metrics") -> tuple[str, ...]:
    """The names, if all of them are known.

    Raises:
        InputError: For a name that neither ir-measures nor this package knows.
        MissingExtra: If ir-measures is not installed.
    """
    for name in names:
        if is_answer_recall(name) is None:
            _parse(name, where)
    if not names:
        raise InputError(f"{where}: got none; expected names such as nDCG@10, R@100, RR@10")
    return tuple(dict.fromkeys(names))


def depth_of(names: Sequence[str]) -> int:
    """The deepest rank that some metric looks at; 1 if none has a cutoff."""
    return max([1, *(int(found[1]) for name in names if (found := re.search(r"@(\d+)$", name)))])


def measure(
    run: Run, qrels: Mapping[str, Mapping[str, int]], queries: Sequence[str], names: Sequence[str]
) -> dict[str, NDArray[np.float64]]:
    """Metrics of every query.

    The tools behind ir-measures order documents by score and break ties each in its own way. They are given ranks
    in place of scores, so that the order is the run's own.

    Args:
        run: Rankings; a query without one scores 0.
        qrels: Judgements.
        queries: The Q queries to evaluate.
        names: Metrics of ir-measures (`AnswerRecall` is not among them, see `triptych.eval.metrics`).

    Returns:
        For each metric float64 ``[Q]``.
    """
    import ir_measures

    row = {query: number for number, query in enumerate(queries)}
    found = {name: np.zeros(len(queries)) for name in names}
    strict = {
        query: {document: float(len(run[query]) - rank) for rank, document in enumerate(run[query].documents)}
        for query in queries
        if query in run and len(run[query])
    }
    if not strict or not names:
        return found
    parsed = {_parse(name, "metrics"): name for name in names}
    judged = {query: {doc: int(value) for doc, value in qrels[query].items()} for query in strict}
    for one in ir_measures.iter_calc(list(parsed), judged, strict):
        found[parsed[one.measure]][row[one.query_id]] = one.value
    return found


def is_answer_recall(name: str) -> int | None:
    """The k of ``AnswerRecall@k``; None for another metric."""
    found = re.fullmatch(rf"{ANSWER_RECALL}@([1-9]\d*)", name)
    return int(found[1]) if found else None


def _parse(name: str, where: str) -> Any:
    with require_extra("evaluation", "eval"):
        import ir_measures
    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError) as error:
        raise InputError(
            f"{where}: got {name!r}; expected a metric of ir-measures such as nDCG@10, R@100, RR@10, AP, Success@5, "
            f"or {ANSWER_RECALL}@20"
        ) from error


def answer_recall(
    run: Run,
    answers: Mapping[str, Sequence[str]],
    queries: Sequence[str],
    texts: Mapping[str, str],
    cutoffs: Sequence[int],
) -> dict[int, NDArray[np.float64]]:
    """For each query and cutoff k, 1 if a passage among its first k contains an answer, else 0.

    An answer without a token (blank, or only control characters) is in no text; in DPR's script it is in every one.

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
        documents = run[query].documents[: max(cutoffs)] if query in run else ()
        wanted = [part for part in map(spaced, answers[query]) if part.strip()]
        ranks = (
            r for r, name in enumerate(documents, 1) if any(part in texts.get(name, "") for part in wanted)
        )
        first = next(ranks, None)
        for k in cutoffs:
            found[k][row] = first is not None and first <= k
    return found


def passages(corpus: Corpus, ids: set[str]) -> dict[str, str]:
    """The spaced tokens of some documents, by one reading of the corpus."""
    return {document.id: spaced(document.text) for document in corpus if document.id in ids}
