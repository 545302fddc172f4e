"""What the parity tests share."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def transformers_log() -> Iterator[list[str]]:
    """The warnings that transformers and sentence-transformers log; they do not go up to the root logger."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("transformers", "sentence_transformers")]
    for logger in loggers:
        logger.addHandler(handler)
    yield found
    for logger in loggers:
        logger.removeHandler(handler)
