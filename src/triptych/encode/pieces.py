"""Texts that are tokenised while earlier ones are computed.

Texts are computed longest first, which takes all their lengths. A GPU would wait for them, so that the texts are cut
into a few pieces by their numbers of characters, the longest first: small pieces at the beginning, which are there soon,
and then larger ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from triptych.model.packed import Ids
from triptych.model.tokenizer import Tokenized

# Characters of the first piece (about 16,000 tokens of many languages), and by how much each further one is larger.
_FIRST = 65536
_GROWTH = 4

Numbers = NDArray[np.int64]


class Pieces:
    """Iterated: the numbers of the texts of each piece, whose token ids are in `found` then.

    Args:
        texts: N texts.
        tokenize: Gives the token ids of some texts.
        cut: Whether to cut them, and to go on in a thread; otherwise they are tokenised here and now, as one piece.

    Attributes:
        found: Token ids of the texts, as far as they are known.
        truncated: How many texts were cut, so far.
    """

    def __init__(
        self, texts: Sequence[str], tokenize: Callable[[list[str]], Tokenized], *, cut: bool
    ) -> None:
        self._texts, self._tokenize = texts, tokenize
        self.found: list[Ids] = [np.zeros(0, np.int64)] * len(texts)
        self.truncated = 0
        self._pieces = _cut([len(text) for text in texts]) if cut else [np.arange(len(texts))]
        self._waiting: list[Future[None]] = []
        if len(self._pieces) == 1:
            self._find(self._pieces[0])
            return
        thread = ThreadPoolExecutor(1, "tokenize")
        self._waiting = [thread.submit(self._find, piece) for piece in self._pieces]
        thread.shutdown(wait=False)

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Numbers]:
        for piece, done in zip_longest(self._pieces, self._waiting):
            if done is not None:
                done.result()
            yield piece

    def all(self) -> list[Ids]:
        """Token ids of all texts; waits for them."""
        for done in self._waiting:
            done.result()
        return self.found

    def _find(self, piece: Numbers) -> None:
        tokens = self._tokenize([self._texts[i] for i in piece.tolist()])
        for i, ids in zip(piece.tolist(), tokens.ids, strict=True):
            self.found[i] = ids
        self.truncated += tokens.truncated


def _cut(sizes: Sequence[int]) -> list[Numbers]:
    """The numbers of the texts, the longest first, in pieces of growing numbers of characters."""
    characters = np.asarray(sizes, dtype=np.int64)
    order = np.argsort(-characters, kind="stable")
    reached = np.cumsum(characters[order])
    total = int(reached[-1]) if len(order) else 0
    bounds: list[int] = []
    size = end = _FIRST
    # What would be left over as a piece smaller than the one before goes with that.
    while end + size < total:
        bounds.append(int(np.searchsorted(reached, end, side="right")))
        size *= _GROWTH
        end += size
    return [piece for piece in np.split(order, bounds) if len(piece)] or [order]
