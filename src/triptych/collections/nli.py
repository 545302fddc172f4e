"""Natural language inference as triplets: SNLI, MultiNLI, XNLI.

The query is a premise, its positives are what it entails and its negatives what it contradicts: the example that the
format of training data began with. JSON Lines have ``sentence1``, ``sentence2``, ``gold_label``, ``pairID`` (and, in
XNLI, ``language``); tables have the same columns, or ``premise``, ``hypo``, ``label`` (XNLI's translations); rows on
the Hub ``premise``, ``hypothesis`` and a number.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

from triptych.collections.files import Files, plain_name, rows
from triptych.collections.joined import Dropped, Item, JudgedPassage, Labelled, Options
from triptych.io import open_source, read_lines
from triptych.records import Place, ending, tsv_rows

_LABELS = {
    "entailment": "entailment",
    "contradiction": "contradiction",
    "contradictory": "contradiction",
    "neutral": "neutral",
    0: "entailment",
    1: "neutral",
    2: "contradiction",
}
_FILES = (r".*\.jsonl", r".*\.parquet", r".*\.tsv", r".*\.txt")
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE pairs (premise TEXT, language TEXT, label TEXT, hypothesis TEXT, file TEXT, line INTEGER, id TEXT);
"""


def read_nli(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files; pairs with the same premise come together, wherever they stand.

    Neutral pairs and those without a gold label are dropped, and so is a premise that entails nothing.
    """
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/nli")) as base:
        base.executescript(_SCHEMA)
        for path in files.of_split("pairs", options.split, *_FILES):
            records = _table(path) if ending(path) in (".tsv", ".txt") else rows(path)
            for place, record in records:
                pair = _pair(record, place, path, options)
                if isinstance(pair, Dropped):
                    yield pair
                elif pair is not None:
                    base.execute("INSERT INTO pairs VALUES (?, ?, ?, ?, ?, ?, ?)", pair)
        base.execute("CREATE INDEX pairs_premise ON pairs (premise, language)")
        firsts = base.execute("SELECT MIN(rowid), premise, language FROM pairs GROUP BY 2, 3 ORDER BY 1")
        for _, premise, language in firsts:
            yield _triplet(base, premise, language, options)


def _triplet(base: sqlite3.Connection, premise: str, language: str | None, options: Options) -> Item:
    found: list[tuple[Any, ...]] = base.execute(
        "SELECT label, hypothesis, file, line, id FROM pairs WHERE premise = ? AND language IS ? ORDER BY rowid",
        (premise, language),
    ).fetchall()
    place = Place(found[0][2], found[0][3])
    pos = dict.fromkeys(row[1] for row in found if row[0] == "entailment")
    neg = dict.fromkeys(row[1] for row in found if row[0] == "contradiction" and row[1] not in pos)
    if not pos:
        return Dropped(place, "the premise entails nothing", premise)
    sample = options.sample(map(JudgedPassage, neg), premise) if options.wants("given") else []
    return Labelled(place, premise, [JudgedPassage(text) for text in pos], sample, found[0][4], language)


def _pair(
    record: dict[str, Any], place: Place, path: Path, options: Options
) -> tuple[Any, ...] | Dropped | None:
    """A row of the table; None if it is in another language than the one wanted."""
    premise = record.get("sentence1", record.get("premise"))
    hypothesis = record.get("sentence2", record.get("hypothesis", record.get("hypo")))
    label = record.get("gold_label", record.get("label"))
    if not isinstance(premise, str) or not isinstance(hypothesis, str) or label is None:
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected sentence1, sentence2, gold_label, or premise, "
            "hypothesis, label"
        )
    language = record.get("language") or _language(path) or options.language
    if options.language and language != options.language:
        return None
    meaning = _LABELS.get(label) if isinstance(label, str | int) else None
    if meaning is None:
        return Dropped(place, "no gold label", f"{premise} / {hypothesis}")
    if meaning == "neutral":
        return Dropped(place, "neutral pair", f"{premise} / {hypothesis}")
    id_ = record.get("pairID")
    return premise, language, meaning, hypothesis, place.name, place.line, None if id_ is None else str(id_)


def _language(path: Path) -> str | None:
    """The language of XNLI's translations, from names such as ``multinli.train.fr.tsv``."""
    parts = plain_name(path).split(".")
    return parts[-2] if len(parts) >= 4 and len(parts[-2]) == 2 else None


def _table(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    header: list[str] | None = None
    with open_source(path) as source:
        for number, cells in tsv_rows(read_lines(source)):
            if header is None:
                header = cells
            else:  # MultiNLI's last columns (annotators' labels) are left away where they are empty
                record = cast("dict[str, Any]", dict(zip(header, cells, strict=False)))
                yield Place(source.name, number), record
