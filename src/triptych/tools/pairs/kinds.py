"""The kinds of weak pairs: what of a document can stand as a query, and which passage answers it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from triptych.errors import InputError
from triptych.text import fold, gram_size, letters, primary, units
from triptych.tools.pairs.base import (
    Block,
    Limits,
    StructuredDocument,
    Translations,
    WeakPair,
    language_pairs,
    sample,
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


_QUESTION_MARKS = ("?", "？", "؟", "⸮", "՞", "\u037e")
_NUMBERING = re.compile(
    r"(?:\w+ (?:\d+|[A-Z])\.|[A-Z]\.(?:\d+\.?)+|\d+(?:\.\d+)+\.?|\d+[.)]|[IVX]+\.)(?=\s)[\s\u200e\u200f]*"
)


def is_question(text: str) -> bool:
    """Whether a heading is a question: by its mark at the end, in any script (Greek has its own)."""
    stripped = text.rstrip(" \u00a0»\"”'’)")
    greek = stripped.endswith(";") and any("\u0370" <= char <= "\u03ff" for char in stripped)
    return stripped.endswith(_QUESTION_MARKS) or greek


def body(document: StructuredDocument, chars: int) -> str:
    """The text from its beginning to the end of the block that reaches `chars` characters.

    Headings that repeat the title are left out, and there is no body without a paragraph.
    """
    return join_blocks(document.blocks, chars, without=document.title)


def sections(document: StructuredDocument, chars: int) -> Iterator[tuple[str, str]]:
    """Every heading with the text up to the next heading of its level or above."""
    for number, block in enumerate(document.blocks):
        level = block.level
        if level is not None and block.text.strip():
            rest = until(document.blocks[number + 1 :], partial(_ends, level))
            yield block.text, join_blocks(rest, chars, without=block.text)


def _ends(level: int, block: Block) -> bool:
    """Whether a block ends the section of a heading of that level."""
    return block.level is not None and block.level <= level


def until(blocks: Sequence[Block], stop: Callable[[Block], bool]) -> Sequence[Block]:
    """The blocks before the first at which to stop."""
    for number, block in enumerate(blocks):
        if stop(block):
            return blocks[:number]
    return blocks


def join_blocks(blocks: Sequence[Block], chars: int, title: str = "", *, without: str = "") -> str:
    """Blocks as lines up to a number of characters, without headings that head nothing; "" without a paragraph.

    Args:
        blocks: In order.
        chars: The limit.
        title: Stands before them, if they do not begin with it.
        without: A query: headings that repeat it would give it away and are left out.
    """
    query = fold(without)
    lines: list[str] = []
    text_lines, length = 0, 0
    for block in blocks:
        text = block.text.strip()
        if text and not (block.level is not None and query and fold(text) == query):
            lines.append(text)
            length += len(text) + 1
            text_lines = len(lines) if block.level is None else text_lines
        if length >= chars:
            break
    if not text_lines:
        return ""
    whole = lines[:text_lines]
    if title and fold(whole[0]) != fold(title):
        whole.insert(0, title)
    return _cut("\n".join(whole), chars)


def _cut(text: str, chars: int) -> str:
    """A text that is more than half as long again as wanted ends after a sentence or, without one, a word."""
    if len(text) <= chars * 3 // 2:
        return text
    end = max(text.rfind(mark, chars // 2, chars) for mark in (". ", "。", "! ", "? ", "।", "؟ ", "\n"))
    if end < 0:
        end = text.rfind(" ", chars // 2, chars)
    return text[: end + 1 if end > 0 else chars].rstrip()


def strip_number(text: str) -> str:
    """A heading without “12.3.” or “Chapter 4.” and without a colon at its end, unless nothing else is left."""
    return without_match(_NUMBERING, text).rstrip(":： ") or text


def without_match(pattern: re.Pattern[str], text: str) -> str:
    """A text without what the pattern finds at its beginning, unless nothing else is left."""
    match = pattern.match(text)
    return (text[match.end() :].strip() if match else "") or text


def title_body(document: StructuredDocument, limits: Limits) -> Iterator[WeakPair]:
    """Title → beginning of the text."""
    yield from _pair(document, "title-body", document.title, body(document, limits.passage_chars))


def description_body(document: StructuredDocument, limits: Limits) -> Iterator[WeakPair]:
    """Description → beginning of the text."""
    yield from _pair(document, "description-body", document.description, body(document, limits.passage_chars))


def keyword_body(document: StructuredDocument, limits: Limits) -> Iterator[WeakPair]:
    """Index entry → beginning of the text; one pair for each entry."""
    passage = body(document, limits.passage_chars)
    for keyword in sample(
        list(dict.fromkeys(document.keywords)), limits.keywords, limits, document, "keyword"
    ):
        yield from _pair(document, "keyword-body", _COMMA.sub(", ", keyword), passage)


def heading_section(
    document: StructuredDocument, limits: Limits, common: Common = never_common
) -> Iterator[WeakPair]:
    """Heading → its section, sub-sections included; the title goes before a heading that recurs elsewhere.

    Headings that are questions are left to `question_answer`, those that repeat the title to `title_body`.
    """
    for heading, section in sections(document, limits.passage_chars):
        if is_question(heading) or fold(heading) == fold(document.title):
            continue
        query = strip_number(heading)
        if common(heading, document):
            if not document.title:
                continue
            query = f"{strip_number(document.title)}: {query}"
        yield from _pair(document, "heading-section", query, section)


def question_answer(document: StructuredDocument, limits: Limits) -> Iterator[WeakPair]:
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
            answer = without_match(_ANSWERED, join_blocks(rest, limits.passage_chars))
            yield from _pair(document, "question-answer", without_match(_ASKED, asked.text), answer)


def neighbours(document: StructuredDocument, limits: Limits) -> Iterator[WeakPair]:
    """Paragraph → the next paragraph of the same section."""
    found = [
        (first.text, second.text)
        for first, second in pairwise(document.blocks)
        if first.kind == second.kind == ""
        and min(letters(first.text), letters(second.text)) >= _LEAST_NEIGHBOUR
        and not _same_beginning(first.text, second.text)
    ]
    for first, second in sample(found, limits.neighbours, limits, document, "neighbour"):
        yield from _pair(document, "neighbour", first, second)


def _same_beginning(first: str, second: str) -> bool:
    """Whether both begin with the same two words: entries of an enumeration, of which none leads to the next."""
    here, there = units(first), units(second)
    size = gram_size(here, 2)
    return here[:size] == there[:size]


def links(document: StructuredDocument, texts: Iterable[str], limits: Limits) -> Iterator[WeakPair]:
    """Words of a link → beginning of the document that it leads to; addresses and file names are no words.

    Args:
        document: Where the links lead to.
        texts: Their words.
        limits: How much is taken.
    """
    title = fold(document.title)
    words = [text for text in dict.fromkeys(texts) if fold(text) != title and not _ADDRESS.fullmatch(text)]
    passage = body(document, limits.passage_chars)
    for text in sample(words, limits.links, limits, document, "link"):
        yield from _pair(document, "link", text, passage)


_ORIGINAL = "en"
_LEAST = 2  # words of a heading, keyword or description; one word may be a name
_LEAST_PARAGRAPH = 8  # below that it may be a command, the same in all languages


class Untranslated(NamedTuple):
    """A document without its untranslated parts, and how many blocks and keywords those were."""

    document: StructuredDocument
    blocks: int
    keywords: int


def drop_untranslated(documents: Sequence[StructuredDocument]) -> list[Untranslated]:
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
        Untranslated(document, 0, 0) if primary(document.lang) == _ORIGINAL else _clean(document, held)
        for document in documents
    ]


def _clean(document: StructuredDocument, held: set[str]) -> Untranslated:
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


def paragraph_translation(documents: Sequence[StructuredDocument], limits: Limits) -> Iterator[WeakPair]:
    """Paragraph → its translation.

    Args:
        documents: One document in its languages, each language once.
        limits: How much is taken; each paragraph gets its own draw of languages.
    """
    for place, group in _align(documents).items():
        kind = "paragraph-translation"
        yield from _translation_pairs(group, kind, limits, f"{kind} {place[0]} {place[1]}")


def document_translation(documents: Sequence[StructuredDocument], limits: Limits) -> Iterator[WeakPair]:
    """Document → its translation, for documents of two blocks or more.

    Args:
        documents: One document in its languages, each language once.
        limits: How much is taken.
    """
    whole = [
        (document, join_blocks(document.blocks, limits.document_chars, document.title))
        for document in documents
        if sum(block.level is None for block in document.blocks) > 1
    ]
    yield from _translation_pairs(whole, "document-translation", limits, "document-translation")


def sentence_translation(translations: Translations, limits: Limits) -> Iterator[WeakPair]:
    """Sentence → its translation; languages with another number of sentences are left out (`unaligned`)."""
    if translations.kind != "sentence":
        return
    held = _same_number(translations)
    for number in range(len(next(iter(held.values()), ()))):
        texts = [(lang, texts[number]) for lang, texts in held.items()]
        yield from _rendering_pairs(translations, "sentence-translation", texts, limits, number)


def count_unaligned(translations: Translations) -> int:
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


def term_translation(translations: Translations, limits: Limits) -> Iterator[WeakPair]:
    """Term → its usual translation; a term's other forms lead to the usual translation too."""
    if translations.kind != "term":
        return
    most = max((len(texts) for texts in translations.texts.values()), default=0)
    usual = [(lang, texts[0]) for lang, texts in sorted(translations.texts.items()) if texts]
    yield from _rendering_pairs(translations, "term-translation", usual, limits, 0)
    for number in range(1, most):
        others = [
            (lang, texts[number]) for lang, texts in sorted(translations.texts.items()) if len(texts) > number
        ]
        for lang, text in others:
            targets = [(target, passage) for target, passage in usual if target != lang]
            for target, passage in sample(targets, 1, limits, translations, f"term {number} {lang}"):
                yield _of_translations(translations, "term-translation", (lang, text), (target, passage))


def _align(
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


def _translation_pairs(
    texts: Sequence[tuple[StructuredDocument, str]], kind: str, limits: Limits, what: str
) -> Iterator[WeakPair]:
    held = [(document, text) for document, text in texts if text]
    if len(held) < 2:
        return
    for first, second in language_pairs(len(held), limits, held[0][0], what):
        (here, query), (there, passage) = held[first], held[second]
        if here.lang != there.lang:
            yield WeakPair(query, passage, kind, here.source, here.key, here.lang, there.lang, here.license)


def _rendering_pairs(
    translations: Translations, kind: str, texts: Sequence[tuple[str, str]], limits: Limits, number: int
) -> Iterator[WeakPair]:
    held = [(lang, text.strip()) for lang, text in texts if text.strip()]
    for first, second in language_pairs(len(held), limits, translations, f"{kind} {number}"):
        yield _of_translations(translations, kind, held[first], held[second])


def _of_translations(
    translations: Translations, kind: str, query: tuple[str, str], passage: tuple[str, str]
) -> WeakPair:
    sides = query[1].strip(), passage[1].strip()
    if translations.kind == "term":  # dictionaries number the senses of a word
        sides = strip_number(sides[0]), strip_number(sides[1])
    names = translations.source, translations.key
    return WeakPair(*sides, kind, *names, query[0], passage[0], translations.license)


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
) -> Iterator[WeakPair]:
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
) -> Iterator[WeakPair]:
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


def _pair(document: StructuredDocument, kind: str, query: str, passage: str) -> Iterator[WeakPair]:
    """The pair, unless one side is blank: then there is none to count."""
    query, passage = strip_number(query.strip()) if kind != "neighbour" else query.strip(), passage.strip()
    if query and passage:
        lang = document.lang
        yield WeakPair(query, passage, kind, document.source, document.key, lang, lang, document.license)
