"""What to mine, how to search for it, and what counts as a false negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

from annotated_types import Ge, Gt, Lt

from triptych.config import check_types, check_value
from triptych.errors import InputError
from triptych.types import HEADS, Head, HeadWeights, check_heads

Ranking: TypeAlias = Literal["dense", "lexical", "multi", "hybrid"]
Choice: TypeAlias = Literal["sample", "top"]

Count: TypeAlias = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True)
class Margin:
    """How near a negative's score may come to the positive's.

    **Math** a candidate of score s is kept if ``s ≤ s⁺ − (1 − relative)·|s⁺|`` and ``s ≤ s⁺ − absolute``. For
    ``s⁺ > 0`` the first is ``s ≤ relative·s⁺``: "TopK-PercPos" of NV-Retriever (arXiv 2407.15831, section 4),
    which found 0.95 best; the second is its "TopK-MarginPos".

    Attributes:
        relative: Share of the positive's score, above 0; None: no such limit.
        absolute: Distance to the positive's score, ≥ 0; None: no such limit.

    Raises:
        InputError: For numbers out of these ranges.
    """

    relative: Annotated[float, Gt(0), Lt(math.inf)] | None = 0.95
    absolute: Annotated[float, Ge(0), Lt(math.inf)] | None = None

    def __post_init__(self) -> None:
        check_types(self)

    def limit(self, positive: float) -> float:
        """The highest score that a negative may have beside a positive of this score; inf without a limit."""
        limit = math.inf
        if self.relative is not None:
            limit = positive - (1 - self.relative) * abs(positive)
        return limit if self.absolute is None else min(limit, positive - self.absolute)

    @classmethod
    def parse(cls, text: str) -> Margin:
        """Reads "95%", "0.05", "95%,0.05" or "none".

        Raises:
            InputError: For anything else.
        """
        check_value(text, str, "margin")
        values: dict[str, float | None] = {"relative": None, "absolute": None}
        try:
            for part in [] if text.strip() == "none" else text.split(","):
                name = "relative" if part.strip().endswith("%") else "absolute"
                number = float(part.strip().removesuffix("%"))
                values[name] = number / 100 if name == "relative" else number
            return cls(**values)
        except ValueError:
            raise InputError(
                f"margin: got {text!r}; expected a share of the positive's score (95%), a distance to it (0.05), "
                "both (95%,0.05), or none"
            ) from None


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """How candidates are found and ranked.

    Attributes:
        ranking: The score that ranks: one head's, or the weighted sum of all (hybrid).
        weights: Weights of the sum; None: (1, 0.3, 1) for the heads that the model has.
        routes: Heads that recall candidates; None: the head itself, and for "multi" and "hybrid" dense and lexical,
            whose union gets its exact scores, as far as the model has them.
        candidates: Documents that each route recalls; at least the last rank that is mined.
        query_length: Maximum tokens of a query; None: what the model reads.
        passage_length: Maximum tokens of a passage; None: what the model reads.
    """

    ranking: Ranking = "hybrid"
    weights: HeadWeights | None = None
    routes: tuple[Head, ...] | None = None
    candidates: Count = 200
    query_length: Count | None = None
    passage_length: Count | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True)
class FilterOptions:
    """Which candidates are taken for false negatives.

    A passage with the text of a positive, of the query, or of a better candidate is never a negative, as
    `triptych.text.fold` compares texts.

    Attributes:
        margin: A negative's score is at most this share of the positive's (95%, the default), or this much below it
            (0.05), or both (95%,0.05); none: no limit.
        article: Drop passages of an article from which a positive comes.
        translation: Drop passages with a positive's article in another language.
        rerank_margin: The margin for the re-ranker's scores, by default 95%.
    """

    margin: Margin = field(default_factory=Margin)
    article: bool = True
    translation: bool = True
    rerank_margin: Margin = field(default_factory=Margin)

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, slots=True)
class MiningOptions:
    """All that decides which negatives a query gets.

    Attributes:
        search: How candidates are found.
        filters: Which of them are dropped.
        ranks: First and last rank that is mined, from 1; the positives count in the ranking. The paper (arXiv
            2402.03216v4, section 3.1, "ANCE") takes 2 to 200.
        keep: Maximum negatives per query.
        choose: "sample": drawn evenly from what the filters leave; "top": the best ranked.
        existing: Keep the negatives that an example brings, and add mined ones up to `keep`.
        seed: Of the drawing; a query's draw depends on it and on the query's number alone.
        block: Queries that are searched and written at once.

    Raises:
        InputError: For values that make no sense.
    """

    search: RankingOptions = field(default_factory=RankingOptions)
    filters: FilterOptions = field(default_factory=FilterOptions)
    ranks: tuple[int, int] = (2, 200)
    keep: Count = 15
    choose: Choice = "sample"
    existing: bool = False
    seed: Annotated[int, Ge(0)] = 0
    block: Count = 512

    def __post_init__(self) -> None:
        check_types(self)
        first, last = self.ranks
        if not 1 <= first <= last:
            raise InputError(f"ranks: got {first}:{last}; expected FIRST:LAST with 1 ≤ FIRST ≤ LAST")

    @property
    def candidates(self) -> int:
        """Documents that each route recalls."""
        return max(self.search.candidates, self.ranks[1])

    def to_json(self) -> dict[str, Any]:
        """All settings, as JSON has them."""
        return asdict(self)


class Scoring(NamedTuple):
    """The scores of a search, with a given model.

    Attributes:
        weights: Of the score that ranks, is compared with the positive's, and is written.
        routes: Heads that recall.
        candidates: Documents that each route recalls.
    """

    weights: HeadWeights
    routes: tuple[Head, ...]
    candidates: int

    @property
    def heads(self) -> tuple[Head, ...]:
        """All heads that are needed."""
        used = {*self.weights.heads, *self.routes}
        return tuple(head for head in HEADS if head in used)


def scoring_of(options: MiningOptions, heads: Sequence[Head]) -> Scoring:
    """How a model with these heads searches.

    Raises:
        InputError: If a head is asked for that the model lacks.
    """
    search = options.search
    weights = search.weights or HeadWeights.default(heads).published
    if search.ranking != "hybrid":
        weights = HeadWeights.of({search.ranking: 1.0})
    routes = search.routes
    if routes is None:
        recalling = [head for head in ("dense", "lexical") if head in heads]
        routes = (search.ranking,) if search.ranking in recalling else tuple(recalling) or ("multi",)
    scoring = Scoring(weights, check_heads(routes, "routes"), options.candidates)
    if lacking := [head for head in scoring.heads if head not in heads]:
        raise InputError(
            f"search: got {search.ranking!r} with weights {tuple(weights)} and routes {list(routes)}, which need "
            f"{' and '.join(lacking)}; this model has {', '.join(heads)}"
        )
    return scoring
