"""Runs in TREC's format, and the metrics of every query as Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.eval.collection import Collection
from triptych.eval.contender import Run
from triptych.files import replacing, write_atomically


class RunFolder:
    """A folder of runs: ``DATASET/SUBSET/SYSTEM.run``, beside each ``SYSTEM.parquet`` with its metrics.

    A run has a line ``query Q0 document rank score system`` for each entry, in TREC's format. The order of the lines
    is the ranking: tools that sort by score alone break ties in their own way.

    Args:
        folder: Made if needed.

    Raises:
        InputError: If it is a file.
    """

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; expected a folder for runs")
        self._folder = folder

    def keep(
        self, collection: Collection, system: str, run: Run, values: Mapping[str, NDArray[np.float64]]
    ) -> None:
        """Writes one run and its metrics, atomically.

        Raises:
            InputError: For an id with a blank in it, which the format cannot have.
            StorageError: If it cannot be written.
        """
        folder = self._folder / file_name(collection.name) / file_name(collection.subset or "all")
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{file_name(system)}.run"
        lines = "".join(_lines(run, file_name(system), path))
        write_atomically(path, lines.encode())
        _write_metrics(path.with_suffix(".parquet"), list(collection.queries), values)


def file_name(name: str) -> str:
    """A name without the characters that a path or a TREC line cannot have."""
    return re.sub(r"[^\w.+-]+", ".", name).strip(".") or "_"


def _lines(run: Run, tag: str, path: Path) -> Iterator[str]:
    for query, ranked in run.items():
        for rank, (name, score) in enumerate(zip(ranked.documents, ranked.scores.tolist(), strict=True), 1):
            if re.search(r"\s", query + name):
                raise InputError(f"{path}: got the ids {query!r} and {name!r}; expected ids without blanks")
            yield f"{query} Q0 {name} {rank} {score:.9g} {tag}\n"


def _write_metrics(path: Path, queries: list[str], values: Mapping[str, NDArray[np.float64]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"query": queries, **values}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)  # pyright: ignore[reportUnknownMemberType]
