"""Writes many test sets over one corpus as a BEIR folder; `triptych.collections.beir` reads it.

corpus.jsonl            all documents, once
queries.jsonl           all queries, once
qrels/FILE.tsv          judgements of a set, so that any BEIR loader reads it as the split FILE
excluded/FILE.tsv       query and document: what is left out of the query's ranking
sets.json               which files are which set: name, subset, split, group
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from triptych.io import write_atomically, write_json

Judged: TypeAlias = Mapping[str, Iterable[str]]
"""Query id to document ids."""


@dataclass(frozen=True, slots=True)
class Text:
    """A document or a query, with what is known of it."""

    id: str
    text: str
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TestSet:
    """Queries and their relevant documents.

    Attributes:
        name: Of the data set.
        subset: Language, or language of the queries and language of the documents.
        split: "dev" or "test".
        group: "monolingual", "cross-lingual" or "long".
        relevant: Query id to relevant documents.
        excluded: Name of the file of excluded documents, or None. One that is relevant in this set stays in.
        licence: Of the data.
    """

    name: str
    subset: str
    split: str
    group: str
    relevant: Judged
    excluded: str | None = None
    licence: str = ""

    @property
    def file(self) -> str:
        """Name of its judgements."""
        return f"{self.name}-{self.subset}" + ("-dev" if self.split == "dev" else "")


def write_folder(
    folder: Path,
    documents: Iterable[Text],
    queries: Iterable[Text],
    sets: Iterable[TestSet],
    excluded: Mapping[str, Judged],
) -> list[dict[str, Any]]:
    """Writes the folder; queries that no set judges are left out. Gives the entries of sets.json."""
    kept = [each for each in sets if each.relevant]
    used = {query for each in kept for query in each.relevant}
    for part in ("qrels", "excluded"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for old in (folder / part).glob("*.tsv"):
            old.unlink()
    _write_texts(folder / "corpus.jsonl", documents)
    _write_texts(folder / "queries.jsonl", (query for query in queries if query.id in used))
    for each in kept:
        rows = [f"{query}\t{doc}\t1" for query, docs in each.relevant.items() for doc in docs]
        _write_lines(folder / "qrels" / f"{each.file}.tsv", ["query-id\tcorpus-id\tscore", *rows])
    for name, pairs in excluded.items():
        rows = [f"{query}\t{doc}" for query, docs in pairs.items() if query in used for doc in docs]
        _write_lines(folder / "excluded" / f"{name}.tsv", ["query-id\tcorpus-id", *rows])
    entries = [_entry(each) for each in kept]
    write_json(folder / "sets.json", {"sets": entries})
    return entries


def _entry(each: TestSet) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": each.name, "subset": each.subset, "split": each.split}
    entry |= {"group": each.group, "qrels": each.file, "queries": len(each.relevant)}
    if each.excluded:
        entry["excluded"] = each.excluded
    if each.licence:
        entry["licence"] = each.licence
    return entry


def _write_texts(path: Path, texts: Iterable[Text]) -> None:
    lines = (
        json.dumps({"_id": each.id, "text": each.text, **each.facts}, ensure_ascii=False) for each in texts
    )
    _write_lines(path, lines)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
