"""Everything that the result of pair mining depends on; the number of workers is not among it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from triptych.config import check_types, check_value, unknown_key
from triptych.errors import DataError, InputError
from triptych.io import file_digest, printable
from triptych.text import is_utf8
from triptych.tools.pairs.base import Limits
from triptych.tools.pairs.duplicates import SHORTEST, WORDS
from triptych.tools.pairs.filters import Consistency, Thresholds
from triptych.tools.pairs.kinds import KINDS, check_kinds
from triptych.tools.pairs.reading import MinedFile, Origin
from triptych.tools.pairs.report import FILTERS

PART_BYTES = 4 << 20
"""Approximate bytes of files, as they are on the disk, per part."""
MAX_PARTS = 4096


@dataclass(frozen=True, slots=True)
class PairSettings:
    """Everything that decides which pairs come out.

    Attributes:
        kinds: Kinds of pairs that are made, such as title-body,neighbour; by default all.
        filters: Filters that run, such as length,copy; by default all. Of these contamination needs `against`,
            consistency a model, and without them they have nothing to do.
        limits: How much is taken of a document; the seed is there.
        thresholds: What the filters let pass.
        origin: What is said of documents that do not say it themselves.
        against: Evaluation files whose text no pair may hold.
        words: Words in a row that make a pair contaminated.
        recurring: In how many documents of a collection and language a line recurs that is boilerplate.
        near: From which estimated Jaccard index on both sides are near duplicates.
        consistency: How much the scorer must agree.
        parts: Into how many parts the documents are divided, which are worked on one by one; by default one for
            each 4 MB of the files.

    Raises:
        InputError: For unknown names, or numbers out of range.
    """

    kinds: tuple[str, ...] = KINDS
    filters: tuple[str, ...] = FILTERS
    limits: Limits = field(default_factory=Limits)
    thresholds: Thresholds = field(default_factory=Thresholds)
    origin: Origin = field(default_factory=Origin)
    against: tuple[str, ...] = ()
    words: Annotated[int, Ge(SHORTEST)] = WORDS
    recurring: Annotated[int, Ge(2)] = 10
    near: Annotated[float, Gt(0), Le(1)] = 0.8
    consistency: Consistency = field(default_factory=Consistency)
    parts: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        check_types(self)
        check_kinds(self.kinds)
        unknown = next((name for name in self.filters if name not in FILTERS), None)
        if unknown is not None:
            raise InputError(f"filters: got {unknown!r}; expected some of {', '.join(FILTERS)}")
        for name in (*self.against, self.origin.source, self.origin.lang, self.origin.license):
            if not is_utf8(name):
                raise InputError(f"settings: got {printable(name)}; expected a name in UTF-8")

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return json.loads(json.dumps(asdict(self)))


def with_changes(settings: PairSettings, changes: Mapping[str, Any]) -> PairSettings:
    """Settings with other values, named as in ``settings.json``: ``near`` or ``limits.passage_chars``.

    Raises:
        InputError: For an unknown name (the nearest is named), a value of another type, or one out of range.
    """
    check_value(changes, Mapping[str, Any], "settings: changes")
    for name, value in changes.items():
        groups: dict[str, Any] = asdict(settings)
        known = {key: old for key, old in groups.items() if not isinstance(old, dict | tuple)}
        known |= {
            f"{key}.{k}": v for key, old in groups.items() if isinstance(old, dict) for k, v in old.items()
        }
        if name not in known:
            raise unknown_key(name, known, "settings")
        old = known[name]
        kinds = (int, float) if isinstance(old, float) else (int,) if old is None else (type(old),)
        if isinstance(value, bool) != isinstance(old, bool) or not isinstance(value, kinds):
            raise InputError(f"settings: {name} is {value!r}; expected a value such as {old!r}")
        group, _, field_name = name.rpartition(".")
        if group:
            field_name, value = group, replace(getattr(settings, group), **{field_name: value})
        settings = replace(settings, **{field_name: value})
    return settings


def part_count(settings: PairSettings, files: Iterable[MinedFile]) -> int:
    """How many parts there are: a function of the settings and the files alone."""
    if settings.parts is not None:
        return settings.parts
    total = sum(file.path.stat().st_size for file in files)
    return min(MAX_PARTS, 1 + total // PART_BYTES)


def fingerprint(settings: PairSettings, files: Iterable[MinedFile], scorer: str) -> str:
    """A digest of the settings, of the names and contents of all files, and of the scorer's name.

    Raises:
        DataError: For a file that does not exist, or cannot be read.
    """
    state = blake2b(digest_size=16)
    state.update(json.dumps([settings.to_dict(), scorer], sort_keys=True).encode())
    for path in (*(file.path for file in files), *map(Path, settings.against)):
        if not path.exists():
            raise DataError("no such file or folder", path)
        for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if not each.is_file():
                continue
            try:
                digest = bytes.fromhex(file_digest(each))
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror or error}", each) from error
            state.update(each.as_posix().encode("utf-8", "surrogateescape") + b"\0" + digest)
    return state.hexdigest()
