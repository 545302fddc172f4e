"""The kinds of weak pairs: one pure function for each that is made of one document, and all together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

from triptych.errors import InputError
from triptych.text import fold, gram_size, units, weight
from triptych.tools.pairs.base import Block, Limits, Pair, StructuredDocument, Translations, drawn
from triptych.tools.pairs.passages import (
    body,
    is_question,
    joined,
    sections,
    unnumbered,
    until,
    without_match,
)
from triptych.tools.pairs.translated import (
    document_translation,
    paragraph_translation,
    sentence_translation,
    term_translation,
)

_ASKED = re.compile(
    r"(?:Q|F|P|Question|Frage|Pregunta|Pergunta|Domanda|В|Вопрос|問|问)\s?\d*\s?[:：.]\s+", re.IGNORECASE
)
_ANSWERED = re.compile(
    r"(?:A|R|Answer|Antwort|Respuesta|Resposta|Réponse|Risposta|О|Ответ|答)\s?\d*\s?[:：.]\s+", re.IGNORECASE
)
_ADDRESS = re.compile(r"\S*[\w/][./:][\w/]\S*|\w+\.? [\d.]+")  # README.md, https://…, Chapter 8
_COMMA = re.compile(r",(?=\S)")
Common = Callable[[str, StructuredDocument], bool]
"""Whether a heading recurs in so many documents of its collection that it says nothing on its own."""


def never_common(_heading: str, _document: StructuredDocument) -> bool:
    """Takes no heading for a recurring one."""
    return False


def title_body(document: StructuredDocument, limits: Limits) -> Iterator[Pair]:
    """Title → beginning of the text."""
    yield from _pair(document, "title-body", document.title, body(document, limits.passage_chars))


def description_body(document: StructuredDocument, limits: Limits) -> Iterator[Pair]:
    """Description → beginning of the text."""
    yield from _pair(document, "description-body", document.description, body(document, limits.passage_chars))


def keyword_body(document: StructuredDocument, limits: Limits) -> Iterator[Pair]:
    """Index entry → beginning of the text; one pair for each entry."""
    passage = body(document, limits.passage_chars)
    for keyword in drawn(
        list(dict.fromkeys(document.keywords)), limits.keywords, limits, document, "keyword"
    ):
        yield from _pair(document, "keyword-body", _COMMA.sub(", ", keyword), passage)


def heading_section(
    document: StructuredDocument, limits: Limits, common: Common = never_common
) -> Iterator[Pair]:
    """Heading → its section, sub-sections included; the title goes before a heading that recurs elsewhere.

    Headings that are questions are left to `question_answer`, those that repeat the title to `title_body`.
    """
    for heading, section in sections(document, limits.passage_chars):
        if is_question(heading) or fold(heading) == fold(document.title):
            continue
        query = unnumbered(heading)
        if common(heading, document):
            if not document.title:
                continue
            query = f"{unnumbered(document.title)}: {query}"
        yield from _pair(document, "heading-section", query, section)


def question_answer(document: StructuredDocument, limits: Limits) -> Iterator[Pair]:
    """Question → answer: from headings and list terms that are questions, and from paragraphs “Q: …”, “A: …”."""
    for heading, section in sections(document, limits.passage_chars):
        if is_question(heading):
            yield from _pair(
                document, "question-answer", without_match(_ASKED, heading), without_match(_ANSWERED, section)
            )
    for number, (asked, answered) in enumerate(pairwise(document.blocks)):
        if asked.level is None and answered.level is None and _ASKED.match(asked.text):
            if not _ANSWERED.match(answered.text):
                continue
            rest = until(document.blocks[number + 1 :], _asks_or_heads)
            answer = without_match(_ANSWERED, joined(rest, limits.passage_chars))
            yield from _pair(document, "question-answer", without_match(_ASKED, asked.text), answer)


def neighbours(document: StructuredDocument, limits: Limits) -> Iterator[Pair]:
    """Paragraph → the next paragraph of the same section."""
    found = [
        (first.text, second.text)
        for first, second in pairwise(document.blocks)
        if first.kind == second.kind == ""
        and min(weight(first.text), weight(second.text)) >= _LEAST_NEIGHBOUR
        and not _same_beginning(first.text, second.text)
    ]
    for first, second in drawn(found, limits.neighbours, limits, document, "neighbour"):
        yield from _pair(document, "neighbour", first, second)


def _same_beginning(first: str, second: str) -> bool:
    """Whether both begin with the same two words: entries of an enumeration, of which none leads to the next."""
    here, there = units(first), units(second)
    size = gram_size(here, 2)
    return here[:size] == there[:size]


def links(document: StructuredDocument, texts: Iterable[str], limits: Limits) -> Iterator[Pair]:
    """Words of a link → beginning of the document that it leads to; addresses and file names are no words.

    Args:
        document: Where the links lead to.
        texts: Their words.
        limits: How much is taken.
    """
    title = fold(document.title)
    words = [text for text in dict.fromkeys(texts) if fold(text) != title and not _ADDRESS.fullmatch(text)]
    passage = body(document, limits.passage_chars)
    for text in drawn(words, limits.links, limits, document, "link"):
        yield from _pair(document, "link", text, passage)


KINDS = (
    "title-body",
    "heading-section",
    "description-body",
    "keyword-body",
    "question-answer",
    "link",
    "neighbour",
    "paragraph-translation",
    "document-translation",
    "sentence-translation",
    "term-translation",
)
"""All kinds of pairs."""
TRANSLATED = frozenset(kind for kind in KINDS if kind.endswith("translation"))
"""The kinds of which one side is a translation of the other."""
_LEAST_NEIGHBOUR = 60  # letters; below that, a line or a label
_ONE_DOCUMENT = {
    "title-body": title_body,
    "description-body": description_body,
    "keyword-body": keyword_body,
    "question-answer": question_answer,
    "neighbour": neighbours,
}
_ONE_GROUP = {"paragraph-translation": paragraph_translation, "document-translation": document_translation}
_TRANSLATIONS = {"sentence-translation": sentence_translation, "term-translation": term_translation}


def mine_group(
    documents: Sequence[StructuredDocument],
    limits: Limits,
    kinds: Iterable[str] = KINDS,
    *,
    common: Common = never_common,
    linked: Callable[[StructuredDocument], Iterable[str]] = lambda _document: (),
) -> Iterator[Pair]:
    """All pairs of one document in its languages.

    Args:
        documents: The same source and key, each language once.
        limits: How much is taken.
        kinds: Which of `KINDS`; those of translations records have nothing here.
        common: Tells recurring headings.
        linked: The words of the links that lead to a document.

    Raises:
        InputError: For an unknown kind.
    """
    wanted = check_kinds(kinds)
    for document in documents:
        for kind in wanted:
            if kind in _ONE_DOCUMENT:
                yield from _ONE_DOCUMENT[kind](document, limits)
            elif kind == "heading-section":
                yield from heading_section(document, limits, common)
            elif kind == "link":
                yield from links(document, linked(document), limits)
    for kind in wanted:
        if kind in _ONE_GROUP and len(documents) > 1:
            yield from _ONE_GROUP[kind](documents, limits)


def mine_translations(
    translations: Translations, limits: Limits, kinds: Iterable[str] = KINDS
) -> Iterator[Pair]:
    """All pairs of a translations record.

    Raises:
        InputError: For an unknown kind.
    """
    for kind in check_kinds(kinds):
        if kind in _TRANSLATIONS:
            yield from _TRANSLATIONS[kind](translations, limits)


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """The kinds in the order of `KINDS`, each once.

    Raises:
        InputError: For an unknown kind, or none.
    """
    given = list(kinds)
    unknown = next((kind for kind in given if kind not in KINDS), None)
    if unknown is not None or not given:
        raise InputError(f"kinds: got {unknown if given else 'none'!r}; expected some of {', '.join(KINDS)}")
    return tuple(kind for kind in KINDS if kind in given)


def _asks_or_heads(block: Block) -> bool:
    return block.level is not None or _ASKED.match(block.text) is not None


def _pair(document: StructuredDocument, kind: str, query: str, passage: str) -> Iterator[Pair]:
    """The pair, unless one side is blank: then there is none to count."""
    query, passage = unnumbered(query.strip()) if kind != "neighbour" else query.strip(), passage.strip()
    if query and passage:
        lang = document.lang
        yield Pair(query, passage, kind, document.source, document.key, lang, lang, document.licence)
