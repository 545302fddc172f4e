"""The vectors of a corpus, block by block: encoded once, kept on disk, read as often as needed.

One pass over the vectors of a corpus: the scores of all heads, and the best documents by each sum of them.

What a list of best documents holds is not only its sum but every single score, so that protocols, fusion and the
choice of weights need no second pass. Only token vectors may be left for later (`rescore`), since comparing them
with a whole corpus is what takes the time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from triptych.collections.base import Corpus
from triptych.errors import DataError, InputError
from triptych.eval.contenders import HeadScores, Progress, Scoring, VectorModel
from triptych.eval.groups import Survey
from triptych.io import write_atomically, write_json
from triptych.scores.on_numpy import Best, combine, head_scores
from triptych.scores.packing import pack, unpack
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights, Ragged

TokenType: TypeAlias = Literal["float32", "float16"]

BLOCK = 1024
"""Documents that are encoded, written and scored at once."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """All documents of a corpus as a model encodes them; can be gone through any number of times.

    Attributes:
        model: What encodes.
        corpus: What is encoded.
        size: Number of documents.
        folder: Where the blocks are kept; what is there is not encoded again. None: nothing is kept, and every
            pass encodes anew.
        tokens: Form in which token vectors are kept: float16 takes half the room and moves scores by about 1e-4.
        block: Documents a block.
    """

    model: VectorModel
    corpus: Corpus
    size: int
    folder: Path | None
    tokens: TokenType = "float32"
    block: int = BLOCK

    @classmethod
    def of(
        cls,
        model: VectorModel,
        corpus: Corpus,
        size: int,
        cache: Path | None,
        *,
        tokens: TokenType = "float32",
        block: int = BLOCK,
    ) -> Vectors:
        """The vectors under `cache`, in a folder named after all that determines them."""
        folder = None
        if cache is not None:
            facts = {"corpus": corpus.digest, "tokens": tokens, "block": block} | _facts(model)
            folder = cache / _key(facts)
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "about.json").is_file():
                write_json(folder / "about.json", {"model": model.name, "documents": size, **facts})
        return cls(model, corpus, size, folder, tokens, block)

    def blocks(
        self, progress: Progress | None = None, heads: Sequence[Head] | None = None
    ) -> Iterator[tuple[int, Encoded]]:
        """The blocks in order, each with the number of its first document.

        Args:
            progress: Called with (documents done, size) after each block.
            heads: What to read of the kept blocks; None: all. A block that is encoded has all in any case.

        Raises:
            DataError: If a kept block cannot be read.
            InputError: If the model gives another number of texts than it was asked for.
        """
        done = 0
        for path in self._kept():
            yield done, _read(path, heads)
            done = min(self.size, done + self.block)
            if progress is not None:
                progress(done, self.size)
        if done == self.size:
            return
        texts = (document.text for document in islice(self.corpus, done, None))
        for part in self.model.encode_documents(texts, self.block):
            if len(part) != min(self.block, self.size - done):
                raise InputError(
                    f"{self.model.name}: encoded {len(part)} documents at {done}; expected blocks of {self.block}, "
                    f"{self.size} in all"
                )
            part = self._stored(part, done // self.block)
            yield done, part
            done += len(part)
            if progress is not None:
                progress(done, self.size)
        if done != self.size:
            raise InputError(f"{self.model.name}: encoded {done} documents; expected {self.size}")

    def _kept(self) -> Iterator[Path]:
        """The files that are there, from the first to the first that is missing."""
        if self.folder is None:
            return
        for number in range(-(-self.size // self.block)):
            path = self._path(self.folder, number)
            if not path.is_file():
                return
            yield path

    def _stored(self, part: Encoded, number: int) -> Encoded:
        if part.multi is not None and self.tokens == "float16":
            halves = Ragged(part.multi.values.astype(np.float16), part.multi.offsets)
            part = Encoded(part.dense, part.lexical, halves)
        if self.folder is not None:
            write_atomically(self._path(self.folder, number), save(pack(part)))
        return part

    @staticmethod
    def _path(folder: Path, number: int) -> Path:
        return folder / f"{number:06d}.safetensors"


def encode_queries(model: VectorModel, texts: Sequence[str], cache: Path | None) -> Encoded:
    """Encodes queries, or reads what an earlier run encoded of the same texts with the same model."""
    if cache is None:
        return model.encode_queries(texts)
    digest = hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()
    path = cache / f"queries-{_key({'texts': digest} | _facts(model))}.safetensors"
    if path.is_file():
        return _read(path, None)
    encoded = model.encode_queries(texts)
    cache.mkdir(parents=True, exist_ok=True)
    write_atomically(path, save(pack(encoded)))
    return encoded


def heads_of(model: VectorModel) -> tuple[Head, ...]:
    """The heads that some mode of the model uses."""
    used = {head for weights in model.modes.values() for head in weights.heads}
    return tuple(head for head in ("dense", "lexical", "multi") if head in used)


def _facts(model: VectorModel) -> dict[str, Any]:
    return {"fingerprint": model.fingerprint, "heads": heads_of(model)}


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


def _read(path: Path, heads: Sequence[Head] | None) -> Encoded:
    try:
        if heads is None:
            return unpack(load_file(path))
        from safetensors import safe_open

        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if name.split(".")[0] in heads]  # noqa: SIM118
            return unpack({name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        raise DataError(f"cannot be read ({error}); remove it, and it will be made again", path) from error


_QUERIES = 4096
"""Queries whose scores with one block are in memory at once."""


class Wanted(NamedTuple):
    """A list to keep: the k best documents by a weighted sum."""

    weights: HeadWeights
    k: int


@dataclass(slots=True)
class Scanned:
    """What a pass found.

    Attributes:
        heads: The heads whose scores `Best.parts` holds, in this order.
        lists: By the names that were asked for.
        seconds: Of each head's scoring, all queries and documents together; "rank" is the keeping of lists.
        bytes: Of each head, all documents together, as float32 numbers (sparse ones with an int32 place each).
    """

    heads: tuple[Head, ...]
    lists: dict[str, Best]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    bytes: dict[Head, int] = field(default_factory=dict[Head, int])


def numpy_scoring(queries: Encoded) -> HeadScores:
    """Scores in NumPy and SciPy: the default."""
    return lambda documents, heads: {head: head_scores(queries, documents, head) for head in heads}


def scan(
    vectors: Vectors,
    corpus: Survey,
    queries: Encoded,
    wanted: Mapping[str, Wanted],
    *,
    heads: Sequence[Head],
    scoring: Scoring = numpy_scoring,
    progress: Progress | None = None,
) -> Scanned:
    """Compares all queries with all documents.

    Args:
        vectors: The documents.
        corpus: Their ids.
        queries: Q queries with these heads.
        wanted: The lists to keep. A weight on a head that is not in `heads` counts 0 here.
        heads: Which scores to compute.
        scoring: How.
        progress: Called with (documents, all documents).

    Returns:
        The lists. A document without any score above 0 is in no list of the lexical score alone: such a search
        would not find it.
    """
    heads = tuple(head for head in HEADS if head in heads)
    lists = {name: Best(len(queries), min(one.k, len(corpus)), len(heads)) for name, one in wanted.items()}
    found = Scanned(heads, lists, dict.fromkeys((*heads, "rank"), 0.0), dict.fromkeys(heads, 0))
    chunks = [
        (start, scoring(queries[start : start + _QUERIES])) for start in range(0, len(queries), _QUERIES)
    ]
    for start, block in vectors.blocks(progress, heads):
        rows = np.arange(start, start + len(block))
        for head in heads:
            found.bytes[head] += _size(block, head)
        for first, score in chunks:
            scores: dict[Head, Floats] = {}
            for head in heads:
                began = time.perf_counter()
                scores |= score(block, (head,))
                found.seconds[head] += time.perf_counter() - began
            began = time.perf_counter()
            _keep(found, wanted, first, (rows, corpus.ranks[rows]), scores)
            found.seconds["rank"] += time.perf_counter() - began
    for best in lists.values():
        best.settle()
    return found


def _keep(
    found: Scanned,
    wanted: Mapping[str, Wanted],
    first: int,
    documents: tuple[NDArray[np.int64], NDArray[np.int64]],
    scores: Mapping[Head, Floats],
) -> None:
    parts = np.stack([scores[head] for head in found.heads])
    for name, one in wanted.items():
        weights = here(one.weights, found.heads)
        total = combine(scores, weights)
        if weights.heads == ("lexical",):
            total = np.where(total > 0, total, np.float32(-np.inf))
        found.lists[name].add(first, *documents, total, parts)


def here(weights: HeadWeights, heads: Sequence[Head]) -> HeadWeights:
    """The weights, with 0 for heads that are not there."""
    return HeadWeights(*(getattr(weights, head) if head in heads else 0.0 for head in HEADS))


def same(tokens: Ragged) -> Ragged:
    """Token vectors as they are."""
    return tokens


class Variant(NamedTuple):
    """A form of token vectors: the queries as they are compared, and what becomes of the documents' vectors."""

    queries: Ragged
    change: Callable[[Ragged], Ragged] = same


def rescore(
    vectors: Vectors,
    variants: Sequence[Variant],
    rows: Sequence[NDArray[np.int64]],
    *,
    scoring: Scoring = numpy_scoring,
    progress: Progress | None = None,
) -> list[list[Floats]]:
    """The multi-vector scores of given pairs, by one pass over the token vectors.

    Args:
        vectors: The documents.
        variants: Q queries each, with a change of the documents; one pass serves all of them.
        rows: For each query, numbers of documents in ascending order.
        scoring: How; it is called for one query at a time, with the documents of a block that it needs.
        progress: Called with (documents, all documents).

    Returns:
        For each variant and query float32 ``[len(rows[i])]``.
    """
    found = [[np.zeros(len(wanted), dtype=np.float32) for wanted in rows] for _ in variants]
    single = [
        {
            query: scoring(Encoded(multi=one.queries.take([query])))
            for query, wanted in enumerate(rows)
            if len(wanted)
        }
        for one in variants
    ]
    for start, block in vectors.blocks(progress, ("multi",)):
        bounds = [np.searchsorted(wanted, (start, start + len(block))) for wanted in rows]
        asked = [wanted[a:b] for wanted, (a, b) in zip(rows, bounds, strict=True)]
        needed = np.unique(np.concatenate(asked)) if asked else np.zeros(0, np.int64)
        if not len(needed):
            continue
        present = cast(Ragged, block.multi).take(needed - start)
        for number, one in enumerate(variants):
            tokens = one.change(present)
            for query, (a, b) in enumerate(bounds):
                if a < b:
                    documents = Encoded(multi=tokens.take(np.searchsorted(needed, asked[query])))
                    found[number][query][a:b] = single[number][query](documents, ("multi",))["multi"][0]
    return found


def _size(block: Encoded, head: Head) -> int:
    if head == "dense":
        return 4 * cast(Floats, block.dense).size
    if head == "multi":
        return 4 * cast(Ragged, block.multi).values.size
    return 8 * int(block.lexical.nnz)  # type: ignore[union-attr]
