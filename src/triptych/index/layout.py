"""What an index holds and in which form, the same for every engine.

A collection has up to three named vectors ("dense", "lexical", "multi") a document and a payload
``{"id": …, "text": …, "metadata": {…}}``. Because the embedded engine and the server share this module, moving
from one to the other is a change of address and nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, TypedDict, cast, get_args

import numpy as np

from triptych.errors import IndexForeign, InputError
from triptych.types import HEADS, Encoded, Head

LAYOUT = 1
"""Version of all that this module describes; an index of another version is refused."""

MAX_TOKEN_NUMBERS = 1_048_576
"""A document's token vectors must have fewer numbers than this (the server refuses it, so all engines do)."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:triptych:document")

TokenPrecision: TypeAlias = Literal["float32", "float16", "int8", "binary", "none"]
DensePrecision: TypeAlias = Literal["float32", "float16"]
Coarse: TypeAlias = Literal["int8", "4bit", "none"]


class Payload(TypedDict):
    """What is kept of a document beside its vectors."""

    id: str
    text: str
    metadata: dict[str, Any]


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
            if getattr(self, name) not in get_args(kinds):
                came, kinds = getattr(self, name), ", ".join(map(repr, get_args(kinds)))
                raise InputError(f"index option {name}: got {came!r}; expected one of {kinds}")
        for name, least in (("exact_below", 0), ("ef", 1)):
            number = getattr(self, name)
            if not isinstance(number, int) or isinstance(number, bool) or number < least:
                raise InputError(f"index option {name}: got {number!r}; expected an integer ≥ {least}")
        if "dense" not in self.widths:
            raise InputError(f"index: the model has the heads {list(self.widths)}; expected at least 'dense'")

    @classmethod
    def of(cls, widths: Mapping[Head, int], options: LayoutOptions | None = None) -> Layout:
        """A layout for a model with these widths.

        Raises:
            InputError: For an unknown option or value.
        """
        chosen: dict[str, Any] = dict(options or {})
        known = LayoutOptions.__annotations__
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise InputError(f"index options: got {unknown}; expected some of {', '.join(known)}")
        chosen = {name: "none" if value is None else value for name, value in chosen.items()}
        without = {"multi"} if chosen.get("multi") == "none" or "multi" not in widths else set[str]()
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
            negative lexical weights, repeated ids, or too many token vectors.
    """
    if len(vectors) != len(payloads):
        raise InputError(f"add: got vectors of {len(vectors)} texts for {len(payloads)} payloads")
    ids = [payload["id"] for payload in payloads]
    if len(set(ids)) < len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise InputError(f"add: got the id {twice!r} twice; expected each id once")
    check_vectors(layout, vectors, layout.heads, "add")
    if vectors.lexical is not None and "lexical" in layout.heads and (vectors.lexical.data < 0).any():
        raise InputError("add: got negative lexical weights; expected weights ≥ 0")
    if vectors.multi is not None and "multi" in layout.heads:
        check_token_limit(ids, vectors.multi.lengths.tolist(), vectors.multi.width)


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


def check_token_limit(ids: Sequence[str], lengths: Sequence[int], width: int) -> None:
    """Refuses documents with more token vectors than a server would take.

    Raises:
        InputError: Naming the first such document and what can be done.
    """
    for name, length in zip(ids, lengths, strict=True):
        if length * width >= MAX_TOKEN_NUMBERS:
            raise InputError(
                f"add: document {name!r} has {length} token vectors of {width} numbers, {length * width:,} in all; "
                f"expected fewer than {MAX_TOKEN_NUMBERS:,} (at this width at most "
                f"{(MAX_TOKEN_NUMBERS - 1) // width} tokens). Split the document, pool its token vectors, use a "
                "model with a narrower multi-vector head, or leave the token vectors out (multi=None)"
            )
