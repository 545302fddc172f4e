"""Texts as words: what a language-aware BM25 counts.

Letters, digits and marks that stand together are a word, in compatibility form and without case. Scripts that put no
blank between words give overlapping runs of characters: two of Han and kana, as Lucene's CJK analyser does, three of
Thai, Lao, Myanmar and Khmer, whose letters carry less. Frequent words are left out where bm25s lists them for the
language, and the others are reduced to stems by Snowball (snowballstem.org, through PyStemmer) where it knows it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from triptych.errors import require_extra

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


class _Separate(dict[int, str]):
    """For `str.translate`: everything but letters, digits and marks is a blank."""

    def __missing__(self, point: int) -> str:
        char = chr(point)
        self[point] = char if unicodedata.category(char)[0] in "LNM" else " "
        return self[point]


_SEPARATE = _Separate()


def words(text: str) -> list[str]:
    """The words of a text, not reduced to stems.

    Example:
        >>> words("L’Été, 東京都 à 20 °C")
        ['l', 'été', '東京', '京都', 'à', '20', 'c']
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    found: list[str] = []
    for run in folded.translate(_SEPARATE).split():
        for match in _RUNS.finditer(run):
            piece = match[0]
            width = 2 if match[1] else 3 if match[2] else len(piece)
            found += [piece[i : i + width] for i in range(max(1, len(piece) - width + 1))]
    return found


class Words:
    """Splits texts into stems; a `triptych.eval.baselines.Splitter`.

    Raises:
        MissingExtra: Without PyStemmer and bm25s.
    """

    name = "words"

    def __init__(self) -> None:
        with require_extra("BM25 on stems", "eval"):
            import Stemmer
            from bm25s import stopwords
        self._make: Any = Stemmer.Stemmer
        self._stemmers: dict[str, Any] = {}
        self._stopwords = {
            language: frozenset(
                word for each in getattr(stopwords, f"STOPWORDS_{name}") for word in words(each)
            )
            for language, name in _STOPWORDS.items()
        }
        self.facts = {"words": "stems; runs of 2 and 3 characters", "PyStemmer": version("PyStemmer")}

    def group(self, language: str) -> str:
        """The language if something of it is known, such as "de" for "de_CH"; else ""."""
        short = re.split(r"[-_]", language.lower())[0]
        return short if self._stemmer(short) is not None or short in self._stopwords else ""

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The stems of each text, without frequent words."""
        stopped = self._stopwords.get(group, frozenset[str]())
        found = [[word for word in words(text) if word not in stopped] for text in texts]
        stemmer = self._stemmer(group)
        return found if stemmer is None else [stemmer.stemWords(each) for each in found]

    def _stemmer(self, language: str) -> Any:
        """Snowball's stemmer, which it knows by the language's code; None if there is none."""
        if language not in self._stemmers:
            try:
                self._stemmers[language] = self._make({"nb": "no", "nn": "no"}.get(language, language))
            except KeyError:
                self._stemmers[language] = None
        return self._stemmers[language]
