"""Lengths in tokens, by the bundled model's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer

import triptych

LONGEST = 8192
"""Tokens that the model reads at most."""
_RESERVED = 16  # special tokens and a prefix


@cache
def _tokenizer() -> Tokenizer:
    path = Path(triptych.__file__).parent / "models" / "small" / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def counts(texts: Sequence[str]) -> list[int]:
    """The number of tokens of each text."""
    found = _tokenizer().encode_batch_fast(list(texts), add_special_tokens=False)
    return [len(encoding) for encoding in found]


def fitting(text: str, most: int = LONGEST) -> tuple[str, int]:
    """The beginning of a text that the model can read, ended at a paragraph, and its number of tokens."""
    encoding = _tokenizer().encode(text, add_special_tokens=False)
    limit = most - _RESERVED
    if len(encoding) <= limit:
        return text, len(encoding)
    part = text[: encoding.offsets[limit][0]]
    end = part.rfind("\n")
    return part[: end if end > len(part) // 2 else len(part)].rstrip(), limit
