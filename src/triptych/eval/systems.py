"""What can be evaluated: models that encode, rankers with a scoring of their own, and run files of other systems.

A *system* is evaluated in one or more *modes* (ways to combine its scores) by a *protocol* (how rankings are made,
see `triptych.eval.protocols`). The evaluation itself knows neither torch nor any model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from triptych.collections.base import Collection, Corpus, Ranked, Run, digest_of
from triptych.collections.trec import read_run
from triptych.errors import InputError, ModelError
from triptych.types import HEADS, DefaultWeights, Encoded, Floats, Head, HeadWeights, Progress

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder

MODES: Mapping[str, HeadWeights] = {
    "dense": HeadWeights(1, 0, 0),
    "lexical": HeadWeights(0, 1, 0),
    "multi": HeadWeights(0, 0, 1),
    "dense+lexical": HeadWeights(1, 0.3, 0),
    "all": DefaultWeights(),
}
"""Names as in arXiv 2402.03216v4, tables 1 and 2; its weights of all three scores are those of the paper's protocol."""

FUSED: Mapping[str, tuple[str, ...]] = {
    "dense+lexical rrf": ("dense", "lexical"),
    "all rrf": ("dense", "lexical", "multi"),
}
"""Baselines by reciprocal-rank fusion, and the modes whose rankings they fuse."""

TUNED = " tuned"
"""Suffix of modes whose weights were chosen on a development split."""


def modes_of(
    heads: Sequence[Head],
    names: Sequence[str] | None = None,
    weights: Mapping[str, HeadWeights] | None = None,
) -> dict[str, HeadWeights]:
    """The modes of a model with these heads.

    Args:
        heads: Of the model.
        names: Which modes; None: all that the heads allow.
        weights: Weights other than the defaults, by mode.

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


class VectorModel(Protocol):
    """A system that encodes; the evaluation compares the vectors."""

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

        Both encode methods return every head that has a weight in some mode.
        """
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Source, device, dtype, dimensions and the like, as JSON values."""
        ...

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        ...

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents in order, `block` at a time (the last may be shorter), and holds few blocks at once."""
        ...


class Ranker(Protocol):
    """A system with its own index and scoring, such as BM25; it has one mode."""

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
        """Parameters and versions, as JSON values."""
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
            languages: Q language codes; "" where unknown. For cross-lingual subsets ("en-zh"), the query's.
            k: Maximum documents per query. Documents that match nothing may be left out.
            progress: See `triptych.types.Progress`.
        """
        ...


@dataclass(frozen=True, slots=True, eq=False)
class RunFile:
    """Rankings that another system wrote, by query id.

    Attributes:
        name: For tables.
        fingerprint: Digest of the file.
        facts: Name of the file.
        run: Query id to ranking.
        path: For messages.
    """

    name: str
    fingerprint: str
    facts: Mapping[str, Any]
    run: Run
    path: Path

    @classmethod
    def read(cls, source: str | Path) -> RunFile:
        """Reads ``[NAME=]FILE``, a run in TREC's format; without a name, the file's.

        Raises:
            DataError: For a file that cannot be read as a run.
        """
        name, equals, rest = str(source).partition("=")
        if not equals or Path(source).exists():
            name, rest = "", str(source)
        path = Path(rest).expanduser()
        run = read_run(path)
        plain = path.name.removesuffix(".gz").removesuffix(".zst")
        name = name or plain.removesuffix(".run").removesuffix(".trec").removesuffix(".txt")
        return cls(name, digest_of([path], "run"), {"run": path.name}, run, path)


System: TypeAlias = VectorModel | Ranker | RunFile


def without(ranked: Ranked, collection: Collection, query: str, depth: int) -> Ranked:
    """The first `depth` documents of a ranking, without those that the query leaves out."""
    excluded = collection.excluded.get(query, frozenset())
    kept = [i for i, name in enumerate(ranked.documents) if name not in excluded][:depth]
    return Ranked(tuple(ranked.documents[i] for i in kept), ranked.scores[kept])


HeadScores: TypeAlias = Callable[[Encoded, Sequence[Head]], dict[Head, Floats]]
"""From N documents and the heads wanted to float32 ``[Q, N]`` for each."""

Scoring: TypeAlias = Callable[[Encoded], HeadScores]
"""Takes the Q queries (puts them on the device, once) and returns what scores blocks of documents."""


@dataclass(frozen=True, slots=True)
class EncoderSystem:
    """An `Encoder` in an evaluation.

    Attributes:
        encoder: The model.
        name: For tables.
        modes: The ways to score.
        query_length: Maximum tokens of a query; None: the model's.
        document_length: The same of a document.
        devices: Encode documents with one worker process per device; None: in this process.
    """

    encoder: Encoder
    name: str
    modes: Mapping[str, HeadWeights]
    query_length: int | None = None
    document_length: int | None = None
    devices: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        name: str | None = None,
        *,
        modes: Sequence[str] | None = None,
        weights: Mapping[str, HeadWeights] | None = None,
        **lengths: Any,
    ) -> EncoderSystem:
        """A system with the modes of these names.

        Args:
            encoder: The model.
            name: None: the last part of the model's source.
            modes: None: all that the model's heads allow.
            weights: Weights other than the defaults, by mode.
            **lengths: `query_length`, `document_length`, `devices`.

        Raises:
            InputError: For an unknown mode, or one whose heads the model lacks.
        """
        chosen = modes_of(encoder.heads, modes, weights)
        return cls(encoder, name or Path(encoder.source).name or "model", chosen, **lengths)

    @property
    def fingerprint(self) -> str:
        """Of the model, its arithmetic and the lengths."""
        facts = [
            self.encoder.fingerprint,
            self.encoder.describe()["dtype"],
            self.query_length,
            self.document_length,
        ]
        return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()

    @property
    def facts(self) -> Mapping[str, Any]:
        """Source, model fingerprint, arithmetic, widths, lengths."""
        described = self.encoder.describe()
        limit = self.encoder.config.max_length
        return {
            "source": Path(self.encoder.source).name,
            "model": self.encoder.fingerprint,
            "device": described["device"],
            "dtype": described["dtype"],
            "widths": dict(self.encoder.widths),
            "query_length": self.query_length or limit,
            "document_length": self.document_length or limit,
        }

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        return self.encoder.encode_query(texts, outputs=heads_of(self.modes), max_length=self.query_length)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents block by block."""
        return self.encoder.encode_stream(
            texts,
            block=block,
            devices=self.devices,
            outputs=heads_of(self.modes),
            max_length=self.document_length,
        )


def heads_of(modes: Mapping[str, HeadWeights]) -> tuple[Head, ...]:
    """The heads that some mode uses."""
    return tuple(head for head in HEADS if any(getattr(weights, head) for weights in modes.values()))


_WEIGHTS_AND_SETTINGS = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt")


def model_folder(path: Path) -> Path:
    """The folder, if it is one with a config.json or modules.json.

    Raises:
        ModelError: If not.
    """
    if not any((path / name).is_file() for name in ("config.json", "modules.json")):
        raise ModelError(f"{path}: expected the folder of a model, with config.json or modules.json")
    return path


def folder_fingerprint(folder: Path, facts: Mapping[str, Any]) -> str:
    """Hex digest of a folder's files of weights and settings, and of `facts`."""
    files = sorted({file for pattern in _WEIGHTS_AND_SETTINGS for file in folder.rglob(pattern)})
    names = [file.relative_to(folder).as_posix() for file in files]
    kind = hashlib.blake2b(json.dumps([names, facts], sort_keys=True).encode(), digest_size=16)
    return digest_of(files, kind.hexdigest())
