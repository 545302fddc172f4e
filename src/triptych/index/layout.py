"""What an index holds and in which form, the same for every engine.

A collection has up to three named vectors ("dense", "lexical", "multi") a document and a payload
``{"id": …, "text": …, "metadata": {…}}``. Because the embedded engine and the server share this module, moving
from one to the other is a change of address and nothing else.

In which forms token vectors are stored stands in `triptych.scores.tokens`.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

import numpy as np

from triptych.errors import IndexForeign, InputError, show
from triptych.index.documents import Payload, check_choice, check_integer, check_options
from triptych.scores.tokens import BITS, Frame, TokenForm, TokenPrecision, pooled_lengths
from triptych.types import HEADS, Encoded, Head, Ragged

if TYPE_CHECKING:
    from triptych.scores.muvera import Muvera

LAYOUT = 3
"""Version of all that this module describes."""

READABLE = (1, 2, 3)
"""Versions of layouts that can be opened: in the first no document had its token vectors in several points, and before
the third none were pooled, measured from a mean, or in fewer numbers than the model's."""

_LARGEST_HALF = 65504

_SINCE_3: Mapping[str, Any] = {"pool_tokens": 1, "multi_width": None, "frame": None, "fde": None}
"""Fields that older manifests lack, and what they are there."""

_FORMS_SINCE_3 = ("4bit", "2bit", "1bit")
_NOTHING = object()

_BYTES_A_WEIGHT = 14
"""Of a lexical weight: with the document, and in the index by token."""

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:triptych:document")

DensePrecision: TypeAlias = Literal["float32", "float16"]
Coarse: TypeAlias = Literal["int8", "4bit", "none"]


class LayoutOptions(TypedDict, total=False):
    """What may be chosen when an index is made; the fields are those of `Layout`.

    Attributes:
        multi: Form of the token vectors: float32, float16, int8, 4bit, 2bit or 1bit a number (differences from the
            collection's mean), binary (signs alone), or none: left out, the index has no third score. Default: 2bit,
            with pool_tokens=3 unless multi_width is given; float16 for a model without other heads.
        pool_tokens: So many token vectors of a document that resemble each other become one; 16 are left in any case.
        multi_width: Numbers that are kept of a token vector, along the directions in which the first ones differ most.
        dense: Form of the dense vectors.
        coarse: A second, smaller form of the dense vectors for recall; scores never use it.
        exact_below: Recall by dense vectors compares with all documents while there are fewer than this.
        ef: Breadth of the graph search above that: more finds more, and takes longer.
        fde: Recall by token vectors through one more vector a document instead of a look at all: bits, columns and
            repetitions of `triptych.scores.muvera`. 0:384:1 is the mean of token vectors of 384 columns.
    """

    multi: TokenPrecision | None
    pool_tokens: int
    multi_width: int | None
    dense: DensePrecision
    coarse: Coarse | None
    exact_below: int
    ef: int
    fde: tuple[int, ...] | None


_FORM = "2bit"
DEFAULT_TOKENS: LayoutOptions = {"multi": _FORM, "pool_tokens": 3}
"""How token vectors are kept where nothing is said of them, and the model has another head to recall by."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which heads an index holds, and how.

    Attributes:
        widths: Columns of each head that is held.
        multi: Form of the token vectors, see `triptych.scores.tokens`; "none": left out, the index has no third
            score.
        dense: Form of the dense vectors.
        coarse: A second, smaller form of the dense vectors for recall; scores never use it.
        exact_below: Recall by dense vectors compares with all documents while there are fewer than this.
        ef: Breadth of the graph search above that: more finds more, and takes longer.
        pool_tokens: So many token vectors of a document that resemble each other become one; 16 are left in any case.
        multi_width: Numbers that are kept of a token vector; None: all.
        frame: From what token vectors are measured, once the first were seen; None for forms that need none.
        fde: Bits, columns and repetitions of the vectors by which token vectors recall; None: all are compared.
    """

    widths: Mapping[Head, int]
    multi: TokenPrecision = "float16"
    dense: DensePrecision = "float32"
    coarse: Coarse = "none"
    exact_below: int = 100_000
    ef: int = 256
    pool_tokens: int = 1
    multi_width: int | None = None
    frame: Frame | None = None
    fde: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for name, kinds in (("multi", TokenPrecision), ("dense", DensePrecision), ("coarse", Coarse)):
            check_choice(getattr(self, name), kinds, "index", name)
        for name, least in (("exact_below", 0), ("ef", 1), ("pool_tokens", 1)):
            number = check_integer(getattr(self, name), f"index: got the option {name}", least)
            object.__setattr__(self, name, number)
        if not self.widths:
            raise InputError(
                "index: the model has no head that would be stored; expected one or more of dense, lexical and multi"
            )
        if self.fde is not None:
            numbers = () if isinstance(self.fde, str | int) else tuple(self.fde)
            if "multi" not in self.widths or len(numbers) != 3:
                raise InputError(
                    f"index: got fde={show(self.fde)}; expected bits, columns and repetitions, and token vectors"
                )
            numbers = tuple(check_integer(number, "index: got in the option fde", 0) for number in numbers)
            object.__setattr__(self, "fde", numbers)
            _muvera(self.widths["multi"], *numbers)
        if self.is_packed and set(self.widths) == {"multi"} and self.fde is None:
            raise InputError(
                f"index: got multi={self.multi!r} for a model without other heads; expected another form: token "
                "vectors of so few bits only re-rank what dense or lexical vectors recall"
            )
        if self.multi_width is not None:
            width = check_integer(self.multi_width, "index: got the option multi_width")
            if self.multi == "binary" or width >= self.widths.get("multi", 0):
                raise InputError(
                    f"index: got multi_width={width} for multi={self.multi!r} and token vectors of "
                    f"{self.widths.get('multi', 0)} columns; expected fewer, and not 'binary'"
                )
            object.__setattr__(self, "multi_width", width)
        if self.frame is not None and self.frame.shape != (self.widths.get("multi", 0), self.multi_width):
            raise InputError(f"index: got a frame of {self.frame.shape} numbers for {self.options}")

    @classmethod
    def of(cls, widths: Mapping[Head, int], options: LayoutOptions | None = None) -> Layout:
        """A layout for a model with these widths.

        Raises:
            InputError: For an unknown option or value.
        """
        chosen: dict[str, Any] = dict(options or {})
        check_options(chosen, LayoutOptions, "index")
        none = {name: "none" for name in ("multi", "coarse") if name in chosen and chosen[name] is None}
        if "multi" not in chosen and {*widths} > {"multi"}:
            some = {"pool_tokens", "multi_width"} & {*chosen}
            chosen |= {"multi": _FORM} if some else DEFAULT_TOKENS
        chosen |= none
        left_out = isinstance(form := chosen.get("multi"), str) and form == "none"
        without = {"multi"} if left_out or "multi" not in widths else set[str]()
        if without:
            chosen["multi"] = "none"
        return cls(
            {head: int(widths[head]) for head in HEADS if head in widths and head not in without}, **chosen
        )

    @property
    def is_packed(self) -> bool:
        """Whether token vectors have so few bits that engines keep them as bytes, which only we can score."""
        return self.multi in BITS

    @property
    def muvera(self) -> Muvera | None:
        """What makes the vectors of `fde`."""
        return None if self.fde is None else _muvera(self.widths["multi"], *self.fde)

    @property
    def tokens(self) -> TokenForm:
        """The form of the token vectors."""
        width = self.widths["multi"]
        return TokenForm(width, self.multi, self.multi_width or width, self.frame)

    @property
    def lacks_frame(self) -> bool:
        """Whether token vectors are to be measured from a frame that is not there yet."""
        needed = self.multi_width is not None or (self.is_packed and self.multi != "binary")
        return needed and self.frame is None

    def size_of(self, vectors: Encoded, payloads: Sequence[Payload]) -> int:
        """About the bytes that documents will take on the disk, with an engine's own structures."""
        size = sum(len(str(payload).encode("utf-8", "surrogatepass")) for payload in payloads)
        if vectors.dense is not None and "dense" in self.widths:
            coarse = {"int8": 1.0, "4bit": 0.5, "none": 0.0}[self.coarse]
            size += int(vectors.dense.size * (coarse + (4 if self.dense == "float32" else 2)))
        if vectors.lexical is not None and "lexical" in self.widths:
            size += _BYTES_A_WEIGHT * vectors.lexical.nnz
        if self.muvera is not None:
            size += 2 * len(payloads) * self.muvera.size
        if vectors.multi is not None and "multi" in self.widths:
            pooled = int(pooled_lengths(vectors.multi.lengths, self.pool_tokens).sum())
            size += pooled * self.tokens.bytes_per_token * 4 // (3 if self.is_packed else 4)  # as base64
        return size

    def fit(self, vectors: Ragged) -> Layout:
        """With a frame that fits some token vectors."""
        return replace(self, frame=Frame.fit(vectors, self.multi_width))

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that the index holds."""
        return tuple(head for head in HEADS if head in self.widths)

    def to_json(self) -> dict[str, Any]:
        """A JSON object for the manifest, without what earlier versions do not know where it is not used."""
        found = self.options | ({} if self.frame is None else {"frame": self.frame.to_json()})
        return {name: part for name, part in found.items() if part != _SINCE_3.get(name, _NOTHING)}

    @property
    def options(self) -> dict[str, Any]:
        """What was chosen, as a JSON object: all but the frame."""
        found = asdict(replace(self, frame=None)) | {"widths": dict(self.widths)}
        return {name: part for name, part in found.items() if name != "frame"}

    @property
    def version(self) -> int:
        """The first version of layouts that can say this."""
        return 3 if {*_SINCE_3} & {*self.to_json()} or self.multi in _FORMS_SINCE_3 else 2

    @classmethod
    def from_json(cls, value: object) -> Layout:
        """The layout of a manifest.

        Raises:
            IndexForeign: If this version of the package cannot have written it.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or {*cast(dict[str, Any], value), *_SINCE_3} != names:
            raise IndexForeign(
                f"index manifest: got the layout {value!r}; expected the fields {sorted(names)}"
            )
        found = dict(cast(dict[str, Any], value))
        try:
            frame = Frame.from_json(found.pop("frame")) if "frame" in found else None
            return cls(frame=frame, **found)
        except (InputError, TypeError, KeyError, ValueError, AttributeError) as error:
            raise IndexForeign(f"index manifest: {error}") from error


@cache
def _muvera(width: int, *numbers: int) -> Muvera:
    from triptych.scores.muvera import Muvera

    return Muvera(width, *numbers)


def point_id(document: str) -> str:
    """The engines' own id of a document: they accept only numbers and UUIDs."""
    return str(uuid.uuid5(_NAMESPACE, document))


def check_block(
    layout: Layout, vectors: Encoded, payloads: Sequence[Payload], *, framed: bool = True
) -> None:
    """Checks that documents can be stored, before any of them is.

    Engines answer late, unclearly, or after having stored one half; so nothing reaches them unchecked.

    Args:
        layout: What the index holds.
        vectors: Of N texts.
        payloads: Of N documents.
        framed: Whether the frame of token vectors must be there, if they need one.

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
    if framed and layout.lacks_frame and len(cast(Ragged, vectors.multi).values):
        raise InputError("add: got token vectors before their frame; expected `Store.add`, which finds one")
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
        half = getattr(layout, head, "") in ("float16", *_FORMS_SINCE_3)
        if half and numbers.size and max(numbers.max(), -numbers.min()) > _LARGEST_HALF:
            raise InputError(
                f"{where}: got {head} vectors with numbers beyond ±{_LARGEST_HALF}, which 16 bits hold"
            )
