"""The project's error tree: every error that a caller may want to catch derives from `TriptychError`.

A message names the function or file, what came, and what was expected. Where Python has a class for the
same mistake (`ValueError`, `OSError`, …), ours derives from it too, so that ordinary handlers keep working.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class TriptychError(Exception):
    """Base of all errors that this package raises on purpose."""


class InputError(TriptychError, ValueError):
    """An argument has a value that the function cannot use."""


class DataError(InputError):
    """A data file cannot be read as what it should be.

    Args:
        message: What is wrong, and what was expected.
        path: The file, or None for data that came from no file.
        line: Number of the offending line, from 1, where there is one.
    """

    def __init__(self, message: str, path: Path | str | None = None, line: int | None = None) -> None:
        place = "" if path is None else f"{path}:{line}: " if line is not None else f"{path}: "
        super().__init__(place + message)
        self.path = path
        self.line = line


class TooLarge(DataError):
    """A file, or what is packed in it, is over a limit that keeps a hostile file from filling the memory."""


class NoDocument(DataError):
    """A record has no field with a text: its file holds something else than documents."""


class ModelError(TriptychError):
    """A checkpoint is missing, incomplete, or not of a shape that we can run."""


class IndexFault(TriptychError):
    """An index cannot be opened, read or written."""


class IndexMissing(IndexFault, FileNotFoundError):
    """There is no index at the given place."""


class IndexExists(IndexFault, FileExistsError):
    """There is something at the place where a new index was to be made."""


class IndexLocked(IndexFault):
    """Another process (or another object in this one) holds the index."""


class IndexCorrupt(IndexFault):
    """The files of the index cannot be read; nothing of them was changed."""


class IndexForeign(IndexFault):
    """The index was built by another model, or is of a layout that this version does not know."""


class StorageError(TriptychError, OSError):
    """Writing failed (disk full, no permission); what was acknowledged before is kept."""


class WorkerError(TriptychError, RuntimeError):
    """A worker process died or could not start."""


class MissingExtra(TriptychError, ImportError):
    """An optional dependency is not installed.

    Args:
        feature: What needs it.
        extra: The name of the extra to install.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'triptych[{extra}]'")
        self.feature, self.extra = feature, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Pickled by its arguments, so that it can cross processes."""
        return type(self), (self.feature, self.extra)


@contextmanager
def require_extra(feature: str, extra: str) -> Generator[None]:
    """Around the imports of an optional dependency: that it is not installed is a `MissingExtra`."""
    try:
        yield
    except ImportError as error:
        raise MissingExtra(feature, extra) from error


class EndpointError(TriptychError):
    """A model's server refuses all requests, or gives no answer however often it is asked."""


def show(value: object) -> str:
    """A value for a message, however large or odd it is."""
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    try:
        text = repr(value)
    except Exception:  # such as that of a list with an integer of 5,000 digits
        text = ""
    return text if 0 < len(text) <= 200 else f"a {type(value).__name__}"
