"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from triptych.errors import StorageError


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives a temporary path to write to; at the end that file is forced to the disk and renamed to `path`.

    Args:
        path: The file; an old one is replaced at once, or not at all.

    Raises:
        StorageError: If the folder cannot be written (disk full, no permission); an old file is untouched.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        sync_folder(path.parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it appears whole or not at all.

    Raises:
        StorageError: If it cannot be written; an old file is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries to the disk, so that a rename survives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The rights that new files lose; mkstemp gives its files to their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
