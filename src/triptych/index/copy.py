"""An index from one place to another, whatever the engines, without encoding anything again.

Everything goes through `Engine`: payloads with their origins and the vectors as they are stored. What the target has
already is compared by a digest and left, so that a copy that was interrupted goes on; in the end the whole target is
read back.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from triptych.errors import IndexFault, IndexForeign, IndexLocked, IndexMissing, InputError, show
from triptych.index.documents import Payload, check_place
from triptych.index.engine import Engine
from triptych.index.index import blocks_by_length
from triptych.index.layout import Layout
from triptych.index.store import EngineName, Store, create_store, open_store
from triptych.types import Encoded, Progress, check_callable, chunked

_PAGE = 500
"""Documents whose payloads are read at once."""
_SEARCH_ONLY = ("coarse", "exact_below", "ef")
"""Fields of a layout that say how is searched, not what is stored."""
_COMPARED = {
    "float16": np.float16,
    **dict.fromkeys(("float32", "4bit", "2bit", "1bit", "binary"), np.float32),
}
"""Forms of vectors that stay the same when they are stored again, unless they are kept in fewer numbers; of others the
number of vectors is compared."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did.

    Attributes:
        place: The target.
        documents: Documents in it.
        copied: Those that were written.
        unchanged: Those that were there already.
        removed: Those that were removed, as the source does not have them.
        digest: Of all payloads and vectors in the target as they were read back, the same for every engine.
    """

    place: str
    documents: int
    copied: int
    unchanged: int
    removed: int
    digest: str


def copy(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    engine: EngineName = "auto",
    replace: bool = False,
    source_key: str | None = None,
    target_key: str | None = None,
    progress: Progress | None = None,
) -> CopyReport:
    """Copies an index: documents, vectors, metadata, origins, weights, and which model it is of.

    Documents go over in blocks; each is stored when the next is read. The same call again goes on after an
    interruption.

    Args:
        source: Folder or address of the index.
        target: A new place, or what an earlier copy of the same index left.
        engine: The target's, as for `Index.create`.
        replace: Whether documents of the target that differ are replaced, and those that the source does not have
            removed; without it they are an error.
        source_key: For the source's server; default: the environment variable TRIPTYCH_API_KEY.
        target_key: For the target's.
        progress: Called with ("copy", documents, N), then ("verify", documents, N).

    Raises:
        IndexMissing: If there is no index at the source.
        IndexForeign: If the target is an index of another model.
        InputError: If it has another layout, or holds documents of another content.
        IndexFault: If what was read back in the end is not what the source has.
        StorageError: If a block could not be stored; those before it are.
    """
    check_callable(progress, "progress")
    places = check_place(source), check_place(target)
    if len({os.path.realpath(place) for place in places}) == 1:
        raise InputError(f"copy: got {places[0]} twice; expected another place to copy to")
    with (
        closing(_open(places[0], source_key)) as given,
        closing(_open_target(places[1], given, engine, target_key)) as made,
    ):
        removed = _remove_others(given.engine, made, replace=replace)
        copied, expected = 0, 0
        total, done = given.engine.count(), 0
        for payloads, vectors in _blocks_of(given.engine):
            _report(progress, "copy", done, total)
            digests = _digests(payloads, vectors, given.engine.layout)
            rows = _missing(payloads, digests, made, replace=replace)
            if rows:
                with made.changing() as to:
                    to.add(vectors[rows], [payloads[row] for row in rows])
            done, copied = done + len(payloads), copied + len(rows)
            expected += sum(digests)
        _report(progress, "copy", done, done)
        if made.manifest.weights != given.manifest.weights:
            made.set_weights(given.manifest.weights)
        made.engine.flush()
        found = _verify(made, done, progress)
        if found != (done, _hex(expected)):
            raise IndexFault(
                f"{made.place}: got {found[0]} documents with the digest {found[1]}; expected {done} with "
                f"{_hex(expected)}, as {given.place} has. Was one of them changed meanwhile? The same copy again "
                "compares every document"
            )
        return CopyReport(made.place, done, copied, done - copied, removed, found[1])


def _blocks_of(
    engine: Engine,
) -> Iterator[tuple[Sequence[Payload], Encoded]]:
    """All documents of an engine with what is stored of them, in blocks that fit in memory."""
    for page in chunked(engine.ids(), _PAGE):
        found = [payload for payload in engine.fetch([engine.key(name) for name in page]) if payload]
        for block in blocks_by_length(found):
            keys = [engine.key(payload["id"]) for payload in block]
            yield block, engine.vectors(keys, engine.layout.heads)


def _open(place: str, key: str | None) -> Store:
    try:
        return open_store(place, key)
    except IndexLocked:  # it is read alone
        return open_store(place, key, read_only=True)


def _open_target(place: str, source: Store, engine: EngineName, key: str | None) -> Store:
    wanted = source.manifest
    try:
        found = open_store(place, key)
    except IndexMissing:
        return create_store(place, engine, wanted.layout, (wanted.source, wanted.fingerprint), key)
    try:
        _check_same(found, source)
    except BaseException:
        found.close()
        raise
    return found


def _check_same(found: Store, source: Store) -> None:
    """Whether what is at the target holds the same vectors in the same form."""
    there, wanted = found.manifest, source.manifest
    if there.fingerprint != wanted.fingerprint:
        raise IndexForeign(
            f"{found.place}: holds vectors of the model {there.source!r}; expected none yet, or those of "
            f"{wanted.source!r}, as {source.place} has"
        )
    layout, expected = there.layout.to_json(), wanted.layout.to_json()
    for name in sorted({*layout, *expected} - set(_SEARCH_ONLY)):
        if (one := layout.get(name)) != (other := expected.get(name)):
            raise InputError(
                f"{found.place}: has the layout {name}={show(one)}; expected {show(other)}, as {source.place} has, or "
                "a new place"
            )


def _remove_others(source: Engine, made: Store, *, replace: bool) -> int:
    """Removes the documents of the target that the source does not have; returns how many there were."""
    others: list[str] = []
    for page in chunked(made.engine.ids(), _PAGE):
        found = source.fetch([source.key(name) for name in page])
        others += [name for name, payload in zip(page, found, strict=True) if payload is None]
    if others and not replace:
        raise InputError(
            f"{made.place}: has {len(others)} documents that the source does not have, such as {others[0]!r}; expected "
            "a new place, or what an earlier copy left (with replace they are removed)"
        )
    if others:
        with made.changing() as engine:
            engine.delete([engine.key(name) for name in others])
    return len(others)


def _missing(payloads: Sequence[Payload], digests: Sequence[int], made: Store, *, replace: bool) -> list[int]:
    """Which documents of a block are to be written: those that are not there, and those that differ."""
    engine = made.engine
    found = engine.fetch([engine.key(payload["id"]) for payload in payloads])
    there = [row for row, payload in enumerate(found) if payload]
    if not there:
        return list(range(len(payloads)))
    old = [payload for payload in found if payload]
    vectors = engine.vectors([engine.key(payload["id"]) for payload in old], engine.layout.heads)
    before = dict(zip(there, _digests(old, vectors, engine.layout), strict=True))
    differ = [row for row in there if before[row] != digests[row]]
    if differ and not replace:
        raise InputError(
            f"{made.place}: has another document {payloads[differ[0]]['id']!r} than the source; expected a new place, "
            "or what an earlier copy left (with replace it is written anew)"
        )
    return [row for row in range(len(payloads)) if before.get(row) != digests[row]]


def _verify(made: Store, total: int, progress: Progress | None) -> tuple[int, str]:
    """Reads back everything: the number of documents, and the digest."""
    done, found = 0, 0
    for payloads, vectors in _blocks_of(made.engine):
        _report(progress, "verify", done, total)
        found += sum(_digests(payloads, vectors, made.engine.layout))
        done += len(payloads)
    _report(progress, "verify", done, total)
    return done, _hex(found)


def _digests(payloads: Sequence[Payload], vectors: Encoded, layout: Layout) -> list[int]:
    """A digest of each document with its vectors; that of several, in whatever order, is their sum."""
    digests: list[int] = []
    is_exact = layout.multi in _COMPARED and not layout.to_json().get("multi_width")
    dense, lexical, multi = vectors.dense, vectors.lexical, vectors.multi
    if lexical is not None:
        lexical = lexical.copy()
        lexical.sum_duplicates()
        lexical.eliminate_zeros()
    for i, payload in enumerate(payloads):
        text = json.dumps(_plain(payload), sort_keys=True).encode("utf-8", "surrogatepass")
        found = hashlib.blake2b(text, digest_size=16)
        if dense is not None:
            found.update(dense[i].astype(_COMPARED[layout.dense]).tobytes())
        if lexical is not None:
            start, stop = lexical.indptr[i : i + 2]
            found.update(lexical.indices[start:stop].astype(np.int64))
            found.update(lexical.data[start:stop].astype(np.float32))
        if multi is not None:
            found.update(str(len(multi[i])).encode())
            if is_exact:
                found.update(multi[i].astype(_COMPARED[layout.multi]).tobytes())
        digests.append(int.from_bytes(found.digest()))
    return digests


def _plain(value: object) -> Any:
    """A JSON value with whole numbers as integers: some stores do not tell 1.0 from 1."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in cast("list[Any]", value)]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _hex(total: int) -> str:
    return f"{total % 2**128:032x}"


def _report(progress: Progress | None, stage: str, done: int, total: int) -> None:
    if progress is not None:
        progress(stage, done, total)
