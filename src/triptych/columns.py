"""An `Encoded` as columns of Arrow, in which other engines and tools take vectors.

``dense`` and ``multi`` are lists of one length (``fixed_size_list``), those of ``multi`` in a list for each text;
``lexical_indices`` and ``lexical_values`` are lists of token ids and weights. The schema's metadata has, under
``triptych``, a JSON object with the width of each head, since a list of weights does not say how large the vocabulary
is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError, require_extra
from triptych.types import HEADS, Encoded, Head, Ragged

with require_extra("vectors in Arrow or Parquet", "export"):
    import pyarrow as pa

if TYPE_CHECKING:
    from scipy import sparse

FACTS = b"triptych"
"""The key of the schema's metadata."""
COLUMNS: Mapping[Head, tuple[str, ...]] = {
    "dense": ("dense",),
    "lexical": ("lexical_indices", "lexical_values"),
    "multi": ("multi",),
}
"""The columns that a head needs."""
TOKENS = "lexical_tokens"
"""The column with the tokens that the indices stand for; it is not read."""

Fail: TypeAlias = Callable[[int, str], Exception]
"""Makes the error for a row, counted from 0, and what is wrong with it."""
_LARGEST_HALF = 65504
_LARGEST_LIST = 2**31 - 1


def to_arrow(
    encoded: Encoded, *, half: bool = False, tokens: Callable[[Sequence[int]], list[str]] | None = None
) -> Any:
    """See `Encoded.to_arrow`."""
    columns: dict[str, Any] = {}
    widths: dict[Head, int] = {}
    if encoded.dense is not None:
        widths["dense"] = encoded.dense.shape[1]
        columns["dense"] = _fixed(_numbers(encoded.dense, half, "dense"))
    if encoded.lexical is not None:
        csr = encoded.lexical.copy()
        csr.sum_duplicates()
        csr.eliminate_zeros()
        widths["lexical"] = int(cast(Any, csr.shape)[1])
        values = pa.array(_numbers(csr.data, half, "lexical"))
        columns["lexical_indices"] = _list(csr.indptr, pa.array(csr.indices.astype(np.int32)))
        columns["lexical_values"] = _list(csr.indptr, values)
        if tokens is not None:
            columns[TOKENS] = _list(csr.indptr, pa.array(tokens(csr.indices.tolist()), pa.string()))
    if encoded.multi is not None:
        widths["multi"] = encoded.multi.width
        rows = _fixed(_numbers(encoded.multi.values, half, "multi"))
        columns["multi"] = _list(encoded.multi.offsets, rows)
    return with_facts(pa.table(columns), {"widths": widths})


def from_arrow(table: Any, widths: Mapping[Head, int] | None = None, fail: Fail | None = None) -> Encoded:
    """See `Encoded.from_arrow`; `fail` makes the errors of rows."""
    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        raise InputError(f"from_arrow: got {type(table).__name__}; expected a pyarrow Table or RecordBatch")
    widths = {**facts_of(table.schema).get("widths", {}), **(widths or {})}
    heads = heads_of(table.column_names)
    if not heads:
        expected = "; ".join(" and ".join(names) for names in COLUMNS.values())
        raise InputError(
            f"from_arrow: got the columns {', '.join(table.column_names)}; expected one of {expected}"
        )
    read = _Reader(table, fail or _row_error)
    return Encoded(
        read.dense(widths.get("dense")) if "dense" in heads else None,
        read.lexical(widths.get("lexical")) if "lexical" in heads else None,
        read.multi(widths.get("multi")) if "multi" in heads else None,
    )


def heads_of(names: Sequence[str]) -> tuple[Head, ...]:
    """The heads of which all columns are among these."""
    return tuple(head for head in HEADS if set(COLUMNS[head]) <= set(names))


def vector_columns(schema: Any) -> set[str]:
    """The columns of a schema that have vectors, or tokens beside them."""
    names = [name for head in heads_of(schema.names) for name in COLUMNS[head]]
    found = {name for name in names if _is_list(schema.field(name).type)}
    return found | ({TOKENS} & set(schema.names) if found else set())


def _is_list(kind: Any) -> bool:
    types = pa.types
    return bool(types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind))


def facts_of(schema: Any) -> dict[str, Any]:
    """What a schema's metadata say of the vectors; empty if another program made them."""
    try:
        found = json.loads((schema.metadata or {}).get(FACTS, b"{}"))
    except ValueError:
        found = {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def with_facts(table: Any, facts: Mapping[str, Any]) -> Any:
    """A table whose schema says this of the vectors, too."""
    metadata = {**(table.schema.metadata or {})}
    metadata[FACTS] = json.dumps({**facts_of(table.schema), **facts}).encode()
    return table.replace_schema_metadata(metadata)


def empty(widths: Mapping[Head, int]) -> Encoded:
    """No texts, with heads of these widths."""
    from scipy import sparse

    dense, lexical, multi = (widths.get(head) for head in HEADS)
    return Encoded(
        None if dense is None else np.zeros((0, dense), np.float32),
        None if lexical is None else sparse.csr_array((0, lexical), dtype=np.float32),
        None if multi is None else Ragged.of([], multi),
    )


def _row_error(row: int, message: str) -> Exception:
    return InputError(f"from_arrow: row {row + 1}: {message}")


def _numbers(values: NDArray[Any], half: bool, head: Head) -> NDArray[Any]:
    if half and values.size and max(values.max(), -values.min()) > _LARGEST_HALF:
        raise InputError(f"to_arrow: got {head} numbers beyond ±{_LARGEST_HALF}, which 16 bits hold")
    return np.ascontiguousarray(values, np.float16 if half else np.float32)


def _fixed(values: NDArray[Any]) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _list(offsets: NDArray[Any], values: Any) -> Any:
    if len(values) > _LARGEST_LIST:
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


@dataclass(frozen=True, slots=True)
class _Lists:
    """A column of lists: their items one after the other, and where those of each row begin."""

    items: Any
    offsets: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def row(self, item: int) -> int:
        """The row of an item."""
        return int(np.searchsorted(self.offsets, item, side="right")) - 1


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the columns of a table and checks every number."""

    table: Any
    fail: Fail

    def dense(self, width: int | None) -> NDArray[np.float32]:
        name = "dense"
        lists = self._lists(name, self._column(name), lambda row: row)
        values = self._floats(name, lists.items, lists.row)
        return self._matrix(name, lists, values, width, lambda row: row)

    def lexical(self, width: int | None) -> sparse.csr_array:
        from scipy import sparse

        names = COLUMNS["lexical"]
        ids, weights = (self._lists(name, self._column(name), lambda row: row) for name in names)
        if (wrong := np.flatnonzero(ids.lengths != weights.lengths)).size:
            row = int(wrong[0])
            raise self.fail(
                row,
                f"columns {' and '.join(names)}: got {ids.lengths[row]} token ids and {weights.lengths[row]} weights; "
                "expected equally many",
            )
        if not pa.types.is_integer(ids.items.type):
            raise self._wrong_type(names[0], "whole numbers")
        self._no_null(names[0], ids.items, ids.row)
        indices = ids.items.to_numpy(zero_copy_only=False).astype(np.int64)
        values = self._floats(names[1], weights.items, weights.row)
        limit = width or int(indices.max(initial=-1)) + 1
        self._good(names[0], (indices >= 0) & (indices < limit), indices, ids, f"0 to {limit - 1}")
        self._good(names[1], values >= 0, values, weights, "weights ≥ 0")
        matrix = sparse.csr_array((values, indices, ids.offsets), shape=(len(ids.lengths), limit))
        matrix.sort_indices()
        again = np.flatnonzero(np.diff(matrix.indices) == 0) + 1
        again = again[~np.isin(again, ids.offsets)]
        if again.size:
            raise self.fail(
                ids.row(int(again[0])),
                f"column {names[0]}: got the token id {matrix.indices[again[0]]} twice; expected each once",
            )
        matrix.eliminate_zeros()
        return matrix

    def multi(self, width: int | None) -> Ragged:
        name = "multi"
        outer = self._lists(name, self._column(name), lambda row: row)
        inner = self._lists(name, outer.items, outer.row)
        values = self._floats(name, inner.items, lambda item: outer.row(inner.row(item)))
        return Ragged(self._matrix(name, inner, values, width, outer.row), outer.offsets)

    def _column(self, name: str) -> Any:
        column = self.table.column(name).combine_chunks()
        return pa.concat_arrays(column.chunks) if isinstance(column, pa.ChunkedArray) else column

    def _lists(self, name: str, array: Any, row_of: Callable[[int], int]) -> _Lists:
        kind = array.type
        fixed = pa.types.is_fixed_size_list(kind)
        if not _is_list(kind):
            raise self._wrong_type(
                name, "lists of lists of numbers" if name == "multi" else "lists of numbers"
            )
        self._no_null(name, array, row_of)
        if fixed:
            return _Lists(array.flatten(), np.arange(len(array) + 1, dtype=np.int64) * kind.list_size)
        offsets = array.offsets.to_numpy().astype(np.int64)
        return _Lists(array.flatten(), offsets - offsets[0])

    def _floats(self, name: str, items: Any, row_of: Callable[[int], int]) -> NDArray[np.float32]:
        if not (pa.types.is_floating(items.type) or pa.types.is_integer(items.type)):
            raise self._wrong_type(name, "numbers")
        self._no_null(name, items, row_of)
        found = items.to_numpy(zero_copy_only=False)
        with np.errstate(over="ignore"):
            values = found.astype(np.float32)
        if (wrong := np.flatnonzero(~np.isfinite(values))).size:
            item = int(wrong[0])
            raise self.fail(row_of(item), f"column {name}: got {found[item]}; expected finite numbers")
        return values

    def _matrix(
        self,
        name: str,
        lists: _Lists,
        values: NDArray[np.float32],
        width: int | None,
        row_of: Callable[[int], int],
    ) -> NDArray[np.float32]:
        lengths = lists.lengths
        width = width or int(lengths[0] if len(lengths) else 0)
        if (wrong := np.flatnonzero(lengths != width)).size:
            first = int(wrong[0])
            raise self.fail(
                row_of(first),
                f"column {name}: got {lengths[first]} numbers; expected {width}, as others have",
            )
        return values.reshape(len(lengths), width)

    def _no_null(self, name: str, array: Any, row_of: Callable[[int], int]) -> None:
        if array.null_count:
            first = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
            raise self.fail(row_of(first), f"column {name}: got null; expected a value")

    def _good(
        self, name: str, good: NDArray[np.bool_], values: NDArray[Any], lists: _Lists, expected: str
    ) -> None:
        if not good.all():
            first = int(np.flatnonzero(~good)[0])
            raise self.fail(lists.row(first), f"column {name}: got {values[first]}; expected {expected}")

    def _wrong_type(self, name: str, expected: str) -> Exception:
        return self.fail(
            0, f"column {name}: has the type {self.table.column(name).type}; expected {expected}"
        )
