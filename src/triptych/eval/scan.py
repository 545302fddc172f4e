"""One pass over the vectors of a corpus, which are encoded once, block by block, and may be kept on disk.

A pass keeps, for each query and list, the best documents with all their single scores, so that protocols, fusion and
the choice of weights need no second pass. Only token vectors may be left for later (`rescore`), since comparing them
with a whole corpus takes most of the time.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from triptych.collections.base import Corpus
from triptych.errors import DataError, InputError
from triptych.eval.groups import Survey
from triptych.eval.systems import HeadScores, Scoring, VectorModel, heads_of
from triptych.io import write_atomically, write_json
from triptych.scores.on_numpy import Best, combine, head_scores
from triptych.scores.packing import digest, pack, unpack
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights, Progress, Ragged

TokenType: TypeAlias = Literal["float32", "float16"]

BLOCK = 1024
"""Documents that are encoded, written and scored at once."""

_QUERIES = 4096  # whose scores with one block are in memory at once
_FORMAT = 2  # of the files; 2: with digests


def numpy_scoring(queries: Encoded) -> HeadScores:
    """Scores in NumPy and SciPy: the default."""
    return lambda documents, heads: {head: head_scores(queries, documents, head) for head in heads}


def scoring_on(device: str | None, dtype: str = "auto") -> Scoring:
    """Scores on a device, where there is one; MaxSim in float32 if that is the type, else in float16.

    Of the types of 16 bits, float16 has the finer steps, and vectors of length 1 never leave its range.

    Args:
        device: Such as cuda; None: a GPU if there is one.
        dtype: Of the model's arithmetic.
    """
    from triptych.model.backbone import device_of, dtype_of
    from triptych.scores.on_torch import device_scoring

    place = device_of(device)
    if place.type == "cpu":
        return numpy_scoring
    full = dtype == "float32"
    return device_scoring(place, dtype_of("float32" if full else "float16", place))


def _ignore(stage: str, done: int, total: int | None) -> None:
    """No-op progress callback."""


class Work(NamedTuple):
    """How scores are computed, and where progress is reported under which name."""

    scoring: Scoring = numpy_scoring
    progress: Progress = _ignore
    stage: str = "comparing"


PLAIN = Work()


@dataclass(frozen=True, slots=True)
class Vectors:
    """All documents of a corpus as a model encodes them; can be iterated any number of times.

    Attributes:
        model: Encodes them.
        corpus: The documents.
        size: Number of documents.
        folder: Where blocks are kept; a block that is there is not encoded again. None: every pass encodes.
        tokens: Type in which token vectors are kept: float16 takes half the room and moves scores by about 1e-4.
        block: Documents per block.
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
        self, heads: Sequence[Head] | None = None, work: Work = PLAIN
    ) -> Iterator[tuple[int, Encoded]]:
        """The blocks in order, each with the number of its first document.

        Args:
            heads: What to read of kept blocks; None: all. A block that is encoded has all of the model's.
            work: Its progress is told after each block.

        Raises:
            DataError: If a kept block cannot be read, or its digest differs.
            InputError: If the model returns another number of texts than it was given.
        """
        done = 0
        for path in self._whole_files():
            yield done, read_block(path, heads)
            done = min(self.size, done + self.block)
            work.progress(work.stage, done, self.size)
        if done == self.size:
            return
        texts = (document.text for document in islice(self.corpus, done, None))
        for part in self.model.encode_documents(texts, self.block):
            if len(part) != min(self.block, self.size - done):
                raise InputError(
                    f"{self.model.name}: encoded {len(part)} documents at {done}; expected blocks of {self.block}, "
                    f"{self.size} in all"
                )
            if part.multi is not None and self.tokens == "float16":
                halves = Ragged(part.multi.values.astype(np.float16), part.multi.offsets)
                part = Encoded(part.dense, part.lexical, halves)
            if self.folder is not None:
                write_block(self._path(self.folder, done // self.block), part)
            yield done, part
            done += len(part)
            work.progress(work.stage, done, self.size)
        if done != self.size:
            raise InputError(f"{self.model.name}: encoded {done} documents; expected {self.size}")

    def _whole_files(self) -> Iterator[Path]:
        """The files that are there, from the first to the first that is missing."""
        for number in range(-(-self.size // self.block) if self.folder is not None else 0):
            path = self._path(cast(Path, self.folder), number)
            if not path.is_file():
                return
            yield path

    @staticmethod
    def _path(folder: Path, number: int) -> Path:
        return folder / f"{number:06d}.safetensors"


def encode_queries(model: VectorModel, texts: Sequence[str], cache: Path | None) -> Encoded:
    """Encodes queries, or reads what an earlier run encoded of the same texts with the same model."""
    if cache is None:
        return model.encode_queries(texts)
    asked = hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=16).hexdigest()
    path = cache / f"queries-{_key({'texts': asked} | _facts(model))}.safetensors"
    if path.is_file():
        return read_block(path)
    encoded = model.encode_queries(texts)
    cache.mkdir(parents=True, exist_ok=True)
    write_block(path, encoded)
    return encoded


def write_block(path: Path, encoded: Encoded) -> None:
    """Writes encoded texts as safetensors with a digest of each array, atomically.

    Raises:
        StorageError: If it cannot be written.
    """
    arrays = pack(encoded)
    write_atomically(path, save(arrays, {name: digest({name: array}) for name, array in arrays.items()}))


def read_block(path: Path, heads: Sequence[Head] | None = None) -> Encoded:
    """Reads what `write_block` wrote, or some heads of it, and checks the digests of all that is read.

    Raises:
        DataError: If it cannot be read, or is not what was written.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            digests = file.metadata() or {}
            names = [name for name in digests if heads is None or name.split(".")[0] in heads]
            if set(digests) != set(file.keys()):
                raise DataError(_damage_text("the names of its arrays are not those that were written"), path)
            arrays = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(_damage_text(str(error)), path) from error
    for name, array in arrays.items():
        if digest({name: array}) != digests[name]:
            raise DataError(_damage_text(f"the digest of {name!r} is not the one that was written"), path)
    return unpack(arrays)


def _damage_text(why: str) -> str:
    return f"damaged ({why}); remove the file, and it will be made again"


def _facts(model: VectorModel) -> dict[str, Any]:
    return {"format": _FORMAT, "fingerprint": model.fingerprint, "heads": heads_of(model.modes)}


def _key(facts: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=12).hexdigest()


class ListSpec(NamedTuple):
    """A list to keep: the k best documents by a weighted sum."""

    weights: HeadWeights
    k: int


@dataclass(slots=True)
class Scanned:
    """The result of a pass.

    Attributes:
        heads: The heads whose scores `Best.parts` holds, in this order.
        lists: By the names of the lists wanted.
        seconds: Of each head's scoring, all queries and documents together; "rank" is the keeping of lists.
        bytes: Of each head, all documents together, as float32 numbers (sparse ones with an int32 place each).
    """

    heads: tuple[Head, ...]
    lists: dict[str, Best]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    bytes: dict[Head, int] = field(default_factory=dict[Head, int])


def scan(
    vectors: Vectors,
    corpus: Survey,
    queries: Encoded,
    wanted: Mapping[str, ListSpec],
    heads: Sequence[Head],
    work: Work = PLAIN,
) -> Scanned:
    """Compares all queries with all documents.

    Args:
        vectors: The documents.
        corpus: Their ids.
        queries: Q queries with these heads.
        wanted: The lists to keep. A weight on a head that is not in `heads` counts 0 here.
        heads: Which scores to compute.
        work: How.

    Returns:
        The lists. A document without any score above 0 is in no list of the lexical score alone: such a search
        would not find it.
    """
    heads = tuple(head for head in HEADS if head in heads)
    lists = {name: Best(len(queries), min(one.k, len(corpus)), len(heads)) for name, one in wanted.items()}
    found = Scanned(heads, lists, dict.fromkeys((*heads, "rank"), 0.0), dict.fromkeys(heads, 0))
    chunks = [
        (start, part, work.scoring(part))
        for start in range(0, len(queries), _QUERIES)
        for part in (queries[start : start + _QUERIES],)
    ]
    for start, block in vectors.blocks(heads, work):
        rows = np.arange(start, start + len(block))
        for head in heads:
            found.bytes[head] += _size(block, head)
        for first, part, score in chunks:
            scores: dict[Head, Floats] = {}
            for head in heads:
                began = time.perf_counter()
                scores |= score(block, (head,))
                found.seconds[head] += time.perf_counter() - began
            began = time.perf_counter()
            parts = np.stack([scores[head] for head in heads])
            for name, one in wanted.items():
                total = weighted(scores, one.weights, part)
                lists[name].add(first, rows, corpus.ranks[rows], total, parts)
            found.seconds["rank"] += time.perf_counter() - began
    for best in lists.values():
        best.settle()
    return found


def weighted(scores: Mapping[Head, Floats], weights: HeadWeights, queries: Encoded | None = None) -> Floats:
    """The weighted sum over the heads that have scores; -inf (not listed) where a lexical score alone is 0."""
    here = type(weights)(*(getattr(weights, head) if head in scores else 0.0 for head in HEADS))
    total = combine(scores, here, queries)
    return np.where(total > 0, total, np.float32(-np.inf)) if here.heads == ("lexical",) else total


def rescore(
    vectors: Vectors, queries: Ragged, rows: Sequence[NDArray[np.int64]], work: Work = PLAIN
) -> list[Floats]:
    """The multi-vector scores of given pairs, by one pass over the token vectors.

    Args:
        vectors: The documents.
        queries: Token vectors of Q queries.
        rows: For each query, numbers of documents in ascending order.
        work: How; the scoring is called for one query at a time, with the documents of a block that it needs.

    Returns:
        For each query float32 ``[len(rows[i])]``.
    """
    found = [np.zeros(len(wanted), dtype=np.float32) for wanted in rows]
    scorers = {
        query: work.scoring(Encoded(multi=queries.take([query])))
        for query, wanted in enumerate(rows)
        if len(wanted)
    }
    for start, block in vectors.blocks(("multi",), work):
        for query, score in scorers.items():
            a, b = np.searchsorted(rows[query], (start, start + len(block)))
            if a < b:
                documents = Encoded(multi=cast(Ragged, block.multi).take(rows[query][a:b] - start))
                found[query][a:b] = score(documents, ("multi",))["multi"][0]
    return found


def _size(block: Encoded, head: Head) -> int:
    if head == "dense":
        return 4 * cast(Floats, block.dense).size
    if head == "multi":
        return 4 * cast(Ragged, block.multi).values.size
    return 8 * int(block.lexical.nnz)  # type: ignore[union-attr]
