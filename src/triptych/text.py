"""Words, sizes and equality of texts in any script; language codes and language identification.

Every part of the package that has to split, measure, compare or identify texts does it with these functions.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import require_extra

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
_UNSPACED_RUN = re.compile(f"[{''.join(f'{chr(a)}-{chr(b)}' for a, b in _UNSPACED)}]+")
# Kana, Han, Hangul syllables: a character is a syllable or more.
_WIDE = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U000323af]")
CHARS_PER_WORD = 3
"""Characters of a script without spaces that count as one word."""
LETTERS_PER_WIDE = 3
"""Letters of an alphabet that one Han character, kana or Hangul syllable counts as."""
_ACCENTS = re.compile(r"[\u0300-\u036f\u064b-\u0652]")
_MIX = np.uint64(0x9E3779B97F4A7C15)
_FINAL = np.uint64(0xFF51AFD7ED558CCD)


class _Symbols(dict[int, str]):
    """For `str.translate`: a blank for everything but letters, marks and digits.

    Args:
        split: Also surround characters of scripts without spaces with blanks.
    """

    def __init__(self, *, split: bool) -> None:
        self._split = split

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = " "
        if unicodedata.category(char)[0] in "LMN":
            self[code] = f" {char} " if self._split and is_unspaced(char) else char
        return self[code]


_split_units, _blank_symbols = _Symbols(split=True), _Symbols(split=False)


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
    return unicodedata.normalize("NFKC", text).casefold().translate(_split_units).split()


def fold(text: str) -> str:
    """The form in which texts are compared: two texts with the same `fold` count as the same text everywhere.

    Unicode's compatibility form without case, punctuation and spacing; a text without any word is compared by its
    characters.

    Example:
        >>> fold("Hello,  WORLD!") == fold("hello world")
        True
    """
    return " ".join(units(text)) or "".join(unicodedata.normalize("NFKC", text).casefold().split())


def terms(text: str) -> Iterator[str]:
    """What full-text search matches: words without case and accents; bigrams of scripts without spaces."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    folded = unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed)).translate(_blank_symbols)
    for run in _UNSPACED_RUN.sub(r" \g<0> ", folded).split():
        width = 2 if _UNSPACED_RUN.fullmatch(run) else len(run)
        yield from (run[i : i + width] for i in range(max(1, len(run) - width + 1)))


def size(text: str) -> int:
    """Characters of a text in letters of an alphabet: Han, kana and Hangul count `LETTERS_PER_WIDE` each."""
    return len(text) + (LETTERS_PER_WIDE - 1) * len(_WIDE.findall(text))


def letters(text: str) -> int:
    """`size` of the letters and digits alone."""
    return sum(map(str.isalnum, text)) + (LETTERS_PER_WIDE - 1) * len(_WIDE.findall(text))


def word_chars(text: str) -> int:
    """Letters, marks (accents, vowel signs) and digits of a text."""
    return sum(map(len, text.translate(_blank_symbols).split()))


def unit_hashes(parts: list[str]) -> Hashes:
    """A hash of each unit, the same in every process: uint64 ``[N]``."""
    crc = np.fromiter(
        (zlib.crc32(part.encode("utf-8", "surrogatepass")) for part in parts), np.uint64, len(parts)
    )
    lengths = np.fromiter(map(len, parts), np.uint64, len(parts))
    return mixed(crc + (lengths << np.uint64(32)))


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """A hash of each `n` units in a row: uint64 ``[max(0, N - n + 1)]``."""
    return ngrams_of_sizes(hashes, {n})[n]


def ngrams_of_sizes(hashes: Hashes, sizes: set[int]) -> dict[int, Hashes]:
    """`ngrams` for several sizes at once, with one step per length up to the longest."""
    found: dict[int, Hashes] = {}
    total = np.zeros(len(hashes), np.uint64)
    for n in range(1, max(sizes, default=0) + 1):
        total = mixed(total[: max(0, len(hashes) - n + 1)] + hashes[n - 1 :])
        if n in sizes:
            found[n] = total
    return found


def gram_size(parts: list[str], words: int) -> int:
    """How many units make `words` words: as many, or of single characters `CHARS_PER_WORD` times as many."""
    single = sum(len(part) == 1 and is_unspaced(part) for part in parts)
    return words * CHARS_PER_WORD if 2 * single > len(parts) else words


def digest(*texts: str) -> int:
    """A number below 2^64 for a sequence of texts, the same in every process."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(joined, digest_size=8).digest(), "little")


def fingerprint(texts: Iterable[str]) -> str:
    """BLAKE2b of a sequence of texts, 16 bytes as hex; where one ends and the next begins counts."""
    found = blake2b(digest_size=16)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def mixed(values: Hashes) -> Hashes:
    """Spreads the bits of each number over all 64; multiplication wraps around."""
    mixed = values * _MIX
    mixed ^= mixed >> np.uint64(29)
    mixed *= _FINAL
    return mixed ^ (mixed >> np.uint64(32))


Ranking: TypeAlias = Sequence[tuple[str, float]]
Rank: TypeAlias = Callable[[str], Ranking]
"""Languages of a text with their scores, the likeliest first."""

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
        if not lang or letters(text[:_READ]) < _LEAST:
            return True
        ranking = self._rank(text[:_READ])
        best, sure = ranking[0]
        if sure < _SURE or may_be(lang, best):
            return True
        likely = [share for code, share in ranking if may_be(lang, code)]
        return not likely or max(likely) > _UNLIKELY

    def identify(self, text: str) -> str:
        """The language of a text, or "" if that is not sure."""
        if letters(text[:_READ]) < _LEAST:
            return ""
        best, sure = self._rank(text[:_READ])[0]
        return best if sure >= _SURE else ""


@cache
def ranker(*, normalize: bool = True) -> Rank:
    """A function that ranks the languages (ISO 639-1) of a text by py3langid.

    Args:
        normalize: Scores are probabilities; otherwise log-probabilities in nats, with an unknown constant.

    Raises:
        MissingExtra: If py3langid is not installed.
    """
    with require_extra("identifying languages", "tools"):
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    # An object of our own: the library's shared one may have been restricted to some languages.
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=normalize).rank


# ISO 639-1 and the longer codes in which manuals are published: a folder "to" is a language, one "doc" is not.
_PATH_CODES = """
    aa ab af am an ar as ast av ay az ba be bg bi bm bn bo br bs ca ce ceb ch ckb co cr cs csb cu cv cy da de dv
    dz ee el en eo es et eu fa ff fi fil fj fo fr fy ga gd gl gn gu gv ha he hi ho hr hsb ht hu hy hz ia id ie
    ig ii ik io is it iu ja jv ka kab kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mai mg
    mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw
    sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz
    ve vi vo wa wo xh yi yo yue za zh zu
"""
_CODE = re.compile(r"[a-z]{2,3}(?:[-_@][A-Za-z]{2,8}){0,2}")


def is_utf8(name: object) -> bool:
    """Whether a name (of a file) is valid Unicode, so that it can stand in records; on a disk it may be any bytes."""
    return not any("\ud800" <= char <= "\udfff" for char in str(name))


def is_code(name: str) -> bool:
    """Whether a name has the form of a language code, such as ``de`` or ``zh_Hant-TW``; known or not."""
    return _CODE.fullmatch(name) is not None


def is_path_code(name: str) -> bool:
    """Whether a part of a path is the code of a language in which documents are published."""
    return is_code(name) and f" {primary(name)} " in _PATH_CODES.replace("\n", " ")


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
