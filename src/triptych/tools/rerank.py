"""A second opinion on candidates: a cross-encoder that reads query and passage together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge

from triptych.config import check_value
from triptych.errors import ModelError
from triptych.model.backbone import device_of
from triptych.types import Floats

_BATCH_TOKENS = {"cpu": 8192, "cuda": 65536}


class CrossEncoder:
    """A sequence classifier with one output, as FlagEmbedding's and sentence-transformers' re-rankers are.

    Scores are the logits, without a sigmoid: what distillation learns from.

    Args:
        folder: A Hugging Face folder.
        device: None: a GPU if there is one.
        max_length: Maximum tokens of a pair; the passage is cut first.
        trust_remote_code: Whether Python files of the folder may run. It is never asked.

    Raises:
        ModelError: If the folder holds no such model.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        device: str | torch.device | None = None,
        max_length: int = 512,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        check_value(folder, str | Path, "CrossEncoder: folder")
        check_value(max_length, Annotated[int, Ge(1)], "CrossEncoder: max_length")
        self.name = str(folder)
        self._device, self._length = device_of(device), max_length
        try:
            # Without a word on the folder's own code transformers would ask standard input.
            trust = {"trust_remote_code": bool(trust_remote_code)}
            self._tokenizer: Any = AutoTokenizer.from_pretrained(self.name, **trust)
            model: Any = AutoModelForSequenceClassification.from_pretrained(self.name, **trust)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{folder}: no re-ranker can be read from this folder: {error}") from error
        if model.config.num_labels != 1:
            raise ModelError(f"{folder}: this classifier has {model.config.num_labels} outputs; expected one")
        self._model = model.to(self._device).eval()

    def score(self, pairs: Sequence[tuple[str, str]]) -> Floats:
        """The relevance of passage to query for each (query, passage), float32 ``[P]``: the logits."""
        if not pairs:
            return np.zeros(0, dtype=np.float32)
        tokens = self._tokenizer(
            [query for query, _ in pairs],
            [passage for _, passage in pairs],
            truncation="longest_first",
            max_length=self._length,
        )
        lengths = np.array([len(ids) for ids in tokens["input_ids"]])
        order = np.argsort(-lengths, kind="stable")
        scores = np.zeros(len(pairs), dtype=np.float32)
        budget = _BATCH_TOKENS.get(self._device.type, _BATCH_TOKENS["cpu"])
        start = 0
        while start < len(order):
            some = order[start : start + max(1, budget // int(lengths[order[start]]))]
            batch = self._tokenizer.pad(
                {name: [values[i] for i in some] for name, values in tokens.items()}, return_tensors="pt"
            )
            with torch.inference_mode():
                logits = self._model(**batch.to(self._device)).logits[:, 0]
            scores[some] = logits.float().cpu().numpy()
            start += len(some)
        return scores
