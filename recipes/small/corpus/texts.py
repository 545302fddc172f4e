"""Stage 1: all text to train on, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from corpus import tokens
from corpus.languages import weight
from corpus.long import whole
from corpus.records import Passage
from triptych.text import digest
from triptych.tools.pairs.base import StructuredDocument, Translations

_SHORTEST = 60
"""Comparable letters of a text."""
_JOINED = 700
"""Comparable letters up to which single sentences of a source are joined to one text."""


def texts(
    documents: Iterable[StructuredDocument], translations: Sequence[Translations], passages: Iterable[Passage]
) -> Iterator[dict[str, Any]]:
    """Whole documents (cut where the model cannot read on), news stories, joined sentences, passages."""
    seen: set[int] = set()
    for text, lang, source in _all(documents, translations, passages):
        name = digest(text)
        if name not in seen and weight(text, lang) >= _SHORTEST:
            seen.add(name)
            for part in _parts(text, lang):
                yield {"text": part, "lang": lang, "source": source}


def _all(
    documents: Iterable[StructuredDocument], translations: Sequence[Translations], passages: Iterable[Passage]
) -> Iterator[tuple[str, str, str]]:
    for document in documents:
        yield whole(document), document.lang, document.source
    waiting: dict[tuple[str, str], list[str]] = {}
    for each in translations:
        if each.kind != "sentence":
            continue
        for lang, sentences in each.texts.items():
            if each.source == "ntrex":
                yield "\n".join(sentences), lang, each.source
                continue
            if each.source == "tatoeba" and lang == "en":
                continue
            lines = waiting.setdefault((lang, each.source), [])
            for sentence in sentences:
                lines.append(sentence)
                if sum(weight(line, lang) for line in lines) >= _JOINED:
                    yield "\n".join(lines), lang, each.source
                    lines.clear()
    for (lang, source), lines in waiting.items():
        yield "\n".join(lines), lang, source
    for passage in passages:
        yield passage.text, passage.lang, passage.source


def _parts(text: str, lang: str) -> Iterator[str]:
    """The text in parts that the model can read; almost always one."""
    while weight(text, lang) > 2 * tokens.LONGEST:
        part, _ = tokens.fitting(text)
        yield part
        text = text[len(part) :].strip()
    if text:
        yield text
