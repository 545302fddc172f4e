"""The files of the exact engine: one numbered safetensors file for every step that changed something.

A segment holds the documents of one `add`, or the ids of one `delete`; the state of the index is what comes out
when they are read in order. A *base* segment stands for all before it. Files appear whole or not at all, and
are never changed, so that a process may end at any moment.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from triptych.errors import IndexCorrupt
from triptych.index.layout import Layout, Payload
from triptych.index.storage import write_file
from triptych.index.tokens import Tokens
from triptych.types import Floats

_NAME = re.compile(r"(\d{8})\.safetensors")


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents with their representations, row by row.

    Attributes:
        payloads: N payloads.
        dense: float32 or float16 ``[N, D]``.
        lexical: CSR float32 ``[N, V]``, if the index has that head.
        tokens: The token vectors of N documents, if the index has that head.
    """

    payloads: Sequence[Payload]
    dense: NDArray[Any]
    lexical: sparse.csr_array | None
    tokens: Tokens | None

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The documents of these numbers, in that order."""
        return Rows(
            [self.payloads[i] for i in rows],
            self.dense[rows],
            None if self.lexical is None else cast(sparse.csr_array, self.lexical[rows]),
            None if self.tokens is None else self.tokens.take(rows),
        )

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Joins parts of the same layout."""
        lexical = [part.lexical for part in parts if part.lexical is not None]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        return cls(
            [payload for part in parts for payload in part.payloads],
            np.concatenate([part.dense for part in parts]),
            sparse.csr_array(sparse.vstack(lexical, format="csr")) if lexical else None,
            Tokens.concat(tokens) if tokens else None,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """One step: documents that were added, or ids that were deleted."""

    rows: Rows | None
    deleted: Sequence[str] = ()


class SegmentFolder:
    """Writes and reads the segments of one index."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._next = 1

    def load(self) -> list[Segment]:
        """All segments that count, in order; removes what a killed process left over.

        Raises:
            IndexCorrupt: If a segment is missing or damaged.
        """
        for part in self._folder.glob("*.part"):
            part.unlink()
        numbers = self._numbers()
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            gap = next(a + 1 for a, b in pairwise(numbers) if b != a + 1)
            raise IndexCorrupt(f"{self._path(gap)}: is missing; restore it from a copy")
        segments: list[Segment] = []
        first = max((n for n in numbers if self._is_base(n)), default=None)
        if numbers and first is None and numbers[0] != 1:
            raise IndexCorrupt(f"{self._path(1)}: is missing; restore it from a copy")
        for number in numbers:
            if first is not None and number < first:
                self._path(number).unlink()
            else:
                segments.append(self._read(number))
        self._next = numbers[-1] + 1 if numbers else 1
        return segments

    def append(self, segment: Segment) -> None:
        """Makes one step durable.

        Raises:
            StorageError: If it could not be written; the step did not happen then.
        """
        self._write(self._next, segment, base=False)
        self._next += 1

    def replace_all(self, rows: Rows | None) -> None:
        """Writes a base segment with `rows` and removes all before it."""
        number = self._next
        self._write(number, Segment(rows), base=True)
        self._next += 1
        for old in self._numbers():
            if old < number:
                with contextlib.suppress(OSError):  # the next `load` tries again
                    self._path(old).unlink()

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.safetensors"

    def _write(self, number: int, segment: Segment, *, base: bool) -> None:
        arrays = {"deleted": _text(list(segment.deleted))}
        if segment.rows is not None:
            arrays |= _to_arrays(segment.rows)
        notes = {"base": str(int(base)), "crc": str(_checksum(arrays))}
        write_file(self._path(number), lambda file: file.write(save(arrays, metadata=notes)))

    def _is_base(self, number: int) -> bool:
        try:
            with safe_open(self._path(number), framework="np") as file:
                return file.metadata()["base"] == "1"
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise _corrupt(self._path(number), error) from error

    def _read(self, number: int) -> Segment:
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: cast(NDArray[Any], file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                expected = int(file.metadata()["crc"])
            good = _checksum(arrays) == expected
            rows = _from_arrays(arrays, self._layout) if good and "payloads" in arrays else None
            deleted = json.loads(arrays["deleted"].tobytes()) if good else []
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _corrupt(path, error) from error
        if not good:
            raise _corrupt(path, ValueError("its checksum differs"))
        return Segment(rows, deleted)


def _corrupt(path: Path, error: Exception) -> IndexCorrupt:
    return IndexCorrupt(f"{path}: is damaged ({error}); restore it from a copy, or build the index again")


def _text(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(
            np.ascontiguousarray(arrays[name]).data.cast("B") if arrays[name].size else b"", total
        )
    return total


def _to_arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"payloads": _text(rows.payloads), "dense": rows.dense}
    if rows.lexical is not None:
        arrays |= {f"lexical.{name}": getattr(rows.lexical, name) for name in ("data", "indices", "indptr")}
    if rows.tokens is not None:
        arrays |= {"multi.codes": rows.tokens.codes, "multi.offsets": rows.tokens.offsets}
        if rows.tokens.scales is not None:
            arrays["multi.scales"] = rows.tokens.scales
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _from_arrays(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> Rows:
    payloads = json.loads(arrays["payloads"].tobytes())
    lexical = tokens = None
    if "lexical" in layout.widths:
        parts = (arrays["lexical.data"], arrays["lexical.indices"], arrays["lexical.indptr"])
        lexical = sparse.csr_array(parts, shape=(len(payloads), layout.widths["lexical"]))
    if "multi" in layout.widths:
        scales = cast("Floats | None", arrays.get("multi.scales"))
        codes, offsets = arrays["multi.codes"], arrays["multi.offsets"]
        tokens = Tokens(codes, scales, offsets, layout.widths["multi"], layout.multi)
    return Rows(payloads, arrays["dense"], lexical, tokens)
