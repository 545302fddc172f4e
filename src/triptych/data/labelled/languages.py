"""Languages as data sets name them, in English words or in codes."""

from __future__ import annotations

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
