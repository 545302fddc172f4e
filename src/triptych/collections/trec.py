"""TREC test collections: topics, qrels, and documents in SGML or JSON Lines.

Topics are ``<top>`` elements with ``<num>``, ``<title>``, ``<desc>``, ``<narr>`` (closed or not), ``<topic
number="…">`` elements with ``<query>``, ``<question>``, ``<narrative>``, or lines of id and text. Documents are
``<DOC>`` elements with ``<DOCNO>``; their text is what stands in ``<TEXT>``, their title in ``<TITLE>``,
``<HEADLINE>`` or their like.

TREC collections: documents and topics in SGML, judgements in four columns, runs in six.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

from triptych.collections.base import (
    Collection,
    Corpus,
    Document,
    Facts,
    FileCorpus,
    Judgements,
    Queries,
    Ranked,
    Wanted,
    found,
    locate,
    make,
    the_file,
)
from triptych.collections.files import Files
from triptych.collections.joined import Item, Options, Tables, Text, join, texts_of
from triptych.collections.multilingual import documents_of
from triptych.collections.qrels import read_qrels
from triptych.collections.texts import add_query, distinct, qrels_of, record_corpus, tsv_queries
from triptych.errors import DataError
from triptych.io import Line, open_source, read_lines, read_text
from triptych.records import JSONL, Place, ending

_TOPICS = (r"(?:.*[._-])?topics?(?:[._-].*)?", r".*topics.*", r"(?:.*[._-])?queries(?:[._-].*)?")
_QRELS = (r"(?:.*[._-])?qrels?(?:[._-].*)?", r".*qrels.*")
_TITLES = ("TITLE", "HEADLINE", "DOCTITLE", "TTL", "HL", "HEAD")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_LABEL = re.compile(r"^\s*(?:Number|Topic|Title|Description|Narrative)\s*:\s*", re.IGNORECASE)
_FIELDS = {"desc": ("description", "question"), "narr": ("narrative",), "title": ("query",)}


def read_trec(files: Files, options: Options) -> Iterator[Item]:
    """Reads a collection; every file that is neither topics nor qrels by its name holds documents."""
    qrels = files.one("judgements", *_QRELS)
    rest = Files([file for file in files.all if file != qrels])
    topics = rest.one("topics", *_TOPICS)
    corpus = [file for file in rest.all if file != topics]
    if not corpus:
        raise DataError("no documents beside topics and qrels", files.roots[0])
    parts = Tables(
        queries=_topics(topics, options.topic_fields),
        judgements=read_qrels(qrels),
        documents=_documents(corpus),
        qrels=qrels,
        language=options.language,
    )
    yield from join(parts, options)


def _topics(path: Path, fields: Sequence[str]) -> Iterator[Text]:
    with open_source(path) as source:
        text = read_text(source)
    if not re.search(r"<top\b|<topic\b", text, re.IGNORECASE):
        yield from texts_of([path])
        return
    starts = [match.start() for match in re.finditer(r"<top(?:ic)?\b(?!ics)", text, re.IGNORECASE)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        place = Place(str(path), text.count("\n", 0, start) + 1)
        block = text[start:end]
        if topic := _topic(block, fields, place):
            yield topic


def _topic(block: str, fields: Sequence[str], place: Place) -> Text | None:
    number = re.match(r'<topic\b[^>]*\bnumber\s*=\s*["\']?([^"\'\s>]+)', block, re.IGNORECASE)
    id_ = number[1] if number else _part(block, "num")
    if not id_:
        if not _TAG.sub("", block).strip():  # an element around all topics
            return None
        raise place.error("a topic without <num> or number; expected one")
    parts = [
        next(filter(None, (_part(block, name) for name in (field, *_FIELDS.get(field, ())))), "")
        for field in fields
    ]
    query = " ".join(part for part in parts if part)
    if not query:
        raise place.error(f"topic {id_!r} has none of the fields {', '.join(fields)}")
    return Text(id_, query, place)


def _part(block: str, name: str) -> str:
    """What stands after a tag up to the next tag, without the label that old topics repeat."""
    match = re.search(rf"<{name}\b[^>]*>([^<]*)", block, re.IGNORECASE)
    return " ".join(unescape(_LABEL.sub("", match[1])).split()) if match else ""


def _documents(paths: Sequence[Path]) -> Iterator[Text]:
    for path in paths:
        if ending(path) in JSONL:
            yield from documents_of([path])
        else:
            yield from _sgml(path)


def _sgml(path: Path) -> Iterator[Text]:
    """Documents of a file, one held at a time."""
    lines: list[str] | None = None
    start = Place(str(path))
    with open_source(path) as source:
        for line in read_lines(source):
            if re.match(r"\s*<DOC>", line.text, re.IGNORECASE):
                lines, start = [], Place(source.name, line.number)
            if lines is not None:
                lines.append(line.text)
                if re.search(r"</DOC>\s*$", line.text, re.IGNORECASE):
                    yield _document("\n".join(lines), start)
                    lines = None
    if lines is not None:
        raise start.error("a <DOC> that is not closed")


def _document(block: str, place: Place) -> Text:
    id_ = _part(block, "DOCNO")
    if not id_:
        raise place.error("a <DOC> without <DOCNO>; expected the document's id")
    texts = re.findall(r"<TEXT\b[^>]*>(.*?)</TEXT>", block, re.IGNORECASE | re.DOTALL)
    if not texts:  # web collections: all that follows the header
        header = re.compile(r"<DOCNO>.*?</DOCNO>|<DOCHDR>.*?</DOCHDR>", re.IGNORECASE | re.DOTALL)
        texts = [header.sub(" ", block)]
    title = next(filter(None, (_element(block, name) for name in _TITLES)), None)
    return Text(id_, "\n".join(filter(None, map(_plain, texts))), place, title)


def _element(block: str, name: str) -> str:
    match = re.search(rf"<{name}\b[^>]*>(.*?)</{name}>", block, re.IGNORECASE | re.DOTALL)
    return " ".join(_plain(match[1]).split()) if match else ""


def _plain(text: str) -> str:
    """Text without tags; paragraphs keep their line breaks."""
    lines = (" ".join(line.split()) for line in unescape(_TAG.sub(" ", text)).splitlines())
    return re.sub(r"\n{2,}", "\n", "\n".join(lines)).strip()


LAYOUT = (
    "docs* (<DOC> with <DOCNO>, or .jsonl), topics* (<top> with <num> and <title>, <topic number=…>, or .tsv) and "
    "qrels* (query, 0, document, relevance); of several topics and qrels those whose names hold the split"
)
_TAG_TREC = re.compile(r"<[^<>]+>")
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
    return FileCorpus.of(lambda: distinct(lambda: _documents_trec(files)), files, "trec")


def _documents_trec(files: list[Path]) -> Iterator[tuple[Place, Document]]:
    for file in files:
        with open_source(file) as source:
            for place, body in _bodies(read_lines(source), source.name):
                number = _DOCNO.search(body)
                if number is None:
                    raise place.error("a document without <DOCNO>")
                text = html.unescape(_TAG_TREC.sub(" ", _DOCNO.sub(" ", body)))
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
