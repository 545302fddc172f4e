"""Small random collections and contenders without a model, and the evaluation in plain loops."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from scipy import sparse

from triptych.collections.base import Collection, MemoryCorpus, Ranked
from triptych.eval.systems import MODES
from triptych.types import HEADS, Encoded, HeadWeights, Ragged

VOCABULARY = 40
WORDS = [f"w{number}" for number in range(VOCABULARY)]


@dataclass
class Toy:
    """A VectorModel in which every word has a vector; numbers are coarse, so that scores are often equal.

    Sums of few multiples of 1/8 are exact in float32: rankings of equal scores depend on no rounding.
    """

    name: str = "toy"
    modes: Mapping[str, HeadWeights] = field(
        default_factory=lambda: {
            **MODES,
            "dense+lexical": HeadWeights(1, 0.5, 0),
            "all": HeadWeights(1, 0.5, 1),
        }
    )
    heads: tuple[str, ...] = HEADS
    encoded: int = 0
    asked: int = 0
    fails_at: int | None = None
    facts: Mapping[str, object] = field(default_factory=lambda: {"source": "toy"})

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.name.encode()).hexdigest()

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        self.asked += len(texts)
        return self.encode(texts)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        source = iter(texts)
        while part := list(islice(source, block)):
            if self.fails_at is not None and self.encoded >= self.fails_at:
                raise KeyboardInterrupt
            self.encoded += len(part)
            yield self.encode(part)

    def encode(self, texts: Sequence[str]) -> Encoded:
        words = [[WORDS.index(word) for word in text.split()] for text in texts]
        table = np.random.default_rng(7).integers(-2, 3, (VOCABULARY, 8)).astype(np.float32) / 4
        weights = (np.arange(VOCABULARY) % 5 + 1).astype(np.float32) / 4
        dense = np.stack([table[w].sum(0) if w else np.zeros(8, np.float32) for w in words])
        lexical = sparse.lil_array((len(texts), VOCABULARY), dtype=np.float32)
        for row, some in enumerate(words):
            for word in some:
                lexical[row, word] = weights[word]
        # MaxSim is a mean over the query's tokens: a power of two of them keeps it exact.
        multi = Ragged.of([table[w] for w in words], 8)
        return Encoded(
            dense if "dense" in self.heads else None,
            sparse.csr_array(lexical) if "lexical" in self.heads else None,
            multi if "multi" in self.heads else None,
        )


class WordCount:
    """A Ranker: how many of the query's words a document has."""

    name = "words"
    fingerprint = "words"
    facts: Mapping[str, object] = {}

    def __init__(self) -> None:
        self.languages: list[str] = []

    def rank(self, corpus, queries, languages, k, progress=None):
        self.languages = list(languages)
        documents = [(document.id, set(document.text.split())) for document in corpus]
        return [
            Ranked.of({id_: n for id_, words in documents if (n := len(words & set(query.split())))})
            for query in queries
        ]


def texts(rng: np.random.Generator, n: int, lengths: Sequence[int]) -> list[str]:
    return [" ".join(rng.choice(WORDS, rng.choice(lengths))) for _ in range(n)]


def collection(
    documents: int = 60,
    queries: int = 12,
    *,
    seed: int = 0,
    name: str = "made",
    subset: str = "",
    excluded: int = 0,
    corpus: MemoryCorpus | None = None,
    split: str = "test",
    words: Sequence[int] = (1, 2, 4),
) -> Collection:
    """Random texts and judgements; ids are in no order. Queries have 1, 2 or 4 words, or as many as is said."""
    rng = np.random.default_rng(seed)
    if corpus is None:
        names = [f"d{number}" for number in rng.permutation(documents)]
        corpus = MemoryCorpus.of(dict(zip(names, texts(rng, documents, [0, 1, 2, 3, 5, 8]), strict=True)))
    ids = [document.id for document in corpus]
    asked = {f"q{seed}-{number}": text for number, text in enumerate(texts(rng, queries, words))}
    qrels = {
        query: {str(name): int(rng.integers(1, 4)) for name in rng.choice(ids, 4, replace=False)}
        for query in asked
    }
    left_out = {
        query: frozenset(map(str, rng.choice(ids, excluded, replace=False))) - set(qrels[query])
        for query in asked
    }
    return Collection(name, subset, corpus, asked, qrels, excluded=left_out if excluded else {}, split=split)


def scores(toy: Toy, made: Collection) -> dict[str, dict[str, dict[str, float]]]:
    """Query id to document id to head to score, pair by pair."""
    documents = list(made.corpus)
    right = [toy.encode([document.text]) for document in documents]
    found: dict[str, dict[str, dict[str, float]]] = {}
    for query, text in made.queries.items():
        left = toy.encode([text])
        found[query] = {}
        for document, encoded in zip(documents, right, strict=True):
            one: dict[str, float] = {}
            if left.dense is not None and encoded.dense is not None:
                one["dense"] = float(left.dense[0] @ encoded.dense[0])
            if left.lexical is not None and encoded.lexical is not None:
                one["lexical"] = float((left.lexical.toarray()[0] * encoded.lexical.toarray()[0]).sum())
            if left.multi is not None and encoded.multi is not None:
                q, d = left.multi[0], encoded.multi[0]
                one["multi"] = float((q @ d.T).max(1).mean()) if len(q) and len(d) else 0.0
            found[query][document.id] = one
    return found


def ranking(
    one: Mapping[str, Mapping[str, float]], weights: HeadWeights, excluded: frozenset[str] = frozenset()
) -> list[tuple[str, float]]:
    """All documents of a query by the weighted sum, equal ones by id; of the lexical score those above 0."""
    total = {
        document: sum(w * parts[head] for head, w in zip(HEADS, weights, strict=True) if w)
        for document, parts in one.items()
        if document not in excluded
    }
    if weights.heads == ("lexical",):
        total = {document: score for document, score in total.items() if score > 0}
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))
