"""An encoder as the scorer of the consistency filter."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
from numpy.typing import NDArray

from triptych.encode.encoder import Encoder, TruncationWarning


@dataclass(frozen=True, slots=True)
class EncoderScorer:
    """Scores of a model's dense head; every process that scores loads the model once.

    Attributes:
        model: As for `Encoder.from_pretrained`.
        device: The same.
        max_length: Tokens from which on texts are cut: their beginnings decide.
    """

    model: str = "small"
    device: str | None = None
    max_length: int = 256

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Inner products of all queries with all passages: ``[Q, P]``.

        Raises:
            ModelError: If there is no such model.
        """
        encoder = _encoder(self.model, self.device)
        length = min(self.max_length, encoder.config.max_length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # cut on purpose
            query = encoder.encode_query(queries, outputs="dense", max_length=length).dense
            passage = encoder.encode_document(passages, outputs="dense", max_length=length).dense
        return cast("NDArray[np.float32]", query) @ cast("NDArray[np.float32]", passage).T


@cache
def _encoder(model: str, device: str | None) -> Encoder:
    return Encoder.from_pretrained(model, device=device)
