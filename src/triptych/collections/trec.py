"""TREC test collections: topics, qrels, and documents in SGML or JSON Lines; and run files.

Topics are ``<top>`` elements with ``<num>``, ``<title>``, ``<desc>``, ``<narr>`` (closed or not), ``<topic
number="…">`` elements with ``<query>``, ``<question>``, ``<narrative>``, or lines of id and text. Documents are
``<DOC>`` elements with ``<DOCNO>``; their text is what stands in ``<TEXT>``, their title in ``<TITLE>``,
``<HEADLINE>`` or their like.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from functools import partial
from html import unescape
from pathlib import Path

from triptych.collections.base import Ranked
from triptych.collections.files import Files
from triptych.collections.joined import Options, Tables, Text, judgements_of, records_of, texts_of
from triptych.errors import DataError
from triptych.io import open_source, read_lines, read_text
from triptych.records import JSONL, Place, ending

TOPICS = (r"(?:.*[._-])?topics?(?:[._-].*)?", r".*topics.*", r"(?:.*[._-])?queries(?:[._-].*)?")
QRELS = (r"(?:.*[._-])?qrels?(?:[._-].*)?", r".*qrels.*")
_DOCUMENTS = r"(?:docs?|documents?|corpus)(?:[._-].*)?"
_TITLES = ("TITLE", "HEADLINE", "DOCTITLE", "TTL", "HL", "HEAD")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_LABEL = re.compile(r"^\s*(?:Number|Topic|Title|Description|Narrative)\s*:\s*", re.IGNORECASE)
_FIELDS = {"desc": ("description", "question"), "narr": ("narrative",), "title": ("query",)}


def read_trec(files: Files, options: Options) -> Iterator[Tables]:
    """Reads a collection.

    Documents are files named like docs, or in a folder named so; otherwise all that is neither topics nor qrels by
    its name. Of several topics and qrels those are taken whose names hold the split.
    """
    qrels = _one(files, "judgements", options.split, QRELS)
    rest = Files([file for file in files.all if file not in files.matching(QRELS[0]) and file != qrels])
    topics = _one(rest, "topics", options.split, TOPICS)
    others = [file for file in rest.all if file not in rest.matching(TOPICS[0]) and file != topics]
    named = [
        file
        for file in others
        if any(re.fullmatch(_DOCUMENTS, part, re.I) for part in (file.name, file.parent.name))
    ]
    corpus = named or others
    if not corpus:
        raise DataError(
            "no documents beside topics and qrels; expected files named like docs*", files.roots[0]
        )
    yield Tables(
        queries=_topics(topics, options.topic_fields),
        judgements=judgements_of([qrels]),
        documents=partial(_documents, corpus),
        files=corpus,
        qrels=qrels,
        language=options.language,
    )


def _one(files: Files, what: str, split: str | None, patterns: tuple[str, ...]) -> Path:
    found = files.some(what, *patterns)
    named = [file for file in found if split and split in file.name]
    return (Files(named) if named else files).one(what, *patterns)


def _topics(path: Path, fields: Sequence[str]) -> Iterator[Text]:
    with open_source(path) as source:
        text = read_text(source)
    starts = [match.start() for match in re.finditer(r"<top(?:ic)?\b", text, re.IGNORECASE)]
    if not starts:
        yield from texts_of([path])
    for start, end in zip(starts, [*starts[1:], len(text)], strict=False):
        if topic := _topic(text[start:end], fields, Place(str(path), text.count("\n", 0, start) + 1)):
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
        yield from records_of([path]) if ending(path) in JSONL else _sgml(path)


def _sgml(path: Path) -> Iterator[Text]:
    """Documents of a file, one held at a time; ``<DOC>`` begins a line and ``</DOC>`` ends one."""
    lines: list[str] = []
    start = Place(str(path))
    with open_source(path) as source:
        for line in read_lines(source):
            if re.match(r"\s*<DOC>", line.text, re.IGNORECASE):
                if lines:
                    message = f"<DOC> inside the document that line {start.line} begins"
                    raise Place(source.name, line.number).error(message)
                start = Place(source.name, line.number)
                lines = [line.text]
            elif lines:
                lines.append(line.text)
            if lines and re.search(r"</DOC>\s*$", line.text, re.IGNORECASE):
                yield _document("\n".join(lines), start)
                lines = []
    if lines:
        raise start.error("a document that does not end; expected </DOC>")


def _document(block: str, place: Place) -> Text:
    id_ = _part(block, "DOCNO")
    if not id_:
        raise place.error("a document without <DOCNO>; expected its id")
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


def read_run(path: Path) -> dict[str, Ranked]:
    """A run of any system in TREC's six columns (query, Q0, document, rank, score, tag) as rankings.

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
