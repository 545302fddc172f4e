"""MKQA: questions in 25 languages, answered by passages of the English Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triptych.collections.base import (
    ANSWER_RECALL,
    Collection,
    Document,
    FileCorpus,
    Queries,
    Wanted,
    found,
    locate,
)
from triptych.collections.texts import FIELDS, add_query, distinct
from triptych.errors import DataError
from triptych.io import open_source, read_lines
from triptych.records import Place, parsed, places_of, to_document

_SHORT = (
    "ar",
    "da",
    "de",
    "en",
    "es",
    "fi",
    "fr",
    "he",
    "hu",
    "it",
    "ja",
    "km",
    "ko",
    "ms",
    "nl",
    "no",
    "pl",
)
LANGUAGES = (*_SHORT, "pt", "ru", "sv", "th", "tr", "vi", "zh_cn", "zh_hk", "zh_tw")
LAYOUT = (
    "LANGUAGE.jsonl with id, question and answers, beside the passages as corpus.jsonl (BEIR's NQ) or psgs_w100.tsv "
    "(DPR's Wikipedia)"
)
METRICS = (f"{ANSWER_RECALL}@20", f"{ANSWER_RECALL}@100")

# What the published evaluation makes of the passages before they are encoded and searched for answers.
_SIMPLE = {
    "": "\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\xad",
    " ": "\x0b\x0c\x85",
    "-": "‐‑⁃‒–—―−－⁻",
    '"': "“”„‟",
    "'": "‘’‚‛՚Ꞌꞌ＇`´′‵",
    "''": "″‶",
    "'''": "‴‷",
    "''''": "⁗",
    "...": "…",
    "/": "⁄∕",
}
_PLAIN = {ord(char): plain for plain, chars in _SIMPLE.items() for char in chars}


def mkqa(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MKQA as it was published for M3: 6,619 questions a language, answers in English.

    Subsets are called "ar-en", …, "zh_cn-en", and "en" for the English original. Passages are in lower case and
    with plain quotes and dashes, as in the published evaluation. A question without an answer is left out.
    """
    split = wanted.split or "test"
    files = {language: locate(path, f"{language}.jsonl") for language in LANGUAGES}
    chosen = {
        subset: asked[0]
        for language, asked in files.items()
        if asked and wanted.takes(subset := _subset(language), f"mkqa/{subset}")
    }
    if not chosen:
        return found([], path, wanted, LAYOUT)
    corpus = _corpus(path)
    return [_collection(subset, file, corpus, split, wanted) for subset, file in chosen.items()]


def _subset(language: str) -> str:
    return language if language == "en" else f"{language}-en"


def _collection(subset: str, file: Path, corpus: FileCorpus, split: str, wanted: Wanted) -> Collection:
    queries, answers = _questions(file)
    answered = {query: held for query, held in answers.items() if held}
    if not answered:
        raise DataError("no question has an answer", file)
    if len(answered) < len(queries) and wanted.warn is not None:
        left = len(queries) - len(answered)
        wanted.warn(f"{file}: {left} of {len(queries)} questions have no answer and are left out")
    return Collection(
        name="mkqa",
        subset=subset,
        corpus=corpus,
        queries={query: queries[query] for query in answered},
        qrels={},
        answers=answered,
        split=split,
        metrics=METRICS,
        licence="CC BY-SA 3.0",
        citation="Longpre and others, 2021, arXiv 2007.15207",
    )


def _questions(file: Path) -> tuple[Queries, dict[str, tuple[str, ...]]]:
    queries: Queries = {}
    answers: dict[str, tuple[str, ...]] = {}
    for place, raw in places_of(file):
        record = parsed(raw, place)
        given: Any = record.get("answers")
        if not isinstance(given, list) or "id" not in record or not isinstance(record.get("question"), str):
            raise place.error("expected id, question (a string) and answers (a list of strings)")
        id_ = str(record["id"])
        add_query(queries, id_, record["question"], place)
        answers[id_] = tuple(str(answer) for answer in given if str(answer).strip())
    return queries, answers


def _corpus(path: Path) -> FileCorpus:
    """The passages, wherever below the folder, in BEIR's or DPR's form."""
    files = locate(path, "corpus.jsonl", "psgs_w100.tsv")[:1]
    if not files:
        raise DataError(f"no passages; expected {LAYOUT}", path)
    rows = _dpr if files[0].name.startswith("psgs") else _beir

    def read() -> Iterator[tuple[Place, Document]]:
        for place, id_, title, text in rows(files[0]):
            yield place, Document(id_, plain(f"{title}\n{text}"))

    return FileCorpus.of(lambda: distinct(read), files, "mkqa")


def plain(text: str) -> str:
    """A passage in lower case, with plain quotes, dashes and slashes and without control characters."""
    return text.lower().translate(_PLAIN).replace(" . . . ", " ... ")


def _beir(path: Path) -> Iterator[tuple[Place, str, str, str]]:
    for place, raw in places_of(path):
        document = to_document(parsed(raw, place), FIELDS, place)
        yield place, document.id, document.title or "", document.text


def _dpr(path: Path) -> Iterator[tuple[Place, str, str, str]]:
    """``id TAB text TAB title`` with a header; a text with quotes is quoted as in CSV, on one line."""
    with open_source(path) as source:
        for line in read_lines(source):
            place, cells = Place(source.name, line.number), line.text.split("\t")
            if len(cells) != 3:
                raise place.error(f"got {len(cells)} columns; expected 3: id, text, title")
            if line.number == 1 and cells == ["id", "text", "title"]:
                continue
            text, title = (_unquoted(cell) for cell in cells[1:])
            yield place, cells[0], title, text


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell.startswith('"') and cell.endswith('"')
    return cell[1:-1].replace('""', '"') if quoted else cell
