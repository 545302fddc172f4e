"""TREC collections: documents and topics in SGML, judgements in four columns, runs in six."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator
from pathlib import Path

from triptych.data.records import Place
from triptych.data.rows import JSONL, ending
from triptych.data.streams import Line, open_source, read_lines
from triptych.eval.collection import Collection, Corpus, Document, FileCorpus
from triptych.eval.contender import Ranked
from triptych.eval.readers.base import Facts, Judgements, Queries, Wanted, found, locate, make, the_file
from triptych.eval.readers.texts import add_query, distinct, qrels_of, record_corpus, tsv_queries

LAYOUT = (
    "docs* (<DOC> with <DOCNO>, or .jsonl), topics* (<top> with <num> and <title>, <topic number=…>, or .tsv) and "
    "qrels* (query, 0, document, relevance); of several topics and qrels those whose names hold the split"
)
_TAG = re.compile(r"<[^<>]+>")
_DOCNO = re.compile(r"<DOCNO>\s*(\S+)\s*</DOCNO>", re.I)
_TOPIC = re.compile(
    r"<top>(?P<old>.*?)</top>|<topic\s+number\s*=\s*[\"'](?P<id>[^\"']+)[\"'][^>]*>(?P<new>.*?)</topic>",
    re.I | re.S,
)
_NUMBER = re.compile(r"<num>\s*(?:Number:)?\s*(?P<id>[^\s<]+)", re.I)
_TITLE = re.compile(r"<(?:title|query)>\s*(?:Topic:)?(?P<text>[^<]+)", re.I)


def trec(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads a folder of documents, topics and judgements; a topic's title is the query.

    Documents are read line by line: ``<DOC>`` and ``</DOC>`` begin a line or end one. A document's text is all
    that stands between the tags, but for its number.
    """
    split = wanted.split or ""
    named = f"*{split}*" if split else "*"
    name = path.resolve().name
    if not wanted.takes("", f"{name}/"):
        return found([], path, wanted, LAYOUT)
    docs = locate(path, "docs*", "docs/*")
    if not docs:
        the_file(path, LAYOUT, "docs*")
    asked = the_file(path, LAYOUT, f"topics{named}", f"topics/{named}")
    judged = the_file(path, LAYOUT, f"qrels{named}", f"qrels/{named}")
    queries = tsv_queries(asked) if ending(asked) == ".tsv" else read_topics(asked)
    judgements = Judgements(queries, qrels_of(judged), judged)
    return [make(Facts(name), "", split or "test", _corpus(docs), judgements, wanted)]


def read_topics(path: Path) -> Queries:
    """Topics as queries: number and title, of the classic form, or of XML's with title or query.

    Raises:
        DataError: For a topic without a number or a title, one that is there twice, or a file without topics.
    """
    queries: Queries = {}
    with open_source(path) as source:
        lines = list(read_lines(source))
        name = source.name
    text = "\n".join(line.text for line in lines)
    for match in _TOPIC.finditer(text):
        place = Place(name, text.count("\n", 0, match.start()) + 1)
        body = match["old"] if match["old"] is not None else match["new"]
        number = match["id"] or ((found := _NUMBER.search(body)) and found["id"])
        title = _TITLE.search(body)
        if not number or not title:
            raise place.error("a topic without a number or a title")
        add_query(queries, number, " ".join(html.unescape(title["text"]).split()), place)
    if not queries:
        raise Place(name).error("no topic in it; expected <top> … </top> or <topic number=…> … </topic>")
    return queries


def read_run(path: Path) -> dict[str, Ranked]:
    """A run in TREC's six columns (query, Q0, document, rank, score, tag) as rankings.

    As in trec_eval the scores decide and not the ranks; equal ones go by id, as everywhere in this package.
    `triptych.eval.metrics.measure` takes what it gives.

    Raises:
        DataError: For a line of another form, a document that a query lists twice, or a file without lines.
    """
    found: dict[str, dict[str, float]] = {}
    with open_source(path) as source:
        for line in read_lines(source):
            cells = line.text.split()
            if not cells:
                continue
            place = Place(source.name, line.number)
            if len(cells) != 6:
                raise place.error(f"got {len(cells)} columns; expected query, Q0, document, rank, score, tag")
            try:
                score = float(cells[4])
            except ValueError:
                raise place.error(f"score {cells[4]!r} is not a number") from None
            listed = found.setdefault(cells[0], {})
            if not math.isfinite(score):
                raise place.error(f"score {cells[4]!r}; expected a finite number")
            if cells[2] in listed:
                raise place.error(f"query {cells[0]!r} lists document {cells[2]!r} twice")
            listed[cells[2]] = score
    if not found:
        raise Place(path.as_posix()).error("no line in it; expected a run")
    return {query: Ranked.of(scores) for query, scores in found.items()}


def _corpus(files: list[Path]) -> Corpus:
    if all(ending(file) in JSONL for file in files):
        return record_corpus(files, "trec")
    return FileCorpus.of(lambda: distinct(lambda: _documents(files)), files, "trec")


def _documents(files: list[Path]) -> Iterator[tuple[Place, Document]]:
    for file in files:
        with open_source(file) as source:
            for place, body in _bodies(read_lines(source), source.name):
                number = _DOCNO.search(body)
                if number is None:
                    raise place.error("a document without <DOCNO>")
                text = html.unescape(_TAG.sub(" ", _DOCNO.sub(" ", body)))
                kept = (" ".join(line.split()) for line in text.split("\n"))
                yield place, Document(number[1], "\n".join(line for line in kept if line))


def _bodies(lines: Iterator[Line], name: str) -> Iterator[tuple[Place, str]]:
    start, parts = 0, list[str]()
    for line in lines:
        bare = line.text.strip()
        if bare[:5].upper() == "<DOC>":
            if start:
                raise Place(name, line.number).error(f"<DOC> inside the document that line {start} begins")
            start, bare = line.number, bare[5:]
        if not start:
            continue
        ended = bare[-6:].upper() == "</DOC>"
        parts.append(bare[:-6] if ended else bare)
        if ended:
            yield Place(name, start), "\n".join(parts)
            start, parts = 0, []
    if start:
        raise Place(name, start).error("a document that does not end; expected </DOC>")
