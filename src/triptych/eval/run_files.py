"""Runs in TREC's format, and the metrics of every query as Parquet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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

    def accept(self, collections: Sequence[Collection]) -> None:
        """Looks at all ids before hours are spent on runs that could not be written.

        Raises:
            InputError: As `keep` does.
        """
        corpora = {one.corpus.digest: one.corpus for one in collections}  # some share one
        for collection in collections:
            for query in collection.queries:
                _without_blanks(self._folder, query)
        for corpus in corpora.values():
            for document in corpus:
                _without_blanks(self._folder, document.id)

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
            _without_blanks(path, query)
            _without_blanks(path, name)
            yield f"{query} Q0 {name} {rank} {score:.9g} {tag}\n"


def _without_blanks(path: Path, name: str) -> None:
    if re.search(r"\s", name):
        raise InputError(f"{path}: got the id {name!r}; expected ids without blanks in runs")


def _write_metrics(path: Path, queries: list[str], values: Mapping[str, NDArray[np.float64]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"query": queries, **values}
    with replacing(path) as temporary:
        pq.write_table(pa.table(columns), temporary)  # pyright: ignore[reportUnknownMemberType]
