"""Answers that were paid for, on disk: what is here is never asked again.

An SQLite file with a write-ahead log: an answer is on the disk before the next request is made, and a process that is
killed loses nothing but what it had not received.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from triptych.errors import DataError, StorageError

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL, finish TEXT NOT NULL, refused INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, counted INTEGER NOT NULL
) WITHOUT ROWID;
"""


class Answer(NamedTuple):
    """What a model answered.

    Attributes:
        text: Its words; empty if there are none.
        finish: Why it ended, as the server says: "stop", "length", "content_filter", …
        refused: Whether the server marked it as a refusal.
        input_tokens: Tokens of the request.
        output_tokens: Tokens of the answer, those of its reasoning with them.
        counted: Whether the server counted the tokens; otherwise they are upper bounds.
    """

    text: str
    finish: str
    refused: bool
    input_tokens: int
    output_tokens: int
    counted: bool = True


def key_of(model: str, messages: list[dict[str, str]], parameters: Mapping[str, Any]) -> bytes:
    """A digest of all that an answer depends on."""
    content = json.dumps([_VERSION, model, messages, parameters], sort_keys=True, ensure_ascii=False)
    return blake2b(content.encode("utf-8", "surrogatepass"), digest_size=20).digest()


class Answers:
    """A file of answers. Several processes may use one.

    Args:
        path: The file; it is made if it is not there.

    Raises:
        DataError: If it is there and no such file.
        StorageError: If it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(path, timeout=30, isolation_level=None)
            self._base.execute("PRAGMA journal_mode = WAL")
            self._base.execute("PRAGMA synchronous = FULL")
            self._base.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise StorageError(None, f"{path}: cannot be written: {error}") from error
            raise DataError(f"no file of answers ({error}); give another name", path) from error
        except OSError as error:
            raise StorageError(error.errno, f"{path}: cannot be written: {error.strerror}") from error

    def get(self, key: bytes) -> Answer | None:
        """The answer with this key, or None."""
        row = self._base.execute(
            "SELECT text, finish, refused, input_tokens, output_tokens, counted FROM answers WHERE key = ?",
            (key,),
        ).fetchone()
        return None if row is None else Answer(row[0], row[1], bool(row[2]), row[3], row[4], bool(row[5]))

    def put(self, key: bytes, model: str, answer: Answer) -> None:
        """Keeps an answer; when this returns it is on the disk.

        Raises:
            StorageError: If it cannot be written.
        """
        try:
            self._base.execute(
                "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (key, model, *answer)
            )
        except sqlite3.Error as error:
            raise StorageError(None, f"{self.path}: cannot be written: {error}") from error

    def __len__(self) -> int:
        return int(self._base.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        """Closes the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
