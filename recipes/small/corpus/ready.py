"""A folder of ready data as the structured documents that `triptych data pairs` reads, and as passages with questions.

Its files, JSON Lines in Zstandard: ``docs`` (``s`` source, ``k`` key, ``l`` language, ``t`` title, ``kw`` keywords,
``d`` description, ``p`` blocks), ``parallel`` and ``lexicon`` (``tr`` translations), ``qa-train`` and ``qa-eval``
(``u`` split, ``a`` article, ``t`` passage, ``q`` questions).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from corpus import clean
from corpus.languages import canonical
from corpus.records import Passage, Question, read
from triptych.errors import DataError
from triptych.text import digest, fold
from triptych.tools.pairs.base import Block, StructuredDocument, Translations

LICENCES: Final = {
    "lo": "MPL-2.0",
    "gnome": "CC-BY-SA-3.0",
    "handbook": "GPL-2.0-or-later OR CC-BY-SA-3.0",
    "iguide": "GPL-2.0-or-later",
    "dref": "GPL-2.0-or-later",
    "man": "GPL-2.0-or-later AND BSD-3-Clause AND LicenseRef-verbatim",
    "ddtp": "GPL-2.0-or-later",
    "tldr": "CC-BY-4.0",
    "wiki": "CC-BY-SA-4.0",
    "sky": "CC-BY-SA-4.0 AND CC-BY-SA-3.0 AND GPL-2.0-or-later",
    "ntrex": "CC-BY-SA-4.0",
    "tatoeba": "CC-BY-2.0",
    "wesnoth": "GPL-2.0-or-later",
    "freeciv": "GPL-2.0-or-later",
    "cldr": "Unicode-3.0",
    "iso": "LGPL-2.1-or-later",
    "fd": "GPL-2.0-or-later",
    "arcd": "MIT",
    "afriqa": "CC-BY-SA-4.0",
    "medquad": "CC-BY-4.0",
    "pubmedqa": "MIT",
    "facqa": "CC-BY-SA-4.0",
    "jaquad": "CC-BY-SA-3.0",
    "iapp": "MIT",
    "cmrc": "CC-BY-SA-4.0",
}
"""SPDX expression of each source."""
BOOKS: Final = frozenset({"handbook", "iguide", "dref", "sky", "man"})
"""Sources of which a block is a whole section, a line a paragraph."""
UNALIGNED: Final = frozenset({"man", "ddtp"})
"""Sources of which translations may be of another version: only those with as many paragraphs are compared."""
_CONTEXT = re.compile(r"^\?[a-z_]+:")
_BOILERPLATE = {"handbook": re.compile("Download the ebook"), "sky": re.compile(r"\[\d+\]$")}
_NAME_LINE = re.compile(r"\S{1,60}(?:, \S+)*\s+[-–—\\]+\s+(.{3,})")
_SEE_ALSO = re.compile(
    r"[,;(] ?(?:see |siehe |se även|se også|viz |voir |ver |véase|vegeu|vedi |zie |zobacz|см\. |див\. |lásd |ks\. |"
    r"katso |bkz|pozri |δείτε |βλ|lihat |xem |参见|请参阅|另见|請參閱|参照|참조|も参照).*"
)
_ASKED_AGAIN = re.compile(r"^[^.?!]{5,200}\?\s+")
_MARKS = re.compile(r"\s*\?[\s?]*$")
_PLACEHOLDER = re.compile(r"\{\{.*?\}\}")


def documents(folder: Path) -> Iterator[StructuredDocument]:
    """The documents of ``docs``, cleaned: without numbering, boilerplate and what was left in English."""
    english: dict[tuple[str, str], frozenset[str]] = {}
    for record in _read(folder, "docs"):
        if canonical(record["l"]) == "en":
            document = _document(record)
            english[document.source, document.key] = _lines(document)
    for record in _read(folder, "docs"):
        document = _document(record)
        if document.lang != "en":
            document = _translated(document, english.get((document.source, document.key), frozenset()))
        if any(block.level is None for block in document.blocks):
            yield document


def translations(folder: Path) -> Iterator[Translations]:
    """The records of ``parallel`` and ``lexicon``."""
    for name in ("parallel", "lexicon"):
        for record in _read(folder, name):
            yield _translations(record)


def passages(folder: Path) -> Iterator[Passage]:
    """The passages of ``qa-train``.

    Raises:
        DataError: For a record that is marked as evaluation.
    """
    for number, record in enumerate(_read(folder, "qa-train"), start=1):
        if record.get("u") != "train":
            raise DataError("an evaluation record; expected training text alone", folder, number)
        yield _passage(record)


def evaluation(folder: Path) -> Iterator[Passage]:
    """The passages of ``qa-eval``, for nothing but finding them elsewhere."""
    for record in _read(folder, "qa-eval"):
        yield _passage(record)


def _read(folder: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """The records of a file; none if the folder has no such file."""
    path = folder / f"{name}.jsonl.zst"
    return read(path) if path.exists() else iter(())


def _lines(document: StructuredDocument) -> frozenset[str]:
    """All lines of an English document that are more than a name."""
    texts = [document.title, document.description, *document.keywords, *(b.text for b in document.blocks)]
    return frozenset(fold(text) for text in texts if " " in text.strip() and len(text) > 8)


def _translated(document: StructuredDocument, english: frozenset[str]) -> StructuredDocument:
    """A document without the lines that the English one has too; a command's page keeps its name."""
    if not english:
        return document
    kept = document.source == "tldr" or fold(document.title) not in english
    return replace(
        document,
        title=document.title if kept else "",
        description="" if fold(document.description) in english else document.description,
        keywords=tuple(each for each in document.keywords if fold(each) not in english),
        blocks=tuple(block for block in document.blocks if fold(block.text) not in english),
    )


def _document(record: Mapping[str, Any]) -> StructuredDocument:
    source, lang = record["s"], canonical(record["l"])
    title = clean.tidy(record["t"]).replace("\n", " ")
    given = [Block(index, kind, clean.tidy(text)) for index, kind, text in record["p"]]
    latin = clean.is_latin(" ".join(block.text for block in given))
    blocks = _split(given) if source in BOOKS else given
    if source == "tldr":
        blocks = [Block(_command(block, lang), block.kind, block.text) for block in blocks]
    if source == "wiki":  # introductions of the same article are no translations of each other
        blocks = [Block(digest(lang) % 10**9, block.kind, block.text) for block in blocks]
    drop = _BOILERPLATE.get(source)
    blocks = [
        Block(block.number, block.kind, clean.unnumbered(block.text) if source in BOOKS else block.text)
        for block in blocks
        if sum(map(str.isalnum, block.text)) > 1
        and not (drop and drop.match(block.text))
        and not clean.is_english(block.text, lang, latin, bool(block.kind))
    ]
    title = _title(source, clean.unnumbered(title) if source in BOOKS else title, blocks)
    if clean.is_english(title, lang, latin, heading=True) or (
        not latin and title.isascii() and source in ("man", "ddtp")
    ):
        title = ""
    return StructuredDocument(
        source,
        record["k"],
        lang,
        title,
        tuple(_without_repeats(blocks, title)),
        tuple(
            dict.fromkeys(_SEE_ALSO.sub("", clean.tidy(each)).strip(" ,;") for each in record.get("kw", ()))
        ),
        ""
        if clean.is_english(record.get("d") or "", lang, latin, heading=True)
        else clean.tidy(record.get("d") or ""),
        license=LICENCES[source],
        aligned=source not in UNALIGNED,
    )


def _split(blocks: list[Block]) -> list[Block]:
    """Sections as paragraphs, numbered so that those of two languages only meet if their sections look alike.

    The number of a paragraph says how many sections there are, which one it is in, how many paragraphs that has, and
    which of them it is.
    """
    sections = 1 + max((block.number for block in blocks), default=0)
    found: list[Block] = []
    for block in blocks:
        lines = block.text.split("\n") if not block.kind else [block.text]
        place = (sections * 1000 + block.number) * 1000 + (len(lines) if not block.kind else 0)
        found += [Block(place * 1000 + number, block.kind, line) for number, line in enumerate(lines)]
    return found


def _command(block: Block, lang: str) -> int:
    """The same number for the same command line, whatever stands for its arguments."""
    _, colon, command = block.text.partition(": ")
    return block.number if not colon else 10 + digest(_PLACEHOLDER.sub("", command)) % 10**9


def _title(source: str, title: str, blocks: list[Block]) -> str:
    """A manual page is called by what its name line says it does."""
    if source == "man" and "\\" in title:
        first = next((block.text for block in blocks if not block.kind), "")
        match = _NAME_LINE.match(first)
        return match[1] if match else ""
    if source == "sky" and not title:
        return next((block.text for block in blocks if block.kind), "")
    return title


def _without_repeats(blocks: list[Block], title: str) -> Iterator[Block]:
    """Without headings that only repeat the title or each other in a row."""
    before = fold(title)
    for block in blocks:
        if block.kind and fold(block.text) in ("", before):
            continue
        before = fold(block.text) if block.kind else ""
        yield block


def _translations(record: Mapping[str, Any]) -> Translations:
    source = record["s"]
    kind = "term" if source in ("iso", "cldr", "fd") else "sentence"
    texts: dict[str, tuple[str, ...]] = {}
    if source == "tatoeba":
        texts = {"en": _texts(record["en"]), canonical(record["k"]): _texts(record["x"])}
    elif source == "fd":
        here, there = (canonical(code) for code in record["k"].split("-"))
        texts = {here: _texts(record["w"]), there: _texts(record["tr"])[:3]}
    else:
        for code, given in record["tr"].items():
            each = _texts(given)
            texts[canonical(code)] = each[:1] if source == "cldr" else each
        if "en" in record:
            texts.setdefault("en", _texts(record["en"]))
    return Translations(
        source, str(record["k"]), kind, {k: v for k, v in texts.items() if v}, LICENCES[source]
    )


def _texts(given: str | list[str]) -> tuple[str, ...]:
    several = [given] if isinstance(given, str) else given
    return tuple(_CONTEXT.sub("", clean.tidy(each).replace("\n", " "), count=1) for each in several)


def _passage(record: Mapping[str, Any]) -> Passage:
    lang, text = canonical(record["l"]), clean.tidy(record["t"]).replace("\n", " ")
    asked: list[Question] = []
    for each in record["q"]:
        if isinstance(each, str):
            asked.append(Question(_question(each), lang))
        else:
            asked += [Question(_question(each[1]), canonical(each[0])), Question(_question(each[2]), lang)]
    if record["s"] == "medquad":  # its answers begin with the question, in these words or others
        text = _ASKED_AGAIN.sub("", text, count=1) or text
    questions = tuple(dict.fromkeys(q for q in asked if len(q.text) > 4))
    licence = LICENCES.get(record["s"], "")
    return Passage(record["s"], lang, (record["a"] or "").strip(), text, questions, licence)


def _question(text: str) -> str:
    """A question on one line, without what its collection put around it."""
    text = clean.tidy(text).replace("\n", " ").replace("What is (are) ", "What is ")
    return _MARKS.sub("?", text)
