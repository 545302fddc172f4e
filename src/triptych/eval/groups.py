"""Collections that share a corpus, joined so that documents and queries are encoded and compared once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.eval.collection import Collection, Corpus
from triptych.eval.contender import Progress
from triptych.eval.survey import Survey, survey, usable


@dataclass(frozen=True, slots=True, eq=False)
class Group:
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


def grouped(collections: Sequence[Collection], progress: Progress | None = None) -> list[Group]:
    """Reads each corpus once and checks all collections over it.

    Raises:
        DataError: See `triptych.eval.survey`.
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


def _group(collections: list[Collection], progress: Progress | None) -> Group:
    corpus = collections[0].corpus
    found = survey(corpus, collections[0].label, progress)
    cleaned = [usable(collection, found) for collection in collections]
    place: dict[tuple[str, str], int] = {}
    for collection, _ in cleaned:
        for text in collection.queries.values():
            place.setdefault((text, language_of(collection)), len(place))
    kept = [collection for collection, _ in cleaned]
    return Group(
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
