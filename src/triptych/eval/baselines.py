"""Baselines by name, as `triptych eval --baseline` takes them: BM25 by bm25s, and sentence-transformers models."""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tokenizers import Tokenizer

from triptych.collections.base import Corpus, Ranked
from triptych.errors import InputError, ModelError, require_extra
from triptych.eval.analyzers import Words
from triptych.eval.systems import System, folder_fingerprint, model_folder
from triptych.model import hub
from triptych.scores.on_numpy import top_k
from triptych.types import Encoded, Floats, HeadWeights, Progress, chunked


class Pieces:
    """Splits texts by a ``tokenizer.json``, as the paper's BM25 does (arXiv 2402.03216v4, appendix C.1).

    Args:
        folder: The folder of a model.

    Raises:
        ModelError: If it has no tokenizer.json that can be read.
    """

    name = "pieces"

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            content = path.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare Exception for a broken file
            raise ModelError(f"{path}: cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.facts = {"pieces": hashlib.blake2b(content, digest_size=16).hexdigest()}

    def group(self, language: str) -> str:
        """Languages are not told apart."""
        return ""

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The pieces of each text, without special tokens."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.tokens for each in encoded]


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
            index = self._index(corpus, group)
            terms = self.splitter.split([queries[row] for row in rows], group)
            for row, query in zip(rows, terms, strict=True):
                ranked[row] = index.best(query, k)
                if progress is not None:
                    progress(self.name, len(ranked), len(queries))
        return [ranked[row] for row in range(len(queries))]

    def _index(self, corpus: Corpus, group: str) -> _Index:
        vocabulary: dict[str, int] = {}
        ids: list[str] = []
        documents: list[array[int]] = []
        for block in chunked(corpus, _AT_ONCE):
            ids += [document.id for document in block]
            documents += [
                array("i", (vocabulary.setdefault(term, len(vocabulary)) for term in terms))
                for terms in self.splitter.split([document.text for document in block], group)
            ]
        scorer = None
        if vocabulary:
            scorer = _bm25s().BM25(k1=self.k1, b=self.b, method="lucene")
            scorer.index((documents, vocabulary), create_empty_token=False, show_progress=False)
        return _Index(ids, vocabulary, scorer)


@dataclass(frozen=True, slots=True)
class _Index:
    """An indexed corpus: document ids, the number of each term, and bm25s' index (None without any term)."""

    ids: list[str]
    vocabulary: dict[str, int]
    bm25: Any

    def best(self, query: Sequence[str], k: int) -> Ranked:
        """The k best documents of those with a term of the query; equal scores go by id."""
        terms = [self.vocabulary[term] for term in query if term in self.vocabulary]
        if not terms:
            return Ranked.of({})
        scores: Floats = self.bm25.get_scores_from_ids(terms)
        found = top_k(scores, k, floor=0.0, with_ties=True)
        whole = Ranked.of({self.ids[row]: float(scores[row]) for row in found})
        return Ranked(whole.documents[:k], whole.scores[:k])


def _bm25s() -> Any:
    # Where JAX is installed, bm25s starts it, and JAX takes three quarters of the GPU's memory unless told otherwise.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with require_extra("BM25", "eval"):
        import bm25s
    return bm25s


def _version() -> str:
    _bm25s()
    return version("bm25s")


@dataclass(frozen=True, slots=True, eq=False)
class SentenceModel:
    """A SentenceTransformer in an evaluation.

    Texts are encoded as the library's own retrieval methods do it, with the folder's prompts for queries and
    documents. Vectors are brought to length 1 where the folder asks for the cosine (or for nothing).

    Attributes:
        model: The library's object.
        name: For tables.
        fingerprint: See `triptych.eval.systems.VectorModel`.
        query_prompt: In place of the folder's; None: the folder's.
        document_prompt: The same for documents.
    """

    model: Any
    name: str
    fingerprint: str
    query_prompt: str | None = None
    document_prompt: str | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        device: str | None = None,
        *,
        trust_remote_code: bool = False,
        **prompts: str | None,
    ) -> SentenceModel:
        """Loads a folder.

        Args:
            folder: A sentence-transformers folder, or one of Hugging Face (then the mean of the tokens is taken).
            device: None: a GPU if there is one.
            trust_remote_code: Whether Python files of the folder may run.
            prompts: `query_prompt` and `document_prompt`.

        Raises:
            MissingExtra: Without sentence-transformers.
            ModelError: If the folder holds no model.
            InputError: If its vectors are compared otherwise than by cosine or inner product.
        """
        with require_extra("a sentence-transformers model", "eval"):
            from sentence_transformers import SentenceTransformer
        model: Any = SentenceTransformer(
            str(model_folder(folder)),
            device=device,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
        )
        similarity = str(model.similarity_fn_name)
        if similarity not in ("cosine", "dot"):
            raise InputError(f"{folder}: compares by {similarity!r}; expected 'cosine' or 'dot'")
        facts = {"prompts": prompts, "length": model.max_seq_length}
        return cls(model, folder.resolve().name, folder_fingerprint(folder, facts), **prompts)

    @property
    def modes(self) -> Mapping[str, HeadWeights]:
        """Dense alone."""
        return {"dense": HeadWeights(1, 0, 0)}

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it."""
        return {
            "library": f"sentence-transformers {version('sentence-transformers')}",
            "device": str(self.model.device),
            "dimensions": self.model.get_embedding_dimension(),
            "length": self.model.max_seq_length,
            "prompts": {**self.model.prompts, **self._given},
        }

    @property
    def _given(self) -> dict[str, str]:
        given = {"query": self.query_prompt, "document": self.document_prompt}
        return {task: prompt for task, prompt in given.items() if prompt is not None}

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        return self._encode(self.model.encode_query, texts, self.query_prompt)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents in blocks."""

        def encode(part: Sequence[str]) -> Encoded:
            return self._encode(self.model.encode_document, part, self.document_prompt)

        return map(encode, chunked(texts, block))

    def _encode(self, method: Any, texts: Sequence[str], prompt: str | None) -> Encoded:
        options = {} if prompt is None else {"prompt": prompt}
        normalize = str(self.model.similarity_fn_name) == "cosine"
        vectors = method(list(texts), normalize_embeddings=normalize, show_progress_bar=False, **options)
        width = int(self.model.get_embedding_dimension())
        return Encoded(dense=np.asarray(vectors, dtype=np.float32).reshape(len(texts), width))


BASELINES: dict[str, str] = {
    "bm25": "BM25 on words: stems, frequent words left out",
    "bm25:pieces[=MODEL]": "BM25 on the pieces of a model's tokenizer, by default of 'small'",
    "st:FOLDER[,QUERY PROMPT,DOCUMENT PROMPT]": "a model of sentence-transformers",
}
"""Form of each name, and its meaning."""


def open_baseline(name: str, device: str | None = None, *, trust_remote_code: bool = False) -> System:
    """Makes the baseline of a name.

    Args:
        name: One of `BASELINES`.
        device: Of a model; None: a GPU if there is one.
        trust_remote_code: Whether Python files of a model's folder may run.

    Raises:
        InputError: For another name.
        MissingExtra: Without the library that it needs.
        ModelError: If a folder holds no model.
    """
    kind, _, rest = name.partition(":")
    if kind == "bm25":
        splitter, _, model = rest.partition("=")
        if splitter in ("", "words") and not model:
            return BM25(Words())
        if splitter == "pieces":
            return BM25(Pieces(hub.resolve(model or "small")))
    elif kind == "st" and rest:
        folder, *prompts = rest.split(",")
        if len(prompts) in (0, 2):
            given = dict(zip(("query_prompt", "document_prompt"), prompts, strict=False))
            path = Path(folder).expanduser()
            return SentenceModel.open(path, device, trust_remote_code=trust_remote_code, **given)
    raise InputError(f"baseline: got {name!r}; expected one of {', '.join(BASELINES)}")
