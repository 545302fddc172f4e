"""Reading the JSON files of a checkpoint folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from triptych.errors import ModelError

_Kind = TypeVar("_Kind", dict[str, Any], list[Any])


def read_object(path: Path) -> dict[str, Any]:
    """Reads a file that holds a JSON object.

    Raises:
        ModelError: If it is missing, not JSON, or holds something else; names the file.
    """
    return _read(path, dict[str, Any](), "object")


def read_list(path: Path) -> list[Any]:
    """Reads a file that holds a JSON array; raises as `read_object`."""
    return _read(path, list[Any](), "array")


def _read(path: Path, kind: _Kind, name: str) -> _Kind:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(values, type(kind)):
        raise ModelError(f"{path}: expected a JSON {name}, got {type(values).__name__}")
    return values
