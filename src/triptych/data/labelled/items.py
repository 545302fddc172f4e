"""What a labelled data set says of one query, whatever its format, and how much of it is wanted."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from triptych.data.records import Place
from triptych.errors import InputError

Negatives: TypeAlias = Literal["given", "all", "none"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)


class Passage(NamedTuple):
    """A passage as text and, where the data set has them, its title and its id."""

    text: str
    title: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """One query with what was judged of it.

    Attributes:
        place: Where it stands.
        query: The query.
        pos: Passages that answer it.
        neg: Passages that do not.
        id: What the data set calls it.
        language: ISO 639-1 code, as far as the data set says.
        facts: Other fields worth keeping, such as ``answers``.
    """

    place: Place
    query: str
    pos: Sequence[Passage]
    neg: Sequence[Passage] = ()
    id: str | None = None
    language: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Dropped(NamedTuple):
    """Something that makes no example: where it stands, and why (a short phrase that is counted)."""

    place: Place
    why: str
    example: str = ""


Item: TypeAlias = "Labelled | Dropped"


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of a data set.

    Attributes:
        split: Part of the data set, as its files name it.
        positive_from: The least grade of a positive; None: what the data set's makers use.
        negatives: "given" are passages that the publisher offers as negatives; "all" also those of which it only
            follows that they do not answer (other paragraphs of the article, random passages); "none" leaves all
            away.
        max_negatives: Most negatives of a query, drawn by `seed`; None: all.
        titles: Whether a passage begins with its title.
        language: Which language's files are read, where a folder has several, and what `lang` says where the data
            set does not.
        topic_fields: Fields of a TREC topic that make the query, in this order.
        seed: Of the draw.

    Raises:
        InputError: For an unknown kind of negatives, or a number below 0.
    """

    split: str = "train"
    positive_from: float | None = None
    negatives: Negatives = "given"
    max_negatives: int | None = None
    titles: bool = True
    language: str | None = None
    topic_fields: tuple[str, ...] = ("title",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives not in NEGATIVES:
            raise InputError(f"negatives: got {self.negatives!r}; expected one of {', '.join(NEGATIVES)}")
        if self.max_negatives is not None and self.max_negatives < 0:
            raise InputError(f"max_negatives: got {self.max_negatives}; expected 0 or more")

    def wants(self, kind: Literal["given", "all"]) -> bool:
        """Whether negatives of this kind are wanted."""
        return self.negatives == kind or self.negatives == "all"


Reader: TypeAlias = Callable[..., Iterator[Item]]
"""``(files, options)`` → the queries of a data set; see `triptych.data.labelled.catalogue`."""


def draw(items: Iterable[Passage], most: int | None, seed: int, query: str) -> list[Passage]:
    """At most `most` of some passages, in their order.

    Those whose digest with seed and query is least: the choice depends on neither the order of the passages nor
    on how they come in parts, so that a draw of draws is a draw of the whole.
    """
    if most is None:
        return list(items)
    keyed = [(rank_of(seed, query, item.id or item.text), i, item) for i, item in enumerate(items)]
    return [item for _, _, item in sorted(heapq.nsmallest(most, keyed), key=lambda entry: entry[1])]


def rank_of(seed: int, query: str, passage: str) -> int:
    """A number in [0, 2^63) that is a function of seed, query and passage alone."""
    text = f"{seed}\0{query}\0{passage}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1
