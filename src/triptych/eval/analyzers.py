"""Texts as words: what a language-aware BM25 counts.

Letters, digits and marks that stand together are a word, in compatibility form and without case. Scripts that put no
blank between words give overlapping runs of characters: two of Han and kana, as Lucene's CJK analyser does, three of
Thai, Lao, Myanmar and Khmer, whose letters carry less. Frequent words are left out where bm25s lists them for the
language, and the others are reduced to stems by Snowball (snowballstem.org, through PyStemmer) where it knows it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from triptych.errors import MissingExtra

STEMMERS = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "nb": "norwegian",
    "ne": "nepali",
    "nl": "dutch",
    "nn": "norwegian",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}

_STOPWORDS = {
    "da": "DANISH",
    "de": "GERMAN",
    "en": "EN",
    "es": "SPANISH",
    "fr": "FRENCH",
    "it": "ITALIAN",
    "nb": "NORWEGIAN",
    "nl": "DUTCH",
    "no": "NORWEGIAN",
    "pt": "PORTUGUESE",
    "ru": "RUSSIAN",
    "sv": "SWEDISH",
    "tr": "TURKISH",
}

# The ideographic iteration mark, kana, Han; and Thai, Lao, Myanmar, Khmer.
_PAIRS = "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TRIPLES = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_RUNS = re.compile(f"([{_PAIRS}]+)|([{_TRIPLES}]+)|[^{_PAIRS}{_TRIPLES}]+")


class _Apart(dict[int, str]):
    """For `str.translate`: everything but letters, digits and marks is a blank."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        self[point] = char if unicodedata.category(char)[0] in "LNM" else " "
        return self[point]


_APART = _Apart()


def words(text: str) -> list[str]:
    """The words of a text, not reduced to stems.

    Example:
        >>> words("L’Été, 東京都 à 20 °C")
        ['l', 'été', '東京', '京都', 'à', '20', 'c']
    """
    return [word for run in _apart(text).split() for word in _pieces(run)]


def _apart(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).translate(_APART)


def _pieces(run: str) -> Iterator[str]:
    for match in _RUNS.finditer(run):
        piece = match[0]
        width = 2 if match[1] else 3 if match[2] else len(piece)
        yield from (piece[i : i + width] for i in range(max(1, len(piece) - width + 1)))


def _short(language: str) -> str:
    return re.split(r"[-_]", language.lower())[0]


class Words:
    """Splits texts into stems; a `triptych.eval.baselines.Splitter`.

    Raises:
        MissingExtra: Without PyStemmer and bm25s.
    """

    name = "words"

    def __init__(self) -> None:
        try:
            import Stemmer
            from bm25s import stopwords
        except ImportError as error:
            raise MissingExtra("BM25 on stems", "eval") from error
        self._stemmers = {name: Stemmer.Stemmer(name) for name in Stemmer.algorithms()}
        self._stopwords: dict[str, frozenset[str]] = {
            language: frozenset(
                word for each in getattr(stopwords, f"STOPWORDS_{name}") for word in words(each)
            )
            for language, name in _STOPWORDS.items()
        }
        self.facts = {"words": "stems; runs of 2 and 3 characters", "PyStemmer": version("PyStemmer")}

    def group(self, language: str) -> str:
        """The language if something of it is known, such as "de" for "de_CH"; else ""."""
        short = _short(language)
        return short if STEMMERS.get(short) in self._stemmers or short in self._stopwords else ""

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The stems of each text, without frequent words."""
        stopped = self._stopwords.get(group, frozenset())
        found = [[word for word in words(text) if word not in stopped] for text in texts]
        stemmer = self._stemmers.get(STEMMERS.get(group, ""))
        return found if stemmer is None else [stemmer.stemWords(each) for each in found]
