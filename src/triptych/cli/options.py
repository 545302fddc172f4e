"""What several commands share: how a model is loaded, how documents and queries are read, what short options mean."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli.terminal import say
from triptych.errors import DataError, InputError
from triptych.io import STDIN, printable

if TYPE_CHECKING:
    from triptych.documents import Format
    from triptych.encode.encoder import Encoder
    from triptych.index.sync import Synchronizer
    from triptych.model.backbone import Dtype
    from triptych.records import Document, Fields, Query
    from triptych.types import Head, HeadWeights

BUNDLED = "small"


@dataclass(frozen=True)
class Loading:
    """How a model is loaded.

    Attributes:
        device: cpu, cuda, cuda:N or mps; by default a GPU if there is one.
        dtype: Arithmetic of the backbone; auto: bfloat16 where the device computes in it.
        trust_remote_code: Let Python files of the model's folder run; without this they never do.
    """

    device: str | None = None
    dtype: Dtype = "auto"
    trust_remote_code: bool = False

    def encoder(self, name: str) -> Encoder:
        """Loads a model, a folder by its whole path."""
        return self.load(self.place(name))

    def load(self, name: str) -> Encoder:
        """Loads a model by its name as it is given."""
        from triptych.encode.encoder import Encoder

        trusted: dict[str, Any] = {"trust_remote_code": True} if self.trust_remote_code else {}
        return Encoder.from_pretrained(name, device=self.device, dtype=self.dtype, **trusted)

    def place(self, name: str) -> str:
        """A folder by its whole path, since an index records it and may be opened from elsewhere."""
        path = Path(name).expanduser()
        return str(path.resolve()) if path.is_dir() and name != BUNDLED else name


@dataclass(frozen=True)
class Model:
    """A model.

    Attributes:
        model: The model: 'small' (bundled), a checkpoint folder, or a Hub name such as BAAI/bge-m3.
        loading: How it is loaded.
    """

    model: str = BUNDLED
    loading: Loading = field(default_factory=Loading)

    def load(self) -> Encoder:
        """Loads it."""
        return self.loading.encoder(self.model)


def _own_fields() -> Fields:
    from triptych.records import Fields

    return Fields()


@dataclass(frozen=True)
class Form:
    """The form of documents.

    Attributes:
        format: Format of the input; by default by the files' endings, and for '-' JSON Lines if it begins with '{',
            otherwise one text a line.
        fields: Names of their fields.
        skip_unreadable: Leave out what follows a broken line in JSON Lines and tables of a folder, and count the files;
            other files of a folder that cannot be read always are left out.
    """

    format: Format | None = None
    fields: Fields = field(default_factory=_own_fields)
    skip_unreadable: bool = False


def default_model() -> str:
    """What the environment names, or the bundled model."""
    return os.environ.get("TRIPTYCH_MODEL") or BUNDLED


def weights_or_default(
    weights: HeadWeights | None, heads: Sequence[Head] | Mapping[Head, Any]
) -> HeadWeights:
    """The given weights, or the default ones for the heads that there are."""
    from triptych.types import HeadWeights

    return weights or HeadWeights.default(heads)


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


_NOTED = ("unreadable", "too large")  # with what is wrong with them
_SIGNS = {">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "!=": "not", "^=": "prefix", "=": "in"}
"""Signs of conditions and the operators of `triptych.index.filters`; longer ones first, where one begins another."""


def parse_filter(values: Sequence[str], as_json: str | None = None) -> dict[str, Any] | None:
    """Reads conditions on documents, which must all hold.

    ``lang=fr`` (again, or ``lang=fr|de``: either), ``lang!=fr``, ``path^=docs/``, ``year>=2020``, ``author?`` (the
    document has the field), ``author!?`` (it has not).

    Args:
        values: The conditions.
        as_json: A further filter as JSON.

    Raises:
        InputError: For something else.
    """
    found: dict[str, dict[str, Any]] = {}
    for condition in values:
        key, operator, wanted = _parse_condition(condition)
        before = found.setdefault(key, {})
        several = isinstance(wanted, list) and operator in before
        before[operator] = before[operator] + wanted if several else wanted
    fields = {key: each["in"] if set(each) == {"in"} else each for key, each in found.items()}
    if as_json is None:
        return fields or None
    try:
        further = json.loads(as_json)
    except (ValueError, RecursionError) as error:
        raise InputError(f"--filter-json: got {as_json!r}; expected a JSON object ({error})") from None
    if not isinstance(further, dict):
        raise InputError(f'--filter-json: got {as_json!r}; expected an object such as {{"lang": "fr"}}')
    return {"and": [fields, further]} if fields and further else further or fields or None


def _parse_condition(condition: str) -> tuple[str, str, Any]:
    """Field, operator and value of a condition; values that are alternatives to each other are a list."""
    places = [(condition.find(sign), -len(sign), sign) for sign in _SIGNS if sign in condition]
    if not places and condition.endswith("?"):
        key = condition[:-1].removesuffix("!")
        if key:
            return key, "exists", not condition.endswith("!?")
    if not places or min(places)[0] == 0:
        raise InputError(
            f"--filter: got {condition!r}; expected key=value, key!=value, key^=prefix, key>=value, key<value … or key?"
        )
    at, _, sign = min(places)
    key, value = condition[:at], condition[at + len(sign) :]
    if "<" in sign or ">" in sign:
        return key, _SIGNS[sign], scalar(value)
    # A value in quotes may hold the bar.
    parts = [value] if isinstance(scalar(value), str) and value.startswith('"') else value.split("|")
    texts = key == "id" or sign == "^="
    return key, _SIGNS[sign], [_unquote(part) if texts else scalar(part) for part in parts]


def _unquote(value: str) -> str:
    """A JSON string as such; anything else, numbers too, is itself."""
    found = scalar(value)
    return found if isinstance(found, str) else value


def scalar(value: str) -> str | int | float | bool:
    """A JSON number, boolean or quoted string as such; anything else is itself."""
    try:
        read = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return read if isinstance(read, str | int | float | bool) else value


@dataclass
class Inputs:
    """The documents that a command was given.

    Attributes:
        paths: Files, folders or ``-``.
        form: Their format and the names of their fields.
        skipped: Files of folders that were passed over, and why.
        unreadable: What is wrong with those that were left out.
    """

    paths: Sequence[str]
    form: Form = field(default_factory=Form)
    skipped: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])
    unreadable: list[DataError] = field(default_factory=list[DataError])

    def read(self) -> Iterator[Document]:
        """The documents, one after the other."""
        from triptych.documents import read_documents

        return read_documents(self.paths, **self._how())

    def check(self) -> int:
        """Finds a missing file and a broken record before a model is loaded.

        Returns:
            How many documents there are, as far as that can be said without reading those that are files.

        Raises:
            DataError: For one that is not there, or not what it should be.
        """
        from triptych.documents import RECORDS, format_of, list_documents, read_documents

        form, known = self.form, [path for path in self.paths if path == STDIN or Path(path).exists()]
        if len(known) < len(self.paths):
            missing = next(path for path in self.paths if path not in known)
            raise DataError("is not there; expected a file or folder", missing)
        listed = [file for file in list_documents(known, format=form.format) if file.path.is_file()]
        files = [file for file in listed if (form.format or format_of(file.path)) in RECORDS]
        records = read_documents(files, format=form.format, fields=form.fields, on_error=self._leave_out)
        return len(listed) - len(files) + sum(1 for _ in records)

    def add_to(self, run: Synchronizer, *, keep: bool) -> None:
        """Brings an index in step with these documents."""
        run.add_files(self.paths, keep=keep, **self._how())

    def _how(self) -> dict[str, Any]:
        """How they are read; what was left out is noted anew."""
        self.skipped.clear()
        self.unreadable.clear()
        return {
            "format": self.form.format,
            "fields": self.form.fields,
            "on_skip": lambda path, reason: self.skipped.append((path, reason)),  # pyright: ignore[reportUnknownLambdaType]
            "on_error": self._leave_out,
        }

    def _leave_out(self, error: DataError) -> None:
        """Goes on after a file that is one document, or holds none; that records are missing must be asked for."""
        from triptych.documents import RECORDS, format_of
        from triptych.errors import NoDocument

        form = self.form.format or format_of(error.path or "")
        of_others = isinstance(error, NoDocument) and error.line == 1
        if form in RECORDS and not of_others and not self.form.skip_unreadable:
            raise error
        self.unreadable.append(error)

    def blocks(self, size: int) -> Iterator[list[Document]]:
        """The documents in lists of `size`; the last may be shorter."""
        from triptych.types import chunked

        if size < 1:
            raise InputError(f"--block: got {size}; expected at least 1")
        return chunked(self.read(), size)

    def texts(self, size: int) -> Iterator[tuple[list[str], list[str]]]:
        """Ids and contents of the documents in lists of `size`."""
        for block in self.blocks(size):
            yield [document.id for document in block], [document.content for document in block]

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
        note_skipped(self.skipped)


def note_skipped(paths: Sequence[tuple[Path, str]]) -> None:
    """Says how many files were passed over, for each reason with the first names."""
    by_reason: dict[str, list[str]] = {}
    for path, reason in paths:
        by_reason.setdefault(reason, []).append(printable(path.name))
    for reason, names in by_reason.items():
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        advice = "; pip install 'triptych[files]' to read them" if reason == "extra missing" else ""
        if reason not in _NOTED:
            what = "pages" if reason.startswith("page ") else "files"
            say(f"skipped {len(names)} {what}: {reason} ({shown}){advice}")


def metadata_of(document: Document, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is stored beside a document's text: its other fields, its title, and what was given for all."""
    title = {"title": document.title} if document.title else {}
    return {**title, **document.metadata, **(extra or {})}


def queries_of(words: Sequence[str], file: str | None, fields: Fields | None = None) -> list[Query]:
    """The queries of a command: its words as one, or those of a file.

    Raises:
        InputError: For both, or neither.
    """
    if list(words) == [STDIN]:
        words, file = [], file or STDIN
    if bool(words) == (file is not None):
        raise InputError("search: give either the words of one query or --queries FILE ('-': standard input)")
    if file is not None:
        from triptych.documents import read_queries

        return list(read_queries(file, fields=fields))
    from triptych.records import Query

    return [Query("query", " ".join(words))]
