"""The kinds of pairs of which one side is a translation of the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triptych.data.mined.limits import Limits, drawn, language_pairs
from triptych.data.mined.pairs import Pair
from triptych.data.mined.passages import joined, unnumbered
from triptych.data.mined.structured import StructuredDocument, Translations


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
