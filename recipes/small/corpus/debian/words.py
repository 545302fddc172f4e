"""Strings and words in many languages: message catalogues, names of characters, dictionaries."""

from __future__ import annotations

import gettext
import gzip
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from lxml import etree  # pyright: ignore[reportAttributeAccessIssue]

from corpus.clean import tidy

Record = dict[str, Any]
_CATALOGUES: Final = {
    "wesnoth": "usr/share/games/wesnoth/*/translations/*/LC_MESSAGES/*.mo",
    "freeciv": "usr/share/locale/*/LC_MESSAGES/freeciv-*.mo",
    "iso": "usr/share/locale/*/LC_MESSAGES/iso_*.mo",
}
_SHORTEST: Final = {"wesnoth": 20, "freeciv": 20, "iso": 2}  # characters of an English string
_FEWEST: Final = 6  # languages of a string
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_NOTE = re.compile(r"/[^/]*/|<[^>]*>|\[[^\]]*\]|\([^)]*\)|^\s*\d+\.\s*")
_MEANINGS = 3


def catalogues(roots: Iterable[Path]) -> Iterator[Record]:
    """Strings of games and names of countries, languages and scripts, in all languages that translate them."""
    for root in roots:
        for source, pattern in _CATALOGUES.items():
            found: dict[tuple[str, str], dict[str, str]] = {}
            for path in sorted(root.glob(pattern)):
                language = path.parent.parent.name.partition("@")[0]
                for english, text in _messages(path, _SHORTEST[source]):
                    found.setdefault((path.stem, english), {}).setdefault(language, text)
            for (domain, english), texts in sorted(found.items()):
                if len(texts) >= _FEWEST:
                    record: Record = {"s": source, "k": domain}
                    if source == "iso":
                        yield record | {"en": english, "tr": texts}
                    else:
                        yield record | {"tr": {"en": english, **texts}}


def _messages(path: Path, least: int) -> Iterator[tuple[str, str]]:
    with path.open("rb") as file:
        try:
            catalogue = gettext.GNUTranslations(file)
        except UnicodeDecodeError:  # its header is in another encoding than it says: one of 1,218 files
            return
    entries: dict[Any, str] = getattr(catalogue, "_catalog")  # noqa: B009 - the only way to list a catalogue
    for name, text in entries.items():
        english = name[0] if isinstance(name, tuple) and name[1] == 0 else name  # the singular of a plural
        if isinstance(english, str) and len(english) >= least and text and text != english:
            yield _line(english.rpartition("\x04")[2]), _line(text)


def _line(text: str) -> str:
    return " ".join(tidy(text).split())


def characters(roots: Iterable[Path]) -> Iterator[Record]:
    """Names and keywords of characters (unicode-cldr-core)."""
    found: dict[str, dict[str, list[str]]] = {}
    for root in roots:
        for path in sorted(root.glob("usr/share/unicode/cldr/common/annotations/*.xml")):
            names: dict[str, str] = {}
            keywords: dict[str, str] = {}
            for element in etree.parse(path).getroot().iter("annotation"):
                text = tidy(element.text or "")
                (names if element.get("type") == "tts" else keywords)[element.get("cp")] = text
            for character, name in names.items():
                texts = [name, keywords[character]] if character in keywords else [name]
                found.setdefault(character, {})[path.stem] = texts
    for character, languages in sorted(found.items()):
        yield {"s": "cldr", "k": character, "tr": languages}


def dictionaries(roots: Iterable[Path]) -> Iterator[Record]:
    """Words with their translations (dict-freedict-*), in dictd's form."""
    for root in roots:
        for index in sorted(root.glob("usr/share/dictd/freedict-*.index")):
            pair = index.stem.removeprefix("freedict-")
            text = gzip.decompress(index.with_suffix(".dict.dz").read_bytes())
            for line in index.read_text(encoding="utf-8").splitlines():
                word, start, length = line.split("\t")[:3]
                entry = text[_number(start) : _number(start) + _number(length)].decode("utf-8", "replace")
                meanings = _meanings(entry)
                if meanings and not word.startswith("00-database"):
                    yield {"s": "fd", "k": pair, "w": _word(entry) or word, "tr": meanings[:_MEANINGS]}


def _number(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 64 + _DIGITS.index(digit)
    return value


def _word(entry: str) -> str:
    return tidy(_NOTE.sub("", entry.partition("\n")[0]))


def _meanings(entry: str) -> list[str]:
    lines = [tidy(_NOTE.sub("", line)) for line in entry.split("\n")[1:]]
    parts = [part.strip() for line in lines for part in re.split(r"[,;]", line)]
    return list(dict.fromkeys(part for part in parts if part and not part.endswith(":")))
