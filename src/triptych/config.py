"""The model's configuration: all that the weights do not say."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from annotated_types import Ge

from triptych.errors import InputError

BLOCK_TOKENS = 16_384
"""Tokens of documents that are encoded and stored at once, if nothing else is said."""

Pooling = Literal["cls", "mean", "mcls"]
LAYOUT = 1

_Config = TypeVar("_Config")


def from_mapping(cls: type[_Config], values: Mapping[str, Any], where: str) -> _Config:
    """Builds the dataclass `cls`; a key that it does not have is an error that names the nearest one.

    Args:
        cls: A dataclass.
        values: Field name to value.
        where: What `values` came from (a file, an option), for the message.
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise unknown_key(key, known, where)
    return cls(**values)


def unknown_key(key: str, known: Collection[str], where: str) -> InputError:
    """The error for a key that is not one of `known`; it names the nearest one."""
    return InputError(f"{where}: unknown key {key!r}; {hint(key, known)}")


def hint(key: str, known: Collection[str]) -> str:
    """What an error about an unknown key says next: the nearest known one, or all of them."""
    near = get_close_matches(key, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def check_value(value: Any, hint: Any, where: str) -> None:
    """Checks that a value has a type and lies in its range.

    Args:
        value: Whole numbers are floats too, truth values are no numbers, NaN is none either.
        hint: The type, such as ``int | None`` or ``Annotated[int, Ge(1)]``.
        where: Function and argument, for the message.

    Raises:
        InputError: If it has another type, or is out of range.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a NumPy number
        value = value.item()
    if any(_fits(value, kind) for kind in _kinds(hint)):
        return
    problems = [_problem(value, kind) for kind in _kinds(hint)]
    if all(problems):
        raise InputError(f"{where}: got {value!r:.60}; expected {' or '.join(map(str, problems))}")


def check_types(settings: Any) -> None:
    """Checks that each field of a dataclass fits its declared type and range; called from ``__post_init__``.

    Raises:
        InputError: Naming the field, the value and what was expected.
    """
    for name, hint in _hints(type(settings)).items():
        check_value(getattr(settings, name), hint, f"{type(settings).__name__}.{name}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value certainly fits a simple type: for those pydantic, which is slow to import, is not needed."""
    if get_origin(kind) is Annotated and all(isinstance(part, Ge) for part in kind.__metadata__):
        return _fits(value, kind.__origin__) and all(value >= part.ge for part in kind.__metadata__)
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    return kind in (int, bool, str, type(None)) and type(value) is kind


def _problem(value: Any, kind: Any) -> str | None:
    """What is expected in the place of a value that does not fit a type; None if it does."""
    if is_dataclass(kind):
        return None if isinstance(value, cast("type[Any]", kind)) else cast("type[Any]", kind).__name__
    if isinstance(value, float) and value != value:
        return "a number"
    try:
        _adapter(kind).validate_python(value, strict=True)
    except ValueError as error:
        message: str = cast(Any, error).errors()[0]["msg"].removeprefix("Input should be ")
        message = message.removeprefix("a valid ").replace("greater than or equal to", "at least")
        return f"a number {message}" if message.startswith(("at ", "greater ", "less ")) else message
    return None


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    hints = get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in fields(cls)}


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(arbitrary_types_allowed=True))


@dataclass(frozen=True, slots=True)
class M3Config:
    """How a backbone's states become the three representations.

    The defaults are those of the published BGE-M3 (arXiv 2402.03216v4, section 3.2, and its weights).

    Attributes:
        pooling: Which states make the dense vector: the first (`cls`), all (`mean`), or a [CLS] put before
            every `mcls_every` tokens (`mcls`, appendix B.2 of the paper: long documents without fine-tuning).
        mcls_every: Tokens to a [CLS] with `mcls`.
        query_prefix: Put before every query.
        document_prefix: Put before every document.
        max_length: Tokens of a text, special ones counted; longer texts are cut.
        dense: Whether the model gives dense vectors; they need no weights of their own, only a `pooling` that it
            was trained with.
        lexical: Whether the model has the lexical head.
        multi_dim: Width D' of the multi-vector head; None: the model has no such head.
        multi_first: Whether the first position ([CLS]) has a token vector. The published model: no.
        multi_last: Whether the last position ([EOS]) has one. The published model: yes.
        prefix_in_lexical: Whether the tokens of a prefix ("query: ") have lexical weights. They say nothing of the
            text, and every document would match every query in them.
        normalize: Whether dense and token vectors have length 1, as scores expect.
    """

    pooling: Pooling = "cls"
    mcls_every: Annotated[int, Ge(1)] = 256
    query_prefix: str = ""
    document_prefix: str = ""
    max_length: Annotated[int, Ge(4)] = 8192
    dense: bool = True
    lexical: bool = True
    multi_dim: Annotated[int, Ge(1)] | None = 1024
    multi_first: bool = False
    multi_last: bool = True
    prefix_in_lexical: bool = False
    normalize: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        for field in fields(self):
            value = getattr(self, field.name)
            if hasattr(value, "item"):  # a NumPy number, which JSON does not know
                object.__setattr__(self, field.name, value.item())
        if not self.dense and not self.lexical and self.multi_dim is None:
            raise InputError("M3Config: no head is left of dense, lexical, multi_dim")

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str) -> M3Config:
        """Reads the `triptych` part of a config.json.

        Raises:
            InputError: For an unknown key, a layout that this version does not know, or a value out of range.
        """
        values = dict(values)
        layout = values.pop("layout", LAYOUT)
        if layout != LAYOUT:
            raise InputError(f"{where}: layout {layout!r}; this version of triptych reads layout {LAYOUT}")
        return from_mapping(cls, values, where)

    def to_dict(self) -> dict[str, Any]:
        """The inverse of `of`; `normalize` is there only if it is False."""
        values = {"layout": LAYOUT, **asdict(self)}
        if self.normalize:
            del values["normalize"]
        return values

    def with_(self, **changes: Any) -> M3Config:
        """A copy with some fields changed."""
        return replace(self, **changes)
