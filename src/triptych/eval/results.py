"""What an evaluation gives, as JSON that keeps its meaning: docs/evaluation.md describes the fields.

A *system* is a contender in one mode, such as ``small/all``, or a contender that has but one, such as ``bm25``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from triptych.errors import DataError
from triptych.files import write_atomically

SCHEMA = "triptych.eval/1"
"""Name and version of the format; the number rises when a reader of the old one would go wrong."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """A contender: a model, or a baseline.

    Attributes:
        fingerprint: Of all that determines its scores.
        facts: What it says about itself.
        encode_seconds_per_query: In batches; None where nothing was encoded in this run (it was in the cache).
        encode_seconds_per_document: The same of documents.
    """

    fingerprint: str
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    encode_seconds_per_query: float | None = None
    encode_seconds_per_document: float | None = None


@dataclass(frozen=True, slots=True)
class System:
    """A contender in one mode.

    Attributes:
        contender: Its name.
        mode: "" for a contender with its own scoring.
        weights: Of dense, lexical and multi; None for rankings that are no weighted sum.
        seconds_per_query: Ranking alone, in batches over whole corpora; of a contender with its own scoring with the
            making of its index. None where it was not measured.
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
        p: Two-sided.
        p_holm: After Holm's correction for all comparisons of this subset.
    """

    dataset: str
    subset: str
    metric: str
    a: str
    b: str
    difference: float
    p: float
    p_holm: float


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
class Compressed:
    """Token vectors in a smaller form: quality when the best candidates are re-ranked with it.

    Attributes:
        dataset: Name.
        contender: The model.
        form: Name of the form.
        bytes_per_document: Mean.
        ndcg: Mode to mean nDCG@10 over all queries of the data set.
    """

    dataset: str
    contender: str
    form: str
    bytes_per_document: float
    ndcg: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of one `triptych eval`.

    Attributes:
        schema: `SCHEMA`.
        created: When, in UTC (ISO 8601).
        versions: Of the packages that matter.
        options: Protocol, depth and whatever else was chosen.
        contenders: By name.
        systems: By name.
        subsets: One for each collection.
        averages: Data set to system to metric: the plain mean over its subsets.
        significance: Tests.
        tuned: Weights.
        compressed: Smaller token vectors.
        seconds: Of the whole run.
    """

    schema: str
    created: str
    versions: dict[str, str]
    options: dict[str, Any]
    contenders: dict[str, Entrant]
    systems: dict[str, System]
    subsets: list[Subset]
    averages: dict[str, dict[str, dict[str, float]]]
    significance: list[Difference] = field(default_factory=list[Difference])
    tuned: list[Tuned] = field(default_factory=list[Tuned])
    compressed: list[Compressed] = field(default_factory=list[Compressed])
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

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)

    def write(self, path: Path) -> None:
        """Writes the JSON file, numbers in six digits, atomically.

        Raises:
            StorageError: If it cannot be written.
        """
        import json

        text = json.dumps(_short(self.to_json()), ensure_ascii=False, allow_nan=False, indent=1)
        write_atomically(path, (text + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Reads what `write` wrote.

        Raises:
            DataError: If it is something else, or of another version.
        """
        import json

        from pydantic import TypeAdapter, ValidationError

        try:
            value = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
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
