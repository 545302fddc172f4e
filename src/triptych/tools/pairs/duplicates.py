"""Duplicates among pairs, and pairs that hold text of evaluation sets.

Keys are joined one range at a time, so that memory does not grow with their number.

A pair is an exact duplicate if both its sides have the words of an earlier pair's sides, and a near duplicate if
both sides are nearly those of an earlier pair: the same passage under another query is no duplicate. Similarity is the
Jaccard index of the sets of two words in a row, estimated by MinHash [Broder 1997]; candidates are found by
locality-sensitive hashing with `BANDS` bands of `ROWS` values of each side, and verified with all values.

A text of an evaluation set contaminates a pair if the two share `words` words in a row (in scripts without spaces,
three times as many characters). Of a shorter text all of it must be found; one of fewer than `SHORTEST` words counts
only if it is a query and one side of the pair has its words and no others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from triptych.collections.examples import QUERY
from triptych.errors import InputError, require_extra
from triptych.io import open_source, read_lines, replacing, write_json
from triptych.records import JSONL, PARQUET, ending, files_of, parse_raw, places_of
from triptych.text import (
    CHARS_PER_WORD,
    Hashes,
    digest,
    fold,
    gram_size,
    mixed,
    ngrams,
    ngrams_of_sizes,
    unit_hashes,
    units,
)
from triptych.tools.pairs.base import WeakPair

KEYED = np.dtype([("key", "<u8"), ("id", "<u8")])
_TOP = 1 << 64


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, atomically.

    Raises:
        StorageError: If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_keys(path: Path, keys: Hashes, ids: Hashes) -> None:
    """Writes keys with their owners, sorted by key and owner.

    Args:
        path: A .npy file.
        keys: uint64 ``[N]``.
        ids: uint64 ``[N]``; who has the key.
    """
    table = np.empty(len(keys), KEYED)
    order = np.lexsort((ids, keys))
    table["key"], table["id"] = keys[order], ids[order]
    write_array(path, table)


def key_range(paths: Iterable[Path], number: int, ranges: int) -> NDArray[np.void]:
    """All entries of the files whose key lies in one of `ranges` equal parts of the numbers below 2^64.

    Returns:
        A table `KEYED`, sorted by key and owner.
    """
    first, last = _TOP * number // ranges, _TOP * (number + 1) // ranges - 1
    parts = [np.empty(0, KEYED)]
    for path in paths:
        table = np.load(path, mmap_mode="r")
        start = int(np.searchsorted(table["key"], np.uint64(first), "left"))
        stop = int(np.searchsorted(table["key"], np.uint64(last), "right"))
        parts.append(np.array(table[start:stop]))
    whole = np.concatenate(parts)
    return whole[np.lexsort((whole["id"], whole["key"]))]


def frequent(table: NDArray[np.void], least: int) -> Hashes:
    """The keys that come at least so often: sorted uint64."""
    starts = _starts(table)
    counts = np.diff(np.append(starts, len(table)))
    return table["key"][starts][counts >= least]


def later_owners(table: NDArray[np.void]) -> NDArray[np.uint64]:
    """Every later owner of a key with the first owner of that key: uint64 ``[E, 2]`` of (later, first), each once."""
    starts = _starts(table)
    counts = np.diff(np.append(starts, len(table)))
    first = np.repeat(table["id"][starts], counts)
    edges = np.stack([table["id"], first], axis=1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def _starts(table: NDArray[np.void]) -> NDArray[np.int64]:
    keys = table["key"]
    return np.flatnonzero(np.concatenate([[len(keys) > 0], keys[1:] != keys[:-1]])[: len(keys)])


BANDS, ROWS = 20, 3
VALUES = BANDS * ROWS
"""MinHash values of each side."""
_SEED = 20
_ROW_BITS = 32  # an id is the number of the part and the row in it
_FALSE = 1 / 256  # how often two different values agree in the byte that is kept of them


def pair_ids(part: int, count: int) -> Hashes:
    """Numbers of the pairs of a part, uint64, in order over all parts."""
    return (np.uint64(part) << np.uint64(_ROW_BITS)) + np.arange(count, dtype=np.uint64)


def shingles(text: str) -> Hashes:
    """Hashes of two units in a row, the borders of the text counting as units; each once."""
    hashes = unit_hashes(units(text))
    framed = np.concatenate([np.zeros(1, np.uint64), hashes, np.ones(1, np.uint64)])
    return np.unique(ngrams(framed, 2))


def signatures(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash values of texts: uint32 ``[N, VALUES]``.

    Raises:
        MissingExtra: If rensa is not installed.
    """
    with require_extra("finding near duplicates", "tools"):
        import rensa
    known: dict[str, int] = {}
    for text in texts:
        known.setdefault(text, len(known))
    sets = [shingles(text) for text in known]
    offsets = np.concatenate([[0], np.cumsum([len(hashes) for hashes in sets])]).astype(np.uint64)
    flat = np.concatenate([np.zeros(0, np.uint64), *sets])
    minhash: Any = rensa
    matrix: Any = minhash.RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, VALUES, _SEED)
    rows = np.array(matrix.to_rows(), np.uint32).reshape(-1, VALUES)
    return rows[[known[text] for text in texts]]


def write_signs(folder: Path, part: int, pairs: Sequence[WeakPair], *, near: bool) -> None:
    """Writes what the duplicates of a part's pairs are found by."""
    ids = pair_ids(part, len(pairs))
    exact = np.array([digest(fold(pair.query), fold(pair.passage)) for pair in pairs], np.uint64)
    if near:
        query, passage = signatures([p.query for p in pairs]), signatures([p.passage for p in pairs])
        both = np.concatenate([query, passage], axis=1).astype(np.uint8)
        write_array(sign_file(folder, part), both)
        keys = np.concatenate([_band_keys(query, passage, band) for band in range(BANDS)])
        write_keys(near_file(folder, part), keys, np.tile(ids, BANDS))
    write_keys(exact_file(folder, part), exact, ids)


def exact_file(folder: Path, part: int) -> Path:
    """Keys for exact duplicates of a part."""
    return folder / f"exact-{part:05}.npy"


def near_file(folder: Path, part: int) -> Path:
    """Keys for candidates of near duplicates of a part."""
    return folder / f"near-{part:05}.npy"


def sign_file(folder: Path, part: int) -> Path:
    """The lowest byte of all MinHash values of a part's pairs: uint8 ``[N, 2 · VALUES]``."""
    return folder / f"signs-{part:05}.npy"


def near_duplicates(
    folder: Path, parts: int, number: int, ranges: int, threshold: float
) -> NDArray[np.uint64]:
    """(pair, earlier pair) for the near duplicates in a range of keys: uint64 ``[E, 2]``.

    Args:
        folder: Where `write_signs` wrote.
        parts: How many parts there are.
        number: Which range of the keys.
        ranges: How many ranges there are.
        threshold: Least estimated Jaccard index, of the queries and of the passages.
    """
    edges = later_owners(key_range((near_file(folder, part) for part in range(parts)), number, ranges))
    if not len(edges):
        return edges
    like = _rows(folder, edges[:, 0]) == _rows(folder, edges[:, 1])
    likeness = like.reshape(len(edges), 2, VALUES).mean(axis=2)
    jaccard = (likeness - _FALSE) / (1 - _FALSE)
    return edges[(jaccard >= threshold).all(axis=1)]


def _rows(folder: Path, ids: Hashes) -> NDArray[np.uint8]:
    """The signs of pairs, in their order, of whichever parts."""
    part_of, row_of = ids >> np.uint64(_ROW_BITS), ids & np.uint64((1 << _ROW_BITS) - 1)
    found = np.empty((len(ids), 2 * VALUES), np.uint8)
    for part in np.unique(part_of).tolist():
        here = part_of == part
        found[here] = np.load(sign_file(folder, part), mmap_mode="r")[row_of[here]]
    return found


def _band_keys(query: NDArray[np.uint32], passage: NDArray[np.uint32], band: int) -> Hashes:
    """One key a pair: the same where a band agrees on both sides."""
    rows = slice(band * ROWS, (band + 1) * ROWS)
    key = np.full(len(query), band, np.uint64)
    for values in (*query[:, rows].T, *passage[:, rows].T):
        key = mixed(key + values)
    return key


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
                    yield from _texts(parse_raw(raw, place))


def _texts(record: Any) -> Iterator[EvaluationText]:
    """By a list, as records are nested deeper than Python's stack."""
    stack: list[tuple[Any, bool]] = [(record, False)]
    while stack:
        value, is_query = stack.pop()
        if isinstance(value, str):
            yield EvaluationText(value, is_query)
        elif isinstance(value, list):
            stack.extend((each, is_query) for each in reversed(cast("list[Any]", value)))
        elif isinstance(value, dict):
            fields = reversed(cast("dict[str, Any]", value).items())
            stack.extend(
                (each, is_query or name in _QUERIES) for name, each in fields if name not in _NO_TEXTS
            )


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
            found.setdefault((step, size), []).append(ngrams(unit_hashes(parts), size))
        elif parts and is_query:
            wholes.add(digest(*parts))
    for key, grams in found.items():
        write_array(_gram_file(folder, *key), np.unique(np.concatenate(grams)))
    write_array(folder / "wholes.npy", np.array(sorted(wholes), np.uint64))
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

    def __call__(self, pair: WeakPair) -> bool:
        """Whether one of its sides does."""
        return self._has(pair.query) or self._has(pair.passage)

    def has(self, text: str) -> bool:
        """Whether a text does."""
        parts = units(text)
        step = gram_size(parts, 1)
        if len(parts) < SHORTEST * CHARS_PER_WORD and digest(*parts) in self._wholes:
            return True
        tables = {size: table for size, table in self._grams.get(step, {}).items() if size <= len(parts)}
        grams = ngrams_of_sizes(unit_hashes(parts), set(tables))
        return any(_any_in(grams[size], table) for size, table in tables.items())


def _any_in(grams: Hashes, table: Hashes) -> bool:
    """Whether a sorted table has one of the values."""
    places = np.searchsorted(table, grams)
    places[places == len(table)] = 0
    return bool(len(table)) and bool((table[places] == grams).any())
