"""Texts as the pieces of a model's own tokenizer: what the paper's BM25 counts (arXiv 2402.03216v4, appendix C.1)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from triptych.errors import ModelError


class Pieces:
    """Splits texts by a ``tokenizer.json``; a `triptych.contenders.bm25.Splitter`.

    Args:
        folder: The folder of a model.

    Raises:
        ModelError: If it has no tokenizer.json that can be read.
    """

    name = "pieces"

    def __init__(self, folder: Path) -> None:
        path = folder / "tokenizer.json"
        try:
            content = path.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises bare Exception for a broken file
            raise ModelError(f"{path}: cannot be read as a tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.facts = {"pieces": hashlib.blake2b(content, digest_size=16).hexdigest()}

    def group(self, language: str) -> str:
        """Languages are not told apart."""
        return ""

    def split(self, texts: Sequence[str], group: str) -> list[list[str]]:
        """The pieces of each text, without special tokens."""
        encoded = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [each.tokens for each in encoded]
