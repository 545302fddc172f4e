"""TREC test collections: topics, qrels, and documents in SGML or JSON Lines.

Topics are ``<top>`` elements with ``<num>``, ``<title>``, ``<desc>``, ``<narr>`` (closed or not), ``<topic
number="…">`` elements with ``<query>``, ``<question>``, ``<narrative>``, or lines of id and text. Documents are
``<DOC>`` elements with ``<DOCNO>``; their text is what stands in ``<TEXT>``, their title in ``<TITLE>``,
``<HEADLINE>`` or their like.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from pathlib import Path

from triptych.data.beir import read_qrels
from triptych.data.labelled.collection import Collection, Text, join
from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Item, Options
from triptych.data.labelled.passage_lists import documents_of
from triptych.data.labelled.tsv import texts_of
from triptych.data.records import Place
from triptych.data.rows import JSONL, ending
from triptych.data.streams import open_source, read_lines, read_text
from triptych.errors import DataError

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
    parts = Collection(
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
