"""The values that cross layers. Arrays here are NumPy and SciPy; nothing in this module knows a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError, show
from triptych.notebook import bars, html_table, shorten

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy import sparse

_T = TypeVar("_T")
Floats: TypeAlias = NDArray[np.float32]
Spans: TypeAlias = NDArray[np.int64]
"""int64 ``[T, 2]``: the first character of each token of a text, and the one after its last."""
Head: TypeAlias = Literal["dense", "lexical", "multi"]
HEADS: tuple[Head, ...] = ("dense", "lexical", "multi")
ALIASES: Mapping[str, Head] = {"sparse": "lexical", "colbert": "multi", "multi_vector": "multi"}
"""Other names of heads, taken wherever a head is named or has a weight."""
Progress: TypeAlias = Callable[[str, int, int | None], None]
"""The one progress callback, called with (stage, done, total): what is being done, how many of its items are done,
and how many there are (None: not known). `done` starts at 0 for each stage and never falls within it."""


def check_heads(heads: Iterable[str], where: str) -> tuple[Head, ...]:
    """Returns `heads` as a tuple in the canonical order.

    Args:
        heads: Names among "dense", "lexical", "multi", or their `ALIASES`; repeats are dropped.
        where: Name of the caller's argument, for the message.

    Raises:
        InputError: For an unknown name, or none at all.
    """
    try:
        given = (heads,) if isinstance(heads, str) else tuple(heads)
    except TypeError:
        given = (cast(str, heads),)
    named = [ALIASES.get(name, name) if isinstance(name, str) else name for name in given]  # pyright: ignore[reportUnnecessaryIsInstance]
    # `in` would compare an array element by element.
    if not named or any(not isinstance(name, str) or name not in HEADS for name in named):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"{where}: got {show(list(given))}; expected one or more of {', '.join(HEADS)}")
    return tuple(head for head in HEADS if head in named)


def check_int(value: object, where: str, least: int = 1, most: int | None = None) -> int:
    """Returns a whole number in a range as an int.

    Args:
        value: A Python or NumPy integer.
        where: Name of the caller's argument, for the message.
        least: The smallest that is allowed.
        most: The largest; None: there is no limit.

    Raises:
        InputError: For anything else.
    """
    span = f"an integer ≥ {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"{where}: got {show(value)}; expected {span}")
    if not least <= value <= (2**62 if most is None else most):
        raise InputError(f"{where}: got {show(value)}; expected {span}")
    return int(value)


def check_str(value: object, where: str) -> str:
    """Returns a string.

    Raises:
        InputError: For anything else.
    """
    if not isinstance(value, str):
        raise InputError(f"{where}: got {show(value)}; expected a string")
    return value


def check_path(value: object, where: str) -> Path:
    """Returns a path.

    Raises:
        InputError: For anything but a string or a path.
    """
    if not isinstance(value, str | Path) or not str(value):
        raise InputError(f"{where}: got {show(value)}; expected a path")
    return Path(value)


def check_callable(value: object, where: str) -> None:
    """Checks that an optional callback can be called.

    Raises:
        InputError: If it is neither None nor callable.
    """
    if value is not None and not callable(value):
        raise InputError(f"{where}: got {show(value)}; expected a function or None")


def chunked(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items; the last may be shorter."""
    stream = iter(items)
    return iter(lambda: list(islice(stream, size)), [])


def items_of(value: object, *, ordered: bool = True) -> Iterable[Any] | None:
    """The items of a list-like value.

    Args:
        value: What came; of an Arrow array, whose scalars are no strings, the Python values are taken.
        ordered: Whether the order counts, so that a set is refused.

    Returns:
        None for what has no order or whose iteration does not give its items: a string, bytes, a mapping (its keys),
        a table (its column names), an array that is not one-dimensional; and for what is not iterable.
    """
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping) or hasattr(value, "columns"):
        return None
    if (
        not isinstance(value, Iterable)
        or getattr(value, "ndim", 1) != 1
        or (ordered and isinstance(value, Set))
    ):
        return None
    convert = getattr(value, "to_pylist", None)
    return cast("Iterable[Any]", convert() if callable(convert) else value)


def check_iterable(texts: object, where: str = "texts") -> Iterable[Any]:
    """Returns what can be walked as a sequence of texts; one string is a list of one.

    Raises:
        InputError: For what has no order or whose iteration does not give its texts: a mapping (its keys), a table
            (its column names), a set, bytes, an array that is not one-dimensional; and for what is not iterable.
    """
    if isinstance(texts, str):
        return [texts]
    if (items := items_of(texts)) is not None:
        return items
    kind, hint = type(texts).__name__, ""
    if isinstance(texts, Mapping):
        hint = "; its values are list(mapping.values())"
    elif hasattr(texts, "columns"):
        hint = "; take one of its columns"
    elif not isinstance(texts, Iterable):
        hint = f": {show(texts)}"
    elif not isinstance(texts, Set | bytes | bytearray | memoryview):
        kind = f"{kind} with {getattr(texts, 'ndim')} dimensions"  # noqa: B009
    raise InputError(f"{where}: got {kind}{hint}; expected a string or an ordered iterable of strings")


def check_texts(texts: object, where: str = "texts") -> list[str]:
    """Returns texts as a list; see `check_iterable`.

    Raises:
        InputError: As `check_iterable`, and for an item that is not a string.
    """
    listed = list(check_iterable(texts, where))
    for i, text in enumerate(listed):
        if not isinstance(text, str):
            raise InputError(f"{where}[{i}]: got {type(text).__name__}; expected a string")
    return listed


_LARGEST_WEIGHT = 1e30
_SHOWN = 60  # characters of a hit's text


class HeadWeights(NamedTuple):
    """Weights of the three scores in their sum: ``s = dense·s_dense + lexical·s_lex + multi·s_mul``.

    The numbers by default are the paper's for MIRACL and MKQA (arXiv 2402.03216v4, appendix C). Where no weights are
    given, those of `default` are used.
    """

    dense: float = 1.0
    lexical: float = 0.3
    multi: float = 1.0

    @classmethod
    def of(cls, value: HeadWeights | Sequence[float] | Mapping[str, float] | None) -> HeadWeights:
        """Accepts weights, a triple (dense, lexical, multi), or a mapping in which a missing head counts 0.

        Raises:
            InputError: For a wrong length or name, a negative or non-finite number, or only zeros.
        """
        if value is None:
            return cls()
        if isinstance(value, DefaultWeights):
            return value
        if isinstance(value, Mapping):
            check_heads(value, "weights")
            named = {ALIASES.get(name, name): number for name, number in value.items()}
            if len(named) < len(value):
                raise InputError(f"weights: got {show(value)}; expected one weight for each head")
            numbers: list[Any] = [named.get(head, 0.0) for head in HEADS]
        else:
            numbers = []
        try:
            if not isinstance(value, Mapping | str):
                numbers = list(value)
            weights = [float("nan") if isinstance(n, str | bytes) else float(n) for n in numbers]
        except (TypeError, ValueError, OverflowError):
            weights = []
        # Scores are float32: what is beyond it would turn sums into infinities, and these into NaN.
        if (
            len(weights) != 3
            or not all(0 <= w <= _LARGEST_WEIGHT for w in weights)
            or not np.asarray(weights, np.float32).any()
        ):
            raise InputError(
                f"weights: got {show(value)}; expected three finite numbers ≥ 0 and ≤ {_LARGEST_WEIGHT:g}, not all 0"
            )
        return cls(*weights)

    @classmethod
    def default(cls, heads: Iterable[str]) -> DefaultWeights:
        """The sum of these heads where no weights are given, see `DefaultWeights`; the others count 0."""
        usual, chosen = DefaultWeights(), check_heads(heads, "heads")
        return DefaultWeights(*(getattr(usual, head) if head in chosen else 0.0 for head in HEADS))

    @classmethod
    def parse(cls, text: str) -> HeadWeights:
        """Reads "1,0.3,1".

        Raises:
            InputError: For anything but three numbers ≥ 0 that are not all 0.
        """
        try:
            return cls.of([float(part) for part in text.split(",")])
        except ValueError:  # of float or, as an InputError, of the weights
            raise InputError(
                f"weights: got {text!r}; expected three numbers ≥ 0, such as 1,0.3,1 (dense,lexical,multi)"
            ) from None

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads whose weight is not zero."""
        return tuple(head for head, weight in zip(HEADS, self, strict=True) if weight)


class DefaultWeights(HeadWeights):
    """The sum where no weights are given: ``s = s_dense + 0.3·(s_lex / Σ w_q²)³ + 3·s_mul``.

    The lexical score counts by how much of the query it covers: over what the query has with itself, cubed. So one
    question's words do not outweigh the other scores and another's do something, whatever the scale of the lexical
    head; and a few words in common, as texts in the query's own language have, hardly count.
    """

    __slots__ = ()

    def __new__(cls, dense: float = 1.0, lexical: float = 0.3, multi: float = 3.0) -> Self:
        """The three numbers; the defaults were chosen on development questions (docs/history/experiments.md)."""
        return super().__new__(cls, dense, lexical, multi)

    @property
    def published(self) -> HeadWeights:
        """The paper's weights of the same heads, for protocols that repeat its evaluation."""
        usual = HeadWeights()
        return HeadWeights(*(getattr(usual, head) if head in self.heads else 0.0 for head in HEADS))


@dataclass(frozen=True, slots=True)
class Ragged:
    """N matrices of different heights in one flat buffer.

    Attributes:
        values: ``[T, D]``; the rows of item i are ``values[offsets[i]:offsets[i + 1]]``.
        offsets: int64 ``[N + 1]``, ascending from 0 to T.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        good = (
            self.values.ndim == 2
            and self.offsets.ndim == 1
            and len(self.offsets) > 0
            and self.offsets[0] == 0
            and self.offsets[-1] == len(self.values)
            and bool((np.diff(self.offsets) >= 0).all())
        )
        if not good:
            raise InputError(
                f"Ragged: got values of shape {self.values.shape}, offsets of shape {self.offsets.shape}; "
                "expected [T, D] and N + 1 ascending offsets from 0 to T"
            )

    @classmethod
    def of(cls, items: Sequence[NDArray[Any]], width: int | None = None) -> Ragged:
        """Joins matrices ``[n_i, D]``; `width` is D for the case that there are none."""
        offsets = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum([len(item) for item in items], out=offsets[1:])
        if items:
            return cls(np.concatenate(items), offsets)
        return cls(np.zeros((0, width or 0), dtype=np.float32), offsets)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 ``[N]``, the number of rows of each item."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """D."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> NDArray[Any]:
        n = len(self)
        if not -n <= i < n:
            raise IndexError(f"Ragged: item {i} of {n}")
        i %= n
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self[i] for i in range(len(self)))

    def take(self, rows: NDArray[np.int64] | Sequence[int]) -> Ragged:
        """The items `rows`, in that order."""
        return Ragged.of([self[int(row)] for row in rows], self.width)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """What an encoder gives for N texts; a head that was not asked for is None.

    Attributes:
        dense: float32 ``[N, D]``, rows of length 1.
        lexical: CSR float32 ``[N, V]``, non-negative, column = token id, no explicit zeros.
        multi: N matrices ``[n_i, D']``, rows of length 1.
    """

    dense: Floats | None = None
    lexical: sparse.csr_array | None = None
    multi: Ragged | None = None

    def __post_init__(self) -> None:
        if len(set(self._sizes())) != 1:
            raise InputError(
                f"Encoded: got heads for {self._sizes()} texts; expected one or more heads for the same N"
            )

    def __repr__(self) -> str:
        parts: list[str] = []
        if self.dense is not None:
            parts.append(f"dense {self.dense.shape[1]}")
        if self.lexical is not None:
            weights = self.lexical.nnz / max(1, len(self))
            parts.append(f"lexical {int(cast(Any, self.lexical.shape)[1])} ({weights:.1f} weights per text)")
        if self.multi is not None:
            vectors = len(self.multi.values) / max(1, len(self))
            parts.append(f"multi {self.multi.width} ({vectors:.1f} vectors per text)")
        return f"Encoded({len(self)} texts: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        rows: list[list[str | int | float]] = []
        for head in self.heads:
            values: Any = getattr(self, head)
            width = values.width if head == "multi" else values.shape[1]
            stored = values.values if head == "multi" else values
            per = values.nnz if head == "lexical" else len(stored)
            rows.append([head, int(width), per / max(1, len(self))])
        heads = ("head", "width", "weights or vectors per text")
        return html_table(heads, rows, f"Encoded: {len(self):,} texts")

    def _sizes(self) -> list[int]:
        sizes = [] if self.dense is None else [len(self.dense)]
        sizes += [] if self.lexical is None else [int(cast(Any, self.lexical).shape[0])]
        return sizes + ([] if self.multi is None else [len(self.multi)])

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that are present."""
        return tuple(head for head in HEADS if getattr(self, head) is not None)

    def __len__(self) -> int:
        return self._sizes()[0]

    def __getitem__(self, rows: int | slice | NDArray[np.int64] | Sequence[int]) -> Encoded:
        """The texts `rows` (one number, a slice, or a sequence of numbers) as an Encoded."""
        index = np.arange(len(self))[rows]
        index = np.atleast_1d(index)
        return Encoded(
            None if self.dense is None else self.dense[index],
            None if self.lexical is None else cast("sparse.csr_array", self.lexical[index]),
            None if self.multi is None else self.multi.take(index),
        )

    @classmethod
    def concat(cls, parts: Sequence[Encoded]) -> Encoded:
        """Joins parts that have the same heads.

        Raises:
            InputError: For no parts, or parts of different heads.
        """
        if not parts or len({part.heads for part in parts}) != 1:
            raise InputError(
                f"Encoded.concat: got heads {[p.heads for p in parts]}; expected one or more alike"
            )
        if len(parts) == 1:
            return parts[0]
        from scipy import sparse  # slow to import, and most of what imports this module joins nothing

        dense = [part.dense for part in parts if part.dense is not None]
        lexical = [part.lexical for part in parts if part.lexical is not None]
        multi = [part.multi for part in parts if part.multi is not None]
        return cls(
            np.concatenate(dense) if dense else None,
            sparse.csr_array(sparse.vstack(lexical, format="csr")) if lexical else None,
            _concat_ragged(multi) if multi else None,
        )

    def to_arrow(
        self, *, half: bool = False, tokens: Callable[[Sequence[int]], list[str]] | None = None
    ) -> pa.Table:
        """The vectors as a table with the columns of `triptych.columns`, one row a text.

        Args:
            half: Whether numbers are written in 16 bits.
            tokens: Gives the tokens of token ids, such as ``encoder.tokenizer.pieces``: they become a further column.

        Raises:
            InputError: For numbers that 16 bits do not hold.
        """
        from triptych.columns import to_arrow

        return to_arrow(self, half=half, tokens=tokens)

    @classmethod
    def from_arrow(
        cls, table: pa.Table | pa.RecordBatch, widths: Mapping[Head, int] | None = None
    ) -> Encoded:
        """The inverse of `to_arrow`, for tables of other programs too: any lists of numbers will do.

        Args:
            table: With the columns of at least one head; others are passed over.
            widths: Columns of each head, for tables that do not say: of the lexical one else the largest token id.

        Raises:
            InputError: For missing columns and, with its row, for vectors of different widths, nulls, NaN, negative or
                repeated token ids, and negative weights.
        """
        from triptych.columns import from_arrow

        return from_arrow(table, widths)


def _concat_ragged(parts: Sequence[Ragged]) -> Ragged:
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    return Ragged(np.concatenate([part.values for part in parts]), offsets)


@dataclass(frozen=True, slots=True, repr=False)
class Hit:
    """One search result.

    Attributes:
        id: The document's id as it was added.
        score: The weighted sum of `scores`.
        scores: The single scores; a head that the index does not hold is missing.
        text: The document's text.
        metadata: What was stored with it.
        more: Of a search that groups its hits: the further hits of this one's group, the best first.
    """

    id: str
    score: float
    scores: Mapping[Head, float]
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more: tuple[Hit, ...] = ()

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= _SHOWN else self.text[: _SHOWN - 1] + "…"
        scores = ", ".join(f"{head}={score:.3f}" for head, score in self.scores.items())
        more = f", {len(self.more)} more" if self.more else ""
        return f"Hit({self.id!r}, {self.score:.3f}: {scores}, text={text!r}, metadata={show(self.metadata)}{more})"

    def _repr_html_(self) -> str:
        return Hits([self])._repr_html_()  # pyright: ignore[reportPrivateUsage]

    def to_json(self) -> dict[str, Any]:
        """The hit as the command line and the server write it, the scores to six digits."""
        return {
            "id": self.id,
            "score": round(self.score, 6),
            "scores": {head: round(score, 6) for head, score in self.scores.items()},
            "text": self.text,
            "metadata": dict(self.metadata),
            **({"more": [hit.to_json() for hit in self.more]} if self.more else {}),
        }


class Hits(list[Hit]):
    """The hits of one query, the best first: a list that notebooks draw as a table."""

    def _repr_html_(self) -> str:
        present: list[Head] = [head for head in HEADS if any(head in hit.scores for hit in self)]
        highest = {head: max(hit.scores.get(head, 0.0) for hit in self) for head in present}
        rows = [
            [rank, f"{hit.score:.3f}", *bars(hit.scores, highest, present), hit.id, shorten(hit.text)]
            for rank, hit in enumerate(self, start=1)
        ]
        return html_table(["", "score", *present, "id", "text"], rows)


class TextEncoder(Protocol):
    """What an index needs of an encoder; `triptych.Encoder` is one."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of all that determines the vectors: weights, tokenizer, configuration."""
        ...

    @property
    def source(self) -> str:
        """Name or folder from which `Encoder.from_pretrained` would load this model again."""
        ...

    @property
    def widths(self) -> Mapping[Head, int]:
        """Columns of each head that the model has: D, V and D'."""
        ...

    def encode_query(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        """Encodes queries."""
        ...

    def encode_document(self, texts: str | Sequence[str], *, outputs: Sequence[Head] = HEADS) -> Encoded:
        """Encodes documents."""
        ...

    def token_spans(self, texts: Sequence[str]) -> list[Spans]:
        """Where the tokens of texts stand, uncut and without special tokens."""
        ...

    def encode_spans(
        self,
        texts: Sequence[str],
        spans: Sequence[Sequence[tuple[int, int]]],
        *,
        outputs: Sequence[Head] = HEADS,
    ) -> Encoded:
        """Encodes parts of documents as a pass over the whole documents sees them, in order."""
        ...
