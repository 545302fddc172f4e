"""Whether a text repeats what is kept for judging: shared stretches of characters, in any script.

**Math** Both sides are brought to letters and digits, lower case (Unicode NFKC). Every stretch of n characters gets a
rolling hash h(i) = Σ c(i+j)·b^j mod 2⁶⁴, taken from prefix sums P as (P(i+n) − P(i))·b^(−i).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from corpus.languages import DENSE

LATIN, COMPACT = 40, 16
"""Characters of a stretch, in scripts with letters and in dense ones."""
_OTHER = re.compile(r"[\W_]+")
_SIEVE = 26  # bits of a hash that decide first, in a table that fits in memory
_BASE = 0x9E3779B97F4A7C15 | 1
_INVERSE = pow(_BASE, -1, 1 << 64)


class Overlap:
    """Finds texts that share a stretch with any of some texts.

    Args:
        texts: What is kept apart, each with its language.
        least: The share of a text's stretches from which on it counts as repeating.
        most: The number of them from which on it does so whatever the share; None for no such number.
    """

    def __init__(self, texts: Iterable[tuple[str, str]], least: float = 0.2, most: int | None = 100) -> None:
        self._least, self._most = least, most
        rows: dict[int, list[NDArray[np.uint64]]] = {LATIN: [], COMPACT: []}
        self._exact: set[str] = set()
        for text, language in texts:
            plain = normal(text)
            self._exact.add(plain)
            n = COMPACT if language in DENSE else LATIN
            rows[n].append(stretches(plain, n))
        self._known = {
            n: np.unique(np.concatenate([np.zeros(0, np.uint64), *row])) for n, row in rows.items()
        }
        self._sieve = {n: np.zeros(1 << _SIEVE, dtype=np.bool_) for n in rows}
        for n, known in self._known.items():
            self._sieve[n][known >> np.uint64(64 - _SIEVE)] = True

    def repeats(self, text: str, language: str) -> bool:
        """Whether it is one of the texts, or shares with them as much as was said."""
        plain = normal(text)
        if plain in self._exact:
            return True
        n = COMPACT if language in DENSE else LATIN
        own, known = stretches(plain, n), self._known[n]
        if not len(own) or not len(known):
            return False
        total, own = len(own), own[self._sieve[n][own >> np.uint64(64 - _SIEVE)]]
        places = np.minimum(np.searchsorted(known, own), len(known) - 1)
        shared = int((known[places] == own).sum())
        return (self._most is not None and shared >= self._most) or shared >= self._least * total


def normal(text: str) -> str:
    """Letters, marks and digits of a text in lower case."""
    return _OTHER.sub("", unicodedata.normalize("NFKC", text).casefold())


def stretches(plain: str, n: int) -> NDArray[np.uint64]:
    """Hashes of all stretches of n characters, uint64 ``[max(0, len − n + 1)]``."""
    codes = np.frombuffer(plain.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(codes) < n:
        return np.zeros(0, np.uint64)
    powers = _powers(_BASE, len(codes))
    with np.errstate(over="ignore"):
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(codes * powers, dtype=np.uint64)])
        windows = (sums[n:] - sums[:-n]) * _powers(_INVERSE, len(codes))[: len(sums) - n]
        return (windows ^ (windows >> np.uint64(29))) * np.uint64(_BASE)


_TABLES: dict[int, NDArray[np.uint64]] = {}


def _powers(base: int, count: int) -> NDArray[np.uint64]:
    table = _TABLES.get(base)
    if table is None or len(table) < count:
        size = max(count, 1 << 16)
        with np.errstate(over="ignore"):
            steps = np.full(size, base, dtype=np.uint64)
            steps[0] = 1
            table = _TABLES[base] = np.cumprod(steps, dtype=np.uint64)
    return table[:count]
