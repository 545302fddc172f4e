"""An index to and from files with vectors, texts and metadata (`triptych.encode.tables`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Unpack, cast

from triptych.encode.tables import json_rows, read_table, table_facts, table_kind, writing
from triptych.errors import DataError, IndexForeign, InputError
from triptych.index.documents import check_place
from triptych.index.filters import Filter
from triptych.index.index import Index, blocks_by_length
from triptych.index.layout import Layout, LayoutOptions
from triptych.index.store import EngineName, create_store
from triptych.records import Fields
from triptych.types import Head, Progress, TextEncoder, check_callable, check_heads, chunked

_PAGE = 500


def export(
    index: Index,
    target: Path | str | Callable[[Mapping[str, Any]], None],
    heads: Sequence[str] | None = None,
    *,
    filter: Mapping[str, Any] | Filter | None = None,
    half: bool = False,
    with_tokens: bool = False,
    progress: Progress | None = None,
) -> int:
    """Writes the documents of an index to a file, block by block; returns how many.

    Args:
        index: The index.
        target: A file, whose ending says which form (see `triptych.encode.tables`), or what takes JSON objects.
        heads: Vectors of these; default: none for JSON Lines, dense for .npy and .fvecs, and else all.
        filter: Only documents that fulfil this.
        half: Whether numbers are written in 16 bits.
        with_tokens: Whether there is a column with the tokens of the lexical weights; loads the index's model.
        progress: Called with ("exporting", documents, N).

    Raises:
        InputError: For a head that the index does not hold, or what the form cannot hold.
        StorageError: If it cannot be written; an old file is untouched.
    """
    check_callable(progress, "progress")
    kind = "jsonl" if callable(target) else table_kind(Path(target))
    usual: Mapping[str, tuple[Head, ...]] = {"jsonl": (), "npy": ("dense",), "fvecs": ("dense",)}
    chosen = usual.get(kind, index.heads) if heads is None else check_heads(heads, "export: heads")
    if lacking := [head for head in chosen if head not in index.heads]:
        raise InputError(
            f"export: got the heads {', '.join(lacking)}; the index has {', '.join(index.heads)}"
        )
    facts = index.info()
    widths: dict[Head, int] = {head: facts["layout"]["widths"][head] for head in chosen}
    tokens = cast(Any, index.encoder).tokenizer.pieces if with_tokens else None
    documents, total, done = index.documents(filter), index.count(filter), 0
    with ExitStack() as stack:
        if callable(target):
            write = partial(_give_rows, target)
        else:
            about = {"model": facts["model"]}
            write = stack.enter_context(writing(Path(target), widths, about, half=half, tokens=tokens))
        for page in chunked(documents, _PAGE):
            for block in blocks_by_length(page):
                ids = [document["id"] for document in block]
                texts, metadata = [each["text"] for each in block], [each["metadata"] for each in block]
                write(ids, texts, metadata, index.vectors(ids, heads=chosen) if chosen else None)
                done += len(block)
                if progress is not None:
                    progress("exporting", done, max(done, total))
    return done


def _give_rows(take: Callable[[Mapping[str, Any]], None], *block: Any) -> None:
    for row in json_rows(*block):
        take(row)


def import_table(
    index: Index,
    path: Path | str,
    *,
    fields: Fields | None = None,
    metadata: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> int:
    """Adds the documents of a Parquet or Arrow file with the vectors that it has; returns how many.

    Nothing is encoded. Documents whose ids are there already are replaced, so that an import can be done again.

    Args:
        index: The index.
        path: The file, of `export`, of ``triptych encode``, or of another program (see `triptych.columns`).
        fields: Names of the columns with id, text and title.
        metadata: Given to every document.
        progress: Called with ("import", documents, None).

    Raises:
        DataError: For a file that cannot be read, or a row that cannot be used; the blocks before it are stored.
        IndexForeign: If the file says that its vectors are of another model than the index's.
        InputError: For a document that cannot be kept.
        StorageError: If a block could not be stored.
    """
    check_callable(progress, "progress")
    path, facts = Path(path), index.info()
    _check_model(path, _facts(path)[1], facts["model"]["fingerprint"])
    done = 0
    for documents, vectors in read_table(path, fields, facts["layout"]["widths"]):
        index.add_encoded(
            [document.id for document in documents],
            [document.content for document in documents],
            vectors,
            [
                {**({"title": each.title} if each.title else {}), **each.metadata, **(metadata or {})}
                for each in documents
            ],
        )
        done += len(documents)
        if progress is not None:
            progress("import", done, None)
    return done


def create_for_table(
    place: str,
    path: Path | str,
    encoder: TextEncoder | None = None,
    *,
    engine: EngineName = "auto",
    api_key: str | None = None,
    **options: Unpack[LayoutOptions],
) -> Index:
    """Makes an empty index for the vectors of a file, and opens it.

    Args:
        place: As for `Index.create`.
        path: The file.
        encoder: The model that made the vectors; None: as the file notes.
        engine: As for `Index.create`.
        api_key: As for `Index.create`.
        **options: As for `Index.create`.

    Raises:
        InputError: If the file does not note its model, and none is given.
        IndexForeign: If it notes another one.
    """
    path = Path(path)
    heads, facts = _facts(path)
    if encoder is not None:
        _check_model(path, facts, encoder.fingerprint)
        source = str(Path(encoder.source).absolute()) if Path(encoder.source).is_dir() else encoder.source
        model, widths = (source, encoder.fingerprint), dict(encoder.widths)
    elif "model" in facts:
        model, widths = (facts["model"]["source"], facts["model"]["fingerprint"]), facts["widths"]
    else:
        raise InputError(
            f"{path}: does not say which model made its vectors; expected that model to be given"
        )
    layout = Layout.of({head: widths[head] for head in heads if head in widths}, options)
    return Index(create_store(check_place(place), engine, layout, model, api_key), encoder)


def _facts(path: Path) -> tuple[tuple[Head, ...], dict[str, Any]]:
    found = table_facts(path)
    if found is None:
        raise DataError("has no vectors; expected a Parquet or Arrow file with some (triptych.columns)", path)
    return found


def _check_model(path: Path, facts: Mapping[str, Any], fingerprint: str) -> None:
    model = facts.get("model", {"fingerprint": fingerprint})
    if model["fingerprint"] != fingerprint:
        raise IndexForeign(
            f"{path}: has vectors of the model {model.get('source')!r} (fingerprint {model['fingerprint'][:12]}…); "
            f"expected those of the index's model ({fingerprint[:12]}…)"
        )
