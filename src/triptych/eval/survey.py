"""What has to hold of a collection, found out before hours of encoding: ids, lengths, judgements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triptych.errors import DataError
from triptych.eval.collection import Collection, Corpus
from triptych.eval.contender import Progress

_EVERY = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Survey:
    """A corpus after one reading: all but its texts.

    Attributes:
        ids: Of the N documents, in order.
        row_of: The place of each id.
        ranks: int64 ``[N]``, the place of each row's id in the order of all ids; equal scores rank by it.
        characters: int64 ``[N]``, the length of each text.
    """

    ids: Sequence[str]
    row_of: dict[str, int]
    ranks: NDArray[np.int64]
    characters: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)


def survey(corpus: Corpus, label: str, progress: Progress | None = None) -> Survey:
    """Reads a corpus once.

    Args:
        corpus: The documents.
        label: Name for messages.
        progress: Called with (documents read, total or None).

    Raises:
        DataError: For no documents, or an id that is there twice.
    """
    row_of: dict[str, int] = {}
    characters: list[int] = []
    for row, document in enumerate(corpus):
        if row_of.setdefault(document.id, row) != row:
            raise DataError(
                f"{label}: documents {row_of[document.id] + 1} and {row + 1} have the same id {document.id!r}; "
                "expected each id once"
            )
        characters.append(len(document.text))
        if progress is not None and row % _EVERY == _EVERY - 1:
            progress(row + 1, corpus.size)
    if not row_of:
        raise DataError(f"{label}: got a corpus without documents; expected at least one")
    ids = list(row_of)
    ranks = np.empty(len(ids), dtype=np.int64)
    ranks[sorted(range(len(ids)), key=ids.__getitem__)] = np.arange(len(ids))
    return Survey(ids, row_of, ranks, np.asarray(characters, dtype=np.int64))


def usable(collection: Collection, corpus: Survey) -> tuple[Collection, list[str]]:
    """The collection without what cannot be evaluated, and what that was.

    A query without a relevant document (or, where answers are judged, without an answer) is left out: every
    ranking of it is as good as any other. A judged document that the corpus lacks stays judged, as in the
    published evaluations: it cannot be found.

    Returns:
        The collection with the queries that can be judged alone; one line for each kind of fault, with its count.

    Raises:
        DataError: If no query is left, or no judged document is in the corpus.
    """
    notes: list[str] = []
    label, qrels, answers = collection.label, collection.qrels, collection.answers
    strangers = len(set(qrels) - set(collection.queries))
    if strangers:
        notes.append(f"{label}: {strangers} of {len(qrels)} judged queries have no text and are left out")
    if answers is None:
        good = {q: text for q, text in collection.queries.items() if max(qrels.get(q, {"": 0}).values()) > 0}
        what = "relevant document"
    else:
        good = {q: text for q, text in collection.queries.items() if any(answers.get(q, ()))}
        what = "answer"
    without = len(collection.queries) - len(good)
    if not good:
        raise DataError(
            f"{label}: none of {len(collection.queries)} queries has a {what}; expected judgements for them"
        )
    if without:
        notes.append(
            f"{label}: {without} of {len(collection.queries)} queries have no {what} and are left out"
        )
    judged = {document for query in good for document in qrels.get(query, {})}
    absent = sum(document not in corpus.row_of for document in judged)
    if absent and absent == len(judged):
        raise DataError(
            f"{label}: none of the {len(judged)} judged documents is in the corpus, for example "
            f"{min(judged)!r}; expected qrels and corpus with the same ids (the corpus has {corpus.ids[0]!r})"
        )
    if absent:
        notes.append(f"{label}: {absent} of {len(judged)} judged documents are not in the corpus")
    empty = sum(not text.strip() for text in good.values())
    if empty:
        notes.append(f"{label}: {empty} of {len(good)} queries are empty texts")
    return replace(collection, queries=good), notes
