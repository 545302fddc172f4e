"""What contenders from a folder share."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from triptych.errors import ModelError
from triptych.eval.collection import digest_of
from triptych.types import Encoded

_WEIGHTS_AND_SETTINGS = ("*.json", "*.safetensors", "*.bin", "*.pt", "*.model", "*.txt")


def the_folder(path: Path) -> Path:
    """The folder, if it is one with a config.json or modules.json.

    Raises:
        ModelError: If not.
    """
    if not any((path / name).is_file() for name in ("config.json", "modules.json")):
        raise ModelError(f"{path}: expected the folder of a model, with config.json or modules.json")
    return path


def fingerprint(folder: Path, facts: Mapping[str, Any]) -> str:
    """Hex digest of a folder's files of weights and settings, and of `facts`."""
    files = sorted({file for pattern in _WEIGHTS_AND_SETTINGS for file in folder.rglob(pattern)})
    names = [file.relative_to(folder).as_posix() for file in files]
    kind = hashlib.blake2b(json.dumps([names, facts], sort_keys=True).encode(), digest_size=16)
    return digest_of(files, kind.hexdigest())


def in_blocks(
    texts: Iterable[str], block: int, encode: Callable[[Sequence[str]], Encoded]
) -> Iterator[Encoded]:
    """Encodes texts `block` at a time, one block held."""
    stream = iter(texts)
    while part := list(itertools.islice(stream, block)):
        yield encode(part)
