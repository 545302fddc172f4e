"""MKQA: questions in 25 languages, answered by passages of the English Wikipedia."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from triptych.collections.base import ANSWER_RECALL, Collection, FileCorpus, Wanted
from triptych.collections.evaluation import distinct
from triptych.collections.files import Files, rows
from triptych.collections.joined import Options, Text, records_of
from triptych.errors import DataError
from triptych.io import open_source, read_lines
from triptych.records import Place, tsv_rows

_LANGUAGES = "ar da de en es fi fr he hu it ja km ko ms nl no pl pt ru sv th tr vi zh_cn zh_hk zh_tw".split()  # noqa: SIM905
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


def read_mkqa(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MKQA as it was published for M3: 6,619 questions per language, answers in English.

    ``LANGUAGE.jsonl`` with id, question and answers stand beside the passages, ``corpus.jsonl`` (BEIR's NQ) or
    ``psgs_w100.tsv`` (DPR's Wikipedia). Subsets are called "ar-en", …, "zh_cn-en", and "en" for the English original.
    Passages are in lower case and with plain quotes and dashes, as in the published evaluation. A question without an
    answer is left out.
    """
    files, options = Files([path]), Options(subsets=wanted.subsets)
    chosen: dict[str, Path] = {}
    for language in _LANGUAGES:
        subset = language if language == "en" else f"{language}-en"
        if (asked := files.matching(rf"{language}\.jsonl")) and options.takes("mkqa", subset):
            chosen[subset] = asked[0]
    if not chosen:
        return []
    passages = files.some("passages", r"corpus\.jsonl", r"psgs_w100\.tsv")[0]
    corpus = FileCorpus.of(lambda: distinct(partial(_passages, passages)), [passages], "mkqa")
    return [_collection(subset, file, corpus, wanted) for subset, file in chosen.items()]


def _collection(subset: str, file: Path, corpus: FileCorpus, wanted: Wanted) -> Collection:
    queries: dict[str, str] = {}
    answers: dict[str, tuple[str, ...]] = {}
    for place, record in rows(file):
        given, question = record.get("answers"), record.get("question")
        if not isinstance(given, list) or "id" not in record or not isinstance(question, str):
            raise place.error("expected id, question (a string) and answers (a list of strings)")
        id_ = str(record["id"])
        if id_ in queries or not question.strip():
            raise place.error(f"question {id_!r} is blank or comes twice; expected text, and each id once")
        queries[id_] = question
        answers[id_] = tuple(str(answer) for answer in given if str(answer).strip())
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
        split=wanted.split or "test",
        metrics=METRICS,
        license="CC BY-SA 3.0",
        citation="Longpre and others, 2021, arXiv 2007.15207",
    )


def _passages(path: Path) -> Iterator[Text]:
    for text in _dpr(path) if path.name.startswith("psgs") else records_of([path]):
        yield Text(text.id, plain(f"{text.title or ''}\n{text.text}"), text.place)


def plain(text: str) -> str:
    """A passage in lower case, with plain quotes, dashes and slashes and without control characters."""
    return text.lower().translate(_PLAIN).replace(" . . . ", " ... ")


def _dpr(path: Path) -> Iterator[Text]:
    """``id TAB text TAB title`` with a header; a text with quotes is quoted as in CSV, on one line."""
    with open_source(path) as source:
        for number, cells in tsv_rows(read_lines(source)):
            place = Place(source.name, number)
            if len(cells) != 3:
                raise place.error(f"got {len(cells)} columns; expected 3: id, text, title")
            if number == 1 and cells == ["id", "text", "title"]:
                continue
            text, title = (_unquote(cell) for cell in cells[1:])
            yield Text(cells[0], text, place, title)


def _unquote(cell: str) -> str:
    quoted = len(cell) > 1 and cell.startswith('"') and cell.endswith('"')
    return cell[1:-1].replace('""', '"') if quoted else cell
