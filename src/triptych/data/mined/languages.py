"""Which language a text is in, and whether that contradicts what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from triptych.data.mined.words import weight
from triptych.errors import MissingExtra

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
