"""Text of a manual that was left in English: what a document has in common, word by word, with its English version.

The kinds of pairs of which one side is a translation of the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from triptych.text import fold, primary
from triptych.tools.pairs.base import (
    Block,
    Limits,
    Pair,
    StructuredDocument,
    Translations,
    drawn,
    language_pairs,
)
from triptych.tools.pairs.passages import joined, unnumbered

_ORIGINAL = "en"
_LEAST = 2  # words of a heading, keyword or description; one word may be a name
_LEAST_PARAGRAPH = 8  # below that it may be a command, the same in all languages


class Untranslated(NamedTuple):
    """A document without its untranslated parts, and how many blocks and keywords those were."""

    document: StructuredDocument
    blocks: int
    keywords: int


def without_untranslated(documents: Sequence[StructuredDocument]) -> list[Untranslated]:
    """Takes out of each document what is the same in the English one: headings, paragraphs, keywords, description.

    Titles stay, since they may be names; so does whatever is short. Without an English document nothing is done.

    Args:
        documents: One document in its languages.
    """
    english = next((document for document in documents if primary(document.lang) == _ORIGINAL), None)
    if english is None:
        return [Untranslated(document, 0, 0) for document in documents]
    held = {
        fold(text) for text in (*(b.text for b in english.blocks), *english.keywords, english.description)
    }
    return [
        Untranslated(document, 0, 0) if primary(document.lang) == _ORIGINAL else _cleaned(document, held)
        for document in documents
    ]


def _cleaned(document: StructuredDocument, held: set[str]) -> Untranslated:
    def foreign(text: str, least: int) -> bool:
        words = fold(text)
        return words.count(" ") + 1 >= least and words in held

    def is_left(block: Block) -> bool:
        return foreign(block.text, _LEAST_PARAGRAPH if block.level is None else _LEAST)

    blocks = tuple(block for block in document.blocks if not is_left(block))
    keywords = tuple(word for word in document.keywords if not foreign(word, _LEAST))
    description = "" if foreign(document.description, _LEAST) else document.description
    return Untranslated(
        replace(document, blocks=blocks, keywords=keywords, description=description),
        len(document.blocks) - len(blocks),
        len(document.keywords) - len(keywords),
    )


def paragraph_translation(documents: Sequence[StructuredDocument], limits: Limits) -> Iterator[Pair]:
    """Paragraph → its translation.

    Args:
        documents: One document in its languages, each language once.
        limits: How much is taken; each paragraph gets its own draw of languages.
    """
    for place, group in _aligned(documents).items():
        kind = "paragraph-translation"
        yield from _translated(group, kind, limits, f"{kind} {place[0]} {place[1]}")


def document_translation(documents: Sequence[StructuredDocument], limits: Limits) -> Iterator[Pair]:
    """Document → its translation, for documents of two blocks or more.

    Args:
        documents: One document in its languages, each language once.
        limits: How much is taken.
    """
    whole = [
        (document, joined(document.blocks, limits.document_chars, document.title))
        for document in documents
        if sum(block.level is None for block in document.blocks) > 1
    ]
    yield from _translated(whole, "document-translation", limits, "document-translation")


def sentence_translation(translations: Translations, limits: Limits) -> Iterator[Pair]:
    """Sentence → its translation; languages with another number of sentences are left out (`unaligned`)."""
    if translations.kind != "sentence":
        return
    held = _same_number(translations)
    for number in range(len(next(iter(held.values()), ()))):
        texts = [(lang, texts[number]) for lang, texts in held.items()]
        yield from _rendered(translations, "sentence-translation", texts, limits, number)


def unaligned(translations: Translations) -> int:
    """How many sentences have no partner, since their language has another number of them."""
    if translations.kind != "sentence":
        return 0
    held = _same_number(translations)
    return sum(len(texts) for lang, texts in translations.texts.items() if lang not in held)


def _same_number(translations: Translations) -> dict[str, tuple[str, ...]]:
    """The languages with the number of sentences that most have; of two such numbers, with the greater."""
    counts = [len(texts) for texts in translations.texts.values()]
    right = max(counts, key=lambda count: (counts.count(count), count), default=0)
    return {lang: texts for lang, texts in sorted(translations.texts.items()) if len(texts) == right}


def term_translation(translations: Translations, limits: Limits) -> Iterator[Pair]:
    """Term → its usual translation; a term's other forms lead to the usual translation too."""
    if translations.kind != "term":
        return
    most = max((len(texts) for texts in translations.texts.values()), default=0)
    usual = [(lang, texts[0]) for lang, texts in sorted(translations.texts.items()) if texts]
    yield from _rendered(translations, "term-translation", usual, limits, 0)
    for number in range(1, most):
        others = [
            (lang, texts[number]) for lang, texts in sorted(translations.texts.items()) if len(texts) > number
        ]
        for lang, text in others:
            targets = [(target, passage) for target, passage in usual if target != lang]
            for target, passage in drawn(targets, 1, limits, translations, f"term {number} {lang}"):
                yield _of_translations(translations, "term-translation", (lang, text), (target, passage))


def _aligned(
    documents: Sequence[StructuredDocument],
) -> dict[tuple[int, str, int], list[tuple[StructuredDocument, str]]]:
    """The translations of each paragraph: those at the same index, of the same kind and structure."""
    groups: dict[tuple[int, str, int], list[tuple[StructuredDocument, str]]] = {}
    for document in documents:
        structure = 0 if document.aligned else hash(tuple(block.kind for block in document.blocks)) | 1
        for block in document.blocks:
            if block.level is None and block.text.strip():
                groups.setdefault((block.number, block.kind, structure), []).append(
                    (document, block.text.strip())
                )
    return groups


def _translated(
    texts: Sequence[tuple[StructuredDocument, str]], kind: str, limits: Limits, what: str
) -> Iterator[Pair]:
    held = [(document, text) for document, text in texts if text]
    if len(held) < 2:
        return
    for first, second in language_pairs(len(held), limits, held[0][0], what):
        (here, query), (there, passage) = held[first], held[second]
        if here.lang != there.lang:
            yield Pair(query, passage, kind, here.source, here.key, here.lang, there.lang, here.licence)


def _rendered(
    translations: Translations, kind: str, texts: Sequence[tuple[str, str]], limits: Limits, number: int
) -> Iterator[Pair]:
    held = [(lang, text.strip()) for lang, text in texts if text.strip()]
    for first, second in language_pairs(len(held), limits, translations, f"{kind} {number}"):
        yield _of_translations(translations, kind, held[first], held[second])


def _of_translations(
    translations: Translations, kind: str, query: tuple[str, str], passage: tuple[str, str]
) -> Pair:
    sides = query[1].strip(), passage[1].strip()
    if translations.kind == "term":  # dictionaries number the senses of a word
        sides = unnumbered(sides[0]), unnumbered(sides[1])
    names = translations.source, translations.key
    return Pair(*sides, kind, *names, query[0], passage[0], translations.licence)
