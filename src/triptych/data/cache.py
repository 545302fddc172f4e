"""Where measured data sets are kept, and under which names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from triptych.data.tokens import Tokenizes
from triptych.data.training import source_files

VERSION = 2
"""Of what is stored; another one makes all data sets anew."""

_T = TypeVar("_T")


def default_cache() -> Path:
    """``TRIPTYCH_CACHE``, or ``triptych`` in the user's cache folder."""
    if given := os.environ.get("TRIPTYCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triptych"


def cache_folder(
    kind: str, source: Path | str, tokenizer: Tokenizes, options: dict[str, Any], cache: Path | None
) -> Path:
    """The folder of a data set: its name is a digest of files, tokenizer and options.

    Args:
        kind: What is stored.
        source: A file or folder; every file in it counts with path, size and time of change.
        tokenizer: Its digest counts.
        options: JSON values; all count.
        cache: Folder of all data sets; None: `default_cache`.

    Raises:
        DataError: If there is nothing to read.
    """
    files = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        for file in source_files(source, options.get("split", "train"))
        for stat in [file.stat()]
    ]
    key = json.dumps([VERSION, kind, files, tokenizer.digest, options], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return (cache or default_cache()) / "data" / f"{kind}-{digest}"


def chunked(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items; the last may be shorter."""
    stream = iter(items)
    return iter(lambda: list(islice(stream, size)), [])
