"""Decontamination: pairs that hold text of named evaluation files.

A text of an evaluation set counts as found in a pair if the two share `words` words in a row (in scripts without
spaces, three times as many characters). Of a shorter text all of it must be found; one of fewer than `SHORTEST` words
counts only if it is a query and one side of the pair has its words and no others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from triptych.data.examples import QUERY
from triptych.data.mined.pairs import Pair
from triptych.data.mined.shuffle import save
from triptych.data.mined.words import CHARS_PER_WORD, Hashes, digest, gram_size, mixed, unit_hashes, units
from triptych.data.rows import JSONL, PARQUET, ending, files_of, parsed, places_of
from triptych.data.streams import open_source, read_lines
from triptych.errors import InputError
from triptych.files import write_json

SHORTEST = 5
"""Words from which on a whole text must be found inside another; a shorter one must be equal."""
WORDS = 13
"""Words in a row that two texts share by chance about never (the figure of GPT-3's clean sets, arXiv 2005.14165,
appendix C)."""
_QUERIES = frozenset((*QUERY, "queries", "questions", "q"))
_NO_TEXTS = frozenset(
    ("id", "_id", "lang", "language", "source", "split", "licence", "license", "kind", "key", "type", "url")
)
_PLAIN = (".txt", ".text", ".tsv", ".csv")


class EvaluationText(NamedTuple):
    """A text of an evaluation set; `is_query` where its field says so, or it stands in a file of plain lines."""

    text: str
    is_query: bool


def read_evaluation(paths: Iterable[Path | str]) -> Iterator[EvaluationText]:
    """All texts of evaluation files: JSON Lines, Parquet, TSV, CSV, plain lines, folders of them (so BEIR folders).

    Of records every text counts but for ids, languages and the like; of a folder ``qrels`` nothing.

    Raises:
        DataError: For what cannot be read, with the file and the line.
    """
    for path in map(Path, paths):
        for file in files_of(path, JSONL + PARQUET + _PLAIN):
            if file.parent.name == "qrels" and file != path:
                continue
            if ending(file) in _PLAIN:
                with open_source(file) as source:
                    for line in read_lines(source):
                        yield from (
                            EvaluationText(cell, True) for cell in line.text.split("\t") if cell.strip()
                        )
            else:
                for place, raw in places_of(file):
                    yield from _texts(parsed(raw, place), False)


def _texts(value: Any, is_query: bool) -> Iterator[EvaluationText]:
    if isinstance(value, str):
        yield EvaluationText(value, is_query)
    elif isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _texts(each, is_query)
    elif isinstance(value, dict):
        for name, each in cast("dict[str, Any]", value).items():
            if name not in _NO_TEXTS:
                yield from _texts(each, is_query or name in _QUERIES)


def write_evaluation(folder: Path, texts: Iterable[EvaluationText], words: int = WORDS) -> None:
    """Writes what `Contamination` looks things up in: 8 bytes for each word of the evaluation sets, sorted.

    Raises:
        InputError: For `words` below `SHORTEST`.
        StorageError: If it cannot be written.
    """
    if words < SHORTEST:
        raise InputError(f"decontamination: got {words} words in a row; expected at least {SHORTEST}")
    found: dict[tuple[int, int], list[Hashes]] = {}
    wholes: set[int] = set()
    for text, is_query in texts:
        parts = units(text)
        step = gram_size(parts, 1)
        size = min(words, len(parts) // step) * step
        if size >= SHORTEST * step:
            found.setdefault((step, size), []).append(grams_of_sizes(unit_hashes(parts), {size})[size])
        elif parts and is_query:
            wholes.add(digest(*parts))
    for key, grams in found.items():
        save(_gram_file(folder, *key), np.unique(np.concatenate(grams)))
    save(folder / "wholes.npy", np.array(sorted(wholes), np.uint64))
    write_json(folder / "sizes.json", sorted(found))  # last: it says that the others are there


def is_written(folder: Path) -> bool:
    """Whether `write_evaluation` finished."""
    return (folder / "sizes.json").exists()


def _gram_file(folder: Path, step: int, size: int) -> Path:
    return folder / f"grams-{step}-{size}.npy"


class Contamination:
    """Says whether a pair holds text of an evaluation set.

    Args:
        folder: Where `write_evaluation` wrote; its tables are memory-mapped.
    """

    def __init__(self, folder: Path) -> None:
        sizes: list[tuple[int, int]] = json.loads((folder / "sizes.json").read_text(encoding="utf-8"))
        self._grams: dict[int, dict[int, Hashes]] = {}
        for step, size in sizes:
            table = np.load(_gram_file(folder, step, size), mmap_mode="r")
            self._grams.setdefault(step, {})[size] = table
        self._wholes = frozenset(np.load(folder / "wholes.npy").tolist())
        self._has: Callable[[str], bool] = lru_cache(maxsize=4096)(self.has)

    def __call__(self, pair: Pair) -> bool:
        """Whether one of its sides does."""
        return self._has(pair.query) or self._has(pair.passage)

    def has(self, text: str) -> bool:
        """Whether a text does."""
        parts = units(text)
        step = gram_size(parts, 1)
        if len(parts) < SHORTEST * CHARS_PER_WORD and digest(*parts) in self._wholes:
            return True
        tables = {size: table for size, table in self._grams.get(step, {}).items() if size <= len(parts)}
        grams = grams_of_sizes(unit_hashes(parts), set(tables))
        return any(_any_in(grams[size], table) for size, table in tables.items())


def grams_of_sizes(hashes: Hashes, sizes: set[int]) -> dict[int, Hashes]:
    """`words.ngrams` for several sizes at once: one step for each length up to the longest."""
    found: dict[int, Hashes] = {}
    total = np.zeros(len(hashes), np.uint64)
    for size in range(1, max(sizes, default=0) + 1):
        count = max(0, len(hashes) - size + 1)
        total = mixed(total[:count] + hashes[size - 1 :])
        if size in sizes:
            found[size] = total
    return found


def _any_in(grams: Hashes, table: Hashes) -> bool:
    """Whether a sorted table has one of the values."""
    places = np.searchsorted(table, grams)
    places[places == len(table)] = 0
    return bool(len(table)) and bool((table[places] == grams).any())
