"""Texts that are tokenised while earlier ones are computed.

Texts are computed longest first, which takes all their lengths. A GPU would wait for them, so that the texts are cut
into a few pieces by their numbers of characters, the longest first: small pieces, which are there soon, and the rest.
Each is tokenised, by all cores, when the GPU has been given the one before. A thread of its own for that was slower:
it and the one that launches the kernels would wait for the interpreter's lock in turns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.model.packed import Ids
from triptych.model.tokenizer import Tokenized

# Characters of the pieces but the last; four are about a token.
_SIZES = (1 << 16, 1 << 18, 1 << 19)

Numbers = NDArray[np.int64]


class TextPieces:
    """Iterated once: the numbers of the texts of each piece, whose token ids are in `found` then.

    Args:
        texts: N texts.
        tokenize: Gives the token ids of some texts.
        cut: Whether to cut them; otherwise they are tokenised here and now, as one piece.

    Attributes:
        found: Token ids of the texts, as far as they are known.
        all: Those of all texts, when they are known.
        truncated: How many texts were cut, so far.
    """

    def __init__(
        self, texts: Sequence[Any], tokenize: Callable[[list[Any]], Tokenized], *, cut: bool
    ) -> None:
        self._texts, self._tokenize = texts, tokenize
        self.found: list[Ids] = [np.zeros(0, np.int64)] * len(texts)
        self.all: Future[list[Ids]] = Future()
        self.truncated = 0
        self._pieces = _cut([len(text) for text in texts]) if cut else [np.arange(len(texts))]
        self._known = 0
        self._find_next()

    @classmethod
    def of(cls, ids: Sequence[Ids]) -> TextPieces:
        """One piece of texts whose token ids are known."""
        return cls([np.asarray(text, np.int64) for text in ids], lambda known: Tokenized(known, 0), cut=False)

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Numbers]:
        for i, piece in enumerate(self._pieces):
            if i == self._known:
                self._find_next()
            yield piece

    def __enter__(self) -> TextPieces:
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> None:
        """Ends what waits for `all`, if it will not come."""
        if not self.all.done():
            self.all.set_exception(error or RuntimeError("not all texts were tokenised"))

    def _find_next(self) -> None:
        piece = self._pieces[self._known]
        tokens = self._tokenize([self._texts[i] for i in piece.tolist()])
        for i, ids in zip(piece.tolist(), tokens.ids, strict=True):
            self.found[i] = ids
        self.truncated += tokens.truncated
        self._known += 1
        if self._known == len(self._pieces):
            self.all.set_result(self.found)


def _cut(sizes: Sequence[int]) -> list[Numbers]:
    """The numbers of the texts, the longest first, in pieces of these numbers of characters and a larger rest."""
    characters = np.asarray(sizes, dtype=np.int64)
    order = np.argsort(-characters, kind="stable")
    reached = np.cumsum(characters[order])
    ends = np.cumsum(_SIZES)
    bounds = np.searchsorted(reached, ends[ends + _SIZES < (reached[-1] if len(order) else 0)], side="right")
    return [piece for piece in np.split(order, bounds) if len(piece)] or [order]
