"""Units of text that can be compared in any script: words, or characters where no space parts words."""

from __future__ import annotations

import re
import unicodedata
import zlib
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x0F00, 0x0FFF),  # Tibetan
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)
_DENSE = re.compile(f"[\uac00-\ud7a3{''.join(f'{chr(a)}-{chr(b)}' for a, b in _UNSPACED)}]+")
CHARS_PER_WORD = 3
"""How many characters of a script without spaces count as much as a word: about that long is a word in the others'
sense, and about that much one says with them."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FINAL = np.uint64(0xFF51AFD7ED558CCD)


class _Separate(dict[int, str]):
    """For `str.translate`: blanks for all that is no letter, mark or digit; blanks around unspaced characters."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " "
        if unicodedata.category(char)[0] in "LMN":
            self[code] = f" {char} " if is_unspaced(char) else char
        return self[code]


_separate = _Separate()


def is_unspaced(char: str) -> bool:
    """Whether a character belongs to a script that writes no spaces between words."""
    code = ord(char)
    return code >= _UNSPACED[0][0] and any(first <= code <= last for first, last in _UNSPACED)


def units(text: str) -> list[str]:
    """The words of a text in lower case and, of scripts without spaces, its characters; without punctuation.

    Example:
        >>> units("Über-Nacht: 你好 x86!")
        ['über', 'nacht', '你', '好', 'x86']
    """
    return unicodedata.normalize("NFKC", text).casefold().translate(_separate).split()


def fold(text: str) -> str:
    """A text as equality sees it: its `units` joined by blanks."""
    return " ".join(units(text))


def weight(text: str) -> int:
    """Letters and digits of a text; those of scripts without spaces, and Hangul, count double: they say more each."""
    return sum(map(str.isalnum, text)) + sum(map(str.isalnum, "".join(_DENSE.findall(text))))


def word_chars(text: str) -> int:
    """Letters, marks (accents, vowel signs) and digits of a text."""
    return sum(map(len, text.translate(_separate).split()))


def unit_hashes(parts: list[str]) -> Hashes:
    """A hash of each unit, the same in every process: uint64 ``[N]``."""
    crc = np.fromiter(
        (zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in parts), np.uint64, len(parts)
    )
    lengths = np.fromiter(map(len, parts), np.uint64, len(parts))
    return mixed(crc + (lengths << np.uint64(32)))


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """A hash of each `n` units in a row: uint64 ``[max(0, N - n + 1)]``."""
    count = max(0, len(hashes) - n + 1)
    total = np.zeros(count, np.uint64)
    for place in range(n if count else 0):
        total = mixed(total + hashes[place : place + count])
    return total


def gram_size(parts: list[str], words: int) -> int:
    """How many units make `words` words: as many, or of single characters `CHARS_PER_WORD` times as many."""
    single = sum(len(part) == 1 and is_unspaced(part) for part in parts)
    return words * CHARS_PER_WORD if 2 * single > len(parts) else words


def digest(*texts: str) -> int:
    """A number below 2^64 for a sequence of texts, the same in every process."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")


def mixed(values: Hashes) -> Hashes:
    """Spreads the bits of each number over all 64; multiplication wraps around."""
    mixed = values * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _FINAL
    return mixed ^ (mixed >> np.uint64(32))
