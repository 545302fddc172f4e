"""How a server runs: where it listens, what it refuses, how it batches, and who may do what."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from annotated_types import Ge, Gt

from triptych.config import check_types
from triptych.errors import DataError, InputError

Right: TypeAlias = Literal["read", "write"]
LOOPBACK = ("127.0.0.1", "localhost", "::1")
READ_KEYS, WRITE_KEYS = "TRIPTYCH_READ_KEYS", "TRIPTYCH_WRITE_KEYS"
"""Environment variables with keys, separated by commas."""


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        host: Address to listen on; the default is reached from this machine alone.
        port: Port to listen on.
        keys: File with keys, one a line: read KEY or write KEY. The variables TRIPTYCH_READ_KEYS and
            TRIPTYCH_WRITE_KEYS (separated by commas) add to it. With no key everyone who reaches the server may read
            and write.
        read_only: Refuse all writes.
        new_indexes: Folder in which clients that may write can make indexes, and delete those; those in it are served.
        cors: Origins of pages of other sites that may use the server, such as https://example.org; default none.
        certificate: PEM file with the certificate for TLS.
        private_key: PEM file with its private key.
        token_budget: Tokens that go through the model at once; by default as the device can take.
        wait_ms: How long a text waits for others to be encoded with, when requests come close together.
        join: Encode texts of several requests together. Without it each request has the vectors that it would have
            alone, bit for bit, at less speed.
        max_body_mb: Largest body of a request.
        max_texts: Most texts of a request.
        max_tokens: Most tokens of a request.
        answers_mb: Most megabytes of token vectors that are in the making at once.
        queue: Most requests that wait or run; further ones are told to come again (429).
        queue_mb: Most megabytes of bodies that are held at once.
        timeout: Seconds that a request may take.
        client_timeout: Seconds that a client may take to send its request, or to read a part of its answer.
        grace: Seconds that accepted requests have to finish when the server stops.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Ge(0)] = 8080
    keys: Path | None = None
    read_only: bool = False
    new_indexes: Path | None = None
    cors: tuple[str, ...] = ()
    certificate: Path | None = None
    private_key: Path | None = None
    token_budget: Annotated[int, Ge(1)] | None = None
    wait_ms: Annotated[float, Ge(0)] = 3.0
    join: bool = True
    max_body_mb: Annotated[float, Gt(0)] = 32.0
    max_texts: Annotated[int, Ge(1)] = 4096
    max_tokens: Annotated[int, Ge(1)] = 500_000
    answers_mb: Annotated[float, Gt(0)] = 2048.0
    queue: Annotated[int, Ge(1)] = 2048
    queue_mb: Annotated[float, Gt(0)] = 256.0
    timeout: Annotated[float, Gt(0)] = 120.0
    client_timeout: Annotated[float, Gt(0)] = 30.0
    grace: Annotated[float, Gt(0)] = 60.0

    def __post_init__(self) -> None:
        check_types(self)
        if (self.certificate is None) != (self.private_key is None):
            raise InputError("serve: got one of certificate and private_key; expected both or none")
        if self.new_indexes is not None and not self.new_indexes.is_dir():
            raise InputError(f"serve: got {self.new_indexes} for new indexes; expected a folder")

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the server."""
        return self.host in LOOPBACK


@dataclass(frozen=True)
class Keys:
    """API keys, kept as digests.

    Attributes:
        digests: SHA-256 of each key, with what it allows. Writing includes reading.
    """

    digests: Mapping[bytes, Right] = field(default_factory=dict[bytes, Right])

    @classmethod
    def load(cls, path: Path | None, environment: Mapping[str, str] = os.environ) -> Keys:
        """Reads keys from a file and from the environment.

        Raises:
            DataError: For a line that is neither ``read KEY`` nor ``write KEY``, or a file that cannot be read.
        """
        found: list[tuple[Right, str]] = []
        found.extend(("read", key.strip()) for key in environment.get(READ_KEYS, "").split(","))
        found.extend(("write", key.strip()) for key in environment.get(WRITE_KEYS, "").split(","))
        if path is not None:
            try:
                lines = path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"keys cannot be read: {error}", path) from error
            for number, line in enumerate(lines, 1):
                match line.split():
                    case ["read", key]:
                        found.append(("read", key))
                    case ["write", key]:
                        found.append(("write", key))
                    case [] | ["#", *_]:
                        pass
                    case _:
                        raise DataError("expected 'read KEY' or 'write KEY'", path, number)
        digests: dict[bytes, Right] = {}
        for right, key in found:
            if not key:  # what stands between two commas, or a variable that is empty
                continue
            digest = _digest(key)
            digests[digest] = "write" if "write" in (right, digests.get(digest)) else "read"
        return cls(digests)

    def __bool__(self) -> bool:
        return bool(self.digests)

    def right_of(self, key: str | None) -> Right | None:
        """What a key allows. All keys are compared, each in constant time."""
        given, right = _digest(key or ""), None
        for digest, allows in self.digests.items():
            if hmac.compare_digest(digest, given):
                right = allows
        return right if key else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
