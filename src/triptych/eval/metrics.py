"""Metrics of runs, by ir-measures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError, MissingExtra
from triptych.eval.collection import ANSWER_RECALL
from triptych.eval.contender import Run


def check_metrics(names: Sequence[str], where: str = "metrics") -> tuple[str, ...]:
    """The names, if all of them are known.

    Raises:
        InputError: For a name that neither ir-measures nor this package knows.
        MissingExtra: If ir-measures is not installed.
    """
    for name in names:
        if is_answer_recall(name) is None:
            _parsed(name, where)
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
        names: Metrics of ir-measures (`AnswerRecall` is not among them, see `triptych.eval.answers`).

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
    parsed = {_parsed(name, "metrics"): name for name in names}
    judged = {query: {doc: int(value) for doc, value in qrels[query].items()} for query in strict}
    for one in ir_measures.iter_calc(list(parsed), judged, strict):
        found[parsed[one.measure]][row[one.query_id]] = one.value
    return found


def is_answer_recall(name: str) -> int | None:
    """The k of ``AnswerRecall@k``; None for another metric."""
    found = re.fullmatch(rf"{ANSWER_RECALL}@([1-9]\d*)", name)
    return int(found[1]) if found else None


def _parsed(name: str, where: str) -> Any:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtra("evaluation", "eval") from error
    try:
        return ir_measures.parse_measure(name)
    except (NameError, ValueError) as error:
        raise InputError(
            f"{where}: got {name!r}; expected a metric of ir-measures such as nDCG@10, R@100, RR@10, AP, Success@5, "
            f"or {ANSWER_RECALL}@20"
        ) from error
