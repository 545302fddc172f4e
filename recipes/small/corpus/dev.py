"""Development sets as BEIR folders, from the articles that are set aside: small, so that a GPU judges them in seconds.

dev-qa      people's questions on passages, in the passage's language
dev-cross   questions of people in African languages, and headings and titles of translations, on passages in
            another language; of each passage one language is there
dev-help    headings, index entries and descriptions in languages without people's questions
dev-long    headings, titles and index entries on whole long documents
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from corpus.chunks import Chunk, chunks
from corpus.draw import Draw
from corpus.long import Long, long_documents
from corpus.pairs import groups
from corpus.questions import Asked, as_chunks, derived, human
from corpus.records import Passage, write
from triptych.io import write_atomically
from triptych.text import digest
from triptych.tools.pairs.base import StructuredDocument

Item = TypeVar("Item")

QUESTIONS = 220
"""Most questions of a source and language in dev-qa."""
AFRICAN, CROSSED, OTHERS = 40, 320, 2500
"""In dev-cross: most questions of an African language, derived queries in all, passages that answer nothing."""
HELP, HELP_OTHERS = 60, 2500
"""In dev-help: most queries of a language; passages that answer nothing."""
LONG = 220
"""Most queries of dev-long."""
LANGUAGES = 3
"""Most languages of a long document in dev-long."""


def write_all(
    folder: Path, documents: Sequence[StructuredDocument], passages: Sequence[Passage], seed: int = 0
) -> dict[str, tuple[int, int]]:
    """Writes all sets.

    Returns:
        Queries and passages of each.
    """
    own = as_chunks(passages)
    asked = list(human(own))
    made = derived(documents, seed, factor=50)
    sizes = {"dev-qa": _write(folder / "dev-qa", *_questions(own, asked, seed))}
    sizes["dev-cross"] = _write(folder / "dev-cross", *_cross(own, asked, made, documents, seed))
    sizes["dev-help"] = _write(folder / "dev-help", *_help(asked, made, documents, seed))
    sizes["dev-long"] = _write_long(folder / "dev-long", long_documents(documents, seed), seed)
    return sizes


def _questions(
    own: Iterable[tuple[Chunk, Passage]], asked: Iterable[Asked], seed: int
) -> tuple[list[Asked], list[Chunk]]:
    draw: Draw[tuple[str, str], Asked] = Draw(lambda _group: QUESTIONS)
    for each in asked:
        if each.kind == "human":
            draw.offer((each.passage.source, each.lang), _number(seed, each), each)
    return [each for _, each in draw.items()], [chunk for chunk, _ in own]


def _cross(
    own: Iterable[tuple[Chunk, Passage]],
    asked: Iterable[Asked],
    made: Iterable[Asked],
    documents: Sequence[StructuredDocument],
    seed: int,
) -> tuple[list[Asked], list[Chunk]]:
    african: Draw[str, Asked] = Draw(lambda _group: AFRICAN)
    for each in asked:
        if each.kind == "human-cross":
            african.offer(each.lang, _number(seed, each), each)
    shown = _one_language(documents, seed)
    cross: Draw[tuple[str, str], Asked] = Draw(lambda _group: 2)
    for each in made:
        if each.kind.endswith("-cross") and each.passage.id in shown:
            cross.offer((each.lang, each.passage.lang), _number(seed, each), each)
    queries = [each for _, each in african.items()]
    queries += _some((each for _, each in cross.items()), CROSSED, lambda each: _number(seed, each))
    pool = [chunk for chunk, passage in own if passage.source == "afriqa"]
    pool += _some(shown.values(), OTHERS, lambda chunk: digest(str(seed), chunk.id))
    return queries, pool


def _help(
    asked: Iterable[Asked], made: Iterable[Asked], documents: Sequence[StructuredDocument], seed: int
) -> tuple[list[Asked], list[Chunk]]:
    covered = {each.lang for each in asked if each.kind == "human"}
    shown = _one_language(documents, seed + 1)
    draw: Draw[str, Asked] = Draw(lambda _group: HELP)
    for each in made:
        if not each.kind.endswith("-cross") and each.lang not in covered and each.passage.id in shown:
            draw.offer(each.lang, _number(seed, each), each)
    pool = _some(shown.values(), HELP_OTHERS, lambda chunk: digest(str(seed), chunk.id))
    return [each for _, each in draw.items()], pool


def _one_language(documents: Sequence[StructuredDocument], seed: int) -> dict[str, Chunk]:
    """The passages of every document in one of its languages: a translation would answer as well."""
    found: dict[str, Chunk] = {}
    for group in groups(documents):
        best = min(
            group, key=lambda document: digest(str(seed), document.source, document.key, document.lang)
        )
        found |= {chunk.id: chunk for chunk in chunks(best)}
    return found


def _some(items: Iterable[Item], count: int, number: Callable[[Item], int]) -> list[Item]:
    return sorted(items, key=number)[:count]


def _number(seed: int, asked: Asked) -> int:
    return digest(str(seed), asked.query, asked.lang, asked.passage.id)


def _write(folder: Path, queries: Sequence[Asked], pool: Iterable[Chunk]) -> tuple[int, int]:
    passages = {chunk.id: chunk for chunk in (*(asked.passage for asked in queries), *pool)}
    write(
        folder / "corpus.jsonl.zst",
        [
            {"_id": c.id, "title": "", "text": c.text, "lang": c.lang, "article": c.article}
            for c in sorted(passages.values(), key=lambda chunk: chunk.id)
        ],
    )
    write(
        folder / "queries.jsonl.zst",
        [
            {"_id": f"q{i}", "text": q.query, "lang": q.lang, "kind": q.kind, "source": q.passage.source}
            for i, q in enumerate(queries)
        ],
    )
    _judge(folder, [(f"q{i}", asked.passage.id) for i, asked in enumerate(queries)])
    return len(queries), len(passages)


def _write_long(folder: Path, found: Sequence[Long], seed: int) -> tuple[int, int]:
    """Of each article some languages; all of them answer."""
    articles: dict[str, list[Long]] = {}
    for each in found:
        articles.setdefault(each.article, []).append(each)
    for article, several in articles.items():
        articles[article] = _some(several, LANGUAGES, lambda each: digest(str(seed), each.id))
    kept = [each for several in articles.values() for each in several]
    asked = [(each, query) for each in kept for query in each.queries]
    asked = _some(asked, LONG, lambda pair: digest(str(seed), pair[0].id, *pair[1]))
    write(
        folder / "corpus.jsonl.zst",
        [
            {"_id": e.id, "title": "", "text": e.text, "lang": e.document.lang, "article": e.article}
            for e in kept
        ],
    )
    write(
        folder / "queries.jsonl.zst",
        [
            {"_id": f"q{i}", "text": text, "lang": lang, "kind": kind, "source": each.document.source}
            for i, (each, (text, lang, kind)) in enumerate(asked)
        ],
    )
    _judge(
        folder,
        [(f"q{i}", other.id) for i, (each, _) in enumerate(asked) for other in articles[each.article]],
    )
    return len(asked), len(kept)


def _judge(folder: Path, judged: Iterable[tuple[str, str]]) -> None:
    lines = ["query-id\tcorpus-id\tscore", *(f"{query}\t{passage}\t1" for query, passage in judged)]
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "qrels" / "dev.tsv", ("\n".join(lines) + "\n").encode())
