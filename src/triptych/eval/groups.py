"""Collections over one corpus, read once and checked, so that documents and queries are encoded once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection, Corpus
from triptych.errors import DataError, InputError
from triptych.types import Progress

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
        progress: See `triptych.types.Progress`.

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
            progress(f"reading {label}", row + 1, corpus.size)
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
    own = sum(
        qrels.get(query, {}).get(query, 0) > 0 and query in collection.excluded.get(query, ())
        for query in good
    )
    if own:
        notes.append(
            f"{label}: {own} of {len(good)} queries have a relevant document with the query's own id, which is left "
            "out of their rankings, as in BEIR's evaluation, and stays judged"
        )
    empty = sum(not text.strip() for text in good.values())
    if empty:
        notes.append(f"{label}: {empty} of {len(good)} queries are empty texts")
    return replace(collection, queries=good), notes


@dataclass(frozen=True, slots=True, eq=False)
class CorpusGroup:
    """Collections over one corpus.

    Attributes:
        corpus: The documents.
        survey: Their ids.
        collections: Cleaned of what cannot be evaluated.
        notes: For each collection what that was.
        texts: Distinct queries of all collections.
        languages: For each text the language of its query, "" if unknown.
        spare: The most documents that a query leaves out.
    """

    corpus: Corpus
    survey: Survey
    collections: list[Collection]
    notes: list[list[str]]
    texts: list[str]
    languages: list[str]
    spare: int
    _place: dict[tuple[str, str], int]

    @property
    def label(self) -> str:
        """Names of the data sets."""
        return ", ".join(dict.fromkeys(collection.name for collection in self.collections))

    def place(self, collection: Collection, query: str) -> int:
        """The number of a query's text among `texts`."""
        return self._place[collection.queries[query], language_of(collection)]

    def excluded(self, collection: Collection, query: str) -> NDArray[np.int64]:
        """The rows that a query leaves out."""
        row_of = self.survey.row_of
        names = collection.excluded.get(query, frozenset())
        return np.asarray(sorted(row_of[name] for name in names if name in row_of), dtype=np.int64)


def language_of(collection: Collection) -> str:
    """The language of the queries: of ``en-zh``, en."""
    return collection.subset.partition("-")[0]


def grouped(collections: Sequence[Collection], progress: Progress | None = None) -> list[CorpusGroup]:
    """Reads each corpus once and checks all collections over it.

    Raises:
        DataError: See `triptych.eval.groups`.
        InputError: For no collections, or two of the same name, subset and split.
    """
    names = [(one.name, one.subset, one.split) for one in collections]
    if not names or len(set(names)) < len(names):
        twice = next((name for i, name in enumerate(names) if name in names[:i]), None)
        raise InputError(
            f"evaluate: got {f'{twice} twice' if twice else 'no collections'}; expected distinct collections"
        )
    by_corpus: dict[str, list[Collection]] = {}
    for collection in collections:
        by_corpus.setdefault(collection.corpus.digest, []).append(collection)
    return [_group(members, progress) for members in by_corpus.values()]


def _group(collections: list[Collection], progress: Progress | None) -> CorpusGroup:
    corpus = collections[0].corpus
    found = survey(corpus, collections[0].label, progress)
    cleaned = [usable(collection, found) for collection in collections]
    place: dict[tuple[str, str], int] = {}
    for collection, _ in cleaned:
        for text in collection.queries.values():
            place.setdefault((text, language_of(collection)), len(place))
    kept = [collection for collection, _ in cleaned]
    return CorpusGroup(
        corpus,
        found,
        kept,
        [notes for _, notes in cleaned],
        [text for text, _ in place],
        [language for _, language in place],
        max(map(len, _exclusions(kept)), default=0),
        place,
    )


def _exclusions(collections: Iterable[Collection]) -> Iterable[frozenset[str]]:
    return (names for one in collections for query, names in one.excluded.items() if query in one.queries)
