"""What an index holds and in which form, the same for every engine.

A collection has up to three named vectors ("dense", "lexical", "multi") a document and a payload
``{"id": …, "text": …, "metadata": {…}}``. Because the embedded engine and the server share this module, moving
from one to the other is a change of address and nothing else.

Token vectors are stored in float32, float16, 8 bits or 1 bit per number:

- int8: every vector has one float32 scale d, and ``value = d · code`` with code in -127..127
- binary: the sign of every number; a vector of D' signs stands for ``±1 / √D'``, so that its length is 1
"""

from __future__ import annotations

import base64
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

from triptych.errors import IndexForeign, InputError
from triptych.index.documents import Payload, check_choice, check_integer, check_options
from triptych.types import HEADS, Encoded, Floats, Head, Ragged

LAYOUT = 2
"""Version of all that this module describes."""

READABLE = (1, 2)
"""Versions of layouts that can be opened: in the first no document had its token vectors in several points."""

_LARGEST_HALF = 65504

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:triptych:document")

TokenPrecision: TypeAlias = Literal["float32", "float16", "int8", "binary", "none"]
DensePrecision: TypeAlias = Literal["float32", "float16"]
Coarse: TypeAlias = Literal["int8", "4bit", "none"]


class LayoutOptions(TypedDict, total=False):
    """What may be chosen when an index is made; the fields are those of `Layout`."""

    multi: TokenPrecision | None
    dense: DensePrecision
    coarse: Coarse | None
    exact_below: int
    ef: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Which heads an index holds, and how.

    Attributes:
        widths: Columns of each head that is held.
        multi: Form of the token vectors: "float32", "float16", "int8" (8 bits a number), "binary" (the sign,
            1 bit) or "none" (left out: the index has no third score).
        dense: Form of the dense vectors.
        coarse: A second, smaller form of the dense vectors for recall; scores never use it.
        exact_below: Recall by dense vectors compares with all documents while there are fewer than this.
        ef: Breadth of the graph search above that: more finds more, and takes longer.
    """

    widths: Mapping[Head, int]
    multi: TokenPrecision = "float16"
    dense: DensePrecision = "float32"
    coarse: Coarse = "none"
    exact_below: int = 100_000
    ef: int = 256

    def __post_init__(self) -> None:
        for name, kinds in (("multi", TokenPrecision), ("dense", DensePrecision), ("coarse", Coarse)):
            check_choice(getattr(self, name), kinds, "index", name)
        for name, least in (("exact_below", 0), ("ef", 1)):
            number = check_integer(getattr(self, name), f"index: got the option {name}", least)
            object.__setattr__(self, name, number)
        if not self.widths:
            raise InputError(
                "index: the model has no head that would be stored; expected one or more of dense, lexical and multi"
            )
        if self.multi == "binary" and set(self.widths) == {"multi"}:
            raise InputError(
                "index: got multi='binary' for a model without other heads; expected another form: binary token "
                "vectors only re-rank what dense or lexical vectors recall"
            )

    @classmethod
    def of(cls, widths: Mapping[Head, int], options: LayoutOptions | None = None) -> Layout:
        """A layout for a model with these widths.

        Raises:
            InputError: For an unknown option or value.
        """
        chosen: dict[str, Any] = dict(options or {})
        check_options(chosen, LayoutOptions, "index")
        chosen = {name: "none" if value is None else value for name, value in chosen.items()}
        left_out = isinstance(form := chosen.get("multi"), str) and form == "none"
        without = {"multi"} if left_out or "multi" not in widths else set[str]()
        if without:
            chosen["multi"] = "none"
        return cls(
            {head: int(widths[head]) for head in HEADS if head in widths and head not in without}, **chosen
        )

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the index holds."""
        return tuple(head for head in HEADS if head in self.widths)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for the manifest."""
        return asdict(self) | {"widths": dict(self.widths)}

    @classmethod
    def from_json(cls, value: object) -> Layout:
        """The layout of a manifest.

        Raises:
            IndexForeign: If this version of the package cannot have written it.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or set(cast(dict[str, Any], value)) != names:
            raise IndexForeign(
                f"index manifest: got the layout {value!r}; expected the fields {sorted(names)}"
            )
        try:
            return cls(**cast(dict[str, Any], value))
        except (InputError, TypeError) as error:
            raise IndexForeign(f"index manifest: {error}") from error


def point_id(document: str) -> str:
    """The engines' own id of a document: they accept only numbers and UUIDs."""
    return str(uuid.uuid5(_NAMESPACE, document))


def check_block(layout: Layout, vectors: Encoded, payloads: Sequence[Payload]) -> None:
    """Checks that documents can be stored, before any of them is.

    Engines answer late, unclearly, or after having stored one half; so nothing reaches them unchecked.

    Raises:
        InputError: For different numbers of texts, a missing head, other widths, numbers that are not finite,
            negative lexical weights, or repeated ids.
    """
    if len(vectors) != len(payloads):
        raise InputError(f"add: got vectors of {len(vectors)} texts for {len(payloads)} payloads")
    ids = [payload["id"] for payload in payloads]
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise InputError(f"add: got the id {twice!r} twice; expected each id once")
    check_vectors(layout, vectors, layout.heads, "add")
    if vectors.lexical is not None and "lexical" in layout.heads and (vectors.lexical.data < 0).any():
        raise InputError("add: got negative lexical weights; expected weights ≥ 0")


def check_vectors(layout: Layout, vectors: Encoded, heads: Sequence[Head], where: str) -> None:
    """Checks that `vectors` have these heads, in the index's widths, with finite numbers.

    Raises:
        InputError: If not.
    """
    for head in heads:
        part = getattr(vectors, head)
        if part is None:
            raise InputError(f"{where}: got vectors with the heads {vectors.heads}; expected also {head!r}")
        numbers = part if head == "dense" else part.data if head == "lexical" else part.values
        width = part.width if head == "multi" else int(part.shape[1])
        if width != layout.widths[head]:
            raise InputError(
                f"{where}: got {head} vectors of {width} columns; expected {layout.widths[head]}, as the index has"
            )
        if not np.isfinite(numbers).all():
            raise InputError(
                f"{where}: got {head} vectors with infinite numbers or NaN; expected finite ones"
            )
        half = getattr(layout, head, "") == "float16"
        if half and numbers.size and max(numbers.max(), -numbers.min()) > _LARGEST_HALF:
            raise InputError(
                f"{where}: got {head} vectors with numbers beyond ±{_LARGEST_HALF}, which 16 bits hold"
            )


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token vectors of N documents, packed.

    Attributes:
        codes: ``[T, C]``: float32, float16 or int8 with C = D'; for "binary" uint8 with C = ⌈D'/8⌉.
        scales: float32 ``[T]`` for "int8", else None.
        offsets: int64 ``[N + 1]``; document i has the rows ``offsets[i]:offsets[i + 1]``.
        width: D'.
        precision: Which form `codes` has.
    """

    codes: NDArray[Any]
    scales: Floats | None
    offsets: NDArray[np.int64]
    width: int
    precision: TokenPrecision

    @classmethod
    def pack(cls, ragged: Ragged, precision: TokenPrecision) -> Tokens:
        """Packs vectors ``[n_i, D']``."""
        values, scales = ragged.values, None
        if precision == "int8":
            largest = np.abs(values).max(axis=1, initial=0).astype(np.float32)
            scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
            codes: NDArray[Any] = np.rint(values / scales[:, None]).astype(np.int8)
        elif precision == "binary":
            codes = np.packbits(values >= 0, axis=1)
        else:
            codes = values.astype(precision)
        return cls(codes, scales, ragged.offsets, ragged.width, precision)

    def unpack(self) -> Ragged:
        """The vectors that the codes stand for, float32."""
        if self.precision == "binary":
            bits = np.unpackbits(self.codes, axis=1, count=self.width)
            values = (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(self.width))
        else:
            values = self.codes.astype(np.float32)
            if self.scales is not None:
                values *= self.scales[:, None]
        return Ragged(values, self.offsets)

    def take(self, documents: NDArray[np.int64]) -> Tokens:
        """The documents of these numbers, in that order."""
        lengths = np.diff(self.offsets)[documents]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        rows = np.repeat(self.offsets[documents] - offsets[:-1], lengths) + np.arange(offsets[-1])
        scales = None if self.scales is None else self.scales[rows]
        return Tokens(self.codes[rows], scales, offsets, self.width, self.precision)

    def run(self, start: int, stop: int) -> Tokens:
        """The documents from `start` to before `stop`, without a copy."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        scales = None if self.scales is None else self.scales[first:last]
        offsets = self.offsets[start : stop + 1] - first
        return Tokens(self.codes[first:last], scales, offsets, self.width, self.precision)

    @classmethod
    def concat(cls, parts: Sequence[Tokens]) -> Tokens:
        """Joins parts of the same width and precision."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        scales = [part.scales for part in parts if part.scales is not None]
        codes = np.concatenate([part.codes for part in parts])
        joined = np.concatenate(scales) if scales else None
        return cls(codes, joined, offsets, parts[0].width, parts[0].precision)


def to_text(tokens: Tokens, document: int) -> str:
    """The binary codes of one document as base64, for a payload: the engines have no vectors of one bit."""
    rows = tokens.codes[tokens.offsets[document] : tokens.offsets[document + 1]]
    return base64.b64encode(rows.tobytes()).decode("ascii")


def from_texts(texts: Sequence[str], width: int) -> Tokens:
    """The inverse of `to_text` for several documents; an empty text is a document without vectors."""
    row = (width + 7) // 8
    blobs = [base64.b64decode(text) for text in texts]
    offsets = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum([len(blob) // row for blob in blobs], out=offsets[1:])
    codes = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(-1, row)
    return Tokens(codes, None, offsets, width, "binary")
