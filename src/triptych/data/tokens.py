"""What a data set needs of a tokenizer, so that this layer knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Encoding(Protocol):
    """Token ids of N texts, and how many texts were cut."""

    @property
    def ids(self) -> Sequence[NDArray[np.int64]]:
        """One array of ids a text, special tokens included."""
        ...

    @property
    def truncated(self) -> int:
        """How many texts were cut."""
        ...


class Tokenizes(Protocol):
    """What a data set needs of a tokenizer; `triptych.model.tokenizer.TextTokenizer` is one.

    Attributes:
        before: Special ids in front of every text.
        after: Special ids behind every text.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """Another one for every other way to tokenise."""
        ...

    def encode(
        self, texts: Sequence[str], *, prefix: str = "", max_length: int, mcls_every: int | None = None
    ) -> Encoding:
        """Tokenises texts, special tokens included, and cuts them to `max_length`."""
        ...
