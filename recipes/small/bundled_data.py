"""Draws the part of the corpus that the bundled model is trained on, and its development pool.

    python recipes/small/bundled_data.py CORPUS --into build/part
    python recipes/small/bundled_data.py CORPUS --into build/second --table recipes/small/second-part.yaml

CORPUS is what recipes/small/corpus/build.py made. The table says what is drawn: part.yaml for the first version,
second-part.yaml for the next. The pool, ``dev-all``, leaves out queries on documents that the long-document *test* set
asks for (`eval_long`).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parent))

from corpus.records import read
from eval_long import SOURCES
from pool_beir import pool
from qa_split import DEVELOPMENT
from synthetic import is_held_out
from triptych.io import json_lines
from triptych.text import digest

TABLE = Path(__file__).parent / "part.yaml"
FIELDS = ("query", "pos", "neg", "lang", "pos_id", "article")
SETS = ("dev-qa", "dev-cross", "dev-help", "dev-long")


def main() -> None:
    """Writes the files and the pool."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--table", type=Path, default=TABLE)
    arguments = parser.parse_args()
    table: Mapping[str, Mapping[str, Any]] = yaml.safe_load(arguments.table.read_text(encoding="utf-8"))
    for name, entry in table.items():
        path = arguments.into / (name if name.endswith(".zst") else f"{name}.jsonl")
        path.parent.mkdir(parents=True, exist_ok=True)
        with json_lines(path) as write:
            count = sum(1 for record in drawn(arguments.corpus, entry) if write(record) is None)
        print(f"{path}: {count}", flush=True)
    folders = [arguments.corpus / "dev" / name for name in SETS]
    pool(folders, arguments.into / "dev-all", "dev", leave_out=asked_in_the_test)


def drawn(corpus: Path, entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Evenly spaced records of one kind of a file, or of the i-th of n parts of it."""
    path, kind = corpus / f"{entry['from']}.jsonl.zst", entry.get("kind")
    part, parts = entry.get("part", (0, 1))
    distance = max(1.0, _kinds(path)[kind] / entry["lines"]) if "lines" in entry else 1.0
    due = 0.0
    records = (record for record in read(path) if kind is None or record["kind"] == kind)
    for number, record in enumerate(records):
        if number >= due:
            due += distance
            if number % parts != part or is_held_out(record.get("source", ""), record.get("key", "")):
                continue
            yield record if entry.get("whole") else {name: record[name] for name in FIELDS if name in record}


@lru_cache
def _kinds(path: Path) -> Counter[str | None]:
    kinds = Counter[str | None](record.get("kind") for record in read(path))
    kinds[None] = kinds.total()
    return kinds


def asked_in_the_test(document: str) -> bool:
    """Whether a document of the development sets is one of which the long test set asks (half of the held-out keys)."""
    source, *key, _language = document.split("/")
    return source in SOURCES and digest(f"{source}\t{'/'.join(key)}") % (2 * DEVELOPMENT) == DEVELOPMENT


if __name__ == "__main__":
    main()
