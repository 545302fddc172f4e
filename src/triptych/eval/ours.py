"""Models of this package as contenders."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.encode.encoder import Encoder
from triptych.eval.contenders import modes_of
from triptych.types import HEADS, Encoded, Head, HeadWeights


@dataclass(frozen=True, slots=True)
class Ours:
    """An `Encoder` in an evaluation.

    Attributes:
        encoder: The model.
        name: For tables.
        modes: The ways to score.
        query_length: Most tokens of a query; None: what the model reads.
        document_length: The same of a document.
        devices: Encode documents with a worker process for each; None: here.
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
    ) -> Ours:
        """A contender with the modes of these names.

        Args:
            encoder: The model.
            name: None: the last part of where the model came from.
            modes: None: all that the model's heads allow.
            weights: Other weights than the usual ones, by mode.
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
        told = self.encoder.describe()
        limit = self.encoder.config.max_length
        return {
            "source": Path(self.encoder.source).name,
            "model": self.encoder.fingerprint,
            "device": told["device"],
            "dtype": told["dtype"],
            "widths": dict(self.encoder.widths),
            "query_length": self.query_length or limit,
            "document_length": self.document_length or limit,
        }

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        """Encodes queries."""
        return self.encoder.encode_query(texts, outputs=self._heads, max_length=self.query_length)

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        """Encodes documents block by block."""
        return self.encoder.encode_stream(
            texts,
            block=block,
            devices=self.devices,
            outputs=self._heads,
            max_length=self.document_length,
        )

    @property
    def _heads(self) -> tuple[Head, ...]:
        return tuple(h for h in HEADS if any(getattr(w, h) for w in self.modes.values()))
