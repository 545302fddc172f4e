"""Options that several commands have, and how their values are read.

What the commands read: documents from files, folders and standard input, and queries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli.failures import say
from triptych.documents import read_documents, read_queries
from triptych.errors import DataError, InputError
from triptych.io import STDIN, printable
from triptych.records import Document, Fields, Query

if TYPE_CHECKING:
    from triptych.types import HeadWeights


class Dtype(StrEnum):
    """Types of the backbone's arithmetic."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Format(StrEnum):
    """Formats of input files."""

    jsonl = "jsonl"
    tsv = "tsv"
    csv = "csv"
    text = "text"
    lines = "lines"
    markdown = "markdown"
    html = "html"


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        envvar="TRIPTYCH_MODEL",
        help="The model: 'small' (bundled), a checkpoint folder, or a Hub name such as BAAI/bge-m3.",
    ),
]
OwnModelOption = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Load the index's model from here instead of from where it was."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:N or mps; by default a GPU if there is one.")
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype", help="Arithmetic of the backbone; auto: bfloat16 where the device computes in it."
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON objects, one a line, and nothing else to standard output.")
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        "-w",
        metavar="DENSE,LEXICAL,MULTI",
        help="Weights of the three scores in their sum; by default 1,0.3,1 for the heads that there are.",
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="Format of the input; by default by the files' endings, and for '-' JSON Lines if it begins "
        "with '{', otherwise one text a line.",
    ),
]
IdFieldOption = Annotated[
    str | None, typer.Option("--id-field", help="Name of the id's field or column; by default id or _id.")
]
TextFieldOption = Annotated[
    str | None,
    typer.Option("--text-field", help="Name of the text's field; by default text, contents or body."),
]
TitleFieldOption = Annotated[
    str | None, typer.Option("--title-field", help="Name of the title's field; by default title.")
]
ExplainOption = Annotated[
    bool,
    typer.Option(
        "--explain",
        "-x",
        help="Show which words matched with which weights, and which document token each query token met.",
    ),
]


def default_model() -> str:
    """What the environment names, or the bundled model."""
    return os.environ.get("TRIPTYCH_MODEL") or "small"


def parse_weights(value: str | None) -> HeadWeights | None:
    """Reads ``1,0.3,1``.

    Raises:
        InputError: For anything but three numbers ≥ 0 that are not all 0.
    """
    from triptych.types import HeadWeights

    if value is None:
        return None
    try:
        return HeadWeights.of([float(part) for part in value.split(",")])
    except ValueError:  # of float or, as an InputError, of the weights
        raise InputError(
            f"--weights: got {value!r}; expected three numbers ≥ 0, such as 1,0.3,1 (dense,lexical,multi)"
        ) from None


def parse_heads(value: str | None, option: str) -> tuple[Any, ...] | None:
    """Reads names of heads such as ``dense,lexical``.

    Raises:
        InputError: For an unknown name.
    """
    from triptych.types import check_heads

    if value is None:
        return None
    return check_heads([part.strip() for part in value.split(",")], option)


def parse_pairs(values: Sequence[str], option: str) -> dict[str, Any]:
    """Reads ``key=value`` pairs; a value that is a JSON number, boolean or string in quotes counts as that.

    Raises:
        InputError: For something without ``=``, or the same key twice.
    """
    found: dict[str, Any] = {}
    for pair in values:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"{option}: got {pair!r}; expected key=value")
        if key in found:
            raise InputError(f"{option}: got the key {key!r} twice; expected it once")
        found[key] = scalar(value)
    return found


_BOUNDS = ((">=", "gte"), ("<=", "lte"), (">", "gt"), ("<", "lt"))


def parse_filter(values: Sequence[str]) -> dict[str, Any] | None:
    """Reads conditions on metadata: ``lang=fr``, again for "or" (``lang=de``), and ``year>=2020``, ``year<2025``.

    Raises:
        InputError: For something else, or a range and an equality on the same key.
    """
    equal: dict[str, list[Any]] = {}
    ranges: dict[str, dict[str, Any]] = {}
    for condition in values:
        key, sign, value = _split_condition(condition)
        if sign == "=":
            equal.setdefault(key, []).append(scalar(value))
        else:
            ranges.setdefault(key, {})[dict(_BOUNDS)[sign]] = scalar(value)
    if both := sorted(set(equal) & set(ranges)):
        raise InputError(f"--filter: got {both[0]!r} with = and with a range; expected one of them")
    return {**equal, **ranges} or None


def _split_condition(condition: str) -> tuple[str, str, str]:
    places = [(condition.find(sign), -len(sign), sign) for sign in (*dict(_BOUNDS), "=") if sign in condition]
    if not places or min(places)[0] == 0:
        raise InputError(f"--filter: got {condition!r}; expected key=value, key>=value, key<value …")
    at, _, sign = min(places)
    return condition[:at], sign, condition[at + len(sign) :]


def scalar(value: str) -> str | int | float | bool:
    """A JSON number, boolean or quoted string as such; anything else is itself."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, str | int | float | bool) else value


if TYPE_CHECKING:
    pass


@dataclass
class Inputs:
    """The documents that a command was given.

    Attributes:
        paths: Files, folders or ``-``.
        format: Their format; None: by their endings.
        fields: Names of their fields.
        skip_unreadable: Whether files of folders that cannot be read are left out.
        skipped: Files of folders that were passed over.
        unreadable: What is wrong with those that were left out.
    """

    paths: list[str]
    format: Format | None
    fields: Fields
    skip_unreadable: bool = False
    skipped: list[Path] = field(default_factory=list[Path])
    unreadable: list[DataError] = field(default_factory=list[DataError])

    def read(self) -> Iterator[Document]:
        """The documents, one after the other."""
        self.skipped.clear()
        self.unreadable.clear()
        chosen: Any = None if self.format is None else self.format.value
        return read_documents(
            self.paths,
            format=chosen,
            fields=self.fields,
            on_skip=self.skipped.append,
            on_error=self.unreadable.append if self.skip_unreadable else None,
        )

    def blocks(self, size: int) -> Iterator[list[Document]]:
        """The documents in lists of `size`; the last may be shorter."""
        if size < 1:
            raise InputError(f"--block: got {size}; expected at least 1")
        documents = self.read()
        return iter(lambda: list(islice(documents, size)), [])

    def count(self) -> int | None:
        """Reads everything once: finds what is wrong before hours of encoding, and counts the documents.

        Returns:
            How many there are; None where reading twice is impossible (standard input, pipes).
        """
        if any(path == STDIN or not (Path(path).is_dir() or Path(path).is_file()) for path in self.paths):
            return None
        return sum(1 for _ in self.read())

    def note_skipped(self) -> None:
        """Says which files were passed over."""
        if self.unreadable:
            shown = "; ".join(map(str, self.unreadable[:3])) + ("; …" if len(self.unreadable) > 3 else "")
            say(f"left out {len(self.unreadable)} files that cannot be read ({shown})")
        if self.skipped:
            names = ", ".join(printable(path.name) for path in self.skipped[:3])
            more = ", …" if len(self.skipped) > 3 else ""
            say(
                f"skipped {len(self.skipped)} files whose ending is not known, that are no regular files, or "
                f"whose name is not UTF-8 ({names}{more})"
            )


def metadata_of(document: Document, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is stored beside a document's text: its other fields, its title, and what was given for all."""
    title = {"title": document.title} if document.title else {}
    return {**title, **document.metadata, **(extra or {})}


def queries_of(words: Sequence[str], file: str | None) -> list[Query]:
    """The queries of a command: its words as one, or those of a file.

    Raises:
        InputError: For both, or neither.
    """
    if list(words) == [STDIN]:
        words, file = [], file or STDIN
    if bool(words) == (file is not None):
        raise InputError("search: give either the words of one query or --queries FILE ('-': standard input)")
    if file is not None:
        return list(read_queries(file))
    return [Query("query", " ".join(words))]


def model_name(name: str) -> str:
    """A folder by its whole path, since an index records it and may be opened from elsewhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() and name != "small" else name
