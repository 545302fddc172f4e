"""The lexical head as a module of sentence-transformers' SparseEncoder.

Its own modules cannot express the head: `SpladePooling` takes logits over the whole vocabulary at every position and
their logarithm, and none of them puts one weight a position at the place of the position's own token. This file is
copied into the folders that need it, so that they load without Triptych; it uses nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Module
from torch import Tensor, nn


class LexicalPooling(Module):
    """``max over the positions of a token id of relu(w·h + b)``, a weight for each id of the vocabulary.

    Args:
        hidden_size: Width of the token states.
        vocabulary: Number of token ids.
        weightless: Ids that never have a weight: special and unknown tokens.
        prefixes: Ids of prompts, the first token of a text in front; such beginnings have no weight.
    """

    config_keys: list[str] = ["hidden_size", "vocabulary", "weightless", "prefixes"]  # noqa: RUF012

    def __init__(
        self,
        hidden_size: int,
        vocabulary: int,
        weightless: Sequence[int] = (),
        prefixes: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.hidden_size, self.vocabulary = hidden_size, vocabulary
        self.weightless, self.prefixes = list(weightless), [list(prefix) for prefix in prefixes]
        self.linear = nn.Linear(hidden_size, 1)

    def forward(self, features: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding``, ``[texts, vocabulary]``."""
        del options
        ids: Tensor = features["input_ids"]
        weights = torch.relu(self.linear(features["token_embeddings"].float())).squeeze(-1)
        counts = features["attention_mask"].bool() & ~torch.isin(ids, ids.new_tensor(self.weightless))
        for prefix in self.prefixes:
            start = ids[:, : len(prefix)]
            if start.shape[1] == len(prefix):
                counts[:, : len(prefix)] &= ~(start == ids.new_tensor(prefix)).all(1, keepdim=True)
        empty = weights.new_zeros(len(ids), self.vocabulary)
        features["sentence_embedding"] = empty.scatter_reduce(1, ids, weights * counts, "amax")
        return features

    def get_embedding_dimension(self) -> int:
        """The size of the vocabulary."""
        return self.vocabulary

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **options: Any) -> None:
        """Writes settings and weights."""
        del args, options
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, model_name_or_path: str, **options: Any
    ) -> Any:
        """Reads what `save` wrote."""
        known = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        place: dict[str, Any] = {name: options[name] for name in known if name in options}
        settings = cls.load_config(model_name_or_path=model_name_or_path, **place)
        return cls.load_torch_weights(model_name_or_path=model_name_or_path, model=cls(**settings), **place)
