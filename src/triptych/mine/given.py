"""Training examples as mining reads and writes them: with all fields of their records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from triptych.data.examples import LABEL, LANGUAGE, LIST, POSITIVE, QUERY, Example
from triptych.data.records import Place
from triptych.data.training import Reading, read_examples
from triptych.errors import DataError
from triptych.mine.passages import article_of
from triptych.types import Floats

_READ = {
    *QUERY,
    *POSITIVE,
    *LIST,
    *LABEL,
    *LANGUAGE,
    "pos",
    "neg",
    "pos_scores",
    "neg_scores",
    "prompt",
    "id",
    "_id",
}


class Given(NamedTuple):
    """An example with the fields of its record that mean nothing to training."""

    example: Example
    extras: Mapping[str, Any]

    def article(self, fields: Sequence[str]) -> str | None:
        """The article from which its positives come, as far as its record says."""
        return article_of(self.extras, fields)


class Training:
    """The examples, read as often as needed.

    Args:
        sources: Files and folders, see `triptych.data.training.read_examples`.
        split: The judgements of BEIR folders that are read.
        positive_from: The least label or score of a positive, in judged pairs.

    Attributes:
        count: How many there are; known after the first reading.
        digest: Of all of them.
    """

    def __init__(self, sources: Sequence[Path | str], split: str, positive_from: float) -> None:
        self._sources, self._split, self._from = list(sources), split, positive_from
        self.count: int | None = None
        self.digest = ""

    def read(self) -> Iterator[Given]:
        """All examples, in order.

        Raises:
            DataError: For what cannot be read, or if there is none.
        """
        records: dict[Place, Mapping[str, Any]] = {}
        reading = Reading(self._split, self._from, on_record=records.__setitem__)
        digest, count = hashlib.blake2b(digest_size=16), 0
        for place, example in read_examples(self._sources, reading):
            record = records.pop(place, {})
            # Judged pairs are joined when the next query's first one has been read: that one is still to come.
            for read in list(records)[:-1]:
                del records[read]
            given = Given(example, {name: value for name, value in record.items() if not _is_read(name)})
            digest.update(_line(record_of(given, example.neg, None)))
            count += 1
            yield given
        if not count:
            raise DataError("no training example in it", ", ".join(map(str, self._sources)))
        self.count, self.digest = count, digest.hexdigest()


def record_of(given: Given, neg: Iterable[str], scores: tuple[Floats, Floats] | None) -> dict[str, Any]:
    """An example as a record in our form, with all other fields of its own record."""
    example = given.example
    record: dict[str, Any] = {} if example.id is None else {"id": example.id}
    record |= {"query": example.query, "pos": list(example.pos), "neg": list(neg)}
    if scores is not None:
        record |= {
            f"{name}_scores": list(map(rounded, part))
            for name, part in zip(("pos", "neg"), scores, strict=True)
        }
    for name, value in (("prompt", example.prompt), ("lang", example.language)):
        if value is not None:
            record[name] = value
    return record | dict(given.extras)


def rounded(value: Any) -> float:
    """Seven digits: what a float32 holds."""
    return float(f"{float(value):.7g}")


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def _is_read(name: str) -> bool:
    return name in _READ or name.startswith("negative")
