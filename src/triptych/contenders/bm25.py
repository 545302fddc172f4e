"""BM25 by bm25s as a contender."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from array import array
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

import numpy as np

from triptych.errors import InputError, MissingExtra
from triptych.eval.collection import Corpus
from triptych.eval.contender import Progress, Ranked
from triptych.types import Floats

_AT_ONCE = 512  # texts split together


class Splitter(Protocol):
    """Makes terms of texts."""

    @property
    def name(self) -> str:
        """For tables."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """All that determines the terms."""
        ...

    def group(self, language: str) -> str:
        """What languages share whose texts are split alike."""
        ...

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The terms of each text."""
        ...


@dataclass(frozen=True, slots=True)
class BM25:
    """BM25 over the terms of a splitter.

    The corpus is indexed once for each group of the queries' languages, as a search engine has one analyser an
    index: a query in German searches all documents as if they were German.

    **Math** Lucene's form (Kamphuis and others, ECIR 2020): the sum over the query's terms, repeated ones counted
    again, of ``ln(1 + (N - n + 0.5) / (n + 0.5)) · f / (f + k1·(1 - b + b·|d| / mean |d|))``.

    Attributes:
        splitter: Makes the terms.
        k1: How slowly repetitions saturate, ≥ 0. The default and `b`'s are Anserini's, with which the published
            figures were made.
        b: How much the length counts, from 0 to 1.
    """

    splitter: Splitter
    k1: float = 0.9
    b: float = 0.4

    def __post_init__(self) -> None:
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise InputError(f"BM25: got k1 {self.k1}, b {self.b}; expected k1 ≥ 0 and b from 0 to 1")

    @property
    def name(self) -> str:
        """Short name for tables."""
        return f"bm25 ({self.splitter.name})"

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it."""
        return {"k1": self.k1, "b": self.b, "bm25s": _version(), **self.splitter.facts}

    @property
    def fingerprint(self) -> str:
        """Hex digest of `facts`."""
        return hashlib.blake2b(json.dumps(self.facts, sort_keys=True).encode(), digest_size=16).hexdigest()

    def rank(
        self,
        corpus: Corpus,
        queries: Sequence[str],
        languages: Sequence[str],
        k: int,
        progress: Progress | None = None,
    ) -> list[Ranked]:
        """Ranks the corpus for each query; documents without any of its terms are left out.

        Raises:
            MissingExtra: Without bm25s.
        """
        groups: dict[str, list[int]] = defaultdict(list)
        for row, language in enumerate(languages):
            groups[self.splitter.group(language)].append(row)
        ranked: dict[int, Ranked] = {}
        for group, rows in groups.items():
            index = self._indexed(corpus, group)
            terms = self.splitter.split([queries[row] for row in rows], group)
            for row, query in zip(rows, terms, strict=True):
                ranked[row] = index.best(query, k)
                if progress is not None:
                    progress(len(ranked), len(queries))
        return [ranked[row] for row in range(len(queries))]

    def _indexed(self, corpus: Corpus, group: str) -> _Index:
        vocabulary: dict[str, int] = {}
        ids: list[str] = []
        documents: list[array[int]] = []
        stream = iter(corpus)
        while block := list(itertools.islice(stream, _AT_ONCE)):
            ids += [document.id for document in block]
            for terms in self.splitter.split([document.text for document in block], group):
                numbers = (vocabulary.setdefault(term, len(vocabulary)) for term in terms)
                documents.append(array("i", numbers))
        return _Index(ids, vocabulary, self._scores(documents, vocabulary))

    def _scores(self, documents: list[array[int]], vocabulary: dict[str, int]) -> Any:
        """bm25s' index, or None for a corpus without a term."""
        if not vocabulary:
            return None
        scores = _bm25s().BM25(k1=self.k1, b=self.b, method="lucene")
        scores.index((documents, vocabulary), create_empty_token=False, show_progress=False)
        return scores


@dataclass(frozen=True, slots=True)
class _Index:
    """An indexed corpus: ids of the documents, number of each term, and what bm25s made of them."""

    ids: list[str]
    vocabulary: dict[str, int]
    bm25: Any

    def best(self, query: Sequence[str], k: int) -> Ranked:
        """The k best documents of those with a term of the query; equal scores go by id."""
        terms = [self.vocabulary[term] for term in query if term in self.vocabulary]
        if not terms:
            return Ranked.of({})
        scores: Floats = self.bm25.get_scores_from_ids(terms)
        found = np.flatnonzero(scores > 0)
        if len(found) > k:
            least = np.partition(scores[found], -k)[-k]
            found = np.flatnonzero(scores >= least)  # all that are equal to the last one, too
        whole = Ranked.of({self.ids[row]: float(scores[row]) for row in found})
        return Ranked(whole.documents[:k], whole.scores[:k])


def _bm25s() -> Any:
    # Where JAX is installed, bm25s starts it, and JAX takes three quarters of the GPU's memory unless told otherwise.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        import bm25s
    except ImportError as error:
        raise MissingExtra("BM25", "eval") from error
    return bm25s


def _version() -> str:
    _bm25s()
    return version("bm25s")
