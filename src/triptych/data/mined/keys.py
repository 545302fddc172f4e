"""Joins of 64-bit keys that need memory for one range of keys at a time, whatever the number of keys."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.data.mined.shuffle import save
from triptych.data.mined.words import Hashes

KEYED = np.dtype([("key", "<u8"), ("id", "<u8")])
_TOP = 1 << 64


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
    save(path, table)


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


def stars(table: NDArray[np.void]) -> NDArray[np.uint64]:
    """Each owner of a key beside the first owner of that key: uint64 ``[E, 2]`` of (other, first), each once."""
    starts = _starts(table)
    counts = np.diff(np.append(starts, len(table)))
    first = np.repeat(table["id"][starts], counts)
    edges = np.stack([table["id"], first], axis=1)
    return np.unique(edges[edges[:, 0] != edges[:, 1]], axis=0)


def _starts(table: NDArray[np.void]) -> NDArray[np.int64]:
    keys = table["key"]
    return np.flatnonzero(np.concatenate([[len(keys) > 0], keys[1:] != keys[:-1]])[: len(keys)])
