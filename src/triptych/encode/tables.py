"""Vectors with their texts in files that other engines and tools read: Parquet, Arrow, NumPy, .fvecs, JSON Lines.

All are written block by block, and appear under their names when they are whole. Parquet and Arrow, whose columns
`triptych.columns` describes, can be read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from triptych.errors import DataError, InputError
from triptych.io import json_lines, replacing, write_json
from triptych.records import JSONL, PARQUET, Document, Fields, Place, ending, parse_object, to_document
from triptych.scores.packing import pack
from triptych.types import HEADS, Encoded, Head

Kind: TypeAlias = Literal["parquet", "arrow", "npz", "npy", "fvecs", "jsonl"]
_ENDINGS: Mapping[str, Kind] = {
    **dict.fromkeys(PARQUET, "parquet"),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), "arrow"),
    ".npz": "npz",
    ".npy": "npy",
    ".fvecs": "fvecs",
    **dict.fromkeys(JSONL, "jsonl"),
}
TABLES = tuple(name for name, kind in _ENDINGS.items() if kind != "jsonl")
"""Endings of files with vectors."""
IDS = ".ids.json"
"""What follows the name of a file of vectors alone: the file beside it with the ids, a list in the same order."""
_ROWS = 256
"""Rows that are read at once."""

Write: TypeAlias = Callable[
    [Sequence[str], Sequence[str] | None, Sequence[Mapping[str, Any]] | None, Encoded | None], None
]
"""Writes a block: ids, texts, metadata and vectors, of which all blocks have the same ones."""


def table_kind(path: Path) -> Kind:
    """Which form the name of a file asks for.

    Raises:
        InputError: If it is none of them.
    """
    kind = _ENDINGS.get(ending(path))
    if kind is None:
        raise InputError(f"{path}: ends in none of {' '.join(_ENDINGS)}; expected one of them")
    return kind


@contextmanager
def writing(
    path: Path,
    widths: Mapping[Head, int],
    facts: Mapping[str, Any] | None = None,
    *,
    half: bool = False,
    tokens: Callable[[Sequence[int]], list[str]] | None = None,
    with_text: bool = True,
) -> Generator[Write]:
    """Gives a function that writes a block; the file appears when all are written.

    Args:
        path: Its ending says which form.
        widths: The heads that are written, and their columns.
        facts: What Parquet and Arrow note of the vectors, such as their model.
        half: Whether numbers are written in 16 bits.
        tokens: Gives the tokens of token ids, for a column of Parquet and Arrow.
        with_text: Whether Parquet and Arrow have columns for texts and metadata.

    Raises:
        InputError: For what the form cannot hold.
        StorageError: If it cannot be written; an old file is untouched, as it is by any error in between.
    """
    kind = table_kind(path)
    if kind in ("npy", "fvecs") and set(widths) != {"dense"}:
        raise InputError(
            f"{path}: got the heads {', '.join(widths)}; expected dense, which {ending(path)} holds alone"
        )
    if half and kind in ("fvecs", "jsonl"):
        raise InputError(
            f"{path}: {ending(path)} has no numbers of 16 bits; expected another form, or whole precision"
        )
    if tokens is not None and kind not in ("parquet", "arrow"):
        raise InputError(f"{path}: {ending(path)} has no column for tokens; expected Parquet or Arrow")
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "jsonl":
        with json_lines(path) as write_line:

            def write(*block: Any) -> None:
                for row in json_rows(*block):
                    write_line(row)

            yield write
    elif kind in ("parquet", "arrow"):
        note = {"widths": dict(widths), **(facts or {})}
        yield from _columns(path, widths, note, half=half, tokens=tokens, with_text=with_text)
    elif kind == "npz":
        yield from _npz(path, widths, half=half)
    else:
        yield from _rows_of_numbers(path, widths["dense"], half=half)


def _columns(
    path: Path,
    widths: Mapping[Head, int],
    note: Mapping[str, Any],
    *,
    half: bool,
    tokens: Callable[[Sequence[int]], list[str]] | None,
    with_text: bool,
) -> Generator[Write]:
    """A table of Arrow, a batch or a row group for each block."""
    import pyarrow.parquet as pq

    from triptych.columns import empty, pa, to_arrow, with_facts  # first: it says which extra is missing

    def table(ids: Any, texts: Any, metadata: Any, vectors: Encoded | None) -> Any:
        found = pa.table({"id": pa.array(ids, pa.string())})
        if with_text:
            objects = [json.dumps(each, ensure_ascii=False) for each in metadata or [{}] * len(ids)]
            found = found.append_column("text", pa.array(texts, pa.string()))
            found = found.append_column("metadata", pa.array(objects, pa.string()))
        columns = to_arrow(vectors or empty(widths), half=half, tokens=tokens)
        for name in columns.column_names:
            found = found.append_column(columns.schema.field(name), columns.column(name))
        return with_facts(found, note)

    schema = table([], [], [], None).schema
    with (
        replacing(path) as temporary,
        pa.OSFile(str(temporary), "wb") as file,
        # Numbers of vectors hardly ever repeat: a dictionary of them would cost time and room.
        pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False)
        if table_kind(path) == "parquet"
        else pa.ipc.new_file(file, schema) as writer,
    ):

        def write(*block: Any) -> None:
            writer.write_table(table(*block))

        yield write


def _npz(path: Path, widths: Mapping[Head, int], *, half: bool) -> Generator[Write]:
    """The arrays of `triptych.scores.packing` and the ids in one archive, which is made in memory."""
    from triptych.columns import empty, from_arrow, to_arrow

    names: list[str] = []
    blocks = [empty(widths)]

    def write(ids: Sequence[str], texts: object, metadata: object, vectors: Encoded | None) -> None:
        names.extend(ids)
        blocks.append(cast(Encoded, vectors))

    yield write
    if bad := [name for name in names if name.endswith("\0")]:
        raise InputError(f"{path}: got the id {bad[0]!r}; expected none that ends in NUL, which NumPy drops")
    table = to_arrow(Encoded.concat(blocks), half=half)  # with its checks, and rows in order
    arrays = pack(from_arrow(table))
    if half:
        arrays |= {name: each.astype(np.float16) for name, each in arrays.items() if each.dtype == np.float32}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, ids=np.asarray(names, dtype=np.str_), **cast("dict[str, Any]", arrays))


def _rows_of_numbers(path: Path, width: int, *, half: bool) -> Generator[Write]:
    """Dense vectors one after the other, and their ids beside them."""
    names: list[str] = []
    is_npy = table_kind(path) == "npy"
    kind = np.dtype(np.float16 if half else np.float32)
    with replacing(path) as temporary, temporary.open("wb") as file:

        def begin() -> None:
            file.seek(0)
            if is_npy:  # the header leaves room for a larger number of rows
                header: Any = {"descr": kind.str, "fortran_order": False, "shape": (len(names), width)}
                np.lib.format.write_array_header_1_0(cast(Any, file), header)

        def write(ids: Sequence[str], texts: object, metadata: object, vectors: Encoded | None) -> None:
            names.extend(ids)
            rows = np.asarray(cast(Encoded, vectors).dense, kind)
            if not is_npy:  # each vector has its length before it
                lengths = np.full((len(rows), 1), width, np.int32).view(np.float32)
                rows = np.concatenate([lengths, rows], axis=1)
            file.write(rows.tobytes())

        begin()
        yield write
        begin()
        write_json(path.with_name(path.name + IDS), names)


def json_rows(
    ids: Sequence[str],
    texts: Sequence[str] | None,
    metadata: Sequence[Mapping[str, Any]] | None,
    vectors: Encoded | None,
    digits: int = 9,
) -> Iterator[dict[str, Any]]:
    """Documents with their vectors as JSON objects: dense, lexical (token id to weight) and multi.

    Args:
        ids: N ids.
        texts: N texts, or none.
        metadata: N objects, or none.
        vectors: Of N texts, or none.
        digits: Of the numbers; 9 are all that a float32 holds.
    """

    def plain(values: Any) -> list[float]:
        return [float(f"{value:.{digits}g}") for value in values.tolist()]

    for i, name in enumerate(ids):
        row: dict[str, Any] = {"id": name}
        if texts is not None:
            row["text"] = texts[i]
        if metadata is not None:
            row["metadata"] = metadata[i]
        if vectors is not None and vectors.dense is not None:
            row["dense"] = plain(vectors.dense[i])
        if vectors is not None and vectors.lexical is not None:
            start, end = vectors.lexical.indptr[i : i + 2]
            tokens = map(str, vectors.lexical.indices[start:end])
            row["lexical"] = dict(zip(tokens, plain(vectors.lexical.data[start:end]), strict=True))
        if vectors is not None and vectors.multi is not None:
            row["multi"] = [plain(each) for each in vectors.multi[i]]
        yield row


def table_facts(path: Path) -> tuple[tuple[Head, ...], dict[str, Any]] | None:
    """The heads of which a Parquet or Arrow file has vectors, and what it notes of them; None: it has none.

    Raises:
        DataError: If it cannot be read as what its name says.
    """
    if _ENDINGS.get(ending(path)) not in ("parquet", "arrow") or not path.is_file():
        return None
    from triptych.columns import facts_of, heads_of, vector_columns

    with _opened(path) as (schema, _):
        heads = heads_of(sorted(vector_columns(schema)))
        return (heads, facts_of(schema)) if heads else None


def read_table(
    path: Path, fields: Fields | None = None, widths: Mapping[Head, int] | None = None
) -> Iterator[tuple[list[Document], Encoded]]:
    """Documents with their vectors from a Parquet or Arrow file, in blocks.

    The text and the id are columns with one of the usual names; a column ``metadata`` of JSON objects, and all others,
    are metadata.

    Args:
        path: The file.
        fields: Names of the columns.
        widths: Columns of each head; default: as the file notes.

    Raises:
        DataError: For missing columns, and for a row that cannot be used, with its number and the column.
    """
    from triptych.columns import COLUMNS, facts_of, from_arrow, vector_columns

    done = 0
    with _opened(path) as (schema, batches):
        noted = {**facts_of(schema).get("widths", {}), **(widths or {})}
        lacking = [name for head in widths or () for name in COLUMNS[head] if name not in schema.names]
        if lacking:
            raise DataError(
                f"has no column {' and '.join(lacking)}; it has {', '.join(schema.names)}. Expected the vectors of all "
                f"heads that the index holds ({', '.join(widths or ())})",
                path,
            )
        used = vector_columns(schema)
        for batch in batches:

            def fail(row: int, message: str, first: int = done) -> Exception:
                return Place(path.as_posix(), record=first + row + 1).error(message)

            vectors = from_arrow(batch, {head: noted[head] for head in HEADS if head in noted}, fail)
            plain = batch.select([name for name in schema.names if name not in used])
            documents: list[Document] = []
            for row in cast("list[dict[str, Any]]", plain.to_pylist()):
                done += 1
                place = Place(path.as_posix(), record=done)
                if isinstance(row.get("metadata"), str):
                    row["metadata"] = parse_object(row["metadata"], place)
                documents.append(to_document(row, fields or Fields(), place))
            yield documents, vectors


@contextmanager
def _opened(path: Path) -> Generator[tuple[Any, Iterator[Any]]]:
    """The schema of a file, and its rows in batches."""
    import pyarrow.parquet as pq

    from triptych.columns import pa  # first: it says which extra is missing

    try:
        with pa.memory_map(str(path)) as source:
            if table_kind(path) == "parquet":
                with pq.ParquetFile(source) as file:
                    yield file.schema_arrow, file.iter_batches(_ROWS)
            else:
                arrow = pa.ipc.open_file(source)
                cut = (
                    batch.slice(start, _ROWS)
                    for batch in map(arrow.get_batch, range(arrow.num_record_batches))
                    for start in range(0, batch.num_rows, _ROWS)
                )
                yield arrow.schema, cut
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"cannot be read as {table_kind(path)}: {error}", path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
