"""Exact and near duplicates among pairs.

A pair is an exact duplicate if both its sides have the words of an earlier pair's sides, and a near duplicate if
both sides are nearly those of an earlier pair: the same passage under another query is no duplicate. Likeness is the
Jaccard index of the sets of two words in a row, estimated by MinHash [Broder 1997]; candidates are found by
locality-sensitive hashing with `BANDS` bands of `ROWS` values of each side, and verified with all values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.data.mined.keys import key_range, stars, write_keys
from triptych.data.mined.pairs import Pair
from triptych.data.mined.shuffle import save
from triptych.data.mined.words import Hashes, digest, fold, mixed, ngrams, unit_hashes, units
from triptych.errors import MissingExtra

BANDS, ROWS = 20, 3
VALUES = BANDS * ROWS
"""MinHash values of each side."""
_SEED = 20
_ROW_BITS = 32  # an id is the number of the part and the row in it
_FALSE = 1 / 256  # how often two different values agree in the byte that is kept of them


def pair_ids(part: int, count: int) -> Hashes:
    """Numbers of the pairs of a part, uint64, in order over all parts."""
    return (np.uint64(part) << np.uint64(_ROW_BITS)) + np.arange(count, dtype=np.uint64)


def exact_key(pair: Pair) -> int:
    """The same for pairs with the same words on both sides."""
    return digest(fold(pair.query), fold(pair.passage))


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
    try:
        import rensa
    except ImportError as error:
        raise MissingExtra("finding near duplicates", "data") from error
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


def write_signs(folder: Path, part: int, pairs: Sequence[Pair], *, near: bool) -> None:
    """Writes what the duplicates of a part's pairs are found by."""
    ids = pair_ids(part, len(pairs))
    exact = np.fromiter(map(exact_key, pairs), np.uint64, len(pairs))
    if near:
        query, passage = signatures([p.query for p in pairs]), signatures([p.passage for p in pairs])
        both = np.concatenate([query, passage], axis=1).astype(np.uint8)
        save(sign_file(folder, part), both)
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


def exact_duplicates(paths: Iterable[Path], number: int, ranges: int) -> NDArray[np.uint64]:
    """(pair, earlier pair) for the exact duplicates in a range of keys: uint64 ``[E, 2]``."""
    return stars(key_range(paths, number, ranges))


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
    edges = stars(key_range((near_file(folder, part) for part in range(parts)), number, ranges))
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
