"""A tokenizer that a reader can follow: a word is a token, its id says which word it was to come."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CLS, EOS = 0, 2
_WORDS: dict[str, int] = {}
_FIRST = 10


class Words(NamedTuple):
    ids: list[NDArray[np.int64]]
    truncated: int


class WordTokenizer:
    """[CLS] words… [EOS]; counts the texts that it was given."""

    def __init__(self, digest: str = "words") -> None:
        self.before = np.array([CLS])
        self.after = np.array([EOS])
        self.digest = digest
        self.seen = 0

    def encode(
        self, texts: Sequence[str], *, prefix: str = "", max_length: int, mcls_every: int | None = None
    ) -> Words:
        self.seen += len(texts)
        ids = [
            np.array([word_id(word) for word in (prefix + text).split()], dtype=np.int64) for text in texts
        ]
        room = max_length - 2
        framed = [np.concatenate([self.before, text[:room], self.after]) for text in ids]
        return Words(framed, sum(len(text) > room for text in ids))

    def prefix_ids(self, prefix: str) -> tuple[int, ...]:
        return (CLS, *map(word_id, prefix.split())) if prefix else ()


def word_id(word: str) -> int:
    return _WORDS.setdefault(word, _FIRST + len(_WORDS))


def text_of(ids: NDArray[np.integer]) -> str:
    """The words between [CLS] and [EOS]."""
    words = list(_WORDS)
    return " ".join(words[int(token) - _FIRST] for token in ids[1:-1])


def ids_of(text: str) -> list[int]:
    return [CLS, *map(word_id, text.split()), EOS]
