"""Units of text that can be compared in any script: words, or characters where no space parts words.

What a word is, in any script.

Which language a text is in, and whether that contradicts what is said of it.

Languages as data sets name them, in English words or in codes.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import MissingExtra

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


WORD = re.compile(
    # letters and digits, and the marks that belong to them: accents, points, vowel signs
    r"[\w\u0300-\u036f\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u0e31-\u0e4e"
    r"\u0f71-\u0f84\u102b-\u103e\u17b4-\u17d3]+"
)
"""A run of letters, digits and marks (which Python's ``\\w`` leaves out)."""


Ranking: TypeAlias = Sequence[tuple[str, float]]
Rank: TypeAlias = Callable[[str], Ranking]
"""Languages of a text with their probabilities, the likeliest first."""

_READ = 300  # characters that decide
_LEAST = 25  # letters; below that, an identifier guesses
_SURE, _UNLIKELY = 0.6, 0.1
# Languages that an identifier confuses, or codes of the same one.
_FAMILIES = (
    ("no", "nb", "nn", "da"),
    ("hr", "sr", "bs", "sh", "cnr", "srl"),
    ("id", "ms", "zsm", "jv"),
    ("zh", "yue", "wuu", "cmn", "lzh"),
    ("ar", "ary", "arz", "arb", "apc"),
    ("he", "hbo", "iw"),
    ("el", "grc"),
    ("fil", "tl"),
    ("fa", "prs", "pes"),
    ("lv", "ltg"),
    ("gl", "pt"),
    ("ca", "oc", "an", "es", "ext"),
    ("cs", "sk"),
    ("bg", "mk"),
    ("ku", "ckb", "kmr", "sdh"),
    ("qu", "quz", "quy"),
    ("sw", "swh", "swc"),
    ("uz", "uzs"),
    ("ga", "gd"),
    ("st", "nso", "tn"),
    ("xh", "zu"),
)
_MEMBERS: dict[str, set[str]] = {}
for _family in _FAMILIES:
    for _code in _family:
        _MEMBERS.setdefault(_code, set()).update(_family)


def primary(code: str) -> str:
    """The language of a code with a region or script: ``zh`` of ``zh_CN`` or ``zh-Hant-TW``, in lower case."""
    return code.replace("_", "-").split("-")[0].split("@")[0].lower()


def may_be(declared: str, found: str) -> bool:
    """Whether a text that is said to be in one language may have been identified as the other."""
    here, there = primary(declared), primary(found)
    return here == there or there in _MEMBERS.get(here, ())


class LanguageCheck:
    """Says whether texts are in the languages that they are said to be in.

    Short texts, texts of which the identifier is not sure, and languages that it does not know pass.

    Args:
        rank: An identifier with probabilities; by default py3langid.

    Raises:
        MissingExtra: If py3langid is needed and not installed.
    """

    def __init__(self, rank: Rank | None = None) -> None:
        self._rank = lru_cache(maxsize=4096)(rank or ranker())

    def __call__(self, text: str, lang: str) -> bool:
        """Whether `text` may be in `lang`."""
        if not lang or weight(text[:_READ]) < _LEAST:
            return True
        ranking = self._rank(text[:_READ])
        best, sure = ranking[0]
        if sure < _SURE or may_be(lang, best):
            return True
        likely = [share for code, share in ranking if may_be(lang, code)]
        return not likely or max(likely) > _UNLIKELY

    def identify(self, text: str) -> str:
        """The language of a text, or "" if that is not sure."""
        if weight(text[:_READ]) < _LEAST:
            return ""
        best, sure = self._rank(text[:_READ])[0]
        return best if sure >= _SURE else ""


def ranker() -> Rank:
    """py3langid with probabilities, as an object of its own: the library's shared one is left alone.

    Raises:
        MissingExtra: If it is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise MissingExtra("identifying languages", "data") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True).rank


_CODES = {
    "arabic": "ar",
    "bengali": "bn",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "finnish": "fi",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "persian": "fa",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
    "vietnamese": "vi",
    "yoruba": "yo",
}
_NAMES = {code: name for name, code in _CODES.items()}


def code_of(language: str) -> str:
    """The code of a language given by its English name; what is no such name is taken for a code."""
    return _CODES.get(language.lower(), language.lower())


def name_of(code: str) -> str:
    """The English name of a language; an unknown code is its own name."""
    return _NAMES.get(code, code)
