"""The result of an evaluation, its JSON form (docs/evaluation.md describes the fields), and runs in TREC's format.

A name such as ``small/all`` is a system in one mode; a system with a single mode, such as ``bm25``, has its own name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection, Run
from triptych.errors import DataError, InputError
from triptych.io import compressing, open_source, read_bytes, replacing, write_atomically


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


SCHEMA = "triptych.eval/1"
"""Name and version of the format; the number rises when a reader of the old one would go wrong."""


@dataclass(frozen=True, slots=True)
class SystemFacts:
    """A system: a model, a baseline, or another system's run.

    Attributes:
        fingerprint: Of all that determines its scores.
        facts: What it reports about itself.
        encode_seconds_per_query: In batches; None where nothing was encoded in this run (it was in the cache).
        encode_seconds_per_document: The same of documents.
    """

    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    encode_seconds_per_query: float | None = None
    encode_seconds_per_document: float | None = None


@dataclass(frozen=True, slots=True)
class ModeFacts:
    """A system in one mode.

    Attributes:
        contender: Name of the system.
        mode: "" for a system with its own scoring.
        weights: Of dense, lexical and multi; None for rankings that are no weighted sum.
        seconds_per_query: Ranking alone, in batches over whole corpora; for a system with its own scoring,
            including indexing. None where it was not measured.
        bytes_per_document: Of what the mode compares, uncompressed; None where unknown.
    """

    contender: str
    mode: str
    weights: tuple[float, float, float] | None
    seconds_per_query: float | None = None
    bytes_per_document: float | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """The result on one collection.

    Attributes:
        dataset: Its name.
        subset: Language or pair of languages; "" if there is one.
        split: Name of the split.
        corpus: Digest of the corpus.
        documents: In the corpus.
        queries: That were evaluated.
        judged: Pairs of query and relevant document.
        metrics: System to metric to mean over the queries.
        primary: The metric of `per_query`.
        ids: Of the queries.
        per_query: System to the primary metric of each query.
        characters: For each query the length of its longest relevant document; -1 where unknown.
        notes: What was left out, and why.
        clusters: For each query the name of its cluster: queries of one cluster (the same question in several
            languages, questions on the same passage) are no independent observations. Empty in older files.
    """

    dataset: str
    subset: str
    split: str
    corpus: str
    documents: int
    queries: int
    judged: int
    metrics: dict[str, dict[str, float]]
    primary: str
    ids: list[str]
    per_query: dict[str, list[float]]
    characters: list[int]
    notes: list[str] = field(default_factory=list[str])
    clusters: list[str] = field(default_factory=list[str])

    @property
    def label(self) -> str:
        """Data set and subset."""
        return f"{self.dataset}/{self.subset}" if self.subset else self.dataset


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired test of two systems.

    Attributes:
        dataset: Name.
        subset: Which; "*": the queries of all subsets together.
        metric: The primary one.
        a: A system.
        b: The system with which it is compared.
        difference: Mean of a less mean of b.
        p: Two-sided, of a paired test over clusters of queries.
        p_holm: After Holm's correction for all comparisons of this subset.
        clusters: How many; None in older files, whose tests were over queries.
    """

    dataset: str
    subset: str
    metric: str
    a: str
    b: str
    difference: float
    p: float
    p_holm: float
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """Weights chosen on a development split.

    Attributes:
        system: That uses them.
        weights: Of dense, lexical and multi.
        development: What they were chosen on.
        queries: How many.
        ndcg: nDCG@10 there, with them.
        fixed_ndcg: The same with the usual weights.
        left_out: Queries that were left out there since they are among those that are reported.
    """

    system: str
    weights: tuple[float, float, float]
    development: list[str]
    queries: int
    ndcg: float
    fixed_ndcg: float
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one `triptych eval`.

    Attributes:
        schema: `SCHEMA`.
        created: When, in UTC (ISO 8601).
        versions: Of the packages that matter.
        options: Protocol, depth and whatever else was chosen.
        contenders: The systems by name.
        systems: Each system in each of its modes, by SYSTEM/MODE.
        subsets: One for each collection.
        averages: Data set to system to metric: the plain mean over its subsets.
        significance: Tests.
        tuned: Weights.
        seconds: Of the whole run.
    """

    schema: str
    created: str
    versions: dict[str, str]
    options: dict[str, Any]
    contenders: dict[str, SystemFacts]
    systems: dict[str, ModeFacts]
    subsets: list[Subset]
    averages: dict[str, dict[str, dict[str, float]]]
    significance: list[Difference] = field(default_factory=list[Difference])
    tuned: list[Tuned] = field(default_factory=list[Tuned])
    seconds: float = 0.0

    @property
    def datasets(self) -> tuple[str, ...]:
        """Names, in order."""
        return tuple(dict.fromkeys(subset.dataset for subset in self.subsets))

    def of(self, dataset: str) -> list[Subset]:
        """The subsets of a data set, in order."""
        return [subset for subset in self.subsets if subset.dataset == dataset]

    def metrics(self, dataset: str) -> tuple[str, ...]:
        """The metrics that all its subsets have, in order."""
        every = [list(next(iter(subset.metrics.values()), {})) for subset in self.of(dataset)]
        return tuple(name for name in every[0] if all(name in names for names in every))

    def _repr_html_(self) -> str:
        from triptych.eval.tables import tables_of

        return "".join(table._repr_html_() for table in tables_of(self))  # pyright: ignore[reportPrivateUsage]

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)

    def __str__(self) -> str:
        """The tables as Markdown."""
        from triptych.eval.tables import markdown, tables_of

        return "\n".join(map(markdown, tables_of(self)))

    def write(self, path: Path) -> None:
        """Writes the JSON file, numbers in six digits, atomically; compressed if it is named ``.gz`` or ``.zst``.

        Raises:
            StorageError: If it cannot be written.
        """
        import json

        text = json.dumps(_short(self.to_json()), ensure_ascii=False, allow_nan=False, indent=1)
        with compressing(path) as file:
            file.write((text + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Reads what `write` wrote.

        Raises:
            DataError: If it is something else, or of another version.
        """
        import json

        from pydantic import TypeAdapter, ValidationError

        try:
            with open_source(path) as source:
                value = json.loads(read_bytes(source))
        except ValueError as error:
            raise DataError(f"cannot be read: {error}", path) from error
        schema = value.get("schema") if isinstance(value, dict) else None
        if schema != SCHEMA:
            raise DataError(
                f"got the schema {schema!r}; expected {SCHEMA!r}, as `triptych eval --json` writes", path
            )
        try:
            return TypeAdapter(cls).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{place}: {first['msg']}; expected the fields of {SCHEMA}", path) from error


def averages(subsets: Sequence[Subset]) -> dict[str, dict[str, dict[str, float]]]:
    """Data set to system to metric: the mean over subsets, for what every subset of the data set has."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for dataset in dict.fromkeys(subset.dataset for subset in subsets):
        every = [subset.metrics for subset in subsets if subset.dataset == dataset]
        systems = [name for name in every[0] if all(name in one for one in every)]
        found[dataset] = {
            system: {
                metric: sum(one[system][metric] for one in every) / len(every)
                for metric in every[0][system]
                if all(metric in one[system] for one in every)
            }
            for system in systems
        }
    return found


def versions() -> dict[str, str]:
    """Of this package and those that determine numbers."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("triptych", "numpy", "scipy", "torch", "transformers", "ir-measures", "bm25s"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _short(value: Any) -> Any:
    """Six digits are more than any metric means, and half the file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: _short(part) for key, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value
