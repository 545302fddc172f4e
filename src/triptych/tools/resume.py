"""Work that survives being killed: finished parts as JSON Lines files, and the facts from which they were made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from triptych.errors import InputError
from triptych.io import compressing, write_json


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object that was written atomically, or None if the file does not exist.

    Raises:
        InputError: For a file that cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from error


def claim(file: Path, facts: Mapping[str, Any]) -> str:
    """Writes the facts that determine a run, or compares them with those of the run that began there.

    Args:
        file: Where the facts are; it is written if it does not exist.
        facts: All that determines the results, as JSON.

    Returns:
        "" if the run is new or the same; else what differs.
    """
    wanted: dict[str, Any] = json.loads(json.dumps(facts))
    known = read_json(file)
    if known is None:
        write_json(file, wanted)
        return ""
    names = [name for name in {**known, **wanted} if known.get(name) != wanted.get(name)]
    return ", ".join(f"{name} was {known.get(name)}, is {wanted.get(name)}" for name in names[:2])


def put_part(
    path: Path,
    records: Iterable[Mapping[str, Any] | list[Any]],
    done: Path,
    counts: Mapping[str, Any],
    *,
    level: int = 9,
    compact: bool = False,
) -> None:
    """Writes the records of a part, then its counts: a part is finished when its counts are there.

    Args:
        path: JSON Lines; ``.gz`` or ``.zst`` compress them.
        records: What is written.
        done: Where the counts go.
        counts: They may be filled while `records` are made.
        level: Of Zstandard.
        compact: Without blanks after separators.

    Raises:
        StorageError: If it cannot be written.
    """
    separators = (",", ":") if compact else None
    with compressing(path, level) as stream:
        for record in records:
            line = json.dumps(record, ensure_ascii=False, separators=separators, default=str) + "\n"
            stream.write(line.encode())
    write_json(done, counts)
