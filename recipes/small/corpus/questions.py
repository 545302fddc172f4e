"""Stage 3: people's questions, and what real text offers in their place where there are none.

A heading, an index entry or a description stands for a question on the passage that it heads; the field ``kind`` says
which it was, so that nobody takes one for the other:

    human            asked by a person in the passage's language
    human-cross      asked by a person in another language
    question-heading a heading that is a question
    heading, keyword, description, synopsis      in the passage's language
    …-cross          the same in another language than the passage
    instruction-cross what a command line does, with the page that has the command, in another language
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from corpus.chunks import Chunk, can_ask, chunks
from corpus.draw import Draw
from corpus.pairs import groups, recurring
from corpus.records import Passage
from triptych.text import digest, fold
from triptych.tools.pairs.base import StructuredDocument
from triptych.tools.pairs.kinds import is_question

CAPS = {
    "heading": 1500,
    "question-heading": 600,
    "keyword": 1200,
    "description": 500,
    "synopsis": 600,
    "heading-cross": 16,
    "question-heading-cross": 8,
    "title-cross": 10,
    "keyword-cross": 8,
    "description-cross": 4,
    "synopsis-cross": 6,
    "instruction-cross": 10,
}
"""Most derived queries of a kind for a language, or an ordered pair of languages."""
WITH_ENGLISH = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """A query with the passage that answers it.

    Attributes:
        query: Its text.
        lang: Its language.
        kind: Where it is from; see above.
        passage: The passage.
    """

    query: str
    lang: str
    kind: str
    passage: Chunk

    def row(self, number: int) -> dict[str, Any]:
        """A line of training data."""
        passage = self.passage
        row: dict[str, Any] = {"query": self.query, "pos": [passage.text], "neg": [], "lang": self.lang}
        if passage.lang != self.lang:
            row["pos_lang"] = passage.lang
        return row | {
            "kind": self.kind,
            "source": passage.source,
            "id": f"{passage.id}#{number}",
            "pos_id": [passage.id],
            "article": passage.article,
        }


def as_chunks(passages: Iterable[Passage]) -> list[tuple[Chunk, Passage]]:
    """Passages with people's questions, each as a passage of the collection."""
    found: list[tuple[Chunk, Passage]] = []
    for passage in passages:
        name = f"{digest(passage.lang, passage.text):016x}"[:10]
        article = f"{passage.source}/{passage.article or name}"
        identity = f"{passage.source}/{passage.lang}/{name}"
        found.append(
            (Chunk(identity, passage.text, passage.lang, article, passage.source, "", (-1, "")), passage)
        )
    return found


def human(passages: Iterable[tuple[Chunk, Passage]]) -> Iterator[Asked]:
    """People's questions; one that was asked on several passages has no one answer and is left out."""
    given = list(passages)
    counts: dict[tuple[str, str], int] = {}
    for _, passage in given:
        for question in passage.questions:
            name = (question.lang, fold(question.text))
            counts[name] = counts.get(name, 0) + 1
    for chunk, passage in given:
        for question in passage.questions:
            if counts[question.lang, fold(question.text)] == 1:
                kind = "human" if question.lang == chunk.lang else "human-cross"
                yield Asked(question.text, question.lang, kind, chunk)


def derived(documents: Sequence[StructuredDocument], seed: int = 0, factor: float = 1.0) -> list[Asked]:
    """Queries that stand for questions, drawn by kind and languages.

    Args:
        documents: Documents.
        seed: Decides what is drawn.
        factor: Multiplies the caps.
    """
    draw: Draw[tuple[str, str, str], Asked] = Draw(lambda group: int(_cap(group) * factor))
    common = recurring(documents)
    frequent = _frequent(documents)
    for group in groups(documents):
        for asked in _of_group(group, common, frequent):
            languages = (asked.lang, asked.passage.lang)
            draw.offer((asked.kind, *languages), digest(str(seed), asked.query, asked.passage.id), asked)
    return [asked for _, asked in draw.items()]


def _cap(group: tuple[str, str, str]) -> int:
    kind, here, there = group
    return CAPS[kind] * (WITH_ENGLISH if here != there and "en" in (here, there) else 1)


def _of_group(
    group: Sequence[StructuredDocument], common: frozenset[int], frequent: frozenset[int]
) -> Iterator[Asked]:
    parts = {document.lang: chunks(document) for document in group}
    for document in group:
        for chunk in parts[document.lang]:
            kind = _heading_kind(chunk, common)
            if kind:
                yield Asked(chunk.heading, chunk.lang, kind, chunk)
        for kind, query in _on_whole(document, frequent):
            if parts[document.lang]:
                yield Asked(query, document.lang, kind, parts[document.lang][0])
    for here, there in permutations(group, 2):
        if parts[there.lang]:
            yield from _crossed(here, there, parts[here.lang], parts[there.lang], common, frequent)


def _crossed(
    here: StructuredDocument,
    there: StructuredDocument,
    own: Sequence[Chunk],
    others: Sequence[Chunk],
    common: frozenset[int],
    frequent: frozenset[int],
) -> Iterator[Asked]:
    named = {chunk.name: chunk for chunk in others if chunk.heading}
    if here.aligned:
        for chunk in own:
            kind = _heading_kind(chunk, common)
            if kind and chunk.name in named:
                yield Asked(chunk.heading, here.lang, f"{kind}-cross", named[chunk.name])
    if can_ask(here.title, here.lang) and here.source not in ("tldr", "ddtp"):
        recurs = digest(here.source, here.lang, fold(here.title)) in common
        if not recurs and fold(here.title) != fold(there.title):
            yield Asked(here.title, here.lang, "title-cross", others[0])
    for kind, query in _on_whole(here, frequent):
        yield Asked(query, here.lang, f"{kind}-cross", others[0])
    if here.source == "tldr" and there.lang != here.lang:
        commands = {block.number for block in there.blocks}
        for block in here.blocks:
            told = block.text.partition(": ")[0]
            known = block.number > 9 and block.number in commands
            if known and can_ask(told, here.lang) and digest(here.lang, fold(told)) not in frequent:
                yield Asked(told, here.lang, "instruction-cross", others[0])


def _heading_kind(chunk: Chunk, common: frozenset[int]) -> str:
    if not can_ask(chunk.heading, chunk.lang) or chunk.source in ("man", "tldr"):
        return ""
    if digest(chunk.source, chunk.lang, fold(chunk.heading)) in common:
        return ""
    return "question-heading" if is_question(chunk.heading) else "heading"


def _on_whole(document: StructuredDocument, frequent: frozenset[int]) -> Iterator[tuple[str, str]]:
    """What asks for a document as a whole, without repeating a line of its first passage."""
    if document.source == "ddtp" and can_ask(document.title, document.lang):
        yield "synopsis", document.title
    if document.source == "gnome" and can_ask(document.description, document.lang):
        yield "description", document.description
    for keyword in document.keywords[:6]:
        if can_ask(keyword, document.lang) and digest(document.lang, fold(keyword)) not in frequent:
            yield "keyword", " ".join(keyword.replace(",", ", ").replace(";", " ").split())


def _frequent(documents: Iterable[StructuredDocument]) -> frozenset[int]:
    """Digests of index entries and of what command lines do, where several documents have the same."""
    counts: dict[int, int] = {}
    for document in documents:
        entries = {fold(each) for each in document.keywords}
        if document.source == "tldr":
            entries |= {fold(block.text.partition(": ")[0]) for block in document.blocks}
        for entry in entries:
            name = digest(document.lang, entry)
            counts[name] = counts.get(name, 0) + 1
    return frozenset(name for name, count in counts.items() if count > 1)
