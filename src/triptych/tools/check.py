"""What is in a file of training examples, and what is wrong with it: the work of ``triptych data check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from triptych.collections.examples import LABEL, LIST, POSITIVE, QUERY, Example
from triptych.collections.training import Reading, read_examples
from triptych.errors import DataError
from triptych.model.tokenizer import TextTokenizer
from triptych.records import Place
from triptych.text import fingerprint, ranker
from triptych.tools.tally import Tally
from triptych.train.data import PairLimits
from triptych.types import Progress, chunked

Identify = Callable[[str], str]
PROBLEMS = {
    "broken": "records that cannot be used",
    "no positive": "queries without any positive (left out)",
    "no negatives": "examples without negatives (fine for contrastive pre-training)",
    "nothing to compare": "data sets without any negative and with one passage only: the loss is 0 in every step",
    "positive also negative": "examples with a passage that is both positive and negative",
    "query is positive": "examples with the query as one of its positives",
    "repeated passage": "examples with the same passage twice on the same side",
    "repeated query": "examples whose query came before",
    "repeated example": "examples that are equal to one before, scores aside",
    "graded labels": "judged pairs with a label or score above 1 (--positive-from says which are positive)",
    "unread fields": "records with texts that training does not read",
}
"""Everything that is looked for, with what it means."""
SERIOUS = ("broken", "positive also negative", "nothing to compare")
"""Problems that spoil training."""
_CHUNK = 64
_EXAMPLES = 5  # places that are kept of each problem
_WHOLE = 1 << 30
_TEXT_FIELDS = frozenset(
    (*QUERY, *POSITIVE, *LIST, "context", "contexts", "ground_truth", "response", "text")
)


@dataclass(slots=True)
class Lengths:
    """Lengths of texts of one kind: how many texts have how many tokens (or characters)."""

    counts: Counter[int] = field(default_factory=Counter[int])

    def quantile(self, share: float) -> int:
        """The least length that this share of the texts does not exceed; 0 without texts."""
        wanted, seen = share * self.counts.total(), 0
        for length in sorted(self.counts):
            seen += self.counts[length]
            if seen >= wanted:
                return length
        return 0

    def to_dict(self) -> dict[str, float]:
        """Number of texts, mean, median, 90th and 99th percentile, longest."""
        total = self.counts.total()
        mean = sum(length * count for length, count in self.counts.items()) / total if total else 0.0
        shares = {"median": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
        return {"texts": total, "mean": round(mean, 1)} | {
            name: self.quantile(share) for name, share in shares.items()
        }


@dataclass(slots=True)
class CheckReport:
    """What `check` found.

    Attributes:
        examples: How many can be used.
        scored: How many of them have a teacher's scores.
        unit: Of the lengths, "tokens" or "characters".
        lengths: By kind of text: "query", "positive", "negative", and "longest" for the longest of each example.
        languages: By kind of text, how many texts are of which language; empty if they were not identified.
        problems: By name (see `PROBLEMS`), how many, with messages about the first few.
    """

    examples: int = 0
    scored: int = 0
    unit: str = "characters"
    lengths: dict[str, Lengths] = field(
        default_factory=lambda: {kind: Lengths() for kind in ("query", "positive", "negative", "longest")}
    )
    languages: dict[str, Counter[str]] = field(default_factory=dict[str, Counter[str]])
    problems: Tally[str, str] = field(default_factory=lambda: Tally(per_reason=_EXAMPLES))

    @property
    def usable(self) -> bool:
        """Whether there are examples and nothing that spoils training."""
        return self.examples > 0 and not any(self.problems[name] for name in SERIOUS)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "examples": self.examples,
            "scored": self.scored,
            "unit": self.unit,
            "usable": self.usable,
            "lengths": {kind: lengths.to_dict() for kind, lengths in self.lengths.items()},
            "languages": {kind: dict(counts.most_common()) for kind, counts in self.languages.items()},
            "problems": {name: self.problems[name] for name in PROBLEMS},
            "places": self.problems.examples,
        }


def check(
    sources: Path | str | Iterable[Path | str],
    *,
    tokenizer: TextTokenizer | None = None,
    limits: PairLimits | None = None,
    identify: Identify | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Reads all examples of files or folders, and counts what they hold and what is wrong with them.

    Broken records are counted, not raised. Repeats are found by digests of 16 bytes a query and example.

    Args:
        sources: As for `triptych.collections.training.read_examples`.
        tokenizer: Counts tokens; None: characters are counted.
        limits: Prefixes to count with; lengths are those of the whole texts.
        identify: Gives the language of a text; see `language_identifier`.
        reading: How files are read; `on_error` and `on_skip` are called too.
        progress: Called with the stage "reading" and the number of examples read so far.

    Raises:
        DataError: If a path is not there.
    """
    report = CheckReport(unit="tokens" if tokenizer else "characters")
    if identify:
        report.languages = {"query": Counter(), "positive": Counter()}
    repeats = _Repeats()
    how = reading or Reading()
    no_negatives, passages = True, set[str]()

    def broken(error: DataError) -> None:
        report.problems.drop("broken", str(error))
        if how.on_error:
            how.on_error(error)

    def skipped(place: Place) -> None:
        report.problems.drop("no positive", place.id)
        if how.on_skip:
            how.on_skip(place)

    def look_at(place: Place, record: Mapping[str, Any]) -> None:
        for problem, message in _problems_of_record(record, how.positive_from):
            report.problems.drop(problem, f"{place.id}: {message}")
        if how.on_record:
            how.on_record(place, record)

    lenient = replace(how, on_error=broken, on_skip=skipped, on_record=look_at)
    for chunk in chunked(read_examples(sources, lenient), _CHUNK):
        examples = [example for _, example in chunk]
        _measure(examples, report, tokenizer, limits or PairLimits())
        for place, example in chunk:
            report.examples += 1
            report.scored += example.pos_scores is not None
            no_negatives &= not example.neg
            passages.update(example.pos[: 2 - len(passages)])
            for problem in [*problems_of(example), *repeats.problems_of(example)]:
                report.problems.drop(problem, f"{place.id}: {example.query[:60]!r}")
            if identify:
                report.languages["query"][identify(example.query)] += 1
                report.languages["positive"][identify(example.pos[0])] += 1
        if progress:
            progress("reading", report.examples, None)
    if report.examples and no_negatives and len(passages) < 2:
        message = "add negatives (triptych mine-negatives), or queries with other passages"
        report.problems.drop("nothing to compare", message)
    return report


def _problems_of_record(record: Mapping[str, Any], positive_from: float) -> Iterator[tuple[str, str]]:
    """What an example made of the record does not show."""
    if "pos" not in record:
        labels = next((record[name] for name in LABEL if record.get(name) is not None), None)
        values: list[Any] = cast("list[Any]", labels) if isinstance(labels, list) else [labels]
        grades = [value for value in values if isinstance(value, int | float)]
        has_negatives = any(name.startswith("negative") for name in record)
        if not has_negatives and positive_from <= 1 < max(grades, default=0):
            yield "graded labels", f"{max(grades):g}; from {positive_from:g} on a passage counts as positive"
    if unread := [name for name in record if name in _TEXT_FIELDS and not _is_read(name, record)]:
        yield "unread fields", ", ".join(map(repr, unread))


def _is_read(name: str, record: Mapping[str, Any]) -> bool:
    """Whether a field with a text is the one of its kind that is read."""
    if "pos" in record:
        return name in QUERY and name == next(each for each in QUERY if record.get(each) is not None)
    kinds = [each for each in (QUERY, POSITIVE, LIST) if name in each]
    return any(name == next((each for each in kind if record.get(each) is not None), None) for kind in kinds)


def problems_of(example: Example) -> list[str]:
    """Problems of an example by itself, by their names in `PROBLEMS`."""
    pos, neg = set(example.pos), set(example.neg)
    found = {
        "no negatives": not neg,
        "positive also negative": bool(pos & neg),
        "query is positive": example.query in pos,
        "repeated passage": len(pos) < len(example.pos) or len(neg) < len(example.neg),
    }
    return [name for name, there in found.items() if there]


def language_identifier() -> Identify:
    """A function that gives the language (ISO 639-1) of a text, by py3langid.

    Raises:
        MissingExtra: If that package is not installed.
    """
    rank = ranker(normalize=False)
    return lambda text: rank(text[:1000])[0][0]


class _Repeats:
    """Digests of the queries and examples that came before."""

    def __init__(self) -> None:
        self._queries: set[str] = set()
        self._examples: set[str] = set()

    def problems_of(self, example: Example) -> list[str]:
        query = fingerprint([example.query])
        whole = fingerprint([example.query, *example.pos, "\0", *example.neg])
        if whole in self._examples:
            return ["repeated example"]
        self._examples.add(whole)
        if query in self._queries:
            return ["repeated query"]
        self._queries.add(query)
        return []


def _measure(
    examples: Sequence[Example], report: CheckReport, tokenizer: TextTokenizer | None, limits: PairLimits
) -> None:
    """Adds the lengths of the texts of some examples."""

    def count(texts: list[str], prefix: str = "") -> list[int]:
        if tokenizer is None:
            return [len(text) for text in texts]
        return [len(ids) for ids in tokenizer.encode(texts, prefix=prefix, max_length=_WHOLE).ids]

    queries = count([limits.query(example) if tokenizer else example.query for example in examples])
    passages = iter(count([text for each in examples for text in each.passages], limits.document_prefix))
    for example, query in zip(examples, queries, strict=True):
        pos = [next(passages) for _ in example.pos]
        neg = [next(passages) for _ in example.neg]
        for kind, lengths in (("query", [query]), ("positive", pos), ("negative", neg)):
            report.lengths[kind].counts.update(lengths)
        report.lengths["longest"].counts[max(query, *pos, *neg)] += 1
