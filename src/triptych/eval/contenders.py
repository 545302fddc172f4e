"""The ways to score with three representations.

What can be evaluated: models that give vectors, and systems with a scoring of their own.

The evaluation itself knows neither torch nor any model: what encodes comes from a layer above.

What contenders from a folder share.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from triptych.collections.base import Corpus, Ranked, digest_of
from triptych.errors import InputError, ModelError
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights

MODES: Mapping[str, HeadWeights] = {
    "dense": HeadWeights(1, 0, 0),
    "lexical": HeadWeights(0, 1, 0),
    "multi": HeadWeights(0, 0, 1),
    "dense+lexical": HeadWeights(1, 0.3, 0),
    "all": HeadWeights(1, 0.3, 1),
}
"""Names and weights as in arXiv 2402.03216v4, tables 1 and 2 and appendix C (MIRACL, MKQA)."""

FUSED: Mapping[str, tuple[str, ...]] = {
    "dense+lexical rrf": ("dense", "lexical"),
    "all rrf": ("dense", "lexical", "multi"),
}
"""Baselines by reciprocal-rank fusion, and the modes whose rankings they fuse."""

TUNED = " tuned"
"""What the name of a mode with weights from a development split ends with."""


def modes_of(
    heads: Sequence[Head],
    names: Sequence[str] | None = None,
    weights: Mapping[str, HeadWeights] | None = None,
) -> dict[str, HeadWeights]:
    """The modes that a model with these heads has.

    Args:
        heads: Of the model.
        names: Which modes; None: all that the heads allow.
        weights: Other weights than the usual ones, by mode.

    Raises:
        InputError: For an unknown mode, or one whose heads the model lacks.
    """
    known = dict(MODES) | dict(weights or {})
    possible = [name for name in MODES if set(known[name].heads) <= set(heads)]
    chosen = list(possible if names is None else names)
    for name in [*chosen, *(weights or {})]:
        if name not in MODES:
            raise InputError(f"modes: got {name!r}; expected some of {', '.join(MODES)}")
    for name in chosen:
        if name not in possible:
            lacking = [head for head in HEADS if head in known[name].heads and head not in heads]
            raise InputError(
                f"modes: got {name!r}, but the model has no {' and no '.join(lacking)} head (only {', '.join(heads)})"
            )
    if not chosen:
        raise InputError(f"modes: got none; expected some of {', '.join(MODES)}")
    return {name: known[name] for name in chosen}


Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with (done, total or None)."""


class VectorModel(Protocol):
    """A contender that encodes; searching and scoring is the evaluation's business."""

    @property
    def name(self) -> str:
        """Short name for tables, such as "small"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that determines the vectors: weights, tokenizer, configuration, dtype, lengths."""
        ...

    @property
    def modes(self) -> Mapping[str, HeadWeights]:
        """The ways to score with it; ``{"dense": HeadWeights(1, 0, 0)}`` for an ordinary embedding model.

        Every head with a weight in some mode has to be in what the two methods give.
        """
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it: source, device, dtype, dimensions (JSON values)."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        ...

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents, `block` at a time (the last may be fewer), in order, and holds few blocks at once."""
        ...


class Ranker(Protocol):
    """A contender with its own index and scoring, such as BM25; it has one mode."""

    @property
    def name(self) -> str:
        """Short name for tables, such as "bm25 (words)"."""
        ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that determines the scores."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """What a reader wants to know of it (JSON values)."""
        ...

    def rank(
        self,
        corpus: Corpus,
        queries: Sequence[str],
        languages: Sequence[str],
        k: int,
        progress: Progress | None = None,
    ) -> list[Ranked]:
        """Ranks the corpus for each query.

        Args:
            corpus: Documents.
            queries: Q texts.
            languages: Q language codes; "" where it is unknown. For cross-lingual subsets ("en-zh"), the query's.
            k: Most documents a query. Documents that match nothing may be left out.
            progress: Called with (done, total or None).
        """
        ...


Contender: TypeAlias = VectorModel | Ranker

HeadScores: TypeAlias = Callable[[Encoded, Sequence[Head]], dict[Head, Floats]]
"""From N documents and the heads wanted to float32 ``[Q, N]`` for each."""

Scoring: TypeAlias = Callable[[Encoded], HeadScores]
"""Takes the Q queries (puts them on the device, once) and gives what scores blocks of documents."""


_WEIGHTS_AND_SETTINGS = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt")


def the_folder(path: Path) -> Path:
    """The folder, if it is one with a config.json or modules.json.

    Raises:
        ModelError: If not.
    """
    if not any((path / name).is_file() for name in ("config.json", "modules.json")):
        raise ModelError(f"{path}: expected the folder of a model, with config.json or modules.json")
    return path


def fingerprint(folder: Path, facts: Mapping[str, Any]) -> str:
    """Hex digest of a folder's files of weights and settings, and of `facts`."""
    files = sorted({file for pattern in _WEIGHTS_AND_SETTINGS for file in folder.rglob(pattern)})
    names = [file.relative_to(folder).as_posix() for file in files]
    kind = hashlib.blake2b(json.dumps([names, facts], sort_keys=True).encode(), digest_size=16)
    return digest_of(files, kind.hexdigest())


def in_blocks(
    texts: Iterable[str], block: int, encode: Callable[[Sequence[str]], Encoded]
) -> Iterator[Encoded]:
    """Encodes texts `block` at a time, one block held."""
    stream = iter(texts)
    while part := list(itertools.islice(stream, block)):
        yield encode(part)
