"""A small deterministic encoder: words are hashed to vectors, so that no model is needed."""

import hashlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from triptych.types import HEADS, Encoded, Head, Ragged

VOCABULARY = 1000


class FakeEncoder:
    """A TextEncoder. Texts without words have no lexical weights and no token vectors, but a dense vector."""

    def __init__(
        self, dense: int = 8, multi: int = 6, heads: Sequence[Head] = HEADS, name: str = "fake"
    ) -> None:
        widths: dict[Head, int] = {"dense": dense, "lexical": VOCABULARY, "multi": multi}
        self.widths: Mapping[Head, int] = {head: widths[head] for head in heads}
        self.source = name
        self.fingerprint = hashlib.sha256(f"{name} {self.widths}".encode()).hexdigest()
        self.calls: list[int] = []

    def encode_query(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        return self._encode(texts, outputs)

    def encode_document(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        self.calls.append(len(texts))
        return self._encode(texts, outputs)

    def token_spans(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = [[match.span() for match in re.finditer(r"\S+", text)] for text in texts]
        return [np.asarray(spans, dtype=np.int64).reshape(-1, 2) for spans in found]

    def encode_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        *,
        outputs: Sequence[Head] = HEADS,
    ) -> Encoded:
        """Vectors of a word do not depend on its context here."""
        parts = [text[a:b] for text, own in zip(texts, spans, strict=True) for a, b in own]
        return self.encode_document(parts, outputs=outputs)

    def _encode(self, texts: str | Sequence[str], outputs: Sequence[Head]) -> Encoded:
        texts = [texts] if isinstance(texts, str) else list(texts)
        words = [text.split() for text in texts]
        return Encoded(
            self._dense(words) if "dense" in outputs else None,
            self._lexical(words) if "lexical" in outputs else None,
            self._multi(words) if "multi" in outputs else None,
        )

    def _dense(self, texts: list[list[str]]) -> np.ndarray:
        width = self.widths["dense"]
        rows = [sum((vector(word, width) for word in words), vector("", width)) for words in texts]
        found = np.asarray(rows, dtype=np.float32).reshape(len(texts), width)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _lexical(self, texts: list[list[str]]) -> sparse.csr_array:
        matrix = sparse.lil_array((len(texts), VOCABULARY), dtype=np.float32)
        for i, words in enumerate(texts):
            for word in words:
                matrix[i, number(word) % VOCABULARY] = 0.1 + (number(word) % 97) / 100
        return sparse.csr_array(matrix)

    def _multi(self, texts: list[list[str]]) -> Ragged:
        width = self.widths["multi"]
        return Ragged.of(
            [np.asarray([vector(w, width) for w in words]).reshape(-1, width) for words in texts], width
        )


def number(word: str) -> int:
    return int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")


def vector(word: str, width: int) -> np.ndarray:
    found = np.random.default_rng(number(word)).standard_normal(width).astype(np.float32)
    return found / np.linalg.norm(found)


def random_texts(rng: np.random.Generator, n: int, words: int = 30) -> list[str]:
    """Texts over a small vocabulary, some of them without words, some equal to others."""
    texts = [" ".join(f"w{w}" for w in rng.integers(0, words, rng.integers(0, 9))) for _ in range(n)]
    for i in range(0, n, 7):
        texts[i] = texts[n // 2]
    return texts
